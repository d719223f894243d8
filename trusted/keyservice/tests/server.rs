//! KeyService as its callers meet it: real sockets, TLS, the gate, HTTP; a TEE in software.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a panic is how a test reports"
)]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use attestation::measured::MeasuredConfig;
use attestation::testing::{SoftEnclave, SoftTee};
use attestation::{
    Allowed, AppraisalPolicy, ClientIdentity, RatlsIdentity, RelyingParty, Tee, VerifierSet,
};
use crypto::IdentityKey;
use http::Method;
use keyservice::{Config, RunError, Running};
use protocol::keyservice::{
    LogPage, RegisterModel, RegisterRequestKey, ReleaseRequest, Status, WireKey,
};
use protocol::limits::KEYSERVICE_BODY_MAX;
use protocol::measured::{Isolation, KeyserviceMeasured, SemirtMeasured};
use protocol::{Digest, EnclaveId, ErrorCode, ModelId, ModelVersion, PrincipalId, WireError};
use service::{Shutdown, SystemClock};
use transport::{CallError, Channel, ConnectError, KeyserviceClient, connect};

const KEYSERVICE: SoftEnclave = SoftEnclave::new(0x50);
const SEMIRT: SoftEnclave = SoftEnclave::new(0x51);
const OTHER: SoftEnclave = SoftEnclave::new(0x52);
const WAIT: Duration = Duration::from_secs(20);
const NOW: Duration = Duration::from_secs(1_790_000_000);

struct Service {
    tee: SoftTee,
    running: Running,
    shutdown: Shutdown,
}

fn config(state: &Path, listen: &str) -> Config {
    Config {
        listen: listen.parse().unwrap(),
        state_dir: state.into(),
        measured: KeyserviceMeasured { lease_ttl_s: 300 },
        policy: AppraisalPolicy::strict(vec![Tee::Simulated], Allowed::Any),
        endorsements: Default::default(),
        limits: keyservice::broker::Limits::default(),
        connections: 64,
    }
}

async fn try_start(config: &Config, enclave: SoftEnclave) -> Result<Service, RunError> {
    let (tee, shutdown) = (SoftTee::new(1), Shutdown::new());
    let running = keyservice::run(
        config,
        tee.attester(enclave),
        VerifierSet::new(vec![tee.verifier()]),
        Arc::new(SystemClock::default()),
        &shutdown,
    )
    .await?;
    Ok(Service {
        tee,
        running,
        shutdown,
    })
}

async fn start(state: &Path) -> Service {
    try_start(&config(state, "127.0.0.1:0"), KEYSERVICE)
        .await
        .unwrap()
}

fn semirt_config(keyservice: EnclaveId) -> MeasuredConfig {
    MeasuredConfig::semirt(
        &SemirtMeasured {
            isolation: Isolation::Shared,
            concurrency: 2,
            key_ttl_s: 60,
            model_memory: 1 << 30,
            engines: Vec::new(),
            keyservice,
        },
        &AppraisalPolicy::default(),
    )
    .unwrap()
}

impl Service {
    fn relying(&self) -> Arc<RelyingParty> {
        self.tee.relying(Allowed::These(vec![self.running.enclave]))
    }

    async fn channel(&self, who: &ClientIdentity) -> Result<Channel, ConnectError> {
        let addr = self.running.addr.to_string();
        connect(&addr, who, &self.relying(), NOW, WAIT).await
    }

    async fn principal(&self, key: &IdentityKey) -> KeyserviceClient {
        let who = ClientIdentity::principal(key).unwrap();
        KeyserviceClient::new(self.channel(&who).await.unwrap())
    }

    fn instance_identity(&self, enclave: SoftEnclave) -> ClientIdentity {
        let config = semirt_config(self.running.enclave);
        let identity = RatlsIdentity::generate(self.tee.attester(enclave), config).unwrap();
        ClientIdentity::Instance(Arc::new(identity))
    }

    async fn instance(&self, enclave: SoftEnclave) -> KeyserviceClient {
        let who = self.instance_identity(enclave);
        KeyserviceClient::new(self.channel(&who).await.unwrap())
    }

    /// E_S of `enclave`.
    fn enclave(&self, enclave: SoftEnclave) -> EnclaveId {
        SoftTee::enclave_id(enclave, &semirt_config(self.running.enclave))
    }

    async fn stop(self) {
        self.shutdown.cancel();
        assert!(
            self.shutdown.wait(WAIT).await,
            "tasks outlived the shutdown"
        );
    }
}

fn model() -> ModelId {
    "breast-cancer".parse().unwrap()
}

fn registration(n: u8) -> RegisterModel {
    RegisterModel {
        digest: Digest::new([n; 32]),
        key: WireKey::new(&[n; 32]),
    }
}

fn request_key(owner: PrincipalId) -> RegisterRequestKey {
    RegisterRequestKey {
        owner,
        key: WireKey::new(&[0x77; 32]),
        policy: None,
    }
}

fn code<T: std::fmt::Debug>(result: Result<T, CallError>) -> ErrorCode {
    match result {
        Err(CallError::Remote(error)) => error.code,
        other => panic!("not an error answer: {other:?}"),
    }
}

#[tokio::test]
async fn keys_go_to_whom_owner_and_user_allowed_and_to_nobody_else() {
    let state = tempfile::tempdir().unwrap();
    let service = start(state.path()).await;
    let (owner_key, user_key) = (
        IdentityKey::generate().unwrap(),
        IdentityKey::generate().unwrap(),
    );
    let (owner_id, user_id) = (owner_key.principal(), user_key.principal());
    let mut owner = service.principal(&owner_key).await;
    let mut user = service.principal(&user_key).await;
    let mut instance = service.instance(SEMIRT).await;
    let mut other = service.instance(OTHER).await;
    let enclave = service.enclave(SEMIRT);
    let asked = ReleaseRequest {
        model: model(),
        user: user_id,
    };

    assert_eq!(code(instance.release(&asked).await), ErrorCode::NotGranted);
    owner
        .register_model(&model(), ModelVersion(1), &registration(1))
        .await
        .unwrap();
    assert_eq!(code(instance.release(&asked).await), ErrorCode::NotGranted);
    owner.grant(&model(), &user_id, &enclave).await.unwrap();
    assert_eq!(code(instance.release(&asked).await), ErrorCode::NotGranted);
    user.register_request_key(&model(), &enclave, &request_key(owner_id))
        .await
        .unwrap();

    let release = instance.release(&asked).await.unwrap();
    assert_eq!(
        (release.version, release.digest),
        (ModelVersion(1), Digest::new([1; 32]))
    );
    assert_eq!(release.model_key.bytes(), [1; 32]);
    assert_eq!(release.request_key.bytes(), [0x77; 32]);
    assert_eq!(
        (release.owner, release.lease.ttl_s, release.lease.epoch),
        (owner_id, 300, 1)
    );

    assert_eq!(
        code(other.release(&asked).await),
        ErrorCode::EnclaveNotAllowed
    );
    let stranger = ReleaseRequest {
        model: model(),
        user: owner_id,
    };
    assert_eq!(
        code(instance.release(&stranger).await),
        ErrorCode::NotGranted
    );

    let revoked = owner.revoke(&model(), &user_id, &enclave).await.unwrap();
    assert_eq!((revoked.revoked, revoked.effective_within_s), (true, 300));
    assert_eq!(code(instance.release(&asked).await), ErrorCode::NotGranted);
    assert!(
        !owner
            .revoke(&model(), &user_id, &enclave)
            .await
            .unwrap()
            .revoked
    );
    assert_eq!(instance.status().await.unwrap().epoch, 2);

    owner.grant(&model(), &user_id, &enclave).await.unwrap();
    assert_eq!(instance.release(&asked).await.unwrap().lease.epoch, 2);
    assert!(
        user.drop_request_key(&model(), &enclave)
            .await
            .unwrap()
            .revoked
    );
    assert_eq!(code(instance.release(&asked).await), ErrorCode::NotGranted);
    service.stop().await;
}

#[tokio::test]
async fn state_epoch_and_log_outlive_the_process() {
    let state = tempfile::tempdir().unwrap();
    let service = start(state.path()).await;
    let (owner_key, user_key) = (
        IdentityKey::generate().unwrap(),
        IdentityKey::generate().unwrap(),
    );
    let enclave = service.enclave(SEMIRT);
    let mut owner = service.principal(&owner_key).await;
    owner
        .register_model(&model(), ModelVersion(1), &registration(1))
        .await
        .unwrap();
    owner
        .grant(&model(), &user_key.principal(), &enclave)
        .await
        .unwrap();
    let body = request_key(owner_key.principal());
    let mut user = service.principal(&user_key).await;
    user.register_request_key(&model(), &enclave, &body)
        .await
        .unwrap();
    owner
        .grant(&model(), &owner_key.principal(), &enclave)
        .await
        .unwrap();
    owner
        .revoke(&model(), &owner_key.principal(), &enclave)
        .await
        .unwrap();
    let log = owner.log().await.unwrap();
    drop((owner, user));
    service.stop().await;

    let service = start(state.path()).await;
    let mut owner = service.principal(&owner_key).await;
    assert_eq!(owner.channel().epoch(), 2, "the gate's epoch");
    assert_eq!(owner.grants(&model()).await.unwrap().grants.len(), 1);
    assert_eq!(owner.list_models().await.unwrap().models.len(), 1);
    assert_eq!(owner.versions(&model()).await.unwrap().models.len(), 1);
    let mut user = service.principal(&user_key).await;
    assert_eq!(user.request_keys().await.unwrap().request_keys.len(), 1);
    let again = owner.log().await.unwrap();
    assert_eq!(again.head, log.head);
    let events: Vec<_> = again
        .entries
        .iter()
        .map(|entry| entry.event.as_str())
        .collect();
    assert_eq!(
        events,
        ["model_registered", "granted", "granted", "revoked"]
    );
    let seen: Vec<_> = user
        .log()
        .await
        .unwrap()
        .entries
        .into_iter()
        .map(|entry| entry.event)
        .collect();
    assert_eq!(seen, ["granted", "request_key_registered"]);
    service.stop().await;
}

#[tokio::test]
async fn the_log_goes_on_where_it_stopped() {
    let state = tempfile::tempdir().unwrap();
    let service = start(state.path()).await;
    let key = IdentityKey::generate().unwrap();
    let mut owner = service.principal(&key).await;
    for version in 1..=5 {
        let body = registration(1);
        owner
            .register_model(&model(), ModelVersion(version), &body)
            .await
            .unwrap();
    }
    let mut channel = service
        .channel(&ClientIdentity::principal(&key).unwrap())
        .await
        .unwrap();
    let mut read = async |query: &str| {
        let page: LogPage = channel
            .call(Method::GET, &format!("/v1/log{query}"), None::<&()>)
            .await
            .unwrap();
        page.entries
            .iter()
            .map(|entry| entry.seq)
            .collect::<Vec<_>>()
    };
    assert_eq!(read("").await, [1, 2, 3, 4, 5]);
    assert_eq!(read("?limit=2").await, [4, 5]);
    assert_eq!(read("?after=2&limit=2").await, [3, 4]);
    assert!(read("?after=5").await.is_empty());
    service.stop().await;
}

#[tokio::test]
async fn puts_are_idempotent_and_versions_only_grow() {
    let state = tempfile::tempdir().unwrap();
    let service = start(state.path()).await;
    let key = IdentityKey::generate().unwrap();
    let mut owner = service.principal(&key).await;
    let enclave = service.enclave(SEMIRT);
    let (two, three) = (ModelVersion(2), ModelVersion(3));
    owner
        .register_model(&model(), two, &registration(1))
        .await
        .unwrap();
    owner
        .register_model(&model(), two, &registration(1))
        .await
        .unwrap();
    assert_eq!(
        code(owner.register_model(&model(), two, &registration(2)).await),
        ErrorCode::Conflict
    );
    let one = ModelVersion(1);
    assert_eq!(
        code(owner.register_model(&model(), one, &registration(1)).await),
        ErrorCode::Conflict
    );
    owner
        .register_model(&model(), three, &registration(3))
        .await
        .unwrap();
    assert_eq!(owner.versions(&model()).await.unwrap().models.len(), 2);

    let body = request_key(key.principal());
    let first = owner
        .register_request_key(&model(), &enclave, &body)
        .await
        .unwrap();
    let again = owner
        .register_request_key(&model(), &enclave, &body)
        .await
        .unwrap();
    assert_eq!(first.epoch, again.epoch);
    let changed = request_key(PrincipalId::new([1; 32]));
    assert_eq!(
        code(
            owner
                .register_request_key(&model(), &enclave, &changed)
                .await
        ),
        ErrorCode::Conflict
    );

    let mut stranger = service.principal(&IdentityKey::generate().unwrap()).await;
    assert_eq!(
        code(
            stranger
                .register_model(&model(), ModelVersion(9), &registration(1))
                .await
        ),
        ErrorCode::Conflict
    );
    let nobody = PrincipalId::new([3; 32]);
    assert_eq!(
        code(stranger.grant(&model(), &nobody, &enclave).await),
        ErrorCode::NotFound
    );
    assert_eq!(
        code(stranger.revoke(&model(), &nobody, &enclave).await),
        ErrorCode::NotFound
    );
    assert_eq!(code(stranger.grants(&model()).await), ErrorCode::NotFound);
    assert_eq!(code(stranger.versions(&model()).await), ErrorCode::NotFound);
    service.stop().await;
}

#[tokio::test]
async fn a_principal_gets_no_keys_and_an_instance_owns_nothing() {
    let state = tempfile::tempdir().unwrap();
    let service = start(state.path()).await;
    let key = IdentityKey::generate().unwrap();
    let mut owner = service.principal(&key).await;
    let mut instance = service.instance(SEMIRT).await;
    let asked = ReleaseRequest {
        model: model(),
        user: key.principal(),
    };
    assert_eq!(code(owner.release(&asked).await), ErrorCode::NotAttested);
    assert_eq!(
        code(
            instance
                .register_model(&model(), ModelVersion(1), &registration(1))
                .await
        ),
        ErrorCode::Unauthenticated
    );
    assert_eq!(code(instance.log().await), ErrorCode::Unauthenticated);
    service.stop().await;
}

#[tokio::test]
async fn malformed_calls_are_answered_and_do_not_end_the_channel() {
    use ErrorCode::{InvalidRequest, NotFound, TooLarge};
    let state = tempfile::tempdir().unwrap();
    let service = start(state.path()).await;
    let key = IdentityKey::generate().unwrap();
    let who = ClientIdentity::principal(&key).unwrap();
    let mut channel = service.channel(&who).await.unwrap();
    let (version, request_key) = (
        "/v1/models/m/versions/1",
        format!("/v1/request-keys/m/{}", "cd".repeat(48)),
    );
    let short_key = format!(r#"{{"digest":"{}","key":"AAAA"}}"#, "ab".repeat(32));
    let no_base64 = format!(r#"{{"owner":"{}","key":"*"}}"#, "ab".repeat(32));
    let huge = format!("\"{}\"", "x".repeat(KEYSERVICE_BODY_MAX));
    let calls: [(Method, &str, &str, ErrorCode); 10] = [
        (Method::GET, "/", "", NotFound),
        (Method::GET, "/v1/models/x/y/z", "", NotFound),
        (Method::POST, "/v1/status", "", NotFound),
        (Method::GET, "/v1/models/UPPER/versions", "", InvalidRequest),
        (Method::GET, "/v1/log?after=x", "", InvalidRequest),
        (Method::GET, "/v1/status", "{}", InvalidRequest),
        (Method::PUT, version, "", InvalidRequest),
        (Method::PUT, version, &short_key, InvalidRequest),
        (Method::PUT, &request_key, &no_base64, InvalidRequest),
        // Refused unread, which may end the connection: last.
        (Method::PUT, version, &huge, TooLarge),
    ];
    for (method, path, body, expected) in calls {
        let body: Option<serde_json::Value> = serde_json::from_str(body).ok();
        let answer = channel
            .call::<_, serde_json::Value>(method.clone(), path, body.as_ref())
            .await;
        assert_eq!(code(answer), expected, "{method} {path}");
    }
    service.principal(&key).await.status().await.unwrap();
    service.stop().await;
}

#[tokio::test]
async fn status_names_the_enclave_that_clients_appraise() {
    let state = tempfile::tempdir().unwrap();
    let service = start(state.path()).await;
    let mut client = service.principal(&IdentityKey::generate().unwrap()).await;
    let appraised = client.channel().appraised().enclave();
    let Status { enclave, epoch, .. } = client.status().await.unwrap();
    assert_eq!((enclave, epoch), (appraised, 1));
    assert_eq!(enclave, service.running.enclave);
    service.stop().await;
}

#[tokio::test]
async fn evidence_that_the_policy_does_not_accept_is_refused() {
    let state = tempfile::tempdir().unwrap();
    let service = start(state.path()).await;
    let debug = SoftEnclave {
        debug: true,
        ..SEMIRT
    };
    let error = service
        .channel(&service.instance_identity(debug))
        .await
        .unwrap_err();
    assert!(
        matches!(&error, ConnectError::Refused { source: WireError { code, .. }, .. }
            if *code == ErrorCode::NotAttested),
        "{error:?}"
    );
    // A genuine-looking instance of another vendor.
    let forged = RatlsIdentity::generate(
        SoftTee::new(2).attester(SEMIRT),
        semirt_config(service.running.enclave),
    );
    let forged = ClientIdentity::Instance(Arc::new(forged.unwrap()));
    let error = service.channel(&forged).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::NotAttested, "{error:?}");
    service.stop().await;
}

#[tokio::test]
async fn another_build_cannot_read_the_vault_and_does_not_start_empty() {
    let state = tempfile::tempdir().unwrap();
    start(state.path()).await.stop().await;
    let config = config(state.path(), "127.0.0.1:0");
    let error = try_start(&config, OTHER).await.map(|_| ()).unwrap_err();
    let text = service::ErrorChain(&error).to_string();
    assert!(text.contains("sealing key"), "{text}");
    // The right build still finds its state.
    start(state.path()).await.stop().await;
}

#[tokio::test]
async fn a_taken_port_or_folder_is_named() {
    let (state, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let service = start(state.path()).await;
    let addr = service.running.addr.to_string();
    let error = try_start(&config(other.path(), &addr), KEYSERVICE)
        .await
        .map(|_| ())
        .unwrap_err();
    assert!(error.to_string().contains(&addr), "{error}");
    let error = try_start(&config(state.path(), "127.0.0.1:0"), KEYSERVICE)
        .await
        .map(|_| ())
        .unwrap_err();
    let text = service::ErrorChain(&error).to_string();
    assert!(text.contains("another KeyService"), "{text}");
    service.stop().await;
}

#[tokio::test]
async fn open_channels_do_not_hold_up_the_end() {
    let state = tempfile::tempdir().unwrap();
    let service = start(state.path()).await;
    let mut idle = service.principal(&IdentityKey::generate().unwrap()).await;
    idle.status().await.unwrap();
    service.stop().await;
    assert!(idle.status().await.is_err());
}
