//! For tests only: the kernel interfaces in memory, with the semantics of the real ones (what is
//! applied when, what is cut silently, what belongs to the whole process) and faults on demand.
//!
//! What they sign is up to a closure over the report data, so that evidence can be genuine under
//! a test root, or not evidence at all.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::missing_panics_doc,
    reason = "compiled for tests only, where a panic is the way to report"
)]

#[cfg(test)]
pub(crate) mod conformance;
mod gramine;
#[cfg(test)]
mod mounted;
mod nsm;
mod occlum;
mod sev_guest;
mod tpm;
mod tsm;

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::io::Errno;

pub use gramine::{FakeGramine, GramineFault};
pub use nsm::{FakeNsm, NsmFault, NsmSigner};
pub use occlum::{FakeOcclum, OcclumFault};
pub use sev_guest::{FakeSevGuest, SevGuestFault, certificate_table};
pub use tpm::{FakeQuoteService, FakeTpm, TpmFault};
pub use tsm::{FakeTsm, TsmFault, TsmProvider};

use crate::retry::Pause;

/// Makes evidence about report data.
#[derive(Clone)]
pub struct Signer(Arc<Sign>);

type Sign = dyn Fn(&[u8; 64]) -> Vec<u8> + Send + Sync;

impl Signer {
    pub fn new(sign: impl Fn(&[u8; 64]) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self(Arc::new(sign))
    }

    /// Evidence about `report_data`.
    #[must_use]
    pub fn sign(&self, report_data: &[u8; 64]) -> Vec<u8> {
        (self.0)(report_data)
    }

    /// What looks like a TDX quote (version 4) with `signature` bytes of signature data.
    #[must_use]
    pub fn td_quote(signature: usize) -> Self {
        Self::new(move |report_data| {
            let mut quote = vec![0x5a; 48 + 520];
            quote[..2].copy_from_slice(&[4, 0]);
            quote[4..8].copy_from_slice(&[0x81, 0, 0, 0]);
            finish(quote, report_data, signature)
        })
    }

    /// What looks like an SGX quote (version 3).
    #[must_use]
    pub fn sgx_quote(signature: usize) -> Self {
        Self::new(move |report_data| {
            let mut quote = vec![0x5a; 48 + 320];
            quote[..2].copy_from_slice(&[3, 0]);
            finish(quote, report_data, signature)
        })
    }

    /// What looks like a SEV-SNP report, signed by a VLEK or a VCEK.
    #[must_use]
    pub fn snp_report(vlek: bool) -> Self {
        Self::new(move |report_data| {
            let mut report = vec![0x5a; 1184];
            report[0x48..0x4c].copy_from_slice(&(u32::from(vlek) << 2).to_le_bytes());
            report[0x50..0x90].copy_from_slice(report_data);
            report
        })
    }
}

fn finish(mut quote: Vec<u8>, report_data: &[u8; 64], signature: usize) -> Vec<u8> {
    quote.extend(report_data);
    quote.extend(u32::try_from(signature).unwrap().to_le_bytes());
    quote.extend(vec![0x77; signature]);
    quote
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signer")
    }
}

/// Faults to come, each used up by the first operation that it fits.
#[derive(Debug)]
pub(crate) struct Script<F>(Mutex<VecDeque<F>>);

impl<F> Default for Script<F> {
    fn default() -> Self {
        Self(Mutex::new(VecDeque::new()))
    }
}

impl<F> Script<F> {
    fn add(&self, faults: impl IntoIterator<Item = F>) {
        lock(&self.0).extend(faults);
    }

    /// The next fault, if it is one that `fits`.
    fn take<T>(&self, fits: impl FnOnce(&F) -> Option<T>) -> Option<T> {
        let mut script = lock(&self.0);
        let taken = script.front().and_then(fits);
        if taken.is_some() {
            script.pop_front();
        }
        taken
    }

    fn left(&self) -> usize {
        lock(&self.0).len()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn errno<T>(errno: Errno) -> io::Result<T> {
    Err(errno.into())
}

/// Does not wait, and notes for how long it should have.
#[derive(Debug, Default)]
pub struct NotedPauses(Mutex<Vec<Duration>>);

impl NotedPauses {
    #[must_use]
    pub fn noted(&self) -> Vec<Duration> {
        lock(&self.0).clone()
    }
}

impl Pause for NotedPauses {
    fn pause(&self, length: Duration) {
        lock(&self.0).push(length);
    }
}
