//! A TEE in software: measurements of the caller's choice, signed by a root of its own. It is
//! for the tests of this workspace's parts; the testbed's simulated TEE measures real processes.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use crypto::secret::SealingKey;

use crate::appraisal::{Appraised, RelyingParty, appraise};
use crate::binder::{Binder, ChannelBinder, Role, SpkiHash};
use crate::evidence::{
    Attester, Claims, CollectError, Endorsements, Evidence, Malformed, Said, Subject, TcbStatus,
    Tee, Verifier, VerifierSet,
};
use crate::facts::Facts;
use crate::identity::enclave_id;
use crate::measured::{Measured, MeasuredConfig};
use crate::measurements::{Measurements, SimulatedMeasurements};
use crate::policy::{Allowed, AppraisalPolicy};
use crate::scorecard::{CheckName, Failed, Scorecard};
use protocol::EnclaveId;

/// The mark by which a scan of release binaries finds any simulated TEE.
const MARKER: &[u8; 20] = b"SESEMI-SIMULATED-TEE";
const SIGNED: usize = MARKER.len() + 48 + 1 + 8 + 64;
const BODY: usize = SIGNED + 64;

/// Plays the vendor: attesters and verifiers of one `SoftTee` trust each other, of two do not.
#[derive(Debug, Clone)]
pub struct SoftTee {
    root: Arc<Ed25519KeyPair>,
    seed: [u8; 32],
}

/// What an enclave of a [`SoftTee`] is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SoftEnclave {
    pub mr: [u8; 48],
    pub debug: bool,
    pub svn: u64,
}

impl SoftEnclave {
    /// A production enclave with security version 1.
    #[must_use]
    pub const fn new(mr: u8) -> Self {
        Self {
            mr: [mr; 48],
            debug: false,
            svn: 1,
        }
    }
}

impl SoftTee {
    #[must_use]
    pub fn new(seed: u8) -> Self {
        let seed = [seed; 32];
        let root = Ed25519KeyPair::from_seed_unchecked(&seed).unwrap();
        Self {
            root: Arc::new(root),
            seed,
        }
    }

    #[must_use]
    pub fn attester(&self, enclave: SoftEnclave) -> Arc<dyn Attester> {
        Arc::new(SoftAttester {
            tee: self.clone(),
            enclave,
        })
    }

    #[must_use]
    pub fn verifier(&self) -> Arc<dyn Verifier> {
        Arc::new(SoftVerifier(self.root.public_key().as_ref().to_vec()))
    }

    /// Accepts this TEE's production enclaves.
    #[must_use]
    pub fn relying(&self, enclaves: Allowed) -> Arc<RelyingParty> {
        Arc::new(RelyingParty {
            verifiers: VerifierSet::new(vec![self.verifier()]),
            policy: AppraisalPolicy::strict(vec![Tee::Simulated], enclaves),
        })
    }

    /// E_S or E_K of an enclave with a configuration.
    #[must_use]
    pub fn enclave_id(enclave: SoftEnclave, config: &MeasuredConfig) -> EnclaveId {
        enclave_id(&measurements(enclave.mr, enclave.debug), &config.hash())
    }

    /// The result of a real appraisal of real evidence, without a channel: for the tests of
    /// those who demand one.
    #[must_use]
    pub fn appraised(&self, enclave: SoftEnclave, config: &MeasuredConfig) -> Appraised {
        let binder = ChannelBinder {
            role: match config.measured() {
                Measured::Semirt(_) => Role::Semirt,
                Measured::Keyservice(_) => Role::Keyservice,
            },
            exporter: [1; 32],
            peer_nonce: [2; 32],
            own_spki: SpkiHash::of(b"own"),
            peer_spki: SpkiHash::of(b"peer"),
            config: config.hash(),
            epoch: 0,
        };
        let evidence = self.sign(&enclave, &Binder::channel(binder.clone()));
        let relying = self.relying(Allowed::Any);
        let none = Endorsements::None;
        appraise(&relying, &evidence, &none, &binder, config, Duration::ZERO).unwrap()
    }

    fn sign(&self, enclave: &SoftEnclave, binder: &Binder) -> Evidence {
        let mut body = MARKER.to_vec();
        body.extend(enclave.mr);
        body.push(enclave.debug.into());
        body.extend(enclave.svn.to_be_bytes());
        body.extend(binder.report_data());
        let signature = self.root.sign(&body);
        body.extend(signature.as_ref());
        Evidence {
            tee: Tee::Simulated,
            body,
        }
    }
}

fn measurements(mr: [u8; 48], debug: bool) -> Measurements {
    Measurements::Simulated(SimulatedMeasurements { mr, debug })
}

#[derive(Debug)]
struct SoftAttester {
    tee: SoftTee,
    enclave: SoftEnclave,
}

impl Attester for SoftAttester {
    fn tee(&self) -> Tee {
        Tee::Simulated
    }

    fn collect(&self, binder: &Binder) -> Result<Evidence, CollectError> {
        Ok(self.tee.sign(&self.enclave, binder))
    }

    fn sealing_key(&self) -> Result<SealingKey, CollectError> {
        let material = [&self.tee.seed[..], &self.enclave.mr].concat();
        let key = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &material);
        SealingKey::from_slice(key.as_ref()).map_err(|_| CollectError::Unexpected {
            what: "a sealing key",
        })
    }
}

#[derive(Debug)]
struct SoftVerifier(Vec<u8>);

impl Verifier for SoftVerifier {
    fn tee(&self) -> Tee {
        Tee::Simulated
    }

    fn read(&self, evidence: &Evidence) -> Result<Said, Malformed> {
        parse(evidence).map(|(said, _)| said)
    }

    fn verify(&self, subject: &Subject<'_>, card: &mut Scorecard) -> Result<Claims, Failed> {
        const WANTED: &str = "a software TEE's evidence";
        let (said, svn) = parse(subject.evidence)
            .map_err(|error| card.fail(CheckName::EvidenceFormat, WANTED, error.to_string()))?;
        let (signed, signature) = subject.evidence.body.split_at(SIGNED);
        let genuine = UnparsedPublicKey::new(&ED25519, &self.0).verify(signed, signature);
        card.require(
            CheckName::Signature,
            genuine.is_ok(),
            "of this TEE's root",
            "a signature",
        )?;
        Ok(Claims {
            said,
            svn,
            tcb: TcbStatus::NotApplicable,
            facts: Facts::None,
        })
    }
}

fn parse(evidence: &Evidence) -> Result<(Said, u64), Malformed> {
    let field = |field| Malformed { field };
    if evidence.tee != Tee::Simulated {
        return Err(field("kind of TEE"));
    }
    if evidence.body.len() != BODY || !evidence.body.starts_with(MARKER) {
        return Err(field("length or marker"));
    }
    let rest = &evidence.body[MARKER.len()..SIGNED];
    let (mr, rest) = rest.split_first_chunk().ok_or(field("measurement"))?;
    let (debug, rest) = rest.split_first_chunk::<1>().ok_or(field("flags"))?;
    let (svn, rest) = rest.split_first_chunk().ok_or(field("security version"))?;
    let said = Said {
        measurements: measurements(*mr, debug != &[0]),
        report_data: rest.to_vec(),
        nonce: None,
    };
    Ok((said, u64::from_be_bytes(*svn)))
}
