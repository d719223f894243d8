//! FnPacker before a Kubernetes API and Knative functions that do as told, over real HTTP.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests: a failure here is the test's failure"
)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fake_kubernetes::{Controller, Fake};
use fnpacker::Config;
use fnpacker::config::PlatformConfig;
use fnpacker::platform::{Answer, FunctionRef, FunctionSpec, Knative, Platform, PlatformError};
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use protocol::invoke::{Phases, RunResult, SealedRequest, SealedResponse, StartKind, Telemetry};
use protocol::{EnclaveId, PrincipalId, RequestId};
use serde_json::{Value, json};
use service::{Shutdown, SystemClock};

mod fake_kubernetes;

const PATIENCE: Duration = Duration::from_secs(10);
const FUNCTION: &str = "sesemi-main-0";

fn file(fake: &Fake, knative: &str, pool: &str) -> String {
    let enclave = EnclaveId::new([7; 48]);
    let addr = fake.addr;
    format!(
        "listen = \"127.0.0.1:0\"\n\n[knative]\napi = \"http://{addr}\"\n\
         ingress = \"http://{addr}\"\nnamespace = \"models\"\n{knative}\n\n[[pool]]\n\
         name = \"main\"\nenclave = \"{enclave}\"\nimage = \"registry.internal/sesemi/semirt:1\"\n\
         memory = \"512MiB\"\nconcurrency = 4\nendpoints = 1\ntimeout = \"60s\"\n\
         policy = \"published\"\n{pool}\n"
    )
}

fn load(text: &str) -> Result<Config, String> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    service::load_config(file.path()).map_err(|error| service::ErrorChain(&error).to_string())
}

struct World {
    fake: Fake,
    config: Config,
    shutdown: Shutdown,
}

impl World {
    async fn new(knative: &str) -> Self {
        let shutdown = Shutdown::new();
        let fake = Fake::start(&shutdown).await;
        let config = load(&file(&fake, knative, "")).unwrap();
        Self {
            fake,
            config,
            shutdown,
        }
    }

    /// A fresh client, as after a restart.
    fn platform(&self) -> Knative {
        let PlatformConfig::Knative(config) = &self.config.platform else {
            panic!("not Knative")
        };
        Knative::new(config.clone()).unwrap()
    }

    fn spec(&self) -> FunctionSpec {
        FunctionSpec {
            env: BTreeMap::from([("SESEMI_STORE".into(), "s3://models".into())]),
            ..self.config.pools[0].functions().remove(0)
        }
    }

    async fn ensure(&self) -> Result<FunctionRef, PlatformError> {
        self.platform().ensure(&self.spec()).await
    }

    async fn invoke(&self, status: u16, body: &str) -> Result<Answer, PlatformError> {
        self.fake.run_says(status, body);
        let function = FunctionRef {
            name: FUNCTION.into(),
            written: false,
        };
        let body = Bytes::from_static(br#"{"user":"x"}"#);
        self.platform().invoke(&function, body, PATIENCE).await
    }
}

#[tokio::test]
async fn what_the_api_refuses_is_told_as_what_it_is() {
    let world = World::new("").await;
    world.fake.api_says([(401, "Unauthorized")]);
    let error = world.ensure().await.unwrap_err();
    assert!(matches!(error, PlatformError::Unauthorized), "{error:?}");
    // The look is as usual, the write is refused: no rights, no such namespace, a webhook's word.
    for (code, message) in [
        (403, "services is forbidden: cannot patch resource"),
        (404, "namespaces \"models\" not found"),
        (
            400,
            "admission webhook denied the request: runtimeClassName",
        ),
        (500, "etcdserver: leader changed"),
    ] {
        world.fake.api_says([(0, ""), (code, message)]);
        let error = world.ensure().await.unwrap_err();
        let PlatformError::Refused {
            status,
            message: said,
        } = &error
        else {
            panic!("{error:?}")
        };
        assert_eq!((*status, said.as_str()), (code, message));
        assert!(!error.surely_not_executed());
    }
    world.fake.api_says([(429, "too many requests")]);
    let error = world.ensure().await.unwrap_err();
    assert!(
        matches!(error, PlatformError::Throttled { .. }),
        "{error:?}"
    );
    assert!(!world.fake.has(FUNCTION));
}

#[tokio::test]
async fn an_api_that_is_not_there_was_not_asked() {
    let world = World::new("").await;
    world.shutdown.cancel();
    assert!(world.shutdown.wait(PATIENCE).await);
    let error = world.ensure().await.unwrap_err();
    assert!(
        matches!(error, PlatformError::Unreachable { .. }),
        "{error:?}"
    );
    assert!(error.surely_not_executed());
}

#[tokio::test]
async fn a_write_that_another_overtakes_is_tried_again_and_not_for_ever() {
    let world = World::new("").await;
    let conflict = (409, "the object has been modified");
    world.fake.api_says([(0, ""), conflict, conflict]);
    assert!(world.ensure().await.unwrap().written);
    assert_eq!(world.fake.applied().len(), 1);

    let other = World::new("").await;
    other
        .fake
        .api_says([(0, "")].into_iter().chain([conflict; 20]));
    let error = other.ensure().await.unwrap_err();
    assert!(
        matches!(error, PlatformError::Refused { status: 409, .. }),
        "{error:?}"
    );
    let writes = other.fake.calls();
    assert_eq!(writes.iter().filter(|c| c.starts_with("PATCH")).count(), 4);
}

#[tokio::test]
async fn what_does_not_become_ready_is_an_error_in_time_and_not_begun() {
    let world = World::new("ready = \"200ms\"").await;
    world.fake.controller(Controller::Asleep);
    let error = world.ensure().await.unwrap_err();
    assert!(matches!(error, PlatformError::Deadline { .. }), "{error:?}");

    world.fake.controller(Controller::Fails {
        reason: "RevisionMissing",
        message: "no TEE on any node",
    });
    let error = world.ensure().await.unwrap_err();
    assert!(error.to_string().contains("no TEE on any node"), "{error}");
    assert!(error.surely_not_executed());
    // Mended meanwhile: nothing was written again.
    world.fake.controller(Controller::ReadyAfter(0));
    assert!(!world.ensure().await.unwrap().written);
    assert_eq!(world.fake.applied().len(), 1);
}

#[tokio::test]
async fn a_service_is_written_when_it_differs_and_only_then() {
    let world = World::new("").await;
    assert!(world.ensure().await.unwrap().written);
    let calls = world.fake.calls();
    assert_eq!(calls[..2], ["GET sesemi-main-0", "PATCH sesemi-main-0"]);
    assert!(calls[2..].iter().all(|call| call == "GET sesemi-main-0"));
    // Again, and after a restart: one look.
    for _ in 0..2 {
        assert!(!world.ensure().await.unwrap().written);
        assert_eq!(world.fake.calls(), ["GET sesemi-main-0"]);
    }
    // What others set is theirs, until what we want changes.
    let scale = "/spec/template/metadata/annotations/autoscaling.knative.dev~1max-scale";
    world.fake.edit(FUNCTION, scale, "8".into());
    assert!(!world.ensure().await.unwrap().written);
    let mut spec = world.spec();
    spec.image = "registry.internal/sesemi/semirt:2".into();
    assert!(world.platform().ensure(&spec).await.unwrap().written);
    assert_eq!(world.fake.applied().len(), 2);
}

/// `deploy/check.py` holds the same file to the schema of Knative's CRD.
#[tokio::test]
async fn what_is_applied_is_what_the_schema_check_sees() {
    let knative = "runtime_class = \"kata-qemu-tdx\"\nuser = 0\nmax_scale = 2\nkeep_alive = \"3min\"\n\
                   limits = { \"ephemeral-storage\" = \"1Gi\" }";
    let world = World::new(knative).await;
    world.ensure().await.unwrap();
    let mut applied = world.fake.applied().remove(0);
    let spec = applied["metadata"].as_object_mut().unwrap();
    let annotations = spec.remove("annotations").unwrap();
    let text = annotations["sesemi.dev/spec"].as_str().unwrap();
    assert_eq!(serde_json::from_str::<Value>(text).unwrap(), applied);
    let golden: Value = serde_json::from_str(include_str!("applied.json")).unwrap();
    assert_eq!(applied, golden, "{applied:#}");
}

#[tokio::test]
async fn deleting_what_is_absent_is_no_error() {
    let world = World::new("").await;
    let platform = world.platform();
    platform.delete(FUNCTION).await.unwrap();
    world.ensure().await.unwrap();
    platform.delete(FUNCTION).await.unwrap();
    assert!(!world.fake.has(FUNCTION));
    world.fake.api_says([(403, "forbidden")]);
    let error = platform.delete(FUNCTION).await.unwrap_err();
    assert!(
        matches!(error, PlatformError::Refused { status: 403, .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn an_invocation_ends_as_what_stands_before_the_function_says() {
    let world = World::new("").await;
    type Is = fn(&PlatformError) -> bool;
    let cases: [(u16, &str, Is, bool); 7] = [
        (
            404,
            "",
            |e| matches!(e, PlatformError::NotFound { .. }),
            true,
        ),
        (
            403,
            r#"{"error":"System not initialized."}"#,
            |e| matches!(e, PlatformError::InstanceFailed { .. }),
            true,
        ),
        (
            503,
            "pending request queue full",
            |e| matches!(e, PlatformError::Throttled { .. }),
            false,
        ),
        (
            504,
            "request timeout",
            |e| matches!(e, PlatformError::TimeLimit { .. }),
            false,
        ),
        (
            502,
            "bad gateway",
            |e| matches!(e, PlatformError::InstanceFailed { .. }),
            false,
        ),
        (
            413,
            "",
            |e| matches!(e, PlatformError::TooLarge { .. }),
            false,
        ),
        (
            500,
            "",
            |e| matches!(e, PlatformError::Refused { status: 500, .. }),
            false,
        ),
    ];
    for (status, body, is, again) in cases {
        let error = world.invoke(status, body).await.unwrap_err();
        assert!(is(&error), "{status}: {error:?}");
        assert_eq!(error.surely_not_executed(), again, "{status}");
    }
    let answer = world.invoke(200, "{ \"a\" : 1.50 }").await.unwrap();
    assert_eq!(answer.body, "{ \"a\" : 1.50 }");
    assert!(answer.record.init.is_none() && answer.record.activation.is_none());
    let (host, value) = world.fake.runs().pop().unwrap();
    assert_eq!(host, "sesemi-main-0.models.svc.cluster.local");
    assert_eq!(value, json!({ "value": { "user": "x" } }));
}

#[tokio::test]
async fn the_file_chooses_one_platform_and_is_checked_for_it() {
    let world = World::new("").await;
    let both =
        file(&world.fake, "", "") + "\n[platform]\nurl = \"http://h:1\"\nauth_file = \"a\"\n";
    let knative = |text: &str| file(&world.fake, text, "");
    let neither = "listen = \"127.0.0.1:0\"\n[[pool]]".to_owned()
        + file(&world.fake, "", "").split("[[pool]]").nth(1).unwrap();
    for (text, expected) in [
        (both, "name one platform"),
        (neither, "name one platform"),
        (knative("max_scale = 0"), "max_scale"),
        (knative("keep_alive = \"2h\""), "keep_alive"),
        (knative("max_payload = \"0B\""), "max_payload"),
        (knative("runtimeclass = \"x\""), "runtimeclass"),
        (
            file(&world.fake, "", "[pool.init]\nK_SERVICE = \"x\""),
            "K_SERVICE",
        ),
        (
            file(&world.fake, "", "").replace("\"main\"", "\"My_pool\""),
            "'sesemi-My_pool-0'",
        ),
        (
            file(&world.fake, "", "").replace("\"main\"", &format!("{:?}", "x".repeat(60))),
            "are short",
        ),
        (
            file(&world.fake, "", "").replace("\"models\"", "\"Models\""),
            "namespace 'Models'",
        ),
    ] {
        let error = load(&text).unwrap_err();
        assert!(error.contains(expected), "{expected}: {error}");
    }
}

#[tokio::test]
async fn a_sealed_request_goes_through_fnpacker_to_a_service_and_back() {
    let world = World::new("").await;
    let clock = Arc::new(SystemClock::default());
    let running = fnpacker::run(world.config.clone(), clock, &world.shutdown)
        .await
        .unwrap();
    let request = SealedRequest {
        user: PrincipalId::new([1; 32]),
        model: "m".parse().unwrap(),
        enclave: EnclaveId::new([7; 48]),
        request_id: RequestId::new([3; 16]),
        ciphertext: vec![4; 2000],
    };
    let sealed = SealedResponse {
        request_id: request.request_id,
        ciphertext: vec![5; 1000],
        telemetry: Telemetry {
            instance: "i-1".parse().unwrap(),
            seq: 1,
            path: StartKind::Cold,
            phases_us: Phases::default(),
        },
    };
    // Scaled to zero and overtaken by a rollout: the first attempt meets no function.
    world.fake.run_says(404, "");
    let answer = serde_json::to_string(&RunResult::Sealed(sealed.clone())).unwrap();
    world.fake.run_says(200, &answer);
    let http = Client::builder(TokioExecutor::new()).build_http();
    let body = Bytes::from(serde_json::to_vec(&request).unwrap());
    let post = Request::post(format!("http://{}/v1/infer", running.addr))
        .body(Full::new(body))
        .unwrap();
    let response = http.request(post).await.unwrap();
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(status, StatusCode::OK, "{body:?}");
    let routed: protocol::invoke::RoutedResponse = serde_json::from_slice(&body).unwrap();
    assert_eq!(routed.sealed, sealed);
    assert_eq!(routed.routing.function, FUNCTION);
    let (_, value) = world.fake.runs().pop().unwrap();
    assert_eq!(value["value"], serde_json::to_value(&request).unwrap());
    assert_eq!(world.fake.applied().len(), 1);
}
