//! `/dev/sev-guest` (drivers/virt/coco/sev-guest) and the firmware behind it, in memory.

use std::sync::Mutex;

use rustix::io::Errno;

use super::{Script, Signer, lock};
use crate::certificates::guid;
use crate::sev_guest::{DerivedKeyRequest, RESPONSE, Refusal, SevGuest};

/// What goes wrong next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SevGuestFault {
    /// The ioctl fails with this error and `exitinfo2`.
    Refuse(Errno, u64),
    /// Firmware's status inside of a response that the kernel calls good.
    Status(u32),
    WrongReportData,
    /// The host claims to have that many bytes of certificates.
    CertificatesNeed(u32),
}

/// The device of one chip and one guest.
#[derive(Debug)]
pub struct FakeSevGuest {
    signer: Signer,
    chip: u8,
    certificates: Mutex<Vec<u8>>,
    script: Script<SevGuestFault>,
}

/// A certificate table as a host fills it in: VEK (VCEK or VLEK), then ASK and ARK.
#[must_use]
pub fn certificate_table(vlek: bool, vek: &[u8], chain: Option<[&[u8]; 2]>) -> Vec<u8> {
    let mut entries = vec![(if vlek { guid::VLEK } else { guid::VCEK }, vek)];
    if let Some([ask, ark]) = chain {
        entries.extend([(guid::ASK, ask), (guid::ARK, ark)]);
    }
    let mut offset = 24 * (entries.len() + 1);
    let mut table = Vec::new();
    for (guid, certificate) in &entries {
        table.extend(guid);
        table.extend(u32::try_from(offset).unwrap().to_le_bytes());
        table.extend(u32::try_from(certificate.len()).unwrap().to_le_bytes());
        offset += certificate.len();
    }
    table.extend([0; 24]);
    for (_, certificate) in entries {
        table.extend(certificate);
    }
    table
}

impl FakeSevGuest {
    /// Two chips derive different keys.
    #[must_use]
    pub fn new(chip: u8, signer: Signer) -> Self {
        Self {
            signer,
            chip,
            certificates: Mutex::default(),
            script: Script::default(),
        }
    }

    /// Faults, in this order.
    pub fn script(&self, faults: impl IntoIterator<Item = SevGuestFault>) {
        self.script.add(faults);
    }

    /// Faults that have not happened yet.
    #[must_use]
    pub fn faults_left(&self) -> usize {
        self.script.left()
    }

    /// What the host hands in.
    pub fn set_certificates(&self, table: Vec<u8>) {
        *lock(&self.certificates) = table;
    }
}

fn refusal(error: Errno, exitinfo2: u64, certificates_len: u32) -> Refusal {
    Refusal {
        source: error.into(),
        exitinfo2,
        certificates_len,
    }
}

impl SevGuest for FakeSevGuest {
    fn report(
        &self,
        report_data: &[u8; 64],
        _vmpl: u32,
        response: &mut [u8; RESPONSE],
    ) -> Result<(), Refusal> {
        let fault = self
            .script
            .take(|f| (!matches!(f, SevGuestFault::CertificatesNeed(_))).then_some(*f));
        let mut status = 0;
        let mut asked = *report_data;
        match fault {
            Some(SevGuestFault::Refuse(error, exitinfo2)) => {
                return Err(refusal(error, exitinfo2, 0));
            }
            Some(SevGuestFault::Status(said)) => status = said,
            Some(SevGuestFault::WrongReportData) => asked = [0xee; 64],
            _ => {}
        }
        let report = self.signer.sign(&asked);
        response.fill(0);
        response[..4].copy_from_slice(&u32::to_le_bytes(status));
        response[4..8].copy_from_slice(&u32::try_from(report.len()).unwrap().to_le_bytes());
        response[32..32 + report.len()].copy_from_slice(&report);
        Ok(())
    }

    fn extended_report(
        &self,
        report_data: &[u8; 64],
        vmpl: u32,
        response: &mut [u8; RESPONSE],
        certificates: &mut [u8],
    ) -> Result<(), Refusal> {
        // The kernel takes whole pages only.
        if !certificates.len().is_multiple_of(4096) {
            return Err(refusal(Errno::INVAL, 0, 0));
        }
        let table = lock(&self.certificates).clone();
        let claimed = self.script.take(|f| match f {
            SevGuestFault::CertificatesNeed(len) => Some(*len),
            _ => None,
        });
        let needed = claimed.unwrap_or_else(|| u32::try_from(table.len()).unwrap());
        if needed as usize > certificates.len() {
            return Err(refusal(Errno::NOSPC, 1 << 32, needed));
        }
        self.report(report_data, vmpl, response)?;
        certificates[..table.len()].copy_from_slice(&table);
        Ok(())
    }

    fn derived_key(&self, request: &DerivedKeyRequest) -> Result<[u8; 32], Refusal> {
        if let Some((error, exitinfo2)) = self.script.take(|f| match f {
            SevGuestFault::Refuse(error, exitinfo2) => Some((*error, *exitinfo2)),
            _ => None,
        }) {
            return Err(refusal(error, exitinfo2, 0));
        }
        let material = format!("{} {request:?}", self.chip);
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, material.as_bytes());
        Ok(digest.as_ref().try_into().unwrap())
    }
}
