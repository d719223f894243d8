//! Gramine's `/dev/attestation`: SGX quotes, and the key that SGX derives for MRENCLAVE.
//!
//! Its state belongs to the whole process, not to an open file: what one thread writes, another's
//! quote is about. So writing and reading happen under one lock, and the quote is compared.

use std::sync::{Arc, Mutex, PoisonError};

use attestation::{Attester, Binder, CollectError, Evidence, Tee};
use crypto::secret::SealingKey;
use zeroize::Zeroizing;

use crate::files::{Tree, read_all, write_once};
use crate::layout::quote_about;
use crate::retry::{Pause, Setback, persist};
use crate::sealing;

/// Where the interface is, from the root of the file system.
pub const PATH: &str = "dev/attestation";

const QUOTE_MAX: usize = 8192;
const TYPE_MAX: usize = 64;
/// An SGX key has 128 bits.
const KEY: usize = 16;

const REPORT_DATA: &str = "/dev/attestation/user_report_data";
const QUOTE: &str = "/dev/attestation/quote";
const MRENCLAVE_KEY: &str = "/dev/attestation/keys/_sgx_mrenclave";

/// Not a field of the attester: two of them in one process share Gramine's state too.
static STATE: Mutex<()> = Mutex::new(());

/// `none`, `dcap`, `epid`: what the manifest's `sgx.remote_attestation` says.
pub(crate) fn attestation_type(tree: &dyn Tree) -> std::io::Result<String> {
    let name = read_all(tree, "attestation_type", TYPE_MAX)?;
    Ok(String::from_utf8_lossy(&name).trim_end().to_owned())
}

/// Intel SGX under Gramine.
#[derive(Debug)]
pub struct GramineAttester {
    tree: Arc<dyn Tree>,
    pause: Arc<dyn Pause>,
}

impl GramineAttester {
    /// `attestation` is the folder `/dev/attestation`.
    #[must_use]
    pub fn new(attestation: Arc<dyn Tree>, pause: Arc<dyn Pause>) -> Self {
        Self {
            tree: attestation,
            pause,
        }
    }

    fn attempt(&self, report_data: &[u8; 64]) -> Result<Vec<u8>, Setback> {
        let tree = self.tree.as_ref();
        let locked = STATE.lock().unwrap_or_else(PoisonError::into_inner);
        // Exactly 64 bytes: fewer would be padded with zeros and more cut, both silently.
        write_once(tree, "user_report_data", report_data)
            .map_err(|e| Setback::from_io(REPORT_DATA, e))?;
        // Opening makes the quote.
        let quote = read_all(tree, "quote", QUOTE_MAX).map_err(|e| Setback::from_io(QUOTE, e))?;
        drop(locked);
        match quote_about(&quote, false, report_data) {
            Some(quote) => Ok(quote.to_vec()),
            // Code that does not know our lock, a library say, may have written in between.
            None => Err(Setback::Raced(CollectError::Unexpected {
                what: "a quote about something else, or none",
            })),
        }
    }
}

impl Attester for GramineAttester {
    fn tee(&self) -> Tee {
        Tee::Sgx
    }

    fn collect(&self, binder: &Binder) -> Result<Evidence, CollectError> {
        let report_data = binder.report_data();
        let body = persist(self.pause.as_ref(), || self.attempt(&report_data))?;
        Ok(Evidence {
            tee: Tee::Sgx,
            body,
        })
    }

    fn sealing_key(&self) -> Result<SealingKey, CollectError> {
        let key = persist(self.pause.as_ref(), || {
            read_all(self.tree.as_ref(), "keys/_sgx_mrenclave", KEY)
                .map(Zeroizing::new)
                .map_err(|e| Setback::from_io(MRENCLAVE_KEY, e))
        })?;
        if key.len() != KEY {
            return Err(CollectError::Unexpected {
                what: "an MRENCLAVE key of another length",
            });
        }
        sealing::expand(&key, "sgx-mrenclave")
    }
}

#[cfg(test)]
mod tests;
