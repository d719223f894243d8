//! Occlum's `/dev/sgx`: DCAP quotes and SGX keys by ioctl. Unlike its files
//! `/dev/attestation_*` the ioctl takes the report data with the request, so nothing is shared.

use std::fmt;
use std::io;
use std::sync::Arc;

use attestation::{Attester, Binder, CollectError, Evidence, Tee};
use crypto::secret::SealingKey;
use zeroize::Zeroizing;

use crate::layout::quote_about;
use crate::retry::{Pause, Setback, persist};
use crate::sealing;

/// Where the device is, from the root of the file system.
pub const PATH: &str = "dev/sgx";

/// Largest quote asked for; Occlum's own files stop at 5 KiB.
const QUOTE_MAX: usize = 16 * 1024;
const WHAT: &str = "/dev/sgx";

/// An SGX report (Intel SDM, table 37-21): what the processor says of the running enclave.
pub const REPORT: usize = 432;
/// A key request of EGETKEY (Intel SDM, table 37-22).
pub const KEY_REQUEST: usize = 512;

/// The requests of Occlum's device that are used here.
pub trait OcclumSgx: Send + Sync + fmt::Debug {
    /// SGXIOC_GET_DCAP_QUOTE_SIZE, in bytes.
    ///
    /// # Errors
    /// The LibOS's.
    fn quote_size(&self) -> io::Result<u32>;

    /// SGXIOC_GEN_DCAP_QUOTE; fills `quote`, which has the size that was asked for.
    ///
    /// # Errors
    /// The LibOS's.
    fn quote(&self, report_data: &[u8; 64], quote: &mut [u8]) -> io::Result<()>;

    /// SGXIOC_CREATE_REPORT, for no target.
    ///
    /// # Errors
    /// The LibOS's.
    fn report(&self) -> io::Result<[u8; REPORT]>;

    /// SGXIOC_GET_KEY.
    ///
    /// # Errors
    /// The LibOS's.
    fn key(&self, request: &[u8; KEY_REQUEST]) -> io::Result<[u8; 16]>;
}

/// Intel SGX under Occlum.
#[derive(Debug)]
pub struct OcclumAttester {
    device: Arc<dyn OcclumSgx>,
    pause: Arc<dyn Pause>,
}

impl OcclumAttester {
    #[must_use]
    pub fn new(device: Arc<dyn OcclumSgx>, pause: Arc<dyn Pause>) -> Self {
        Self { device, pause }
    }

    fn attempt(&self, report_data: &[u8; 64]) -> Result<Vec<u8>, Setback> {
        let size = self
            .device
            .quote_size()
            .map_err(|e| Setback::from_io(WHAT, e))?;
        // The host's quoting enclave says how long its quotes are.
        let size = usize::try_from(size)
            .ok()
            .filter(|size| (1..=QUOTE_MAX).contains(size))
            .ok_or(Setback::unexpected("the length of a quote"))?;
        let mut quote = vec![0; size];
        self.device
            .quote(report_data, &mut quote)
            .map_err(|e| Setback::from_io(WHAT, e))?;
        quote_about(&quote, false, report_data)
            .map(<[u8]>::to_vec)
            .ok_or(Setback::unexpected("a quote about something else, or none"))
    }
}

/// The request for the sealing key of this enclave's MRENCLAVE at its present security versions,
/// with the attributes that sgx_tseal mixes in.
fn seal_request(report: &[u8; REPORT]) -> Option<[u8; KEY_REQUEST]> {
    const SEAL_KEY: u16 = 4;
    const POLICY_MRENCLAVE: u16 = 1;
    /// Everything but the bits that may differ between runs; DEBUG is kept.
    const FLAGS: u64 = 0xff00_0000_0000_000b;
    const MISC_MASK: u32 = 0xf000_0000;
    const ISV_SVN_AT: usize = 258;
    let cpu_svn: &[u8; 16] = report.first_chunk()?;
    let isv_svn: &[u8; 2] = report.get(ISV_SVN_AT..)?.first_chunk()?;
    let mut request = Vec::with_capacity(KEY_REQUEST);
    request.extend(SEAL_KEY.to_le_bytes());
    request.extend(POLICY_MRENCLAVE.to_le_bytes());
    request.extend(isv_svn);
    request.extend([0; 2]);
    request.extend(cpu_svn);
    request.extend(FLAGS.to_le_bytes());
    // No bit of XFRM, as sgx_tseal: the processor's features may change.
    request.extend([0; 8]);
    // KEYID: one key for each enclave.
    request.extend([0; 32]);
    request.extend(MISC_MASK.to_le_bytes());
    request.resize(KEY_REQUEST, 0);
    request.try_into().ok()
}

impl Attester for OcclumAttester {
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
            let report = self
                .device
                .report()
                .map_err(|e| Setback::from_io(WHAT, e))?;
            let request = seal_request(&report).ok_or(Setback::unexpected("a report"))?;
            self.device
                .key(&request)
                .map(Zeroizing::new)
                .map_err(|e| Setback::from_io(WHAT, e))
        })?;
        sealing::expand(key.as_ref(), "sgx-mrenclave")
    }
}

#[cfg(test)]
mod tests;
