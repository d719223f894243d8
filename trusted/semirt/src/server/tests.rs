//! The action protocol over real sockets, one connection for each call, as OpenWhisk does it.

use std::future::Future;
use std::io::{self, Write};
use std::sync::Mutex;

use http::HeaderMap;
use protocol::Tensor;
use protocol::action::LOG_SENTINEL;
use protocol::invoke::StartKind;
use protocol::measured::Isolation;
use serde_json::Value;
use service::SystemClock;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::config::{Config, HostSettings};
use crate::lock::lock;
use crate::run::{self, Running};
use crate::testing::{
    Event, Pending, Shared, World, assert_right, config, identity, package_bytes,
};

#[derive(Debug, Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        lock(&self.0).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Captured {
    fn text(&self) -> String {
        String::from_utf8(lock(&self.0).clone()).unwrap()
    }
}

struct Instance {
    world: Arc<World>,
    running: Running,
    shutdown: Shutdown,
    out: Captured,
    err: Captured,
}

struct Reply {
    status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Reply {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn run_result(&self) -> RunResult {
        assert_eq!(self.status, 200);
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// What OpenWhisk sends to `/init`.
const INIT: &str = r#"{"value":{"name":"semirt","main":"main","binary":false,"env":{
    "SESEMI_KEYSERVICE":"ks:1","SESEMI_STORE":"file:///m","__OW_ACTION_NAME":"/_/semirt"}}}"#;

fn addressed(mut host: HostSettings) -> HostSettings {
    host.keyservice = Some("ks:1".into());
    host.store = Some("file:///m".into());
    host
}

impl Instance {
    async fn start(concurrency: u16, host: HostSettings) -> Self {
        let base = config(Isolation::Shared, concurrency);
        let config = Config::new(base.measured().clone(), host).unwrap();
        let (world, shutdown) = (World::new(), Shutdown::new());
        let (out, err) = (Captured::default(), Captured::default());
        let log = ActivationLog::new(Box::new(out.clone()), Box::new(err.clone()));
        let running = run::start(
            config,
            identity(),
            Arc::new(Shared(Arc::clone(&world))),
            run::bind(([127, 0, 0, 1], 0).into()).await.unwrap(),
            Arc::new(SystemClock::default()),
            shutdown.clone(),
            log,
        )
        .unwrap();
        Self {
            world,
            running,
            shutdown,
            out,
            err,
        }
    }

    /// One that needs no `/init`.
    async fn ready() -> Self {
        Self::start(4, addressed(HostSettings::default())).await
    }

    /// Sends bytes on a connection of their own and reads until the server closes it.
    async fn raw(&self, bytes: &[u8]) -> Reply {
        let mut stream = TcpStream::connect(self.running.addr()).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply).await.unwrap();
        parse(&reply)
    }

    async fn call(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> Reply {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\
             {headers}\r\n",
            body.len()
        );
        self.raw(&[head.as_bytes(), body].concat()).await
    }

    async fn post(&self, path: &str, body: &str) -> Reply {
        self.call(
            "POST",
            path,
            "Content-Type: application/json\r\n",
            body.as_bytes(),
        )
        .await
    }

    async fn run(&self, pending: &Pending) -> Reply {
        self.post("/run", &run_body(&pending.0)).await
    }

    async fn until(&self, condition: impl Fn(&Self) -> bool) {
        let waiting = async {
            while !condition(self) {
                tokio::task::yield_now().await;
            }
        };
        within(waiting).await;
    }
}

/// Bounds a test that would otherwise wait for ever.
async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future)
        .await
        .unwrap()
}

fn run_body(request: &SealedRequest) -> String {
    json!({
        "value": request, "namespace": "guest", "action_name": "/guest/semirt",
        "action_version": "0.0.1", "activation_id": "5a", "transaction_id": "t",
        "deadline": "1700000000000", "api_key": "secret",
    })
    .to_string()
}

fn parse(bytes: &[u8]) -> Reply {
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
    let head = std::str::from_utf8(&bytes[..end]).unwrap();
    let mut lines = head.split("\r\n");
    let status = lines
        .next()
        .unwrap()
        .split(' ')
        .nth(1)
        .unwrap()
        .parse()
        .unwrap();
    let mut headers = HeaderMap::new();
    for line in lines {
        let (name, value) = line.split_once(": ").unwrap();
        headers.insert(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
    }
    let body = bytes[end + 4..].to_vec();
    assert!(!headers.contains_key("transfer-encoding"));
    let length: usize = headers["content-length"].to_str().unwrap().parse().unwrap();
    assert_eq!(
        length,
        body.len(),
        "OpenWhisk wants a Content-Length, and a true one"
    );
    Reply {
        status,
        headers,
        body,
    }
}

#[tokio::test]
async fn init_once_then_run_as_openwhisk_does() {
    let instance = Instance::start(4, HostSettings::default()).await;
    let model = instance.world.classifier("cancer", 1);
    let user = instance.world.grant(1, &model);

    let early = instance.run(&user.ask()).await;
    assert_eq!(
        (early.status, early.json()),
        (403, json!({"error": "System not initialized."}))
    );
    assert_eq!(
        instance
            .call("GET", "/v2/health/ready", "", b"")
            .await
            .status,
        503
    );

    assert_eq!(instance.post("/init", INIT).await.status, 200);
    let again = instance.post("/init", INIT).await;
    let words = "Cannot initialize the action more than once.";
    assert_eq!(
        (again.status, again.json()),
        (403, json!({ "error": words }))
    );

    for (seq, path) in [(1, StartKind::Cold), (2, StartKind::Hot)] {
        let pending = user.ask();
        let reply = instance.run(&pending).await;
        assert_eq!(reply.headers["content-type"], "application/json");
        let result = reply.run_result();
        assert_right("breast-cancer", &pending.outputs(&result));
        let RunResult::Sealed(sealed) = result else {
            panic!()
        };
        assert_eq!((sealed.telemetry.seq, sealed.telemetry.path), (seq, path));
        assert_eq!(sealed.telemetry.instance.as_str(), "i-test");
        assert!(
            reply.json().get("error").is_none(),
            "OpenWhisk would call that a failure"
        );
    }
    // After each of three runs, on both streams, and not after the two inits.
    let marks = format!("{LOG_SENTINEL}\n").repeat(3);
    assert_eq!(
        (instance.out.text(), instance.err.text()),
        (marks.clone(), marks)
    );
}

#[tokio::test]
async fn init_that_cannot_work_says_why_and_may_be_mended() {
    let instance = Instance::start(4, HostSettings::default()).await;
    let nothing = instance.post("/init", r#"{"value":{"env":{}}}"#).await;
    assert_eq!(nothing.status, 400);
    assert!(
        nothing.json()["error"]
            .as_str()
            .unwrap()
            .contains("SESEMI_KEYSERVICE")
    );
    let nonsense = INIT.replace("file:///m", "nonsense://m");
    let refused = instance.post("/init", &nonsense).await;
    assert_eq!(refused.status, 400);
    assert!(
        refused.json()["error"]
            .as_str()
            .unwrap()
            .contains("'nonsense://m'")
    );
    for malformed in ["", "{", "[]", "{}"] {
        assert_eq!(
            instance.post("/init", malformed).await.status,
            400,
            "{malformed}"
        );
    }
    let huge = format!(r#"{{"value":{{"code":"{}"}}}}"#, "x".repeat(100_000));
    assert_eq!(instance.post("/init", &huge).await.status, 400);
    assert_eq!(instance.post("/init", INIT).await.status, 200);
}

#[tokio::test]
async fn with_known_addresses_no_init_is_needed_and_one_is_accepted() {
    let instance = Instance::ready().await;
    let model = instance.world.classifier("cancer", 1);
    let user = instance.world.grant(1, &model);
    assert_eq!(
        instance
            .call("GET", "/v2/health/ready", "", b"")
            .await
            .status,
        200
    );
    let pending = user.ask();
    pending.outputs(&instance.run(&pending).await.run_result());
    // The same addresses: what is warm stays warm.
    assert_eq!(instance.post("/init", INIT).await.status, 200);
    let RunResult::Sealed(sealed) = instance.run(&user.ask()).await.run_result() else {
        panic!()
    };
    assert_eq!(sealed.telemetry.path, StartKind::Hot);
    assert_eq!(instance.post("/init", INIT).await.status, 403);
}

#[tokio::test]
async fn addresses_may_change_before_the_first_request_and_not_after() {
    let other = INIT.replace("file:///m", "file:///other");
    let untouched = Instance::ready().await;
    assert_eq!(untouched.post("/init", &other).await.status, 200);
    let used = Instance::ready().await;
    let model = used.world.classifier("cancer", 1);
    used.run(&used.world.grant(1, &model).ask()).await;
    let refused = used.post("/init", &other).await;
    assert_eq!(refused.status, 400);
    assert!(
        refused.json()["error"]
            .as_str()
            .unwrap()
            .contains("already")
    );
    assert_eq!(used.post("/init", INIT).await.status, 200);
}

#[tokio::test]
async fn a_stalled_body_pins_what_serves() {
    let instance = Instance::ready().await;
    let mut stalled = TcpStream::connect(instance.running.addr()).await.unwrap();
    let head = "POST /run HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n";
    stalled.write_all(head.as_bytes()).await.unwrap();
    // The server asks for the body only once the request has what serves.
    let mut go_on = [0; 12];
    stalled.read_exact(&mut go_on).await.unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100");
    let other = INIT.replace("file:///m", "file:///other");
    assert_eq!(instance.post("/init", &other).await.status, 400);
    assert_eq!(instance.post("/init", INIT).await.status, 200);
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let instance = Instance::ready().await;
    let addr = instance.running.addr();
    let error = run::bind(addr).await.unwrap_err();
    assert_eq!(error.to_string(), format!("listen on {addr}"));
}

#[tokio::test]
async fn whatever_a_client_sends_to_run_the_status_is_200() {
    let instance = Instance::ready().await;
    let model = instance.world.classifier("cancer", 1);
    let user = instance.world.grant(1, &model);
    let good = run_body(&user.ask().0);
    let long_name = good.replace("\"cancer\"", &format!("\"{}\"", "a".repeat(65)));
    let code = |reply: &Reply| {
        assert_eq!(reply.status, 200);
        // Also when nothing could be read: FnPacker starts instances ahead of need that way.
        assert_eq!(reply.json()["telemetry"]["instance"], "i-test");
        reply.json()["error"]["code"].as_str().unwrap().to_owned()
    };
    let bodies: [(&str, &str); 11] = [
        ("", "invalid_request"),
        ("{", "invalid_request"),
        ("null", "invalid_request"),
        (r#"{"value":[]}"#, "invalid_request"),
        (r#"{"value":{}}"#, "invalid_request"),
        (&good.replace("\"model\"", "\"modell\""), "invalid_request"),
        (
            &good.replace("\"user\":\"01", "\"user\":\"XY"),
            "invalid_request",
        ),
        (
            &good.replace("\"ciphertext\":\"", "\"ciphertext\":\"!"),
            "invalid_request",
        ),
        (&long_name, "invalid_request"),
        (
            &good.replace("\"user\":\"01", "\"user\":\"02"),
            "not_granted",
        ),
        (
            &good.replace("\"enclave\":\"e5", "\"enclave\":\"e6"),
            "enclave_not_allowed",
        ),
    ];
    for (body, expected) in bodies {
        assert_eq!(code(&instance.post("/run", body).await), expected, "{body}");
    }
    let missing = instance.post("/run", r#"{"value":{}}"#).await.json();
    assert!(
        missing["error"]["message"]
            .as_str()
            .unwrap()
            .contains("missing field"),
        "{missing}"
    );
    // None of it used anything up.
    assert!(matches!(
        instance.post("/run", &good).await.run_result(),
        RunResult::Sealed(_)
    ));
}

#[tokio::test]
async fn other_paths_and_methods_are_refused_with_a_length() {
    let instance = Instance::ready().await;
    for path in ["/", "/run/", "/RUN", "/v2/models", "/init?x", "/../run"] {
        let reply = instance.call("GET", path, "", b"").await;
        let expected = if path == "/init?x" { 405 } else { 404 };
        assert_eq!(reply.status, expected, "{path}");
        assert!(reply.json()["error"]["code"].is_string());
    }
    let wrong = instance.call("PUT", "/run", "", b"{}").await;
    assert_eq!(
        (wrong.status, &wrong.headers["allow"]),
        (405, &"POST".parse().unwrap())
    );
    assert_eq!(instance.post("/v2", "{}").await.status, 405);
    assert!(
        instance.out.text().is_empty(),
        "only a run ends with a mark"
    );
}

#[tokio::test]
async fn the_inference_protocol_says_that_it_is_alive() {
    let instance = Instance::start(4, HostSettings::default()).await;
    let metadata = instance.call("GET", "/v2", "", b"").await.json();
    assert_eq!(
        (&metadata["name"], &metadata["extensions"]),
        (&json!("semirt"), &json!(["sesemi"]))
    );
    let live = instance.call("GET", "/v2/health/live", "", b"").await;
    assert_eq!((live.status, live.json()), (200, json!({"live": true})));
}

#[tokio::test]
async fn a_body_that_is_too_large_is_answered_and_harms_nobody() {
    let host = HostSettings {
        body_max: 8192,
        body_memory: 8192,
        ..HostSettings::default()
    };
    let instance = Instance::start(4, addressed(host)).await;
    let model = instance.world.classifier("cancer", 1);
    let user = instance.world.grant(1, &model);
    let huge = vec![b'x'; 4 << 20];
    let reply = instance.call("POST", "/run", "", &huge).await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.json()["error"]["code"], "too_large");
    let chunked = [
        b"POST /run HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
            .as_slice(),
        b"10000\r\n",
        &huge[..0x10000],
        b"\r\n0\r\n\r\n",
    ]
    .concat();
    assert_eq!(
        instance.raw(&chunked).await.json()["error"]["code"],
        "too_large"
    );
    // More than the server is willing to throw away: it may hang up, but must not fall over.
    let mut stream = TcpStream::connect(instance.running.addr()).await.unwrap();
    let head = "POST /run HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    while stream.write_all(&huge).await.is_ok() {}
    let pending = user.ask();
    pending.outputs(&instance.run(&pending).await.run_result());
}

#[tokio::test]
async fn a_full_queue_is_busy_and_drains() {
    let host = HostSettings {
        queue: 1,
        ..HostSettings::default()
    };
    let instance = Instance::start(1, addressed(host)).await;
    let users: Vec<_> = ["a", "b", "c"]
        .iter()
        .map(|name| instance.world.grant(1, &instance.world.classifier(name, 1)))
        .collect();
    let held = instance.world.fetches.acquire_many(1000).await.unwrap();
    let (first, second) = (users[0].ask(), users[1].ask());
    let served = async {
        let both = futures::future::join(instance.run(&first), instance.run(&second)).await;
        (
            first.outputs(&both.0.run_result()),
            second.outputs(&both.1.run_result()),
        )
    };
    let refused = async {
        instance.until(|i| i.world.count(Event::Fetch) == 2).await;
        let reply = instance.run(&users[2].ask()).await;
        let error = reply.json()["error"].clone();
        assert_eq!((reply.status, &error["code"]), (200, &json!("busy")));
        assert!(error["retry_after_ms"].as_u64().unwrap() > 0);
        // Also to a sender that has much left to send when the answer is clear.
        let large = instance
            .call("POST", "/run", "", &vec![b'x'; 4 << 20])
            .await;
        assert_eq!(large.json()["error"]["code"], "busy");
        drop(held);
    };
    within(futures::future::join(served, refused)).await;
    let pending = users[2].ask();
    pending.outputs(&instance.run(&pending).await.run_result());
}

#[tokio::test]
async fn bodies_take_no_more_memory_than_they_may_together() {
    let host = HostSettings {
        body_max: 8192,
        body_memory: 8192,
        ..HostSettings::default()
    };
    let instance = Instance::start(4, addressed(host)).await;
    let user = instance
        .world
        .grant(1, &instance.world.classifier("cancer", 1));
    let held = instance.world.fetches.acquire_many(1000).await.unwrap();
    let rows = || Tensor::from_f32("x", vec![28, 30], &[0.5; 28 * 30]).unwrap();
    let (first, second) = (user.ask_with(vec![rows()]), user.ask_with(vec![rows()]));
    let length = run_body(&first.0).len();
    assert!((4097..8192).contains(&length), "two are too many: {length}");
    let refused = async {
        instance.until(|i| i.world.count(Event::Fetch) == 1).await;
        let reply = instance.run(&second).await;
        assert_eq!(reply.json()["error"]["code"], "busy");
        drop(held);
    };
    let (reply, ()) = within(futures::future::join(instance.run(&first), refused)).await;
    first.outputs(&reply.run_result());
    second.outputs(&instance.run(&second).await.run_result());
}

#[tokio::test]
async fn four_requests_at_once_over_sockets_load_once() {
    let instance = Instance::ready().await;
    let model = instance
        .world
        .register("digits", 1, &package_bytes("digits"));
    let user = instance.world.grant(1, &model);
    let runs = (0..4).map(|_| async {
        let pending = user.ask_with(crate::testing::inputs("digits"));
        let result = instance.run(&pending).await.run_result();
        assert_right("digits", &pending.outputs(&result));
    });
    within(futures::future::join_all(runs)).await;
    assert_eq!(instance.world.count(Event::Fetch), 1);
    assert_eq!(instance.out.text().matches(LOG_SENTINEL).count(), 4);
}

#[tokio::test]
async fn the_same_over_a_binary_body() {
    let instance = Instance::ready().await;
    let model = instance.world.classifier("cancer", 1);
    let user = instance.world.grant(1, &model);
    let pending = user.ask();
    let SealedRequest {
        user: id,
        enclave,
        request_id,
        ciphertext,
        ..
    } = pending.0.clone();
    let headers = format!(
        "Content-Type: application/cose; cose-type=\"cose-encrypt\"\r\nX-Sesemi-User: {id}\r\n\
         X-Sesemi-Model: cancer\r\nX-Sesemi-Enclave: {enclave}\r\nX-Sesemi-Request-Id: \
         {request_id}\r\n"
    );
    let reply = instance.call("POST", "/run", &headers, &ciphertext).await;
    assert_eq!(
        (reply.status, &reply.headers["content-type"]),
        (200, &COSE.parse().unwrap())
    );
    assert_eq!(reply.headers["x-sesemi-request-id"], request_id.to_string());
    let telemetry = reply.headers["x-sesemi-telemetry"].to_str().unwrap();
    let sealed = protocol::invoke::SealedResponse {
        request_id,
        ciphertext: reply.body,
        telemetry: serde_json::from_str(telemetry).unwrap(),
    };
    assert_right(
        "breast-cancer",
        &pending.outputs(&RunResult::Sealed(sealed)),
    );

    // Errors are JSON, so that they cannot be taken for an answer.
    let replayed = instance.call("POST", "/run", &headers, &ciphertext).await;
    assert_eq!(replayed.headers["content-type"], JSON);
    assert_eq!(
        (replayed.status, &replayed.json()["error"]["code"]),
        (200, &json!("replayed"))
    );
    for (from, to) in [
        ("X-Sesemi-User", "X-Other"),
        ("cancer", "CANCER"),
        ("Request-Id: ", "Request-Id: 0"),
    ] {
        let reply = instance
            .call("POST", "/run", &headers.replace(from, to), &ciphertext)
            .await;
        assert_eq!(reply.json()["error"]["code"], "invalid_request", "{from}");
    }
    let twice = format!("{headers}X-Sesemi-User: {id}\r\n");
    let reply = instance.call("POST", "/run", &twice, &ciphertext).await;
    assert!(
        reply.json()["error"]["message"]
            .as_str()
            .unwrap()
            .contains("twice")
    );
}

#[tokio::test]
async fn shutdown_finishes_what_is_in_flight_and_takes_no_more() {
    let instance = Instance::ready().await;
    let model = instance.world.classifier("cancer", 1);
    let user = instance.world.grant(1, &model);
    let held = instance.world.fetches.acquire_many(1000).await.unwrap();
    let pending = user.ask();
    // An idle kept-alive connection must not hold the end up.
    let idle = TcpStream::connect(instance.running.addr()).await.unwrap();
    let addr = instance.running.addr();
    let stop = async {
        instance.until(|i| i.world.count(Event::Fetch) == 1).await;
        instance.shutdown.cancel();
        let refused = async {
            while TcpStream::connect(addr).await.is_ok() {
                tokio::task::yield_now().await;
            }
        };
        within(refused).await;
        drop(held);
    };
    let (reply, ()) = within(futures::future::join(instance.run(&pending), stop)).await;
    assert_right("breast-cancer", &pending.outputs(&reply.run_result()));
    assert!(within(instance.running.finished()).await);
    drop(idle);
}

#[tokio::test]
async fn a_caller_that_hangs_up_is_still_marked_in_the_log() {
    let instance = Instance::ready().await;
    let model = instance.world.classifier("cancer", 1);
    let user = instance.world.grant(1, &model);
    let held = instance.world.fetches.acquire_many(1000).await.unwrap();
    let body = run_body(&user.ask().0);
    let head = format!(
        "POST /run HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let mut stream = TcpStream::connect(instance.running.addr()).await.unwrap();
    stream
        .write_all(format!("{head}{body}").as_bytes())
        .await
        .unwrap();
    instance.until(|i| i.world.count(Event::Fetch) == 1).await;
    drop(stream);
    instance
        .until(|i| i.out.text().contains(LOG_SENTINEL))
        .await;
    drop(held);
    let pending = user.ask();
    pending.outputs(&instance.run(&pending).await.run_result());
}

#[tokio::test]
async fn a_stored_request_takes_its_place_before_it_is_fetched() {
    let small = HostSettings {
        body_max: 8192,
        body_memory: 8192,
        ..HostSettings::default()
    };
    let instance = Instance::start(4, addressed(small)).await;
    let model = instance.world.classifier("cancer", 1);
    let user = instance.world.grant(1, &model);
    let pending = user.ask();
    let digest = crypto::sha256(&pending.0.ciphertext);
    instance.world.put(digest, &pending.0.ciphertext);
    let body = |size: u64| {
        let mut value = serde_json::to_value(&pending.0).unwrap();
        value["ciphertext"] = json!({ "digest": digest, "size": size });
        json!({ "value": value }).to_string()
    };
    for (size, code) in [
        (8193, ErrorCode::TooLarge),
        (u64::MAX, ErrorCode::TooLarge),
        // The body itself is in memory too.
        (8192, ErrorCode::Busy),
    ] {
        let result = instance.post("/run", &body(size)).await.run_result();
        let RunResult::Error { error, .. } = result else {
            panic!("{result:?}")
        };
        assert_eq!(error.code, code, "{size}");
    }
    assert_eq!(instance.world.count(Event::Fetch), 0);
    let right = body(pending.0.ciphertext.len() as u64);
    let result = instance.post("/run", &right).await.run_result();
    assert_right("breast-cancer", &pending.outputs(&result));
}
