//! `/dev/sev-guest`: SEV-SNP where configfs-tsm is missing, and its derived keys everywhere.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use attestation::{Attester, Binder, CollectError, Endorsements, Evidence, Tee};
use crypto::secret::SealingKey;
use rustix::io::Errno;

use crate::certificates::{self, TABLE_MAX};
use crate::layout::{SNP_REPORT, snp_report_about};
use crate::retry::{Pause, Setback, persist};
use crate::sealing;

/// Where the device is, from the root of the file system.
pub const PATH: &str = "dev/sev-guest";

/// Bytes of a response (`struct snp_report_resp`).
pub const RESPONSE: usize = 4000;
/// Status, size and reserved bytes in front of the report (AMD 56860, MSG_REPORT_RSP).
const RESPONSE_HEADER: usize = 32;
const PAGE: usize = 4096;

const WHAT: &str = "/dev/sev-guest";

/// `vmm_error` in the upper half of `exitinfo2`: the certificates do not fit.
const VMM_INVALID_LEN: u32 = 1;
/// The hypervisor is busy: ask again later.
const VMM_BUSY: u32 = 2;

/// A refused request: the kernel's error, and what firmware and hypervisor say.
#[derive(Debug)]
pub struct Refusal {
    pub source: io::Error,
    /// Firmware's error in the lower half, the hypervisor's in the upper.
    pub exitinfo2: u64,
    /// How many bytes the certificates need, if that is what was wrong.
    pub certificates_len: u32,
}

impl Refusal {
    fn vmm_error(&self) -> u32 {
        u32::try_from(self.exitinfo2 >> 32).unwrap_or_default()
    }

    pub(crate) fn busy(&self) -> bool {
        self.vmm_error() == VMM_BUSY || Errno::from_io_error(&self.source) == Some(Errno::BUSY)
    }
}

/// What is mixed into a derived key (`struct snp_derived_key_req`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DerivedKeyRequest {
    /// 0: the key that is the chip's own (VCEK).
    pub root_key_select: u32,
    pub guest_field_select: u64,
    pub vmpl: u32,
    pub guest_svn: u32,
    pub tcb_version: u64,
}

/// Bits of `guest_field_select`.
const MIX_POLICY: u64 = 1 << 0;
const MIX_MEASUREMENT: u64 = 1 << 3;

impl DerivedKeyRequest {
    pub(crate) const fn sealing() -> Self {
        Self {
            root_key_select: 0,
            guest_field_select: MIX_POLICY | MIX_MEASUREMENT,
            vmpl: 0,
            guest_svn: 0,
            tcb_version: 0,
        }
    }
}

/// The device's three requests.
pub trait SevGuest: Send + Sync + fmt::Debug {
    /// SNP_GET_REPORT.
    ///
    /// # Errors
    /// [`Refusal`].
    fn report(
        &self,
        report_data: &[u8; 64],
        vmpl: u32,
        response: &mut [u8; RESPONSE],
    ) -> Result<(), Refusal>;

    /// SNP_GET_EXT_REPORT: a report, and the host's certificates, which the caller's buffer has
    /// to hold.
    ///
    /// # Errors
    /// [`Refusal`], with the length needed if the buffer is too small.
    fn extended_report(
        &self,
        report_data: &[u8; 64],
        vmpl: u32,
        response: &mut [u8; RESPONSE],
        certificates: &mut [u8],
    ) -> Result<(), Refusal>;

    /// SNP_GET_DERIVED_KEY.
    ///
    /// # Errors
    /// [`Refusal`].
    fn derived_key(&self, request: &DerivedKeyRequest) -> Result<[u8; 32], Refusal>;
}

/// The report in a response, if firmware says that there is one.
fn report_of(response: &[u8; RESPONSE]) -> Option<&[u8]> {
    let word = |at: usize| Some(u32::from_le_bytes(*response.get(at..)?.first_chunk()?));
    let (status, size) = (word(0)?, usize::try_from(word(4)?).ok()?);
    if status != 0 || size != SNP_REPORT {
        return None;
    }
    response.get(RESPONSE_HEADER..)?.get(..size)
}

/// AMD SEV-SNP through `/dev/sev-guest`.
#[derive(Debug)]
pub struct SevGuestAttester {
    device: Arc<dyn SevGuest>,
    pause: Arc<dyn Pause>,
    certificates: Mutex<Endorsements>,
}

impl SevGuestAttester {
    #[must_use]
    pub fn new(device: Arc<dyn SevGuest>, pause: Arc<dyn Pause>) -> Self {
        Self {
            device,
            pause,
            certificates: Mutex::default(),
        }
    }

    fn attempt(&self, report_data: &[u8; 64]) -> Result<(Vec<u8>, Vec<u8>), Setback> {
        let mut response = [0; RESPONSE];
        let mut table = vec![0; 4 * PAGE];
        let mut asked = self
            .device
            .extended_report(report_data, 0, &mut response, &mut table);
        if let Err(refusal) = &asked
            && refusal.vmm_error() == VMM_INVALID_LEN
        {
            let needed = usize::try_from(refusal.certificates_len).unwrap_or(usize::MAX);
            if needed > TABLE_MAX {
                // The host wants more than it may have: evidence does not need its certificates.
                table.clear();
                asked = self.device.report(report_data, 0, &mut response);
            } else {
                // The kernel takes whole pages only.
                table = vec![0; needed.next_multiple_of(PAGE)];
                asked = self
                    .device
                    .extended_report(report_data, 0, &mut response, &mut table);
            }
        }
        asked.map_err(|refusal| match refusal.busy() {
            true => Setback::Busy,
            false => Setback::from_io(WHAT, refusal.source),
        })?;
        let report = report_of(&response)
            .and_then(|report| snp_report_about(report, report_data))
            .ok_or(Setback::unexpected(
                "a report about something else, or none",
            ))?;
        Ok((report.to_vec(), table))
    }
}

impl Attester for SevGuestAttester {
    fn tee(&self) -> Tee {
        Tee::Snp
    }

    fn collect(&self, binder: &Binder) -> Result<Evidence, CollectError> {
        let report_data = binder.report_data();
        let (report, table) = persist(self.pause.as_ref(), || self.attempt(&report_data))?;
        *self
            .certificates
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = certificates::beside(&report, &table);
        Ok(Evidence {
            tee: Tee::Snp,
            body: report,
        })
    }

    fn host_endorsements(&self) -> Endorsements {
        self.certificates
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn sealing_key(&self) -> Result<SealingKey, CollectError> {
        sealing::snp(self.device.as_ref())
    }
}

#[cfg(test)]
mod tests;
