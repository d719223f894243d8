//! A vendor in software, one KeyService, one SeMIRT build, and what every attacker has: eyes on the
//! wire, certificates of others, enclaves of its own.

use std::sync::Arc;
use std::time::Duration;

use attestation::measured::MeasuredConfig;
use attestation::testing::{SoftEnclave, SoftTee, frames};
use attestation::{
    Allowed, AppraisalPolicy, Attester, Binder, CheckName, ClientGate, ClientIdentity,
    CollectError, Endorsements, Established, Evidence, GateError, Peer, RatlsIdentity,
    RelyingParty, Scorecard, ServerGate, Step, Subject, Tee, Verifier, client_config, enclave_id,
    server_config,
};
use crypto::{IdentityKey, SealingKey};
use protocol::EnclaveId;
use protocol::measured::{Isolation, KeyserviceMeasured, SemirtMeasured};
use protocol::package::EngineName;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use rustls::{ClientConnection, ServerConnection};

pub(crate) const KEYSERVICE: SoftEnclave = SoftEnclave::new(0x4b);
pub(crate) const SEMIRT: SoftEnclave = SoftEnclave::new(0x53);
/// Genuine, and the attacker's.
pub(crate) const OTHER: SoftEnclave = SoftEnclave::new(0x99);
pub(crate) const EPOCH: u64 = 5;

pub(crate) fn keyservice_measured(lease_ttl_s: u32) -> KeyserviceMeasured {
    KeyserviceMeasured { lease_ttl_s }
}

/// Whom a KeyService gives keys to: any production enclave, since grants name them.
pub(crate) fn of_instances() -> AppraisalPolicy {
    AppraisalPolicy::strict(vec![Tee::Simulated], Allowed::Any)
}

pub(crate) fn keyservice_config() -> MeasuredConfig {
    MeasuredConfig::keyservice(&keyservice_measured(60), &of_instances()).unwrap()
}

pub(crate) fn semirt_measured(keyservice: EnclaveId, isolation: Isolation) -> SemirtMeasured {
    SemirtMeasured {
        isolation,
        concurrency: 1,
        key_ttl_s: 60,
        model_memory: 64 << 20,
        engines: vec![EngineName::Rten],
        keyservice,
    }
}

/// The configuration that an instance is measured with.
pub(crate) fn measured_config(measured: SemirtMeasured) -> MeasuredConfig {
    let host = semirt::config::HostSettings::default();
    let config = semirt::Config::new(measured, host).unwrap();
    MeasuredConfig::semirt(config.measured(), &config.policy()).unwrap()
}

pub(crate) fn semirt_config(keyservice: EnclaveId) -> MeasuredConfig {
    measured_config(semirt_measured(keyservice, Isolation::Shared))
}

/// E_K of [`KEYSERVICE`].
pub(crate) fn e_k() -> EnclaveId {
    SoftTee::enclave_id(KEYSERVICE, &keyservice_config())
}

pub(crate) fn user() -> ClientIdentity {
    ClientIdentity::principal(&IdentityKey::generate().unwrap()).unwrap()
}

/// One vendor; the genuine KeyService; clients that pin it, and a KeyService that takes any enclave.
pub(crate) struct Lab {
    pub(crate) tee: SoftTee,
    pub(crate) keyservice: Arc<RatlsIdentity>,
    pub(crate) at_client: Arc<RelyingParty>,
    pub(crate) at_server: Arc<RelyingParty>,
}

/// Both ends of a finished TLS handshake.
pub(crate) struct Tls {
    pub(crate) client: ClientConnection,
    pub(crate) server: ServerConnection,
    pub(crate) who: ClientIdentity,
}

impl Lab {
    pub(crate) fn new() -> Self {
        let tee = SoftTee::new(1);
        Self {
            keyservice: tls_identity(tee.attester(KEYSERVICE), keyservice_config()),
            at_client: tee.relying(Allowed::These(vec![e_k()])),
            at_server: tee.relying(Allowed::Any),
            tee,
        }
    }

    /// A TLS connection from `who` to `server`, which our configurations made on both sides.
    pub(crate) fn connect(who: &ClientIdentity, server: &RatlsIdentity) -> Tls {
        let (client, server) = attestation::testing::handshake(
            client_config(who).unwrap(),
            server_config(server).unwrap(),
        )
        .unwrap();
        let who = who.clone();
        Tls {
            client,
            server,
            who,
        }
    }

    /// The evidence in KeyService's certificate, which everybody sees who connects.
    pub(crate) fn public_evidence(&self) -> Evidence {
        let tls = Self::connect(&user(), &self.keyservice);
        let established = Established::of(&tls.client, tls.who.spki()).unwrap();
        match established.peer() {
            Peer::Instance { evidence, .. } => evidence.clone(),
            Peer::Principal(_) => panic!("no enclave"),
        }
    }

    /// The client's gate on its end, and the hello that it sends.
    pub(crate) fn client_gate(&self, tls: &Tls) -> (ClientGate, Vec<u8>) {
        let established = Established::of(&tls.client, tls.who.spki()).unwrap();
        let relying = Arc::clone(&self.at_client);
        let (gate, hello) =
            ClientGate::new(established, tls.who.clone(), relying, Duration::ZERO).unwrap();
        (gate, one(&hello))
    }

    /// The gate of `keyservice` on its end.
    pub(crate) fn server_gate(&self, tls: &Tls, keyservice: &Arc<RatlsIdentity>) -> ServerGate {
        let established = Established::of(&tls.server, keyservice.spki()).unwrap();
        let relying = Arc::clone(&self.at_server);
        ServerGate::new(
            established,
            Arc::clone(keyservice),
            relying,
            EPOCH,
            Duration::ZERO,
        )
        .unwrap()
    }
}

pub(crate) fn tls_identity(
    attester: Arc<dyn Attester>,
    config: MeasuredConfig,
) -> Arc<RatlsIdentity> {
    Arc::new(RatlsIdentity::generate(attester, config).unwrap())
}

/// E_S of the attacker's build in a world: this test's own executable.
pub(crate) fn enclave_of(world: &crate::world::World) -> EnclaveId {
    let exe = std::env::current_exe().unwrap();
    let measurements = world.hardware().measure(&exe).unwrap();
    enclave_id(
        &measurements,
        &measured_config(world.semirt_measured()).hash(),
    )
}

/// The only frame in `wire`, without its length.
pub(crate) fn one(wire: &[u8]) -> Vec<u8> {
    let mut frames = frames(wire);
    assert_eq!(frames.len(), 1);
    frames.remove(0)
}

/// The first frame that a step sends.
pub(crate) fn sent<T: std::fmt::Debug>(step: Step<T>) -> Vec<u8> {
    match step {
        Step::Send(wire) | Step::SendAndDone(wire, _) => frames(&wire).remove(0),
        other => panic!("{other:?}"),
    }
}

/// The check at which a gate refused.
pub(crate) fn failed<T: std::fmt::Debug>(result: Result<T, GateError>) -> CheckName {
    match result {
        Err(GateError::Appraise(error)) => error.failed(),
        other => panic!("{other:?}"),
    }
}

/// What a server's frame of the gate carries; anybody on either end of the connection reads it.
pub(crate) struct ServerFrame {
    pub(crate) evidence: Evidence,
    pub(crate) config: MeasuredConfig,
    pub(crate) epoch: u64,
}

impl ServerFrame {
    /// Reads the frame as an attacker does: by position.
    pub(crate) fn read(frame: &[u8]) -> Self {
        let mut cbor = minicbor::Decoder::new(frame);
        cbor.array().unwrap();
        cbor.str().unwrap();
        cbor.bytes().unwrap();
        cbor.array().unwrap();
        assert_eq!(cbor.str().unwrap(), Tee::Simulated.name());
        let body = cbor.bytes().unwrap().to_vec();
        assert_eq!(cbor.array().unwrap(), Some(0), "no endorsements");
        Self {
            evidence: Evidence {
                tee: Tee::Simulated,
                body,
            },
            config: MeasuredConfig::from_bytes(cbor.bytes().unwrap()).unwrap(),
            epoch: cbor.u64().unwrap(),
        }
    }
}

/// The nonce in a client's hello.
pub(crate) fn nonce_of(hello: &[u8]) -> [u8; 32] {
    let mut cbor = minicbor::Decoder::new(hello);
    cbor.array().unwrap();
    cbor.str().unwrap();
    cbor.str().unwrap();
    cbor.bytes().unwrap().try_into().unwrap()
}

/// A weakened relying party: evidence has to be genuine and of the right enclave. What it is bound
/// to is not asked.
pub(crate) fn genuine_is_enough(
    verifier: &dyn Verifier,
    evidence: &Evidence,
    config: &MeasuredConfig,
    pinned: EnclaveId,
) -> bool {
    let subject = Subject {
        evidence,
        endorsements: &Endorsements::None,
        now: Duration::ZERO,
    };
    verifier
        .verify(&subject, &mut Scorecard::new(&[]))
        .is_ok_and(|claims| enclave_id(claims.measurements(), &config.hash()) == pinned)
}

/// A certificate that was recorded on the wire, with a key of the thief's own behind it.
pub(crate) fn stolen(certificate: CertificateDer<'static>) -> CertifiedKey {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    CertifiedKey::new(vec![certificate], signing_key(&key))
}

pub(crate) fn signing_key(key: &rcgen::KeyPair) -> Arc<dyn rustls::sign::SigningKey> {
    let der = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    rustls::crypto::aws_lc_rs::sign::any_supported_type(&der).unwrap()
}

/// Evidence of one enclave for the certificate, then of another for every channel: what a thief of
/// the first one's TLS key can do with an enclave of its own.
#[derive(Debug)]
pub(crate) struct TwoFaced {
    pub(crate) certificate: Arc<dyn Attester>,
    pub(crate) channel: Arc<dyn Attester>,
}

impl Attester for TwoFaced {
    fn tee(&self) -> Tee {
        self.certificate.tee()
    }

    fn collect(&self, binder: &Binder) -> Result<Evidence, CollectError> {
        match binder {
            Binder::Certificate(_) => self.certificate.collect(binder),
            Binder::Channel(_) => self.channel.collect(binder),
        }
    }

    fn sealing_key(&self) -> Result<SealingKey, CollectError> {
        self.channel.sealing_key()
    }
}
