//! configfs-tsm (drivers/virt/coco/guest/report.c, fs/configfs/file.c) in memory.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex};

use rustix::io::Errno;

use super::{Script, Signer, errno, lock};
use crate::files::{Access, Handle, Tree};

const INBLOB_MAX: usize = 64;

/// What is below configfs-tsm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TsmProvider {
    Tdx,
    /// With the privilege level that the guest runs at.
    Snp {
        privlevel_floor: u8,
    },
    Arm,
}

/// What goes wrong next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TsmFault {
    /// `mkdir` fails.
    Make(Errno),
    /// Reading `outblob` fails.
    Generate(Errno),
    /// Closing `inblob` fails, which nobody is told: the write does not happen.
    LostWrite,
    /// Somebody else writes an `inblob` of their own after ours was applied.
    OtherRequester,
    /// Somebody else writes after `outblob` was read.
    OtherRequesterLate,
    /// A kernel that gives an earlier blob although the generation is ours.
    StaleBlob,
    EmptyBlob,
    /// That many zeros behind the blob.
    Padding(usize),
    /// That many bytes of the blob only.
    Cut(usize),
}

#[derive(Debug, Default)]
struct Requester {
    generation: u64,
    inblob: Option<Vec<u8>>,
    privlevel: u8,
    /// Blob and the generation it is of.
    cached: Option<(u64, Vec<u8>)>,
}

/// The folder `report`.
#[derive(Debug, Clone)]
pub struct FakeTsm(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    provider: Option<TsmProvider>,
    signer: Signer,
    certificates: Mutex<Vec<u8>>,
    script: Script<TsmFault>,
    folders: Mutex<HashMap<String, Requester>>,
    /// Bytes that one read gives at most.
    read_max: Mutex<usize>,
}

impl FakeTsm {
    /// Without a provider, nobody can make a folder.
    #[must_use]
    pub fn new(provider: Option<TsmProvider>, signer: Signer) -> Self {
        Self(Arc::new(Shared {
            provider,
            signer,
            certificates: Mutex::default(),
            script: Script::default(),
            folders: Mutex::default(),
            read_max: Mutex::new(usize::MAX),
        }))
    }

    /// Faults, in this order.
    pub fn script(&self, faults: impl IntoIterator<Item = TsmFault>) {
        self.0.script.add(faults);
    }

    /// Faults that have not happened yet.
    #[must_use]
    pub fn faults_left(&self) -> usize {
        self.0.script.left()
    }

    /// What `auxblob` gives.
    pub fn set_certificates(&self, table: Vec<u8>) {
        *lock(&self.0.certificates) = table;
    }

    /// From now on a read gives at most that many bytes.
    pub fn limit_reads(&self, max: usize) {
        *lock(&self.0.read_max) = max;
    }

    /// Folders that were made and not removed.
    #[must_use]
    pub fn folders(&self) -> Vec<String> {
        lock(&self.0.folders).keys().cloned().collect()
    }

    /// The attributes that every requester's folder has, with their permissions.
    #[must_use]
    pub fn attributes(&self) -> Vec<(&'static str, u16)> {
        let mut all = vec![
            ("inblob", 0o200),
            ("outblob", 0o400),
            ("provider", 0o444),
            ("generation", 0o444),
        ];
        if matches!(self.0.provider, Some(TsmProvider::Snp { .. })) {
            all.extend([
                ("auxblob", 0o400),
                ("privlevel", 0o200),
                ("privlevel_floor", 0o444),
            ]);
        }
        all
    }
}

impl Shared {
    fn apply(&self, name: &str, attribute: &str, value: Vec<u8>) {
        let lost = self
            .script
            .take(|f| (*f == TsmFault::LostWrite).then_some(()));
        let mut folders = lock(&self.folders);
        let (Some(requester), None) = (folders.get_mut(name), lost) else {
            return;
        };
        if attribute == "privlevel" {
            let level = std::str::from_utf8(&value)
                .ok()
                .and_then(|t| t.trim().parse().ok());
            let floor = match self.provider {
                Some(TsmProvider::Snp { privlevel_floor }) => privlevel_floor,
                _ => 0,
            };
            match level {
                Some(level) if (floor..=3).contains(&level) => requester.privlevel = level,
                _ => return,
            }
        } else {
            requester.inblob = Some(value);
        }
        requester.generation += 1;
        if attribute == "inblob"
            && self
                .script
                .take(|f| (*f == TsmFault::OtherRequester).then_some(()))
                .is_some()
        {
            requester.inblob = Some(vec![0xee; INBLOB_MAX]);
            requester.generation += 1;
        }
    }

    fn generate(&self, name: &str) -> io::Result<Vec<u8>> {
        if let Some(error) = self.script.take(|f| match f {
            TsmFault::Generate(error) => Some(*error),
            _ => None,
        }) {
            return errno(error);
        }
        let mut folders = lock(&self.folders);
        let requester = folders.get_mut(name).ok_or(Errno::NOENT)?;
        let generation = requester.generation;
        if let Some((of, blob)) = &requester.cached
            && *of == generation
        {
            return Ok(blob.clone());
        }
        let asked: [u8; INBLOB_MAX] = requester
            .inblob
            .as_deref()
            .and_then(|inblob| inblob.try_into().ok())
            .ok_or(Errno::INVAL)?;
        if let Some(TsmProvider::Snp { privlevel_floor }) = self.provider
            && requester.privlevel < privlevel_floor
        {
            // Firmware refuses a level above the guest's own.
            return errno(Errno::IO);
        }
        let mut blob = self.signer.sign(&asked);
        let fault = self.script.take(|f| {
            use TsmFault::{Cut, EmptyBlob, OtherRequesterLate, Padding, StaleBlob};
            matches!(
                f,
                StaleBlob | EmptyBlob | Padding(_) | Cut(_) | OtherRequesterLate
            )
            .then_some(*f)
        });
        match fault {
            Some(TsmFault::StaleBlob) => blob = self.signer.sign(&[0xdd; INBLOB_MAX]),
            Some(TsmFault::EmptyBlob) => blob.clear(),
            Some(TsmFault::Padding(n)) => blob.resize(blob.len() + n, 0),
            Some(TsmFault::Cut(n)) => blob.truncate(n),
            Some(TsmFault::OtherRequesterLate) => requester.generation += 1,
            _ => {}
        }
        requester.cached = Some((generation, blob.clone()));
        Ok(blob)
    }

    fn show(&self, name: &str, attribute: &str) -> io::Result<Vec<u8>> {
        let provider = self.provider.ok_or(Errno::NXIO)?;
        match attribute {
            "outblob" => self.generate(name),
            "auxblob" => self
                .generate(name)
                .map(|_| lock(&self.certificates).clone()),
            "provider" => Ok(match provider {
                TsmProvider::Tdx => b"tdx_guest\n".to_vec(),
                TsmProvider::Snp { .. } => b"sev_guest\n".to_vec(),
                TsmProvider::Arm => b"arm_cca_guest\n".to_vec(),
            }),
            "generation" => {
                let folders = lock(&self.folders);
                let generation = folders.get(name).ok_or(Errno::NOENT)?.generation;
                Ok(format!("{generation}\n").into_bytes())
            }
            "privlevel_floor" => match provider {
                TsmProvider::Snp { privlevel_floor } => {
                    Ok(format!("{privlevel_floor}\n").into_bytes())
                }
                _ => errno(Errno::NOENT),
            },
            _ => errno(Errno::NOENT),
        }
    }
}

/// An open attribute. Reading starts with the first read, writing is applied by dropping it.
struct Attribute {
    shared: Arc<Shared>,
    folder: String,
    name: &'static str,
    access: Access,
    /// What is left to be read, once reading has begun.
    content: Option<io::Cursor<Vec<u8>>>,
    written: Option<Vec<u8>>,
}

impl Handle for Attribute {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.access == Access::Write {
            return errno(Errno::BADF);
        }
        if self.written.is_some() {
            return errno(Errno::TXTBSY);
        }
        if self.content.is_none() {
            let content = self.shared.show(&self.folder, self.name)?;
            self.content = Some(io::Cursor::new(content));
        }
        let max = buffer.len().min(*lock(&self.shared.read_max));
        io::Read::read(self.content.as_mut().unwrap(), &mut buffer[..max])
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.access == Access::Read {
            return errno(Errno::BADF);
        }
        if self.content.is_some() {
            return errno(Errno::TXTBSY);
        }
        let written = self.written.get_or_insert_default();
        if written.len() + bytes.len() > INBLOB_MAX {
            return errno(Errno::FBIG);
        }
        written.extend(bytes);
        Ok(bytes.len())
    }
}

impl Drop for Attribute {
    fn drop(&mut self) {
        if let Some(written) = self.written.take() {
            self.shared.apply(&self.folder, self.name, written);
        }
    }
}

impl Tree for FakeTsm {
    fn open(&self, path: &str, access: Access) -> io::Result<Box<dyn Handle>> {
        let (folder, name) = path.split_once('/').ok_or(Errno::ISDIR)?;
        if !lock(&self.0.folders).contains_key(folder) {
            return errno(Errno::NOENT);
        }
        let attributes = self.attributes();
        let (name, mode) = attributes
            .into_iter()
            .find(|(known, _)| *known == name)
            .ok_or(Errno::NOENT)?;
        let writable = mode & 0o200 != 0;
        if writable != (access == Access::Write) {
            return errno(Errno::ACCESS);
        }
        Ok(Box::new(Attribute {
            shared: Arc::clone(&self.0),
            folder: folder.into(),
            name,
            access,
            content: None,
            written: None,
        }))
    }

    fn make_folder(&self, path: &str) -> io::Result<()> {
        if let Some(error) = self.0.script.take(|f| match f {
            TsmFault::Make(error) => Some(*error),
            _ => None,
        }) {
            return errno(error);
        }
        if self.0.provider.is_none() {
            return errno(Errno::NXIO);
        }
        let mut folders = lock(&self.0.folders);
        if folders.contains_key(path) {
            return errno(Errno::EXIST);
        }
        folders.insert(path.into(), Requester::default());
        Ok(())
    }

    fn remove_folder(&self, path: &str) -> io::Result<()> {
        match lock(&self.0.folders).remove(path) {
            Some(_) => Ok(()),
            None => errno(Errno::NOENT),
        }
    }
}
