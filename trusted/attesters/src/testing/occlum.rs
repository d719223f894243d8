//! Occlum's `/dev/sgx` (src/libos/src/fs/dev_fs/dev_sgx) in memory.

use std::io;
use std::sync::Mutex;

use rustix::io::Errno;

use super::{Script, Signer, errno, lock};
use crate::occlum::{KEY_REQUEST, OcclumSgx, REPORT};

/// What goes wrong next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OcclumFault {
    /// Asking for the size fails, or gives another one.
    Size(Result<u32, Errno>),
    Quote(Errno),
    WrongReportData,
}

/// The device.
#[derive(Debug)]
pub struct FakeOcclum {
    signer: Signer,
    script: Script<OcclumFault>,
    /// CPU SVN of the report: what an update of microcode changes.
    cpu_svn: Mutex<u8>,
}

impl FakeOcclum {
    #[must_use]
    pub fn new(signer: Signer) -> Self {
        Self {
            signer,
            script: Script::default(),
            cpu_svn: Mutex::new(3),
        }
    }

    /// Faults, in this order.
    pub fn script(&self, faults: impl IntoIterator<Item = OcclumFault>) {
        self.script.add(faults);
    }

    /// Faults that have not happened yet.
    #[must_use]
    pub fn faults_left(&self) -> usize {
        self.script.left()
    }

    pub fn set_cpu_svn(&self, cpu_svn: u8) {
        *lock(&self.cpu_svn) = cpu_svn;
    }
}

impl OcclumSgx for FakeOcclum {
    fn quote_size(&self) -> io::Result<u32> {
        let fault = self.script.take(|f| match f {
            OcclumFault::Size(size) => Some(*size),
            _ => None,
        });
        match fault {
            Some(size) => Ok(size?),
            None => Ok(u32::try_from(self.signer.sign(&[0; 64]).len()).unwrap()),
        }
    }

    fn quote(&self, report_data: &[u8; 64], quote: &mut [u8]) -> io::Result<()> {
        let fault = self.script.take(|f| match f {
            OcclumFault::Size(_) => None,
            other => Some(*other),
        });
        let made = match fault {
            Some(OcclumFault::Quote(error)) => return errno(error),
            Some(_) => self.signer.sign(&[0xee; 64]),
            None => self.signer.sign(report_data),
        };
        if quote.len() < made.len() {
            return errno(Errno::INVAL);
        }
        quote[..made.len()].copy_from_slice(&made);
        Ok(())
    }

    fn report(&self) -> io::Result<[u8; REPORT]> {
        let mut report = [0; REPORT];
        report[..16].fill(*lock(&self.cpu_svn));
        report[258] = 7;
        Ok(report)
    }

    fn key(&self, request: &[u8; KEY_REQUEST]) -> io::Result<[u8; 16]> {
        let current = *lock(&self.cpu_svn);
        let (name, policy) = (request[0], request[2]);
        // A key of a version that the processor does not have yet is refused (EGETKEY).
        if name != 4 || policy != 1 || request[8..24].iter().any(|svn| *svn > current) {
            return errno(Errno::INVAL);
        }
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, request);
        Ok(digest.as_ref()[..16].try_into().unwrap())
    }
}
