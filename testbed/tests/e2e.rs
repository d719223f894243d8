//! The whole system, in processes of its own: what goes on when a part fails, lies or is revoked.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::path::PathBuf;
use std::time::Duration;

use protocol::id::InstanceId;
use protocol::invoke::StartKind;
use protocol::tensor::Tensor;
use protocol::{Digest, EnclaveId, ErrorCode, ModelId};
use sdk::infer::{Answer, InferClient, InferError};
use sdk::keyservice::Keyservice;
use sdk::{Explain as _, RetryPolicy};
use tempfile::TempDir;
use testbed::cluster::{Cluster, Options};
use testbed::demo::cases::{Case, shipped};
use testbed::demo::parties::Person;
use testbed::scan::Needles;
use testbed::state::StateFolder;
use tokio::time::Instant;

/// Longest wait for something that has to happen.
const PATIENCE: Duration = Duration::from_secs(30);

struct World {
    cluster: Cluster,
    owner: Person,
    user: Person,
    model: ModelId,
    case: Case,
    digest: Digest,
    // Dropped last: the parts write into it.
    _folder: TempDir,
}

impl World {
    async fn start(adjust: impl FnOnce(&mut Options)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut options = Options::new(PathBuf::from(env!("CARGO_BIN_EXE_sesemi-dev")));
        adjust(&mut options);
        let state = StateFolder::create(folder.path()).unwrap();
        let cluster = Cluster::start(options, state, |_| {}).await.unwrap();
        let [case, _] = shipped().unwrap();
        let owner = Person::at(folder.path().join("owner")).unwrap();
        let user = Person::at(folder.path().join("user")).unwrap();
        let model: ModelId = case.name.parse().unwrap();
        let mut keyservice = owner.keyservice(&cluster).await.unwrap();
        let digest = owner
            .publish(&cluster, &mut keyservice, &model, &case)
            .await
            .unwrap();
        let world = Self {
            cluster,
            owner,
            user,
            model,
            case,
            digest,
            _folder: folder,
        };
        world.allow(&mut keyservice, &world.model).await;
        world
    }

    fn enclave(&self) -> EnclaveId {
        self.cluster.identities().semirt
    }

    /// The owner's grant and the user's request key.
    async fn allow(&self, owners: &mut Keyservice, model: &ModelId) {
        let enclave = self.enclave();
        owners
            .owner()
            .grant(model, &self.user.principal(), &enclave)
            .await
            .unwrap();
        let mut keyservice = self.user.keyservice(&self.cluster).await.unwrap();
        let owner = self.owner.principal();
        self.user
            .register_request_key(&mut keyservice, model, owner, &enclave)
            .await
            .unwrap();
    }

    fn client(&self, deadline: Duration) -> InferClient {
        self.user
            .client(&self.cluster, RetryPolicy::with_deadline(deadline))
            .unwrap()
    }

    async fn ask(&self, deadline: Duration, model: &ModelId) -> Result<Answer, InferError> {
        let (inputs, _) = self.case.row(0).unwrap();
        self.client(deadline)
            .infer(model, &self.enclave(), &inputs)
            .await
    }

    async fn ask_right(&self) -> Answer {
        let answer = self.ask(PATIENCE, &self.model).await.unwrap();
        let (_, expected) = self.case.row(0).unwrap();
        assert!(Case::is_right(&expected, &answer.outputs));
        answer
    }
}

/// Kills an instance without warning; it may be gone already.
fn kill(instance: &InstanceId) {
    let pid: i32 = instance
        .as_str()
        .strip_prefix("semirt-")
        .unwrap()
        .parse()
        .unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    match rustix::process::kill_process(pid, rustix::process::Signal::KILL) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(error) => panic!("kill {instance}: {error}"),
    }
}

fn code(result: Result<Answer, InferError>) -> ErrorCode {
    result.map(|answer| answer.outputs).unwrap_err().code()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keyservice_down_is_a_retryable_error_and_hot_models_do_not_notice() {
    let mut world = World::start(|_| {}).await;
    assert_eq!(world.ask_right().await.telemetry.path, StartKind::Cold);
    let mut keyservice = world.owner.keyservice(&world.cluster).await.unwrap();
    let other: ModelId = "other".parse().unwrap();
    world
        .owner
        .publish(&world.cluster, &mut keyservice, &other, &world.case)
        .await
        .unwrap();
    world.allow(&mut keyservice, &other).await;

    world.cluster.kill_keyservice().await;
    let error = world.ask(Duration::from_secs(2), &other).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::KeyserviceUnavailable, "{error:?}");
    assert!(error.retryable());
    assert_eq!(world.ask_right().await.telemetry.path, StartKind::Hot);

    // What was acknowledged is there again: grant, request key and version.
    world.cluster.restart_keyservice().await.unwrap();
    let answer = world.ask(PATIENCE, &other).await.unwrap();
    assert_eq!(answer.telemetry.path, StartKind::Warm);
    world.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_artifact_is_the_stores_fault_and_heals() {
    let world = World::start(|_| {}).await;
    let path = world
        .cluster
        .state()
        .store()
        .join(format!("{}.sesemi", world.digest));
    let aside = world.cluster.state().root().join("aside");
    std::fs::rename(&path, &aside).unwrap();
    let error = world
        .ask(Duration::from_secs(2), &world.model)
        .await
        .unwrap_err();
    assert_eq!(error.code(), ErrorCode::StoreUnavailable, "{error:?}");
    std::fs::rename(&aside, &path).unwrap();
    world.ask_right().await;
    world.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_truncated_artifact_is_refused_and_the_instance_lives_on() {
    let world = World::start(|_| {}).await;
    let path = world
        .cluster
        .state()
        .store()
        .join(format!("{}.sesemi", world.digest));
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    let refused = world.ask(Duration::from_secs(5), &world.model).await;
    assert_eq!(code(refused), ErrorCode::ArtifactMismatch);
    std::fs::write(&path, &whole).unwrap();
    assert_ne!(world.ask_right().await.telemetry.path, StartKind::Cold);
    world.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_grant_ends_with_the_lease() {
    let world = World::start(|options| options.lease_ttl_s = 1).await;
    world.ask_right().await;
    let mut keyservice = world.owner.keyservice(&world.cluster).await.unwrap();
    let user = world.user.principal();
    let revoked = keyservice
        .owner()
        .revoke(&world.model, &user, &world.enclave())
        .await
        .unwrap();
    assert!(revoked.revoked);
    assert!(revoked.effective_within_s <= 1, "{revoked:?}");
    let until = Instant::now() + PATIENCE;
    loop {
        match world.ask(Duration::from_secs(5), &world.model).await {
            Ok(_) => assert!(Instant::now() < until, "still served long after the lease"),
            Err(error) => {
                assert_eq!(error.code(), ErrorCode::NotGranted, "{error:?}");
                break;
            }
        }
    }
    // Granted again, it works again.
    keyservice
        .owner()
        .grant(&world.model, &user, &world.enclave())
        .await
        .unwrap();
    world.ask_right().await;
    world.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_is_killed_is_replaced() {
    let world = World::start(|_| {}).await;
    let first = world.ask_right().await.telemetry.instance;
    let pid: i32 = first
        .as_str()
        .strip_prefix("semirt-")
        .unwrap()
        .parse()
        .unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let answer = world.ask_right().await;
    assert_ne!(answer.telemetry.instance, first);
    assert_eq!(answer.telemetry.path, StartKind::Cold);
    world.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_in_flight_survive_the_death_of_their_instance() {
    let world = World::start(|_| {}).await;
    world.ask_right().await;
    let load = futures::future::join_all((0..8).map(|_| async {
        for _ in 0..50 {
            world.ask_right().await;
        }
    }));
    let killer = async {
        for _ in 0..3 {
            let instance = world.ask_right().await.telemetry.instance;
            kill(&instance);
        }
    };
    tokio::join!(load, killer);
    world.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hostile_model_fails_alone() {
    let world = World::start(|_| {}).await;
    world.ask_right().await;
    let hostile: ModelId = "hostile".parse().unwrap();
    let mut keyservice = world.owner.keyservice(&world.cluster).await.unwrap();
    let mut package =
        inference::pack::pack(&world.case.onnx, inference::pack::Check::AllowUnchecked).unwrap();
    // A valid package by its lengths, sealed by its owner, with a graph that is none.
    package.graph.iter_mut().for_each(|b| *b ^= 0x5a);
    let cluster = &world.cluster;
    world
        .owner
        .publish_package(cluster, &mut keyservice, &hostile, &package)
        .await
        .unwrap();
    world.allow(&mut keyservice, &hostile).await;
    assert_eq!(
        code(world.ask(Duration::from_secs(5), &hostile).await),
        ErrorCode::InvalidModel
    );
    assert_eq!(world.ask_right().await.telemetry.path, StartKind::Hot);
    world.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_input_is_named_to_the_user_only() {
    let world = World::start(|options| options.record = true).await;
    let wrong = Tensor::from_f32("x", vec![1, 29], &[0.25; 29]).unwrap();
    let client = world.client(PATIENCE);
    let error = client
        .infer(&world.model, &world.enclave(), &[wrong])
        .await
        .unwrap_err();
    let told = service::ErrorChain(&error).to_string();
    assert!(
        told.contains("expected shape [any, 30], got [1, 29]"),
        "{told}"
    );
    let unknown: ModelId = "nobody-has-this".parse().unwrap();
    let mut keyservice = world.user.keyservice(&world.cluster).await.unwrap();
    let owner = world.owner.principal();
    let enclave = world.enclave();
    let user = &world.user;
    user.register_request_key(&mut keyservice, &unknown, owner, &enclave)
        .await
        .unwrap();
    // Whether a model exists is not told to those who may not use it.
    assert_eq!(
        code(world.ask(Duration::from_secs(5), &unknown).await),
        ErrorCode::NotGranted
    );

    // The exact message was sealed: no file of the operator's has it, in no form.
    let mut needles = Needles::default();
    needles.add_bytes(b"expected shape [any, 30], got [1, 29]");
    assert!(!needles.forms(told.as_bytes()).is_empty());
    let seen = needles
        .search(&[
            &world.cluster.state().record(),
            &world.cluster.state().logs(),
        ])
        .unwrap();
    assert!(seen.bytes > 0, "nothing was recorded");
    assert_eq!(seen.leaks, []);
    world.cluster.stop().await;
}
