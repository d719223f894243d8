//! A platform on a free port with real child processes, and a small HTTP client for it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use platform::{Config, Image};
use serde_json::{Value, json};
use service::{Shutdown, SystemClock};

/// Long enough for anything on a loaded machine; nothing waits this long when all is well.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) struct World {
    pub(crate) url: String,
    pub(crate) key: String,
    pub(crate) folder: tempfile::TempDir,
    pub(crate) shutdown: Shutdown,
    client: Client<HttpConnector, Full<Bytes>>,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) bytes: Bytes,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.bytes)))
    }

    /// The status and the text of an error of the API itself.
    pub(crate) fn refusal(&self) -> (u16, String) {
        let body = self.json();
        let code = self.headers["x-request-id"].to_str().unwrap();
        assert_eq!(body["code"], code, "an error names its request");
        (
            self.status.as_u16(),
            body["error"].as_str().unwrap().to_owned(),
        )
    }
}

/// Where cargo puts examples, seen from a test binary in `deps`.
pub(crate) fn test_action() -> String {
    let me = std::env::current_exe().unwrap();
    let path = me
        .parent()
        .unwrap()
        .parent()
        .unwrap()
        .join("examples/test_action");
    assert!(
        path.is_file(),
        "{} is missing: cargo builds it with the tests",
        path.display()
    );
    path.to_str().unwrap().to_owned()
}

fn image(args: &[&str]) -> Image {
    let mut command = vec![test_action()];
    command.extend(args.iter().map(|arg| (*arg).to_owned()));
    Image {
        command,
        sentinel: true,
        ..Image::default()
    }
}

/// Images of the test action that start in different ways.
fn images() -> Vec<(&'static str, Image)> {
    vec![
        (
            "test",
            Image {
                env: [("FROM_IMAGE".into(), "yes".into())].into(),
                ..image(&[])
            },
        ),
        (
            "keep-alive",
            Image {
                keep_alive: true,
                ..image(&[])
            },
        ),
        (
            "mute",
            Image {
                sentinel: false,
                ..image(&["--mute"])
            },
        ),
        ("exit", image(&["--exit"])),
        ("deaf", image(&["--deaf"])),
        ("slow", image(&["--slow", "300"])),
        ("init-crash", image(&["--init-crash"])),
        ("init-slow", image(&["--init-ms", "300"])),
        ("init-stuck", image(&["--init-ms", "600000"])),
        (
            "init-403",
            image(&[
                "--init-status",
                "403",
                "--init-body",
                "{\"error\":\"not me\"}",
            ]),
        ),
        (
            "init-500",
            image(&["--init-status", "500", "--init-body", "oops"]),
        ),
        ("family", image(&["--child"])),
        (
            "busybox",
            Image {
                command: vec!["/bin/sh".into(), "-c".into(), "exit 3".into()],
                ..Image::default()
            },
        ),
    ]
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub(crate) async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self::start_in(folder, change).await
    }

    pub(crate) async fn start_in(
        folder: tempfile::TempDir,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        let mut config: Config = toml::from_str(
            "listen = '127.0.0.1:0'\nstate_dir = ''\nmemory = '2GiB'\n[namespaces]\n",
        )
        .unwrap();
        config.state_dir = folder.path().join("state");
        let key_file = folder.path().join("guest.auth");
        config.namespaces = [("guest".to_owned(), key_file.clone())].into();
        config
            .namespaces
            .insert("other".to_owned(), folder.path().join("other.auth"));
        config.images = images()
            .into_iter()
            .map(|(name, image)| (name.to_owned(), image))
            .collect();
        config.grace = Duration::from_millis(100);
        change(&mut config);
        let shutdown = Shutdown::new();
        let clock = Arc::new(SystemClock::default());
        let running = platform::run(config, clock, shutdown.clone())
            .await
            .unwrap();
        let key = std::fs::read_to_string(key_file).unwrap().trim().to_owned();
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self {
            url: format!("http://{}", running.addr),
            key,
            folder,
            shutdown,
            client,
        }
    }

    pub(crate) fn state_file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn authorization(key: &str) -> String {
        format!("Basic {}", STANDARD.encode(key))
    }

    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Answer {
        let sent = tokio::time::timeout(DEADLINE, self.client.request(request)).await;
        let response = sent.expect("the platform answers").unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        Answer {
            status: parts.status,
            headers: parts.headers,
            bytes,
        }
    }

    pub(crate) async fn raw(&self, method: Method, path: &str, body: impl Into<Bytes>) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url))
            .header("authorization", Self::authorization(&self.key))
            .header("content-type", "application/json");
        self.send(request.body(Full::new(body.into())).unwrap())
            .await
    }

    /// A call below the caller's own namespace.
    pub(crate) async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        self.raw(method, &format!("/api/v1/namespaces/_/{path}"), body)
            .await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, None).await
    }

    /// Creates an action of `image` with these limits.
    pub(crate) async fn create(&self, name: &str, image: &str, limits: Value) -> Value {
        let body = json!({"exec": {"kind": "blackbox", "image": image}, "limits": limits});
        let answer = self
            .call(
                Method::PUT,
                &format!("actions/{name}?overwrite=true"),
                Some(body),
            )
            .await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    /// A blocking invocation.
    pub(crate) async fn invoke(&self, name: &str, body: Value) -> Answer {
        self.call(
            Method::POST,
            &format!("actions/{name}?blocking=true"),
            Some(body),
        )
        .await
    }

    /// A blocking invocation that succeeds; its record.
    pub(crate) async fn run(&self, name: &str, body: Value) -> Value {
        let answer = self.invoke(name, body).await;
        assert_eq!(
            answer.status,
            200,
            "{}",
            String::from_utf8_lossy(&answer.bytes)
        );
        answer.json()
    }

    /// Asks until the answer is as wanted; polls a level, with a deadline.
    pub(crate) async fn until<T>(&self, path: &str, wanted: impl Fn(&Answer) -> Option<T>) -> T {
        let poll = async {
            loop {
                if let Some(found) = wanted(&self.get(path).await) {
                    return found;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(DEADLINE, poll)
            .await
            .unwrap_or_else(|_| panic!("{path} never came"))
    }

    pub(crate) async fn usage(&self) -> Value {
        self.get("usage").await.json()
    }

    pub(crate) async fn until_instances(&self, count: u64) {
        self.until("usage", |answer| {
            (answer.json()["instances"] == count).then_some(())
        })
        .await;
    }

    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        assert!(self.shutdown.wait(DEADLINE).await, "everything ends");
    }
}

/// Annotation of a record.
pub(crate) fn annotation<'a>(record: &'a Value, key: &str) -> Option<&'a Value> {
    let list = record["annotations"].as_array().unwrap();
    list.iter().find(|a| a["key"] == key).map(|a| &a["value"])
}

/// Whether a process exists (and is not a zombie).
pub(crate) fn alive(pid: u64) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // A killed process is a zombie before its other threads have ended, and until then its sockets
    // still take connections.
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    stat.rsplit_once(')')
        .is_some_and(|(_, rest)| threads > 1 || !rest.trim_start().starts_with('Z'))
}

pub(crate) async fn until_dead(pid: u64) {
    let gone = async {
        while alive(pid) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(DEADLINE, gone)
        .await
        .unwrap_or_else(|_| panic!("{pid} lives on"));
}
