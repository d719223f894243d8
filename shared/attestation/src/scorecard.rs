//! The scorecard of an appraisal: every check by name, with what was expected and what came.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! check_names {
    ($( $(#[$doc:meta])* $variant:ident = $text:literal; )*) => {
        /// One check of an appraisal, in the order in which they are listed.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
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
    EvidenceGenuine = "evidence is genuine";
    ReportData = "evidence is fresh and binds this channel";
    NotDebug = "enclave is not in debug mode";
    SecurityVersion = "security version";
    TcbStatus = "platform patch state";
    SameEnclave = "evidence and certificate are of one enclave";
    Enclave = "enclave is allowed";
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

/// Every check by name. A new one is all `unchecked`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scorecard {
    checks: Vec<Check>,
}

/// The check that failed; its scorecard has the details.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Failed(pub(crate) CheckName);

impl Scorecard {
    pub(crate) fn new() -> Self {
        let unchecked = |name: &CheckName| Check {
            name: *name,
            status: Status::Unchecked,
            expected: String::new(),
            got: String::new(),
        };
        Self {
            checks: CheckName::ALL.iter().map(unchecked).collect(),
        }
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
        if let Some(check) = self.checks.iter_mut().find(|check| check.name == name) {
            *check = Check {
                name,
                status,
                expected,
                got,
            };
        }
    }

    /// Records a check that was made, and stops the appraisal if it failed.
    pub(crate) fn require(
        &mut self,
        name: CheckName,
        ok: bool,
        expected: impl Into<String>,
        got: impl Into<String>,
    ) -> Result<(), Failed> {
        let status = if ok { Status::Pass } else { Status::Fail };
        self.set(name, status, expected.into(), got.into());
        if ok { Ok(()) } else { Err(Failed(name)) }
    }

    /// Records what was found where the policy asks for nothing.
    pub(crate) fn note(&mut self, name: CheckName, status: Status, got: impl Into<String>) {
        self.set(name, status, String::new(), got.into());
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
