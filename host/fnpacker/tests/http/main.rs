//! FnPacker over real HTTP, before a platform that speaks OpenWhisk and does as told.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests: a failure here is the test's failure"
)]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fnpacker::{Config, Running};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use protocol::invoke::{RoutedResponse, SealedRequest, StartKind};
use protocol::openwhisk::Outcome;
use protocol::{EnclaveId, ErrorCode, PrincipalId, RequestId, WireError};
use serde_json::{Value, json};
use service::{Shutdown, SystemClock};
use tempfile::TempDir;

use fake_openwhisk::{AUTH, Fake, Next};

mod fake_openwhisk;

const ENCLAVE: EnclaveId = EnclaveId::new([7; 48]);

/// FnPacker, its platform, and a client.
struct World {
    fake: Fake,
    running: Running,
    shutdown: Shutdown,
    folder: TempDir,
    http: Client<HttpConnector, Full<Bytes>>,
    requests: u8,
}

struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Reply {
    fn routed(&self) -> RoutedResponse {
        assert_eq!(self.status, 200, "{:?}", self.body);
        serde_json::from_slice(&self.body).unwrap()
    }

    fn error(&self, code: ErrorCode) -> WireError {
        let error: WireError = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(
            (error.code, self.status.as_u16()),
            (code, code.http_status()),
            "{error}"
        );
        error
    }
}

impl World {
    async fn new(pool: &str) -> Self {
        let shutdown = Shutdown::new();
        let fake = Fake::start(&shutdown).await;
        let folder = TempDir::new().unwrap();
        std::fs::write(folder.path().join("auth"), format!("{AUTH}\n")).unwrap();
        let running = start(&folder, &fake, &shutdown, pool).await;
        let http = Client::builder(TokioExecutor::new()).build_http();
        Self {
            fake,
            running,
            shutdown,
            folder,
            http,
            requests: 0,
        }
    }

    /// Another FnPacker, as after a restart.
    async fn restart(&mut self, pool: &str) {
        self.running = start(&self.folder, &self.fake, &self.shutdown, pool).await;
    }

    fn sealed(&mut self, model: &str) -> SealedRequest {
        self.requests += 1;
        SealedRequest {
            user: PrincipalId::new([1; 32]),
            model: model.parse().unwrap(),
            enclave: ENCLAVE,
            request_id: RequestId::new([self.requests; 16]),
            ciphertext: b"a plaintext would be a defect".to_vec(),
        }
    }

    fn call<B: Into<Bytes>>(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: B,
    ) -> impl Future<Output = Reply> + Send + use<B> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.running.addr));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into())).unwrap();
        let http = self.http.clone();
        async move {
            let response = http.request(request).await.unwrap();
            let (head, body) = response.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            Reply {
                status: head.status,
                headers: head.headers,
                body,
            }
        }
    }

    fn infer(&mut self, model: &str) -> impl Future<Output = Reply> + Send + use<> {
        self.infer_within(model, None)
    }

    fn infer_within(
        &mut self,
        model: &str,
        ms: Option<&str>,
    ) -> impl Future<Output = Reply> + Send + use<> {
        let body = serde_json::to_vec(&self.sealed(model)).unwrap();
        let headers: Vec<_> = ms
            .map(|ms| (fnpacker::TIMEOUT_HEADER, ms))
            .into_iter()
            .collect();
        self.call(Method::POST, "/v1/infer", &headers, body)
    }

    async fn status(&self) -> Value {
        let reply = self.call(Method::GET, "/v1/status", &[], "").await;
        assert_eq!(reply.status, 200);
        serde_json::from_slice(&reply.body).unwrap()
    }

    /// Waits until the status says so.
    async fn wait_for_status(&self, ready: impl Fn(&Value) -> bool) {
        let wait = async {
            while !ready(&self.status().await) {
                tokio::task::yield_now().await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(10), wait).await;
        if waited.is_err() {
            panic!("never so: {}", self.status().await);
        }
    }

    async fn end(self) {
        self.shutdown.cancel();
        assert!(
            self.shutdown.wait(Duration::from_secs(10)).await,
            "a task does not end"
        );
    }
}

async fn start(folder: &TempDir, fake: &Fake, shutdown: &Shutdown, pool: &str) -> Running {
    let folder = folder.path().display();
    let text = format!(
        r#"
        listen = "127.0.0.1:0"
        record = "{folder}/record"
        [platform]
        url = "http://{}"
        auth_file = "{folder}/auth"
        [[pool]]
        name = "p"
        enclave = "{ENCLAVE}"
        image = "sesemi/semirt"
        memory = "512MiB"
        concurrency = 4
        timeout = "60s"
        init = {{ SESEMI_KEYSERVICE = "127.0.0.1:1" }}
        {pool}
        "#,
        fake.addr
    );
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    let config: Config = service::load_config(file.path()).unwrap();
    fnpacker::run(config, Arc::new(SystemClock::default()), shutdown)
        .await
        .unwrap()
}

const TWO: &str = "endpoints = 2\npolicy = \"published\"";
const ONE: &str = "endpoints = 1\npolicy = \"published\"";

fn died(text: &str) -> Next {
    Next::Fail {
        outcome: Outcome::DeveloperError,
        text: text.into(),
        timeout: false,
    }
}

#[tokio::test]
async fn a_request_is_deployed_for_routed_and_answered() {
    let mut world = World::new(TWO).await;
    world.fake.next([Next::Answer { cold: true }]);
    let body = serde_json::to_string(&world.sealed("m")).unwrap();
    // The very bytes go on, spaces included.
    let spaced = body.replacen(',', " , ", 1);
    let reply = world
        .call(Method::POST, "/v1/infer", &[], spaced.clone())
        .await;
    let routed = reply.routed();
    assert_eq!(routed.sealed.request_id, RequestId::new([1; 16]));
    assert_eq!(routed.sealed.ciphertext, b"sealed");
    assert_eq!(routed.sealed.telemetry.path, StartKind::Cold);
    assert_eq!(routed.routing.function, "sesemi-p-0");
    assert!(routed.routing.platform_cold);
    assert_eq!(routed.routing.start_us, 65_000);
    assert_eq!(
        routed.routing.activation.as_deref(),
        Some("0123456789abcdef0123456789abcdef")
    );
    assert!(routed.routing.total_us > 0);
    assert_eq!(
        world.fake.invocations(),
        [("sesemi-p-0".to_owned(), spaced)]
    );

    let puts = world.fake.puts();
    assert_eq!(puts.len(), 1);
    let (name, put) = &puts[0];
    assert_eq!(name, "sesemi-p-0");
    assert_eq!(
        put["exec"],
        json!({"kind": "blackbox", "image": "sesemi/semirt"})
    );
    let limits = json!({"timeout": 60000, "memory": 512, "concurrency": 4});
    assert_eq!(put["limits"], limits);
    let parameters = json!([{"key": "SESEMI_KEYSERVICE", "value": "127.0.0.1:1", "init": true}]);
    assert_eq!(put["parameters"], parameters);

    let again = world.infer("m").await.routed();
    assert!(!again.routing.platform_cold);
    assert_eq!(
        (world.fake.gets(), world.fake.puts().len()),
        (1, 1),
        "asked once only"
    );
    world.end().await;
}

#[tokio::test]
async fn an_unchanged_function_is_never_written_again() {
    let mut world = World::new(TWO).await;
    world.infer("m").await.routed();
    world.restart(TWO).await;
    world.infer("m").await.routed();
    assert_eq!((world.fake.gets(), world.fake.puts().len()), (2, 1));
    // What does not concern the function does not write it either.
    world
        .restart("endpoints = 3\npolicy = \"one-to-one\"")
        .await;
    world.infer("m").await.routed();
    assert_eq!(world.fake.puts().len(), 1);
    world
        .restart(&TWO.replace("endpoints", "keep_alive = \"1s\"\nendpoints"))
        .await;
    world.infer("m").await.routed();
    assert_eq!(world.fake.puts().len(), 1);
    // Somebody wrote the function without the annotation, or it has another one: write.
    world.fake.lose("sesemi-p-0");
    world.infer("m").await.routed();
    assert_eq!(
        world.fake.puts().len(),
        2,
        "deployed again when found missing"
    );
    world.end().await;
}

#[tokio::test]
async fn published_packing_over_http() {
    let mut world = World::new(TWO).await;
    for model in ["a", "b", "c", "a"] {
        let routed = world.infer(model).await.routed();
        assert_eq!(routed.routing.function, "sesemi-p-0", "one after the other");
    }
    world.fake.next([Next::Gated, Next::Gated]);
    let (a, b) = (world.infer("a"), world.infer("b"));
    let fake = world.fake.clone();
    let (a, b, ()) = tokio::join!(a, b, async {
        fake.wait_for_invocations(6).await;
        fake.open_gate(2);
    });
    let used: BTreeSet<_> = [a, b]
        .iter()
        .map(|reply| reply.routed().routing.function)
        .collect();
    assert_eq!(used.len(), 2, "at one time, never two models on a function");
    world.end().await;
}

#[tokio::test]
async fn who_finds_every_function_busy_waits() {
    let mut world = World::new(ONE).await;
    world.fake.next([Next::Gated]);
    let a = world.infer("a");
    let b = world.infer("b");
    let check = async {
        world
            .wait_for_status(|status| status["pools"][0]["queued"] == 1)
            .await;
        world.fake.wait_for_invocations(1).await;
        assert_eq!(world.fake.invocations().len(), 1);
        world.fake.open_gate(1);
    };
    let (a, b, ()) = tokio::join!(a, b, check);
    let queued: Vec<_> = [a, b]
        .iter()
        .map(|reply| reply.routed().routing.queue_us)
        .collect();
    assert!(queued.iter().any(|us| *us > 0), "{queued:?}");
    world.end().await;
}

#[tokio::test]
async fn a_full_queue_says_when_to_come_back() {
    let mut world = World::new(&format!("{ONE}\nqueue = 1")).await;
    world.fake.next([Next::Gated]);
    let (a, b) = (world.infer("a"), world.infer("b"));
    let c = world.infer("c");
    let check = async {
        world
            .wait_for_status(|status| status["pools"][0]["queued"] == 1)
            .await;
        let refused = c.await;
        let error = refused.error(ErrorCode::Busy);
        assert_eq!(error.retry_after_ms, Some(1000), "{error}");
        assert_eq!(refused.headers["retry-after"], "1");
        world.fake.open_gate(1);
    };
    let (a, b, ()) = tokio::join!(a, b, check);
    a.routed();
    b.routed();
    world.end().await;
}

#[tokio::test]
async fn who_leaves_the_queue_is_not_served() {
    let mut world = World::new(ONE).await;
    world.fake.next([Next::Gated]);
    let a = world.infer("a");
    let b = world.infer("b");
    let check = async {
        {
            let mut b = Box::pin(b);
            tokio::select! {
                _ = &mut b => panic!("served"),
                () = world.wait_for_status(|s| s["pools"][0]["queued"] == 1) => {}
            }
            // Dropping the call closes its connection.
        }
        world
            .wait_for_status(|status| status["pools"][0]["queued"] == 0)
            .await;
        world.fake.open_gate(1);
    };
    let (a, ()) = tokio::join!(a, check);
    a.routed();
    world.infer("c").await.routed();
    assert_eq!(world.fake.invocations().len(), 2);
    world.end().await;
}

#[tokio::test]
async fn a_deadline_in_the_queue_is_refused_and_not_begun() {
    let mut world = World::new(ONE).await;
    world.fake.next([Next::Gated]);
    let a = world.infer("a");
    let b = world.infer_within("b", Some("30"));
    let check = async {
        let error = b.await.error(ErrorCode::Deadline);
        assert!(error.message.contains("not begun"), "{error}");
        assert_eq!(world.fake.invocations().len(), 1);
        world.fake.open_gate(1);
    };
    let (a, ()) = tokio::join!(a, check);
    a.routed();
    world.end().await;
}

#[tokio::test]
async fn a_late_answer_keeps_its_endpoint_busy_until_it_is_there() {
    let mut world = World::new(ONE).await;
    world.fake.next([Next::Gated]);
    let error = world
        .infer_within("a", Some("50"))
        .await
        .error(ErrorCode::Deadline);
    assert!(error.message.contains("new request id"), "{error}");
    assert_eq!(world.status().await["pools"][0]["in_flight"], 1);
    let b = world.infer("b");
    let check = async {
        world
            .wait_for_status(|status| status["pools"][0]["queued"] == 1)
            .await;
        world.fake.open_gate(1);
    };
    let (b, ()) = tokio::join!(b, check);
    b.routed();
    world.end().await;
}

#[tokio::test]
async fn what_did_not_execute_is_sent_again_once() {
    for text in [
        "The action did not initialize and exited unexpectedly.",
        "The action failed during initialization: no TEE here",
    ] {
        let mut world = World::new(ONE).await;
        world.fake.next([died(text)]);
        world.infer("a").await.routed();
        assert_eq!(world.fake.invocations().len(), 2);
        world.fake.next([died(text), died(text)]);
        let error = world.infer("a").await.error(ErrorCode::InstanceFailed);
        assert!(error.message.contains("a second try failed"), "{error}");
        assert_eq!(world.fake.invocations().len(), 4, "once only");
        world.infer("b").await.routed();
        world.end().await;
    }
}

#[tokio::test]
async fn what_may_have_executed_is_not_sent_again() {
    let mut world = World::new(ONE).await;
    let gone = "The action did not produce a valid response and exited unexpectedly.";
    world.fake.next([died(gone)]);
    let error = world.infer("a").await.error(ErrorCode::InstanceFailed);
    assert!(error.message.contains("may have executed"), "{error}");

    let slow = "The action exceeded its time limits of 60000 milliseconds.".to_owned();
    world.fake.next([Next::Fail {
        outcome: Outcome::DeveloperError,
        text: slow,
        timeout: true,
    }]);
    world.infer("a").await.error(ErrorCode::Deadline);

    world.fake.next([Next::Hangup]);
    world.infer("a").await.error(ErrorCode::PlatformUnavailable);
    assert_eq!(world.fake.invocations().len(), 3, "none was sent twice");
    let counts = world.status().await["pools"][0]["endpoints"][0]["counts"].clone();
    assert_eq!(counts["failed"], 3);
    world.infer("b").await.routed();
    world.end().await;
}

#[tokio::test]
async fn a_slow_invocation_is_polled_for() {
    let mut world = World::new(ONE).await;
    world.fake.next([Next::Later { looks: 3 }]);
    let routed = world.infer("a").await.routed();
    assert_eq!(routed.sealed.telemetry.path, StartKind::Warm);
    world.end().await;
}

#[tokio::test]
async fn what_the_instance_refuses_is_passed_on() {
    let mut world = World::new(ONE).await;
    for code in [
        ErrorCode::NotGranted,
        ErrorCode::CannotOpen,
        ErrorCode::KeyserviceUnavailable,
    ] {
        let error = WireError::new(code, "the reason");
        world.fake.next([Next::AppError(error.clone())]);
        assert_eq!(world.infer("a").await.error(code), error);
    }
    world.end().await;
}

#[tokio::test]
async fn errors_of_the_platform_are_told_apart() {
    let mut world = World::new(ONE).await;
    let throttled = Next::Api {
        status: 429,
        text: "Too many requests in the last minute",
    };
    world.fake.next([throttled]);
    let error = world.infer("a").await.error(ErrorCode::Busy);
    assert_eq!(error.retry_after_ms, Some(1000));
    assert!(
        error
            .message
            .contains("Too many requests in the last minute"),
        "{error}"
    );
    for (next, code) in [
        (
            Next::Api {
                status: 503,
                text: "no invokers",
            },
            ErrorCode::PlatformUnavailable,
        ),
        (
            Next::Api {
                status: 413,
                text: "Request larger",
            },
            ErrorCode::TooLarge,
        ),
        (Next::Nonsense, ErrorCode::Internal),
        (Next::Raw(json!({"hello": "world"})), ErrorCode::Internal),
        (
            Next::Raw(
                json!({"error": "The action produced a response that exceeded the allowed \
            length: 9 > 8 bytes. The truncated response was: x"}),
            ),
            ErrorCode::TooLarge,
        ),
    ] {
        world.fake.next([next]);
        world.infer("a").await.error(code);
    }
    world.infer("a").await.routed();
    world.end().await;
}

#[tokio::test]
async fn a_function_that_cannot_be_deployed_says_why() {
    let mut world = World::new(TWO).await;
    world
        .fake
        .refuse_put(Some("memory 512 MB exceeds allowed threshold of 256 MB"));
    for _ in 0..3 {
        let error = world.infer("a").await.error(ErrorCode::PlatformUnavailable);
        assert!(
            error
                .message
                .contains("exceeds allowed threshold of 256 MB"),
            "{error}"
        );
    }
    world.fake.refuse_put(None);
    world.infer("a").await.routed();
    world.end().await;
}

#[tokio::test]
async fn wrong_credentials_and_an_absent_platform_are_named() {
    let mut world = World::new(ONE).await;
    std::fs::write(world.folder.path().join("auth"), "a:b").unwrap();
    world.restart(ONE).await;
    let error = world.infer("a").await.error(ErrorCode::PlatformUnavailable);
    assert!(error.message.contains("credentials"), "{error}");

    let gone = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    world.fake.addr = gone;
    world.restart(ONE).await;
    let error = world.infer("a").await.error(ErrorCode::PlatformUnavailable);
    assert!(
        error
            .message
            .contains(&format!("connect to the platform at http://{gone}")),
        "{error}"
    );
    world.end().await;
}

#[tokio::test]
async fn a_request_over_the_platforms_limit_is_told_the_limit() {
    let mut world = World::new(ONE).await;
    let mut request = world.sealed("a");
    request.ciphertext = vec![0; 900 * 1024];
    let body = serde_json::to_vec(&request).unwrap();
    for headers in [&[][..], &[("transfer-encoding", "chunked")][..]] {
        let reply = world
            .call(Method::POST, "/v1/infer", headers, body.clone())
            .await;
        let error = reply.error(ErrorCode::TooLarge);
        assert!(error.message.contains("at most 1048576"), "{error}");
        assert!(error.message.contains("smaller batch"), "{error}");
    }
    assert_eq!(world.fake.invocations().len(), 0);
    request.ciphertext = vec![0; 700 * 1024];
    let body = serde_json::to_vec(&request).unwrap();
    world
        .call(Method::POST, "/v1/infer", &[], body)
        .await
        .routed();
    world.end().await;
}

#[tokio::test]
async fn what_is_not_a_request_is_refused_with_its_reason() {
    let mut world = World::new(ONE).await;
    let mut other = world.sealed("a");
    other.enclave = EnclaveId::new([9; 48]);
    let body = serde_json::to_vec(&other).unwrap();
    let reply = world.call(Method::POST, "/v1/infer", &[], body).await;
    let error = reply.error(ErrorCode::NotFound);
    assert!(
        error
            .message
            .contains(&format!("serves enclave {}", other.enclave)),
        "{error}"
    );

    let good = serde_json::to_string(&world.sealed("a")).unwrap();
    for (bad, named) in [
        (String::new(), "EOF"),
        ("[]".to_owned(), "expected form"),
        (good.replace("\"model\"", "\"modle\""), "modle"),
        (good.replace("\"a\"", "\"A\""), "model id"),
        (
            good.replacen('{', "{\"model\":\"b\",", 1),
            "duplicate field",
        ),
        (good[..good.len() - 1].to_owned(), "EOF"),
    ] {
        let reply = world
            .call(Method::POST, "/v1/infer", &[], bad.clone())
            .await;
        let error = reply.error(ErrorCode::InvalidRequest);
        assert!(error.message.contains(named), "{bad}: {error}");
    }
    for timeout in ["0", "-1", "soon", "1.5"] {
        let reply = world.infer_within("a", Some(timeout)).await;
        let error = reply.error(ErrorCode::InvalidRequest);
        assert!(error.message.contains(fnpacker::TIMEOUT_HEADER), "{error}");
    }
    let reply = world.call(Method::GET, "/v1/nothing", &[], "").await;
    assert!(
        reply
            .error(ErrorCode::NotFound)
            .message
            .contains("/v1/nothing")
    );
    let reply = world.call(Method::GET, "/v1/infer", &[], "").await;
    assert_eq!(reply.status, 405);
    assert_eq!(world.fake.invocations().len(), 0);
    world.end().await;
}

#[tokio::test]
async fn the_status_and_the_metrics_tell_what_happened() {
    let mut world = World::new(TWO).await;
    world.fake.next([Next::Answer { cold: true }]);
    world.infer("a").await.routed();
    world.infer("b").await.routed();
    let refused = WireError::new(ErrorCode::NotGranted, "no");
    world.fake.next([Next::AppError(refused)]);
    world.infer("c").await.error(ErrorCode::NotGranted);
    let status = world.status().await;
    let pool = &status["pools"][0];
    assert_eq!(
        (&pool["name"], &pool["policy"]),
        (&json!("p"), &json!("published"))
    );
    assert_eq!(pool["enclave"], json!(ENCLAVE));
    let endpoint = &pool["endpoints"][0];
    assert_eq!(endpoint["function"], "sesemi-p-0");
    assert_eq!(
        (&endpoint["deployed"], &endpoint["in_flight"]),
        (&json!(true), &json!(0))
    );
    let counts = json!({"cold": 1, "warm": 0, "hot": 1, "refused": 1, "failed": 0});
    assert_eq!(endpoint["counts"], counts);
    assert_eq!(endpoint["last_model"], "c");
    assert!(endpoint["idle_us"].is_u64());
    let instance = &endpoint["instances"][0];
    assert_eq!(instance["instance"], "sesemi-p-0-i1");
    assert_eq!(
        instance["models"],
        json!(["b", "a"]),
        "a refused model is not resident"
    );
    let idle = &pool["endpoints"][1];
    assert_eq!(
        (&idle["deployed"], &idle["idle_us"]),
        (&json!(false), &Value::Null)
    );
    assert_eq!(
        pool["costs_us"],
        json!({"start": 65000, "switch": 5000, "exec": 1000})
    );

    let metrics = world.call(Method::GET, "/metrics", &[], "").await;
    let text = String::from_utf8(metrics.body.to_vec()).unwrap();
    for line in [
        "sesemi_fnpacker_requests_total{outcome=\"Served\"} 2",
        "sesemi_fnpacker_requests_total{outcome=\"Refused\"} 1",
        "sesemi_fnpacker_starts_total{start=\"Cold\"} 1",
        "sesemi_fnpacker_deployments_total 1",
        "sesemi_fnpacker_queue_seconds_count 3",
        "sesemi_fnpacker_in_flight 0",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    assert_eq!(
        world.call(Method::GET, "/healthz", &[], "").await.status,
        200
    );
    world.end().await;
}

#[tokio::test]
async fn the_record_has_every_body_that_crossed() {
    let mut world = World::new(ONE).await;
    let request = serde_json::to_string(&world.sealed("a")).unwrap();
    let reply = world
        .call(Method::POST, "/v1/infer", &[], request.clone())
        .await;
    reply.routed();
    let folder = world.folder.path().join("record");
    let requests = std::fs::read(folder.join("fnpacker-requests.bin")).unwrap();
    assert_eq!(requests, request.as_bytes());
    let answers = std::fs::read(folder.join("fnpacker-answers.bin")).unwrap();
    assert_eq!(answers, reply.body);
    world.end().await;
}

#[tokio::test]
async fn a_stop_lets_requests_under_way_end_and_sends_the_waiting_ones_away() {
    let mut world = World::new(ONE).await;
    world.fake.next([Next::Gated]);
    let a = world.infer("a");
    let b = world.infer("b");
    let check = async {
        world
            .wait_for_status(|status| status["pools"][0]["queued"] == 1)
            .await;
        world.fake.wait_for_invocations(1).await;
        world.shutdown.cancel();
    };
    let ((a, b), ()) = tokio::join!(
        async {
            // Which of the two went first is the scheduler's choice.
            let (first, second, ()) = tokio::join!(a, b, async {
                world.shutdown.token().cancelled().await;
                world.fake.open_gate(1);
            });
            (first, second)
        },
        check
    );
    let (served, sent_away) = if a.status == 200 { (a, b) } else { (b, a) };
    served.routed();
    assert_eq!(
        sent_away
            .error(ErrorCode::PlatformUnavailable)
            .retry_after_ms,
        Some(1000)
    );
    world.end().await;
}
