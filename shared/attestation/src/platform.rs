//! Which platform evidence is of, and how new endorsements are: what somebody who fetches, keeps
//! and compares endorsements has to know. Nothing is verified here.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::evidence::{Endorsements, Evidence, Malformed, Tee};
use crate::facts::{SnpProduct, SnpSigningKey, SnpTcb};
use crate::tee::{azure, dcap, snp};

/// Which of Intel's authorities certified a machine's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PckCa {
    /// Machines with one package.
    Processor,
    /// Machines with several.
    Platform,
}

/// A machine, as far as its vendor tells it apart from others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Platform {
    /// Its evidence needs no endorsements.
    Plain,
    Intel {
        /// Whether Intel's judgement of SGX or of TDX is asked for.
        tdx: bool,
        /// Family, model, stepping, platform type and custom SKU.
        fmspc: [u8; 6],
        ca: PckCa,
    },
    Amd {
        /// `None` in reports of version 2, which do not say.
        product: Option<SnpProduct>,
        key: SnpSigningKey,
        /// Zero if the host hides it.
        chip_id: [u8; 64],
        /// What the key that signed is of.
        tcb: SnpTcb,
    },
}

impl Platform {
    /// The platform that `evidence` says it is of.
    ///
    /// # Errors
    /// [`Malformed`] names the field.
    pub fn of(evidence: &Evidence) -> Result<Self, Malformed> {
        let body = &evidence.body;
        match evidence.tee {
            Tee::Sgx => dcap::platform(body, false),
            Tee::Tdx => dcap::platform(body, true),
            Tee::Snp => snp::platform(body),
            Tee::AzSnp => {
                azure::hardware_evidence(body, Tee::AzSnp).and_then(|report| snp::platform(&report))
            }
            Tee::AzTdx => azure::hardware_evidence(body, Tee::AzTdx)
                .and_then(|quote| dcap::platform(&quote, true)),
            Tee::Nitro | Tee::Simulated => Ok(Self::Plain),
        }
    }
}

/// A signed judgement: when it was made, and by which edition of Intel's data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Edition {
    /// Since the UNIX epoch.
    pub issued: Duration,
    /// `tcbEvaluationDataNumber`.
    pub evaluation: u32,
}

impl Edition {
    /// Whether neither its date nor its number goes back behind `other`.
    #[must_use]
    pub fn not_older(&self, other: &Self) -> bool {
        self.issued >= other.issued && self.evaluation >= other.evaluation
    }
}

/// How new Intel's collateral says it is, part by part: one part must not hide another's age.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Currency {
    pub tdx: bool,
    pub fmspc: [u8; 6],
    pub tcb_info: Edition,
    pub qe_identity: Edition,
    /// `thisUpdate` of the root's revocation list, since the UNIX epoch.
    pub root_crl: Duration,
    /// Which authority's list of revoked machines is in it, and its `thisUpdate`.
    pub pck_crl: (PckCa, Duration),
    /// When the first part ends to be valid, since the UNIX epoch.
    pub next_update: Duration,
}

impl Currency {
    /// Of Intel's collateral; AMD's and no endorsements have no date that could go back.
    ///
    /// # Errors
    /// [`Malformed`] if it is not collateral.
    pub fn of(endorsements: &Endorsements) -> Result<Option<Self>, Malformed> {
        match endorsements {
            Endorsements::Dcap { collateral } => dcap::currency(collateral).map(Some),
            Endorsements::Snp { .. } | Endorsements::None => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests;
