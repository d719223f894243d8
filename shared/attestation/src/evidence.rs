//! Evidence, claims and the two traits that every TEE brings: attester and verifier (RFC 9334).

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crypto::secret::SealingKey;
use serde::{Deserialize, Serialize};

use crate::binder::Binder;
use crate::facts::Facts;
use crate::measurements::Measurements;
use crate::newest::Newest;
use crate::scorecard::{Failed, Scorecard};

/// Largest evidence body, in bytes. A frame of the gate also has to hold nonce and configuration.
pub const EVIDENCE_MAX: usize = 48 * 1024;
/// Largest endorsements, in bytes, all parts together. Intel's are 14 to 21 KB, AMD's 6 KB.
pub const ENDORSEMENTS_MAX: usize = 64 * 1024;

/// A kind of trusted execution environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tee {
    /// Intel SGX, DCAP quote.
    Sgx,
    /// Intel TDX, DCAP quote.
    Tdx,
    /// AMD SEV-SNP attestation report.
    Snp,
    /// AWS Nitro Enclaves attestation document.
    Nitro,
    /// SEV-SNP behind Azure's vTPM.
    AzSnp,
    /// TDX behind Azure's vTPM.
    AzTdx,
    /// No hardware: for development. No shipped binary has a verifier for it.
    Simulated,
}

impl Tee {
    pub const ALL: [Self; 7] = [
        Self::Sgx,
        Self::Tdx,
        Self::Snp,
        Self::Nitro,
        Self::AzSnp,
        Self::AzTdx,
        Self::Simulated,
    ];

    /// The name in configuration files, on the wire and in E_S.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sgx => "sgx",
            Self::Tdx => "tdx",
            Self::Snp => "snp",
            Self::Nitro => "nitro",
            Self::AzSnp => "az-snp",
            Self::AzTdx => "az-tdx",
            Self::Simulated => "simulated",
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|tee| tee.name() == name)
    }
}

impl fmt::Display for Tee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A statement signed by a TEE, in that TEE's own format; hostile until a verifier accepted it.
#[derive(Clone, PartialEq, Eq)]
pub struct Evidence {
    pub tee: Tee,
    pub body: Vec<u8>,
}

impl fmt::Debug for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Evidence({}, {} bytes)", self.tee, self.body.len())
    }
}

/// How the vendor judges the platform's security patches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TcbStatus {
    UpToDate,
    SwHardeningNeeded,
    ConfigurationNeeded,
    ConfigurationAndSwHardeningNeeded,
    OutOfDate,
    OutOfDateConfigurationNeeded,
    Revoked,
    /// This kind of TEE has no such judgement (SEV-SNP, Nitro, simulated).
    NotApplicable,
}

impl TcbStatus {
    /// The name in configuration files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::UpToDate => "up-to-date",
            Self::SwHardeningNeeded => "sw-hardening-needed",
            Self::ConfigurationNeeded => "configuration-needed",
            Self::ConfigurationAndSwHardeningNeeded => "configuration-and-sw-hardening-needed",
            Self::OutOfDate => "out-of-date",
            Self::OutOfDateConfigurationNeeded => "out-of-date-configuration-needed",
            Self::Revoked => "revoked",
            Self::NotApplicable => "not-applicable",
        }
    }
}

impl fmt::Display for TcbStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What vendors say about a platform, beside its evidence: certificates and judgements, signed
/// by the vendor and passed on by anybody. As hostile as evidence. It travels with evidence (the
/// attester's side fetches it once a day), so that a verifier needs no network.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum Endorsements {
    /// None needed (Nitro, simulated), or none given.
    #[default]
    None,
    /// SGX and TDX: PCK CRL, TCB info, QE identity and their issuers' chains, as the JSON of
    /// Intel's PCS v4 that `QuoteCollateralV3` names.
    Dcap { collateral: Vec<u8> },
    /// SEV-SNP: the key that signs reports, and its issuers: ASK or ASVK, then ARK. DER.
    Snp { vek: Vec<u8>, chain: Vec<Vec<u8>> },
}

impl fmt::Debug for Endorsements {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("Endorsements(none)"),
            Self::Dcap { collateral } => {
                write!(f, "Endorsements(dcap, {} bytes)", collateral.len())
            }
            Self::Snp { chain, .. } => write!(f, "Endorsements(snp, {} issuers)", chain.len()),
        }
    }
}

/// What evidence says, whether or not it is genuine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    pub measurements: Measurements,
    /// What the attester asked the TEE to sign. SGX, TDX, SEV-SNP: the 64 bytes of report data;
    /// Nitro: `user_data`, empty if absent; Azure: the hardware report's, fixed at boot.
    pub report_data: Vec<u8>,
    /// Nitro: `nonce`; Azure: `extraData` of the TPM's quote. Others have none.
    pub nonce: Option<Vec<u8>>,
}

impl Said {
    /// The field that holds a [`Binder`]'s hash, because the attester chooses it each time.
    #[must_use]
    pub fn bound(&self) -> &[u8] {
        match self.measurements.tee() {
            Tee::AzSnp | Tee::AzTdx => self.nonce.as_deref().unwrap_or_default(),
            Tee::Sgx | Tee::Tdx | Tee::Snp | Tee::Nitro | Tee::Simulated => &self.report_data,
        }
    }
}

/// What genuine evidence says. Genuine is not yet acceptable: that is appraisal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    pub said: Said,
    /// Security version of the measured code (SGX ISV_SVN, SNP guest SVN); 0 where the TEE has
    /// none.
    pub svn: u64,
    pub tcb: TcbStatus,
    pub facts: Facts,
}

impl Claims {
    #[must_use]
    pub const fn tee(&self) -> Tee {
        self.said.measurements.tee()
    }

    #[must_use]
    pub const fn measurements(&self) -> &Measurements {
        &self.said.measurements
    }
}

/// Evidence is not of the form that its TEE's specification gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("evidence has a malformed {field}")]
pub struct Malformed {
    pub field: &'static str,
}

/// Why a TEE did not give what was asked of it.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    #[error("reading {what} from the TEE")]
    Device {
        what: &'static str,
        #[source]
        source: std::io::Error,
    },
    #[error("the TEE returned {what} that is not what was asked for")]
    Unexpected { what: &'static str },
    #[error("the TEE is busy")]
    Busy,
    #[error("finding the vendor's endorsements of this platform")]
    Endorsements(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// The side that proves itself. It takes typed binders only, never bytes to sign, so that no
/// caller can turn it into an oracle for evidence with another meaning.
pub trait Attester: Send + Sync + fmt::Debug {
    fn tee(&self) -> Tee;

    /// Fresh evidence over `binder`. Blocks: up to seconds on real hardware.
    ///
    /// # Errors
    /// [`CollectError`] if the TEE does not answer as its specification says.
    fn collect(&self, binder: &Binder) -> Result<Evidence, CollectError>;

    /// What the host put beside the newest evidence (SEV-SNP: the certificate table), if anything.
    fn host_endorsements(&self) -> Endorsements {
        Endorsements::None
    }

    /// What the vendor says about the platform that `evidence` is of, for peers to judge it by.
    /// Blocks: up to seconds if it has to be fetched. The default goes no further than the host.
    ///
    /// # Errors
    /// [`CollectError`] if there are none to be found, so that no peer could accept the evidence.
    fn endorsements(&self, evidence: &Evidence) -> Result<Endorsements, CollectError> {
        let _newest = evidence;
        Ok(self.host_endorsements())
    }

    /// The key that only this measured code on this platform can derive, for data at rest.
    ///
    /// # Errors
    /// [`CollectError`] if the TEE does not answer as its specification says.
    fn sealing_key(&self) -> Result<SealingKey, CollectError>;
}

/// What a verifier looks at.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    pub evidence: &'a Evidence,
    pub endorsements: &'a Endorsements,
    /// Time since the UNIX epoch, as far as the caller trusts it.
    pub now: Duration,
}

/// The side that decides whether evidence is genuine: signed by the vendor's root, complete,
/// and within the validity of its endorsements. It reads no clock and no file.
pub trait Verifier: Send + Sync + fmt::Debug {
    fn tee(&self) -> Tee;

    /// What `evidence` says, unverified: for an enclave that reads its own, and for people.
    ///
    /// # Errors
    /// [`Malformed`] names the field.
    fn read(&self, evidence: &Evidence) -> Result<Said, Malformed>;

    /// What `evidence` says, if it is genuine. Every check goes on the card.
    ///
    /// # Errors
    /// [`Failed`] for everything that is not exactly one genuine piece of evidence.
    fn verify(&self, subject: &Subject<'_>, card: &mut Scorecard) -> Result<Claims, Failed>;
}

/// The verifiers that a relying party has, at most one for each kind of TEE.
/// Copies share what they remember of endorsements.
#[derive(Debug, Clone, Default)]
pub struct VerifierSet {
    verifiers: Vec<Arc<dyn Verifier>>,
    newest: Arc<Mutex<Newest>>,
}

impl VerifierSet {
    /// Of two verifiers for one TEE, the first is used.
    #[must_use]
    pub fn new(verifiers: Vec<Arc<dyn Verifier>>) -> Self {
        Self {
            verifiers,
            newest: Arc::default(),
        }
    }

    /// The same verifiers, which remember the endorsements of an earlier life.
    #[must_use]
    pub fn remembering(self, newest: Newest) -> Self {
        Self {
            newest: Arc::new(Mutex::new(newest)),
            ..self
        }
    }

    /// A copy of what is remembered of endorsements.
    #[must_use]
    pub fn newest(&self) -> Newest {
        self.memory().clone()
    }

    pub(crate) fn memory(&self) -> MutexGuard<'_, Newest> {
        // Every change is one assignment: a panic elsewhere leaves nothing half done.
        self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn for_tee(&self, tee: Tee) -> Option<&dyn Verifier> {
        self.verifiers
            .iter()
            .find(|verifier| verifier.tee() == tee)
            .map(AsRef::as_ref)
    }

    /// The kinds of TEE whose evidence can be verified.
    pub fn tees(&self) -> impl Iterator<Item = Tee> + '_ {
        self.verifiers.iter().map(|verifier| verifier.tee())
    }
}
