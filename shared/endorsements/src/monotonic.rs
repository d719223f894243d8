//! Never older collateral after newer.
//!
//! A host that keeps old collateral can hide that Intel has since found a platform insecure, as
//! long as the old one has not ended. Whoever relies on evidence therefore remembers the newest
//! of each part that it saw, verified, and accepts nothing older.

use std::collections::BTreeMap;
use std::time::Duration;

use attestation::platform::{Currency, Edition, PckCa};
use serde::{Deserialize, Serialize};

/// Which part of the collateral went back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{part} is older than one seen before")]
pub struct Older {
    pub part: &'static str,
}

/// The newest of each part of Intel's collateral that was seen. To be kept, sealed, by whoever
/// relies on it.
///
/// SECURITY: [`Monotonic::admit`] only what a verifier accepted. A date in collateral that nobody
/// verified may be any, and one in the far future would refuse all that is genuine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Monotonic {
    /// By `sgx` or `tdx`, `-` and FMSPC.
    tcb_info: BTreeMap<String, Edition>,
    /// By `sgx` or `tdx`.
    qe_identity: BTreeMap<String, Edition>,
    root_crl: Duration,
    pck_crl: BTreeMap<PckCa, Duration>,
}

const fn tee(currency: &Currency) -> &'static str {
    if currency.tdx { "tdx" } else { "sgx" }
}

fn platform(currency: &Currency) -> String {
    format!("{}-{}", tee(currency), hex::encode(currency.fmspc))
}

impl Monotonic {
    /// # Errors
    /// [`Older`] names the first part that is older than one admitted before.
    pub fn check(&self, currency: &Currency) -> Result<(), Older> {
        let not_before = |seen: Option<&Edition>, edition: &Edition| {
            seen.is_none_or(|seen| edition.not_older(seen))
        };
        let (ca, pck_crl) = &currency.pck_crl;
        let parts = [
            (
                "the TCB info",
                not_before(self.tcb_info.get(&platform(currency)), &currency.tcb_info),
            ),
            (
                "the QE identity",
                not_before(self.qe_identity.get(tee(currency)), &currency.qe_identity),
            ),
            (
                "the root revocation list",
                currency.root_crl >= self.root_crl,
            ),
            (
                "the PCK revocation list",
                self.pck_crl.get(ca).is_none_or(|seen| pck_crl >= seen),
            ),
        ];
        match parts.iter().find(|(_, ok)| !ok) {
            Some((part, _)) => Err(Older { part }),
            None => Ok(()),
        }
    }

    /// Remembers verified collateral; gives whether anything changed, so has to be written.
    ///
    /// # Errors
    /// [`Older`], and nothing is remembered.
    pub fn admit(&mut self, currency: &Currency) -> Result<bool, Older> {
        self.check(currency)?;
        let before = self.clone();
        self.tcb_info.insert(platform(currency), currency.tcb_info);
        self.qe_identity
            .insert(tee(currency).into(), currency.qe_identity);
        self.root_crl = currency.root_crl;
        let (ca, pck_crl) = currency.pck_crl;
        self.pck_crl.insert(ca, pck_crl);
        Ok(*self != before)
    }

    /// The newest signed date, since the UNIX epoch: it is no earlier than that, whatever the
    /// host's clock says.
    #[must_use]
    pub fn newest(&self) -> Duration {
        let editions = self.tcb_info.values().chain(self.qe_identity.values());
        editions
            .map(|edition| edition.issued)
            .chain(self.pck_crl.values().copied())
            .fold(self.root_crl, Duration::max)
    }
}

#[cfg(test)]
mod tests;
