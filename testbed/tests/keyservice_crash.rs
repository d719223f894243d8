//! KeyService, killed with SIGKILL under concurrent writes again and again: after each restart
//! every acknowledged write is there, nothing else is, and repeating the write under way is safe.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a panic is how a test reports"
)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use attestation::measured::MeasuredConfig;
use attestation::{
    Allowed, AppraisalPolicy, ClientIdentity, RelyingParty, Tee, VerifierSet, enclave_id,
};
use crypto::IdentityKey;
use protocol::keyservice::{RegisterModel, RegisterRequestKey, WireKey};
use protocol::measured::KeyserviceMeasured;
use protocol::{Digest, EnclaveId, ModelId, ModelVersion, PrincipalId};
use testbed::processes::Part;
use testbed::simulated_tee::SimulatedHardware;
use tokio::sync::watch;
use tokio::task::JoinSet;
use transport::{CallError, KeyserviceClient, connect};

const EXE: &str = env!("CARGO_BIN_EXE_sesemi-dev");
const MEASURED: KeyserviceMeasured = KeyserviceMeasured { lease_ttl_s: 60 };
const WRITERS: u8 = 8;
/// Acknowledgements after which the process is killed, round by round.
const KILL_AFTER: [usize; 6] = [1, 60, 3, 120, 25, 200];
const WAIT: Duration = Duration::from_secs(60);
const NOW: Duration = Duration::from_secs(1_790_000_000);

/// The machine: what outlives the process.
struct Machine {
    folder: tempfile::TempDir,
    relying: Arc<RelyingParty>,
}

impl Machine {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let hardware = SimulatedHardware::open(&folder.path().join("hardware")).unwrap();
        let measured = MeasuredConfig::keyservice(
            &MEASURED,
            &AppraisalPolicy::strict(vec![Tee::Simulated], Allowed::Any),
        )
        .unwrap();
        let measurements = hardware.measure(Path::new(EXE)).unwrap();
        let e_k = enclave_id(&measurements, &measured.hash());
        let relying = Arc::new(RelyingParty {
            verifiers: VerifierSet::new(vec![Arc::new(hardware.verifier())]),
            policy: AppraisalPolicy::strict(vec![Tee::Simulated], Allowed::These(vec![e_k])),
        });
        let machine = Self { folder, relying };
        let config = format!(
            "listen = \"127.0.0.1:0\"\nstate_dir = {:?}\n[measured]\nlease_ttl_s = {}\n\
             [policy]\nversion = 1\naccepted = [\"simulated\"]\nenclaves = \"any\"\n",
            machine.path("state"),
            MEASURED.lease_ttl_s
        );
        std::fs::write(machine.path("keyservice.toml"), config).unwrap();
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    async fn start(&self) -> Part {
        let (config, hardware) = (self.path("keyservice.toml"), self.path("hardware"));
        let arguments = [
            "role",
            "keyservice",
            "--config",
            config.to_str().unwrap(),
            "--hardware",
            hardware.to_str().unwrap(),
        ];
        let logs = self.folder.path();
        Part::start("keyservice", Path::new(EXE), &arguments, logs)
            .await
            .unwrap_or_else(|error| {
                let log = std::fs::read_to_string(self.path("keyservice.log")).unwrap_or_default();
                panic!("{error}\n{log}")
            })
    }
}

/// One owner, who is also a user, and how many of the fixed series of writes were acknowledged.
struct Writer {
    name: u8,
    key: IdentityKey,
    acknowledged: u32,
}

fn user(n: u32) -> PrincipalId {
    let mut id = [0; 32];
    id[..4].copy_from_slice(&n.to_be_bytes());
    PrincipalId::new(id)
}

fn enclave() -> EnclaveId {
    EnclaveId::new([0xe5; 48])
}

/// What the first `writes` writes of a series leave.
#[derive(Debug, Default, PartialEq, Eq)]
struct Expected {
    versions: BTreeSet<(u32, Digest)>,
    grants: BTreeSet<PrincipalId>,
    request_keys: BTreeSet<ModelId>,
    revocations: u64,
}

impl Expected {
    fn after(writer: &Writer, writes: u32) -> Self {
        let mut expected = Self::default();
        for n in 0..writes {
            match n % 5 {
                0 => drop(expected.versions.insert((n + 1, digest(n)))),
                1 => drop(expected.grants.insert(user(n))),
                2 => drop(expected.request_keys.insert(writer.other_model(n))),
                3 => {
                    assert!(expected.grants.remove(&user(n - 2)));
                    expected.revocations += 1;
                }
                _ => drop(expected.grants.insert(user(n))),
            }
        }
        expected
    }
}

fn digest(n: u32) -> Digest {
    crypto::sha256(&n.to_be_bytes())
}

impl Writer {
    fn model(&self) -> ModelId {
        format!("model-{}", self.name).parse().unwrap()
    }

    fn other_model(&self, n: u32) -> ModelId {
        format!("asked-{}-{n}", self.name).parse().unwrap()
    }

    async fn client(&self, part: &Part, relying: &Arc<RelyingParty>) -> KeyserviceClient {
        let who = ClientIdentity::principal(&self.key).unwrap();
        let addr = part.addr().to_string();
        KeyserviceClient::new(connect(&addr, &who, relying, NOW, WAIT).await.unwrap())
    }

    /// The `n`th write of the series.
    async fn write(&self, client: &mut KeyserviceClient, n: u32) -> Result<(), CallError> {
        let (model, key) = (self.model(), WireKey::new(&[self.name; 32]));
        match n % 5 {
            0 => {
                let body = RegisterModel {
                    digest: digest(n),
                    key,
                };
                client
                    .register_model(&model, ModelVersion(n + 1), &body)
                    .await
                    .map(drop)
            }
            2 => {
                let body = RegisterRequestKey {
                    owner: self.key.principal(),
                    key,
                    policy: None,
                };
                let model = self.other_model(n);
                client
                    .register_request_key(&model, &enclave(), &body)
                    .await
                    .map(drop)
            }
            3 => client
                .revoke(&model, &user(n - 2), &enclave())
                .await
                .map(drop),
            _ => client.grant(&model, &user(n), &enclave()).await.map(drop),
        }
    }

    /// Writes until the connection breaks, counting acknowledgements.
    async fn write_on(
        mut self,
        mut client: KeyserviceClient,
        count: watch::Sender<usize>,
    ) -> (Self, CallError) {
        loop {
            match self.write(&mut client, self.acknowledged).await {
                Ok(()) => {
                    self.acknowledged += 1;
                    count.send_modify(|count| *count += 1);
                }
                Err(error) => return (self, error),
            }
        }
    }

    /// Compares what is there with what was acknowledged; one more write, which was under way,
    /// may be there as well. Returns the number of writes found, and of revocations among them.
    async fn verify(&self, client: &mut KeyserviceClient) -> (u32, u64) {
        let model = self.model();
        let mut found = Expected::default();
        let all = client.list_models().await.unwrap().models;
        found.versions = all
            .iter()
            .map(|record| (record.version.0, record.digest))
            .collect();
        if !all.is_empty() {
            let grants = client.grants(&model).await.unwrap().grants;
            found.grants = grants.iter().map(|grant| grant.user).collect();
        }
        let keys = client.request_keys().await.unwrap().request_keys;
        found.request_keys = keys.into_iter().map(|record| record.model).collect();

        let log = client.log().await.unwrap().entries;
        assert!(
            log.is_sorted_by(|a, b| a.seq < b.seq),
            "the log is out of order"
        );
        let revoked = log.iter().filter(|entry| entry.event == "revoked").count();
        found.revocations = u64::try_from(revoked).unwrap();

        let writes = [self.acknowledged, self.acknowledged + 1]
            .into_iter()
            .find(|writes| Expected::after(self, *writes) == found)
            .unwrap_or_else(|| {
                let expected = Expected::after(self, self.acknowledged);
                panic!(
                    "writer {}: acknowledged {expected:#?}, found {found:#?}",
                    self.name
                )
            });
        // One log entry for each write.
        assert_eq!(log.len(), usize::try_from(writes).unwrap());
        (writes, found.revocations)
    }
}

/// Checks every writer's state, then repeats the write that was under way.
async fn verify_all(writers: &mut [Writer], part: &Part, relying: &Arc<RelyingParty>) {
    let mut revocations = 0;
    let mut epoch = 0;
    for writer in writers.iter() {
        let mut client = writer.client(part, relying).await;
        revocations += writer.verify(&mut client).await.1;
        epoch = client.status().await.unwrap().epoch;
        assert_eq!(
            client.channel().epoch(),
            epoch,
            "the gate tells another epoch"
        );
    }
    assert_eq!(epoch, 1 + revocations, "the epoch counts every revocation");
    for writer in writers {
        let mut client = writer.client(part, relying).await;
        writer
            .write(&mut client, writer.acknowledged)
            .await
            .expect("repeating is safe");
        writer.acknowledged += 1;
        assert_eq!(writer.verify(&mut client).await.0, writer.acknowledged);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledged_write_is_lost() {
    let machine = Machine::new();
    let mut writers: Vec<Writer> = (0..WRITERS)
        .map(|name| Writer {
            name,
            key: IdentityKey::generate().unwrap(),
            acknowledged: 0,
        })
        .collect();
    let mut total = 0;
    for (round, kill_after) in KILL_AFTER.into_iter().enumerate() {
        let mut part = machine.start().await;
        if round > 0 {
            verify_all(&mut writers, &part, &machine.relying).await;
        }
        let (count, mut counted) = watch::channel(0);
        let mut writing = JoinSet::new();
        for writer in std::mem::take(&mut writers) {
            let client = writer.client(&part, &machine.relying).await;
            writing.spawn(writer.write_on(client, count.clone()));
        }
        let enough = counted.wait_for(|count| *count >= kill_after);
        tokio::time::timeout(WAIT, enough)
            .await
            .expect("the writers get on")
            .unwrap();
        part.kill().await;
        while let Some(ended) = writing.join_next().await {
            let (writer, error) = ended.unwrap();
            assert!(error.retryable(), "writer {}: {error:?}", writer.name);
            writers.push(writer);
        }
        writers.sort_by_key(|writer| writer.name);
        let acknowledged = *count.borrow();
        total += acknowledged;
        eprintln!("round {round}: killed after {acknowledged} acknowledged writes");
    }
    assert!(total > 400);

    let part = machine.start().await;
    verify_all(&mut writers, &part, &machine.relying).await;
    part.stop().await;
}
