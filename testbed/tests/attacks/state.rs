//! The host's attacks on what KeyService decides by: its policy, its records, all of its state.

use std::path::Path;
use std::sync::Arc;

use attestation::measured::MeasuredConfig;
use attestation::policy::ReferenceMeasurements;
use attestation::reference::{ReferenceError, ReferenceValues, Trusted};
use attestation::testing::SoftTee;
use attestation::{Allowed, AppraisalPolicy, CheckName, ClientIdentity, Tee, VerifierSet};
use crypto::{IdentityKey, ModelKey, open_record};
use keyservice::vault::OpenVaultError;
use protocol::keyservice::RegisterModel;
use protocol::{Digest, EnclaveId, ErrorCode, ModelId, ModelVersion, PrincipalId};
use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};
use sdk::Explain as _;
use sdk::RetryPolicy;
use sdk::epochs::{EpochError, EpochMemory};
use sdk::keyservice::{Keyservice, KeyserviceError, PinnedKeyservice};
use sdk::wall_time::WallTime;
use service::{Shutdown, SystemClock};
use transport::{CallError, KeyserviceClient, connect};

use crate::lab::{KEYSERVICE, Lab, failed, keyservice_measured, of_instances, sent, user};
use crate::network::{code_of, semirt_pointed_at};
use crate::world::{NOW, PATIENCE, World, on_world};

const ROWS: TableDefinition<'static, u64, &'static [u8]> = TableDefinition::new("rows");

/// A KeyService in this process, on the vendor in software.
struct Service {
    tee: SoftTee,
    addr: String,
    enclave: EnclaveId,
    shutdown: Shutdown,
}

async fn serve(state: &Path) -> Result<Service, keyservice::RunError> {
    serve_by(state, of_instances()).await
}

async fn serve_by(state: &Path, policy: AppraisalPolicy) -> Result<Service, keyservice::RunError> {
    let tee = SoftTee::new(1);
    let config = keyservice::Config {
        listen: ([127, 0, 0, 1], 0).into(),
        state_dir: state.into(),
        measured: keyservice_measured(60),
        policy,
        endorsements: Default::default(),
        limits: keyservice::broker::Limits::default(),
        connections: 16,
    };
    let shutdown = Shutdown::new();
    let verifiers = VerifierSet::new(vec![tee.verifier()]);
    let clock = Arc::new(SystemClock::default());
    let attester = tee.attester(KEYSERVICE);
    let running = keyservice::run(&config, attester, verifiers, clock, &shutdown).await?;
    Ok(Service {
        tee,
        addr: running.addr.to_string(),
        enclave: running.enclave,
        shutdown,
    })
}

impl Service {
    async fn client(&self, who: &IdentityKey) -> KeyserviceClient {
        let who = ClientIdentity::principal(who).unwrap();
        let relying = self.tee.relying(Allowed::These(vec![self.enclave]));
        let channel = connect(&self.addr, &who, &relying, NOW, PATIENCE).await;
        KeyserviceClient::new(channel.unwrap())
    }

    async fn stop(self) {
        self.shutdown.cancel();
        assert!(self.shutdown.wait(PATIENCE).await);
    }
}

fn rows(file: &Path) -> Vec<(u64, Vec<u8>)> {
    let database = Database::open(file).unwrap();
    let transaction = database.begin_read().unwrap();
    let table = transaction.open_table(ROWS).unwrap();
    let read = |row: Result<(redb::AccessGuard<'_, u64>, redb::AccessGuard<'_, &[u8]>), _>| {
        let (slot, value) = row.unwrap();
        (slot.value(), value.value().to_vec())
    };
    table.iter().unwrap().map(read).collect()
}

fn code<T: std::fmt::Debug>(result: Result<T, CallError>) -> ErrorCode {
    match result {
        Err(CallError::Remote(error)) => error.code,
        other => panic!("{other:?}"),
    }
}

/// A KeyService that takes the caller's word for who it is, as when the id is a field of the request.
fn allowed_by_word(claimed: &PrincipalId, owner: &PrincipalId) -> bool {
    claimed == owner
}

#[tokio::test]
async fn attack_15_changed_policy() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let (owner, stranger) = (
        IdentityKey::generate().unwrap(),
        IdentityKey::generate().unwrap(),
    );
    let (model, enclave): (ModelId, _) = ("m".parse().unwrap(), EnclaveId::new([5; 48]));

    // A grant that its owner did not make: who asks is who has the key, not who says so.
    let service = serve(&state).await.unwrap();
    let mut owners = service.client(&owner).await;
    let body = RegisterModel {
        digest: Digest::new([1; 32]),
        key: ModelKey::generate().unwrap().to_wire(),
    };
    owners
        .register_model(&model, ModelVersion(1), &body)
        .await
        .unwrap();
    assert!(allowed_by_word(&owner.principal(), &owner.principal()));
    let mut strangers = service.client(&stranger).await;
    let granted = strangers
        .grant(&model, &stranger.principal(), &enclave)
        .await;
    assert_eq!(code(granted), ErrorCode::NotFound);

    // A record of the allow-list put back by the host: each opens on its own, all of them do not fit.
    owners
        .grant(&model, &stranger.principal(), &enclave)
        .await
        .unwrap();
    drop((owners, strangers));
    let sealing = service.tee.attester(KEYSERVICE).sealing_key().unwrap();
    let measured = MeasuredConfig::keyservice(&keyservice_measured(60), &of_instances()).unwrap();
    let sealing = sealing.bound_to(measured.hash().as_bytes()).unwrap();
    service.stop().await;
    // The same code with a weaker policy on the same state: the state is not its.
    let mut lax = of_instances();
    lax.allow_debug = true;
    let refused = serve_by(&state, lax).await.map(drop);
    assert!(
        matches!(
            refused,
            Err(keyservice::RunError::State(_) | keyservice::RunError::Memory(_))
        ),
        "{refused:?}"
    );
    let file = state.join("vault.redb");
    let with_grant = rows(&file);
    let service = serve(&state).await.unwrap();
    let mut owners = service.client(&owner).await;
    owners
        .revoke(&model, &stranger.principal(), &enclave)
        .await
        .unwrap();
    let log = owners.log().await.unwrap();
    assert_eq!(log.entries.last().unwrap().event, "revoked", "it is logged");
    drop(owners);
    service.stop().await;
    let without: Vec<_> = rows(&file).into_iter().map(|(slot, _)| slot).collect();
    let (slot, grant) = with_grant
        .into_iter()
        .find(|(slot, _)| !without.contains(slot))
        .unwrap();
    // Weakened: a store that checks record by record takes the old grant for a good one.
    let (epoch, record) = grant.split_first_chunk().unwrap();
    let id = [b"row/".as_slice(), &slot.to_be_bytes()].concat();
    open_record(&sealing, &id, u64::from_be_bytes(*epoch), record).unwrap();
    {
        let database = Database::open(&file).unwrap();
        let transaction = database.begin_write().unwrap();
        transaction
            .open_table(ROWS)
            .unwrap()
            .insert(slot, grant.as_slice())
            .unwrap();
        transaction.commit().unwrap();
    }
    let refused = serve(&state).await.map(drop).unwrap_err();
    let told = service::ErrorChain(&refused).to_string();
    assert!(
        told.contains(&OpenVaultError::RowsChanged.to_string()),
        "{told}"
    );

    bundles(&owner, &stranger);

    weakened_by_the_operator();
}

/// The operator's own policy, weakened: it is another KeyService then, and clients refuse it.
fn weakened_by_the_operator() {
    let mut lax = of_instances();
    lax.allow_debug = true;
    let measured = keyservice_measured(60);
    let lax = MeasuredConfig::keyservice(&measured, &lax).unwrap();
    let lab = Lab::new();
    let weakened = crate::lab::tls_identity(lab.tee.attester(KEYSERVICE), lax);
    let who = user();
    let tls = Lab::connect(&who, &weakened);
    let (mut client, hello) = lab.client_gate(&tls);
    let answer = sent(lab.server_gate(&tls, &weakened).on_frame(&hello).unwrap());
    // Weakened: a client that pins the code alone.
    let frame = crate::lab::ServerFrame::read(&answer);
    let said = lab.tee.verifier().read(&frame.evidence).unwrap();
    let genuine = lab.tee.verifier().read(&lab.public_evidence()).unwrap();
    assert_eq!(said.measurements, genuine.measurements);
    assert_eq!(failed(client.on_frame(&answer)), CheckName::Enclave);
}

/// A publisher's list of reference values, by somebody else, or the one from before a recall.
fn bundles(publisher: &IdentityKey, stranger: &IdentityKey) {
    let values = |version, enclave| ReferenceValues {
        series: "semirt".into(),
        version,
        not_before: 0,
        not_after: 2 * NOW.as_secs(),
        enclaves: Some(vec![EnclaveId::new([enclave; 48])]),
        measurements: ReferenceMeasurements::default(),
    };
    let trusted = |signer: &IdentityKey, seen| Trusted {
        signer: signer.principal(),
        series: "semirt".into(),
        seen,
    };
    let recalled = values(1, 0xbd).sign(publisher).unwrap();
    let forged = values(3, 0xbd).sign(stranger).unwrap();
    let open = |bundle: &[u8], trusted| ReferenceValues::open(bundle, &trusted, NOW);
    // Weakened: whoever signed it is the publisher; nobody remembers the version.
    open(&forged, trusted(stranger, 2)).unwrap();
    open(&recalled, trusted(publisher, 0)).unwrap();
    assert!(matches!(
        open(&forged, trusted(publisher, 2)),
        Err(ReferenceError::Signer { .. })
    ));
    assert!(matches!(
        open(&recalled, trusted(publisher, 2)),
        Err(ReferenceError::RolledBack { got: 1, seen: 2 })
    ));
    // And no list makes a policy wider.
    let pinned = Allowed::These(vec![EnclaveId::new([1; 48])]);
    let policy = AppraisalPolicy::strict(vec![Tee::Simulated], pinned);
    let narrowed = values(2, 0xbd).narrow(&policy);
    assert_eq!(narrowed.enclaves, Allowed::These(Vec::new()));
}

/// The SDK's connection, as somebody who remembers epochs in `memory`.
async fn remembering(
    world: &World,
    who: &IdentityKey,
    memory: &Path,
) -> Result<Keyservice, KeyserviceError> {
    let pinned = PinnedKeyservice::new(
        world.cluster.keyservice(),
        world.cluster.identities().keyservice,
        vec![Tee::Simulated],
        world.cluster.verifiers(),
    );
    let retry = RetryPolicy::with_deadline(PATIENCE);
    let epochs = EpochMemory::new(memory);
    Keyservice::connect(pinned, who, epochs, retry, WallTime::system()).await
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[test]
fn attack_20_rolled_back_state() {
    on_world(async |world| {
        let who = world.identity("owner");
        let folder = world.folder.path().to_owned();
        let (state, old, new) = (
            world.cluster.state().root().join("keyservice"),
            folder.join("old-state"),
            folder.join("new-state"),
        );
        let (remembers, forgets) = (folder.join("remembers.json"), folder.join("forgets.json"));
        let stranger = world.stranger("rollback").principal();
        let (model, enclave) = (world.model.clone(), world.enclave());

        let mut keyservice = remembering(world, &who, &remembers).await.unwrap();
        let granted = keyservice.owner().grant(&model, &stranger, &enclave).await;
        granted.unwrap();
        world.cluster.kill_keyservice().await;
        copy(&state, &old);
        world.cluster.restart_keyservice().await.unwrap();
        // The revocation, which the host will undo.
        let revoked = keyservice.owner().revoke(&model, &stranger, &enclave).await;
        assert!(revoked.unwrap().revoked);
        // A revocation raises the epoch; the next connection sees it, and remembers.
        drop(remembering(world, &who, &remembers).await.unwrap());
        // So does an instance: here one that gets no keys, but has been told the epoch.
        let (addr, e_k) = (
            world.keyservice_addr(),
            world.cluster.identities().keyservice,
        );
        let instance = semirt_pointed_at(world, &addr, e_k).await;
        let refused = code_of(&instance, world).await;
        assert_eq!(refused, ErrorCode::EnclaveNotAllowed);
        world.cluster.kill_keyservice().await;
        copy(&state, &new);
        copy(&old, &state);
        world.cluster.restart_keyservice().await.unwrap();

        // Weakened: a client without a memory finds the revoked grant alive.
        let mut deceived = remembering(world, &who, &forgets).await.unwrap();
        let alive = deceived.owner().grants(&model).await.unwrap();
        assert!(alive.grants.iter().any(|grant| grant.user == stranger));
        let refused = remembering(world, &who, &remembers).await.unwrap_err();
        assert!(
            matches!(
                refused,
                KeyserviceError::Epoch(EpochError::RolledBack { .. })
            ),
            "{refused:?}"
        );
        assert_eq!(refused.code(), ErrorCode::NotAttested);
        // Weakened: an instance that has just started remembers nothing, and asks.
        let newborn = semirt_pointed_at(world, &addr, e_k).await;
        assert_eq!(code_of(&newborn, world).await, ErrorCode::EnclaveNotAllowed);
        assert_eq!(code_of(&instance, world).await, ErrorCode::NotAttested);

        world.cluster.kill_keyservice().await;
        copy(&new, &state);
        world.cluster.restart_keyservice().await.unwrap();
        remembering(world, &who, &remembers).await.unwrap();
        world.still_right().await;
    });
}
