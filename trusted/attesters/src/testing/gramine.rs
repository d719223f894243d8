//! Gramine's `/dev/attestation` (libos/src/fs/dev/attestation.c) in memory.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rustix::io::Errno;

use super::{Script, Signer, errno, lock};
use crate::files::{Access, Handle, Tree};

/// What goes wrong next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GramineFault {
    /// Opening `quote` fails: Gramine says EACCES for everything.
    Open(Errno),
    /// A read is interrupted.
    Interrupt,
    /// Another thread writes its own report data after ours.
    OtherThread,
    /// The quote is longer than it may be.
    Longer,
}

/// The folder `/dev/attestation`, with the process's one state.
#[derive(Debug, Clone)]
pub struct FakeGramine(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    attestation_type: &'static str,
    signer: Signer,
    mrenclave_key: Mutex<Vec<u8>>,
    script: Script<GramineFault>,
    report_data: Mutex<[u8; 64]>,
    read_max: Mutex<usize>,
    quotes: AtomicUsize,
}

impl FakeGramine {
    /// `attestation_type` is `dcap`, or `none`, with which there is no quote.
    #[must_use]
    pub fn new(attestation_type: &'static str, signer: Signer) -> Self {
        Self(Arc::new(Shared {
            attestation_type,
            signer,
            mrenclave_key: Mutex::new(vec![0x4b; 16]),
            script: Script::default(),
            report_data: Mutex::new([0; 64]),
            read_max: Mutex::new(usize::MAX),
            quotes: AtomicUsize::new(0),
        }))
    }

    /// Faults, in this order.
    pub fn script(&self, faults: impl IntoIterator<Item = GramineFault>) {
        self.0.script.add(faults);
    }

    /// Faults that have not happened yet.
    #[must_use]
    pub fn faults_left(&self) -> usize {
        self.0.script.left()
    }

    /// From now on a read gives at most that many bytes.
    pub fn limit_reads(&self, max: usize) {
        *lock(&self.0.read_max) = max;
    }

    /// What `keys/_sgx_mrenclave` gives; an unset key reads empty.
    pub fn set_mrenclave_key(&self, key: &[u8]) {
        *lock(&self.0.mrenclave_key) = key.to_vec();
    }

    /// How many quotes were made: more than were asked for if threads disturbed each other.
    #[must_use]
    pub fn quotes(&self) -> usize {
        self.0.quotes.load(Ordering::Relaxed)
    }

    /// What is in `user_report_data` now.
    #[must_use]
    pub fn report_data(&self) -> [u8; 64] {
        *lock(&self.0.report_data)
    }

    /// The files, with their permissions.
    #[must_use]
    pub fn files(&self) -> Vec<(&'static str, u16)> {
        let mut all = vec![
            ("attestation_type", 0o444),
            ("user_report_data", 0o666),
            ("keys/_sgx_mrenclave", 0o444),
        ];
        if self.0.attestation_type != "none" {
            all.push(("quote", 0o444));
        }
        all
    }
}

enum Open {
    /// Content is made when a file is opened; every read of it is of that.
    Content(io::Cursor<Vec<u8>>, Arc<Shared>),
    ReportData(Arc<Shared>),
}

impl Handle for Open {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Self::Content(content, shared) = self else {
            return errno(Errno::BADF);
        };
        if shared
            .script
            .take(|f| (*f == GramineFault::Interrupt).then_some(()))
            .is_some()
        {
            return errno(Errno::INTR);
        }
        let max = buffer.len().min(*lock(&shared.read_max));
        io::Read::read(content, &mut buffer[..max])
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Self::ReportData(shared) = self else {
            return errno(Errno::BADF);
        };
        // Each write replaces; less is padded with zeros, more is cut, and both are success.
        let mut report_data = [0; 64];
        let len = bytes.len().min(64);
        report_data[..len].copy_from_slice(&bytes[..len]);
        *lock(&shared.report_data) = report_data;
        if shared
            .script
            .take(|f| (*f == GramineFault::OtherThread).then_some(()))
            .is_some()
        {
            *lock(&shared.report_data) = [0xee; 64];
        }
        Ok(bytes.len())
    }
}

impl Tree for FakeGramine {
    fn open(&self, path: &str, access: Access) -> io::Result<Box<dyn Handle>> {
        if !self.files().iter().any(|(name, _)| *name == path) {
            return errno(Errno::NOENT);
        }
        let shared = Arc::clone(&self.0);
        if access == Access::Write {
            return match path {
                "user_report_data" => Ok(Box::new(Open::ReportData(shared))),
                _ => errno(Errno::ACCESS),
            };
        }
        let content = match path {
            "attestation_type" => shared.attestation_type.as_bytes().to_vec(),
            "keys/_sgx_mrenclave" => lock(&shared.mrenclave_key).clone(),
            "quote" => {
                if let Some(error) = shared.script.take(|f| match f {
                    GramineFault::Open(error) => Some(*error),
                    _ => None,
                }) {
                    return errno(error);
                }
                shared.quotes.fetch_add(1, Ordering::Relaxed);
                let mut quote = shared.signer.sign(&self.report_data());
                if shared
                    .script
                    .take(|f| (*f == GramineFault::Longer).then_some(()))
                    .is_some()
                {
                    quote.resize(8193, 0);
                }
                quote
            }
            _ => self.report_data().to_vec(),
        };
        Ok(Box::new(Open::Content(io::Cursor::new(content), shared)))
    }

    fn make_folder(&self, _: &str) -> io::Result<()> {
        errno(Errno::PERM)
    }

    fn remove_folder(&self, _: &str) -> io::Result<()> {
        errno(Errno::PERM)
    }
}
