//! The whole system as processes, started once for all tests that need it.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use attestation::{
    Allowed, AppraisalPolicy, CheckName, ClientIdentity, RelyingParty, Tee, VerifierSet,
};
use crypto::{IdentityKey, RequestKey};
use protocol::invoke::{RoutedResponse, SealedRequest};
use protocol::keyservice::RegisterRequestKey;
use protocol::measured::SemirtMeasured;
use protocol::oip::InferRequest;
use protocol::tensor::Tensor;
use protocol::{Digest, EnclaveId, ErrorCode, ModelId, PrincipalId};
use sdk::RetryPolicy;
use sdk::gateway::{Gateway, GatewayError};
use sdk::infer::{Answer, InferError, PendingAnswer};
use service::{Shutdown, SystemClock};
use tempfile::TempDir;
use testbed::cluster::{Cluster, Options};
use testbed::demo::cases::{Case, shipped};
use testbed::demo::parties::Person;
use testbed::simulated_tee::SimulatedHardware;
use testbed::state::StateFolder;
use tokio::runtime::Runtime;
use transport::{Channel, ConnectError, KeyserviceClient, connect};

/// Longest wait for something that has to happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// Every lease, in seconds: short, so that what ends with it ends within a test.
pub(crate) const LEASE_S: u32 = 1;
/// Evidence of the simulated TEE has no dates.
pub(crate) const NOW: Duration = Duration::from_secs(1_790_000_000);

/// One system, an owner with a model, and a user who may use it.
pub(crate) struct World {
    pub(crate) cluster: Cluster,
    pub(crate) owner: Person,
    pub(crate) user: Person,
    pub(crate) model: ModelId,
    pub(crate) case: Case,
    pub(crate) digest: Digest,
    // Dropped last: the parts write into it.
    pub(crate) folder: TempDir,
}

type Test = Box<dyn FnOnce(&Runtime, &mut Option<World>) + Send>;

/// Tests that have come and not gone: the last one out ends the system.
static USERS: AtomicUsize = AtomicUsize::new(0);

/// The thread that runs these tests, one after the other. It lives as long as the process: the
/// kernel ends a part of the system with the thread that started it.
fn operator() -> Sender<Test> {
    static OPERATOR: OnceLock<Mutex<Sender<Test>>> = OnceLock::new();
    let start = || {
        let (give, take) = channel::<Test>();
        std::thread::spawn(move || {
            let runtime = Runtime::new().unwrap();
            let mut world = None;
            for test in take {
                test(&runtime, &mut world);
            }
        });
        Mutex::new(give)
    };
    OPERATOR.get_or_init(start).lock().unwrap().clone()
}

/// Runs a test against the system, which is started for the first one.
pub(crate) fn on_world(test: impl AsyncFnOnce(&mut World) + Send + 'static) {
    USERS.fetch_add(1, Ordering::SeqCst);
    let (tell, told) = channel();
    let run: Test = Box::new(move |runtime, world| {
        let attempt = AssertUnwindSafe(|| {
            runtime.block_on(async {
                let world = match world {
                    Some(world) => world,
                    None => world.insert(World::start().await),
                };
                test(world).await;
            });
        });
        let result = catch_unwind(attempt);
        if USERS.fetch_sub(1, Ordering::SeqCst) == 1 || result.is_err() {
            let _context = runtime.enter();
            *world = None;
        }
        tell.send(result).unwrap();
    });
    operator().send(run).unwrap();
    if let Err(panic) = told.recv().unwrap() {
        resume_unwind(panic);
    }
}

impl World {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut options = Options::new(PathBuf::from(env!("CARGO_BIN_EXE_sesemi-dev")));
        options.lease_ttl_s = LEASE_S;
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
            folder,
        };
        world.allow(&world.model).await;
        world
    }

    pub(crate) fn enclave(&self) -> EnclaveId {
        self.cluster.identities().semirt
    }

    /// The owner's grant and the user's request key.
    pub(crate) async fn allow(&self, model: &ModelId) {
        let cluster = &self.cluster;
        let enclave = cluster.identities().semirt;
        let mut keyservice = self.owner.keyservice(cluster).await.unwrap();
        keyservice
            .owner()
            .grant(model, &self.user.principal(), &enclave)
            .await
            .unwrap();
        let mut keyservice = self.user.keyservice(cluster).await.unwrap();
        let owner = self.owner.principal();
        self.user
            .register_request_key(&mut keyservice, model, owner, &enclave)
            .await
            .unwrap();
    }

    /// Somebody new, who knows the system and may do nothing.
    pub(crate) fn stranger(&self, name: &str) -> Person {
        Person::at(self.folder.path().join(name)).unwrap()
    }

    /// The identity key of somebody, to speak without the SDK.
    pub(crate) fn identity(&self, name: &str) -> IdentityKey {
        IdentityKey::read_file(&self.folder.path().join(name).join("identity.pem")).unwrap()
    }

    /// What a client of this system appraises KeyService with.
    pub(crate) fn relying(&self, enclaves: Allowed) -> Arc<RelyingParty> {
        let cluster = &self.cluster;
        Arc::new(RelyingParty {
            verifiers: cluster.verifiers(),
            policy: AppraisalPolicy::strict(vec![Tee::Simulated], enclaves),
        })
    }

    /// Pins this system's KeyService.
    pub(crate) fn pinned(&self) -> Arc<RelyingParty> {
        let enclave = self.cluster.identities().keyservice;
        self.relying(Allowed::These(vec![enclave]))
    }

    pub(crate) fn keyservice_addr(&self) -> String {
        self.cluster.keyservice()
    }

    /// A channel to whatever listens at `addr`.
    pub(crate) async fn channel(
        &self,
        addr: &str,
        who: &ClientIdentity,
        relying: &Arc<RelyingParty>,
    ) -> Result<Channel, ConnectError> {
        connect(addr, who, relying, NOW, PATIENCE).await
    }

    /// KeyService's API as `who`.
    pub(crate) async fn client(&self, who: &ClientIdentity) -> KeyserviceClient {
        let addr = self.keyservice_addr();
        let channel = self.channel(&addr, who, &self.pinned()).await;
        KeyserviceClient::new(channel.unwrap())
    }

    /// The TEE's vendor. This test is an executable of its own, so to the vendor it is a genuine
    /// enclave with another measurement: the attacker's.
    pub(crate) fn hardware(&self) -> SimulatedHardware {
        SimulatedHardware::open(&self.cluster.state().hardware()).unwrap()
    }

    /// The measured configuration of the genuine SeMIRT.
    pub(crate) fn semirt_measured(&self) -> SemirtMeasured {
        #[derive(serde::Deserialize)]
        struct File {
            measured: SemirtMeasured,
        }
        let path = self.cluster.state().config();
        let text = std::fs::read_to_string(path.join("semirt.toml")).unwrap();
        toml::from_str::<File>(&text).unwrap().measured
    }

    /// An instance that runs the attacker's build with the very configuration of the genuine one.
    pub(crate) fn attackers_instance(&self) -> ClientIdentity {
        let config = crate::lab::measured_config(self.semirt_measured());
        let attester = Arc::new(self.hardware().attester().unwrap());
        ClientIdentity::Instance(crate::lab::tls_identity(attester, config))
    }

    /// A KeyService that the attacker runs in this process: its own build, its own state.
    pub(crate) async fn attackers_keyservice(&self, verifiers: VerifierSet) -> Impostor {
        let folder = tempfile::tempdir().unwrap();
        let config = keyservice::Config {
            listen: ([127, 0, 0, 1], 0).into(),
            state_dir: folder.path().join("state"),
            measured: crate::lab::keyservice_measured(LEASE_S),
            policy: crate::lab::of_instances(),
            endorsements: Default::default(),
            limits: keyservice::broker::Limits::default(),
            connections: 16,
        };
        let attester = Arc::new(self.hardware().attester().unwrap());
        let shutdown = Shutdown::new();
        let clock = Arc::new(SystemClock::default());
        let running = keyservice::run(&config, attester, verifiers, clock, &shutdown)
            .await
            .unwrap();
        Impostor {
            addr: running.addr.to_string(),
            shutdown,
            _folder: folder,
        }
    }

    /// Registers `key` for (user, model), so that tests can give two places the same key.
    pub(crate) async fn register_key(&self, who: &IdentityKey, model: &ModelId, key: &RequestKey) {
        let who = ClientIdentity::principal(who).unwrap();
        let body = RegisterRequestKey {
            owner: self.owner.principal(),
            key: key.to_wire(),
            policy: None,
        };
        let enclave = self.enclave();
        self.client(&who)
            .await
            .register_request_key(model, &enclave, &body)
            .await
            .unwrap();
    }

    pub(crate) fn row(&self, i: usize) -> (Vec<Tensor>, Vec<Tensor>) {
        self.case.row(i).unwrap()
    }

    /// Seals the first row's request under `key`.
    pub(crate) fn seal(
        &self,
        key: &RequestKey,
        user: PrincipalId,
        model: &ModelId,
    ) -> PendingAnswer {
        let payload = InferRequest {
            inputs: self.row(0).0,
        }
        .encode()
        .unwrap();
        PendingAnswer::seal(key, user, model, self.enclave(), &payload).unwrap()
    }

    /// A request of the user to the model, as the SDK seals it.
    pub(crate) fn sealed(&self) -> PendingAnswer {
        let enclave = self.enclave();
        let key = self.user.request_key(&self.model, &enclave).unwrap();
        self.seal(&key, self.user.principal(), &self.model)
    }

    /// What the host does with a request: hands it on.
    pub(crate) async fn send(
        &self,
        request: &SealedRequest,
    ) -> Result<RoutedResponse, GatewayError> {
        let url = self.cluster.fnpacker_url();
        Gateway::new(&url).unwrap().infer(request, PATIENCE).await
    }

    /// Asks through the SDK.
    pub(crate) async fn ask(
        &self,
        who: &Person,
        model: &ModelId,
        inputs: &[Tensor],
    ) -> Result<Answer, InferError> {
        let cluster = &self.cluster;
        let retry = RetryPolicy::with_deadline(PATIENCE);
        let client = who.client(cluster, retry).unwrap();
        client
            .infer(model, &cluster.identities().semirt, inputs)
            .await
    }

    /// Asks, and checks that the answer is right: the attack did not just break everything.
    pub(crate) async fn still_right(&self) {
        let (inputs, expected) = self.row(0);
        let answer = self.ask(&self.user, &self.model, &inputs).await.unwrap();
        assert!(Case::is_right(&expected, &answer.outputs));
    }
}

/// The attacker's KeyService; it ends when it is dropped.
pub(crate) struct Impostor {
    pub(crate) addr: String,
    shutdown: Shutdown,
    _folder: TempDir,
}

impl Drop for Impostor {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// The code with which the untrusted side's path refused.
pub(crate) fn code<T: std::fmt::Debug>(result: Result<T, GatewayError>) -> ErrorCode {
    use sdk::Explain as _;
    result.unwrap_err().code()
}

/// The check at which a client refused a KeyService.
pub(crate) fn refused_at(result: Result<Channel, ConnectError>) -> CheckName {
    match result {
        Err(ConnectError::NotAttested {
            source: attestation::GateError::Appraise(error),
            ..
        }) => error.failed(),
        other => panic!("{other:?}"),
    }
}
