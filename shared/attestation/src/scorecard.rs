//! The scorecard of an appraisal: every check by name, with what was expected and what came.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! check_names {
    ($( $(#[$doc:meta])* $variant:ident = $text:literal; )*) => {
        /// One check of an appraisal, in the order in which they are listed.
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
        )]
        #[serde(rename_all = "kebab-case")]
        pub enum CheckName { $( $(#[$doc])* $variant, )* }

        impl CheckName {
            pub const ALL: &'static [Self] = &[ $( Self::$variant, )* ];

            /// For people.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self { $( Self::$variant => $text, )* }
            }
        }
    };
}

check_names! {
    TlsVersion = "TLS version";
    KeyExchange = "TLS key exchange is post-quantum";
    ApplicationProtocol = "TLS application protocol";
    FullHandshake = "TLS handshake is not resumed";
    CertificateTee = "certificate: TEE is accepted";
    CertificateEvidence = "certificate: evidence is genuine";
    CertificateKey = "certificate: evidence binds the TLS key";
    /// The peer's configuration is of the right kind and is the one its evidence is bound to.
    MeasuredConfig = "measured configuration";
    TeeAccepted = "TEE is accepted";

    EvidenceFormat = "evidence is well-formed";
    EndorsementsPresent = "endorsements are present";
    EndorsementsFormat = "endorsements are well-formed";
    RootPinned = "certificate chain starts at the vendor's root";
    CertificateChain = "certificate chain is valid";
    Revocation = "no certificate is revoked";
    EndorsementsCurrent = "endorsements are current";
    /// Against what this relying party saw before.
    EndorsementsNotOlder = "endorsements are not older than seen before";
    /// They are about this platform, and not about another one.
    EndorsementsMatch = "endorsements are about this platform";
    /// Intel's list of patch levels.
    TcbInfo = "patch levels are signed by the vendor";
    QeIdentity = "quoting enclave is the vendor's";
    AttestationKey = "attestation key is certified";
    Signature = "evidence is signed by the attestation key";
    /// Azure: the hardware's report covers the claims that hold the TPM's key.
    RuntimeClaims = "hardware report covers the runtime claims";
    TpmQuote = "TPM quote is signed by the reported key";
    PcrDigest = "TPM quote covers the registers";
    /// RA-TLS of others: the evidence covers the certificate's key.
    KeyHash = "evidence covers the certificate's key";
    CertificateSignature = "certificate is signed by its own key";
    /// Every check of genuineness together.
    EvidenceGenuine = "evidence is genuine";

    ReportData = "evidence is fresh and binds this channel";
    Nonce = "evidence answers the nonce";
    Freshness = "evidence is recent";
    NotDebug = "enclave is not in debug mode";
    NotMigratable = "enclave cannot be migrated";
    ServiceTd = "no service TD is bound";
    SeptVeDisable = "host cannot inject page faults";
    ReservedAttributes = "reserved attributes are zero";
    Vmpl = "privilege level";
    GuestPolicy = "guest policy";
    MinimumAbi = "firmware interface version";
    SigningKey = "kind of signing key";
    ChipNotMasked = "chip identity is not masked";
    SecurityVersion = "security version";
    TcbStatus = "platform patch state";
    MinimumTcb = "platform patch level";
    TcbEvaluation = "age of the patch judgement";
    Advisories = "security advisories";
    DynamicPlatform = "platform configuration may change";
    CachedKeys = "platform keys are cached by the vendor";
    SimultaneousMultithreading = "simultaneous multithreading";
    AliasCheck = "memory aliases were checked at boot";
    Platform = "platform is on the list";
    Measurement = "measurement is a reference value";
    HostConfig = "configuration given by the host at start";
    IdKeyDigest = "identity key";
    Pcrs = "platform configuration registers";
    /// Azure: by the paravisor's claims.
    SecureBoot = "machine booted securely";
    /// NVIDIA: measured, but not compared.
    GpuMeasurements = "GPU measurements are reference values";
    SameEnclave = "evidence and certificate are of one enclave";
    Enclave = "enclave is allowed";
}

impl CheckName {
    /// The checks of every channel: they are on the card even when they were not reached.
    pub const CHANNEL: &'static [Self] = &[
        Self::TlsVersion,
        Self::KeyExchange,
        Self::ApplicationProtocol,
        Self::FullHandshake,
        Self::CertificateTee,
        Self::CertificateEvidence,
        Self::CertificateKey,
        Self::MeasuredConfig,
        Self::TeeAccepted,
        Self::EvidenceGenuine,
        Self::ReportData,
        Self::NotDebug,
        Self::SecurityVersion,
        Self::TcbStatus,
        Self::SameEnclave,
        Self::Enclave,
    ];
    /// The checks that every piece of evidence gets outside of a channel.
    pub const EVIDENCE: &'static [Self] = &[
        Self::TeeAccepted,
        Self::EvidenceFormat,
        Self::EvidenceGenuine,
        Self::ReportData,
        Self::Nonce,
        Self::NotDebug,
        Self::SecurityVersion,
        Self::TcbStatus,
        Self::Measurement,
        Self::Enclave,
    ];

    /// The name in JSON and in logs.
    #[must_use]
    pub fn id(self) -> String {
        // The derive knows the kebab-case names; a unit variant always serializes to its name.
        let mut name = String::new();
        for (at, letter) in format!("{self:?}").chars().enumerate() {
            if letter.is_ascii_uppercase() && at > 0 {
                name.push('-');
            }
            name.push(letter.to_ascii_lowercase());
        }
        name
    }
}

impl fmt::Display for CheckName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    Pass,
    Fail,
    /// This kind of TEE has nothing to check here.
    NotApplicable,
    /// Not looked at: the policy does not ask for it, or an earlier check failed.
    Unchecked,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Pass => "pass",
            Self::Fail => "FAIL",
            Self::NotApplicable => "not applicable",
            Self::Unchecked => "unchecked",
        })
    }
}

/// One line of a scorecard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    pub name: CheckName,
    pub status: Status,
    /// Empty if unchecked.
    pub expected: String,
    /// What was found, also where it was not compared with anything; else empty.
    pub got: String,
}

/// The checks that were made or should have been, in the order of [`CheckName`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scorecard {
    checks: Vec<Check>,
}

/// The check that failed; its scorecard has the details. Only a scorecard makes one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failed(CheckName);

impl Failed {
    #[must_use]
    pub const fn check(self) -> CheckName {
        self.0
    }
}

impl Scorecard {
    /// A card with these lines, all unchecked.
    #[must_use]
    pub fn new(names: &[CheckName]) -> Self {
        let mut card = Self { checks: Vec::new() };
        for name in names {
            card.note(*name, Status::Unchecked, "");
        }
        card
    }

    #[must_use]
    pub fn checks(&self) -> &[Check] {
        &self.checks
    }

    /// The line of one check.
    #[must_use]
    pub fn check(&self, name: CheckName) -> Option<&Check> {
        self.checks.iter().find(|check| check.name == name)
    }

    fn set(&mut self, name: CheckName, status: Status, expected: String, got: String) {
        let check = Check {
            name,
            status,
            expected,
            got,
        };
        match self.checks.binary_search_by_key(&name, |check| check.name) {
            Ok(at) => {
                if let Some(place) = self.checks.get_mut(at) {
                    *place = check;
                }
            }
            Err(at) => self.checks.insert(at, check),
        }
    }

    /// Records a check that was made, and stops the appraisal if it failed: for what the rest
    /// would be meaningless without.
    ///
    /// # Errors
    /// [`Failed`] if it is not `ok`.
    pub fn require(
        &mut self,
        name: CheckName,
        ok: bool,
        expected: impl Into<String>,
        got: impl Into<String>,
    ) -> Result<(), Failed> {
        self.record(name, ok, expected, got);
        if ok { Ok(()) } else { Err(Failed(name)) }
    }

    /// Records a check that failed.
    #[must_use]
    pub fn fail(
        &mut self,
        name: CheckName,
        expected: impl Into<String>,
        got: impl Into<String>,
    ) -> Failed {
        self.record(name, false, expected, got);
        Failed(name)
    }

    /// Records a check that was made and goes on, so that all that is wrong shows at once. A
    /// check made twice has failed if it failed once.
    pub fn record(
        &mut self,
        name: CheckName,
        ok: bool,
        expected: impl Into<String>,
        got: impl Into<String>,
    ) {
        let status = if ok { Status::Pass } else { Status::Fail };
        if ok && self.failed(name) {
            return;
        }
        self.set(name, status, expected.into(), got.into());
    }

    fn failed(&self, name: CheckName) -> bool {
        let failed = |check: &Check| check.status == Status::Fail;
        self.check(name).is_some_and(failed)
    }

    /// Records what was found where nothing is asked for; what failed before stays failed.
    pub fn note(&mut self, name: CheckName, status: Status, got: impl Into<String>) {
        if self.failed(name) {
            return;
        }
        self.set(name, status, String::new(), got.into());
    }

    /// The first check that failed, in the order of the card.
    #[must_use]
    pub fn first_failure(&self) -> Option<Failed> {
        let failed = |check: &&Check| check.status == Status::Fail;
        self.checks
            .iter()
            .find(failed)
            .map(|check| Failed(check.name))
    }
}

impl fmt::Display for Scorecard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = CheckName::ALL
            .iter()
            .map(|name| name.text().len())
            .max()
            .unwrap_or(0);
        for check in &self.checks {
            write!(f, "{:<14}  {:<width$}", check.status, check.name.text())?;
            if !check.expected.is_empty() {
                write!(f, "  expected {}", check.expected)?;
            }
            if !check.got.is_empty() {
                write!(f, "  got {}", check.got)?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
