//! The same fakes behind a real mount (FUSE), so that the real file implementation makes real
//! system calls: also the search for a TEE, with what only the kernel does in between.
//!
//! FUSE needs `/dev/fuse` and the right to mount. Where it is missing, each test prints that it
//! did not run; `.ci/run` fails if there is a `/dev/fuse` and one of them did not.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use attestation::testing::dcap::{FakeIntel, FakeReport};
use attestation::{Attester, Binder, Endorsements, Tee};
use fuser::{
    BackgroundSession, Config, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, MountOption, OpenAccMode, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyWrite, Request, WriteFlags,
};
use rustix::io::Errno;
use tempfile::TempDir;

use super::conformance::{conforms, intel_signer};
use super::{
    FakeGramine, FakeTsm, GramineFault, NotedPauses, Signer, TsmFault, TsmProvider,
    certificate_table, lock,
};
use crate::detect::{DetectError, Machine};
use crate::files::{Access, Folder, Handle, Tree};
use crate::gramine::{self, GramineAttester};
use crate::layout::quote_about;
use crate::tsm::{self, SnpAttester, TdxAttester};

const NOW: u64 = 1_800_000_000;

enum Node {
    Folder,
    File(u16),
}

/// A fake whose files can be listed.
trait Listed: Tree {
    /// What is at a path, which is empty for the root.
    fn node(&self, path: &str) -> Option<Node>;
}

fn file(all: &[(&'static str, u16)], name: &str) -> Option<Node> {
    let mode = all.iter().find(|(known, _)| *known == name)?.1;
    Some(Node::File(mode))
}

impl Listed for FakeTsm {
    fn node(&self, path: &str) -> Option<Node> {
        let folders = self.folders();
        match path.split_once('/') {
            None if path.is_empty() || folders.iter().any(|f| f == path) => Some(Node::Folder),
            None => None,
            Some((folder, name)) => {
                let there = folders.iter().any(|f| f == folder);
                file(&self.attributes(), name).filter(|_| there)
            }
        }
    }
}

impl Listed for FakeGramine {
    fn node(&self, path: &str) -> Option<Node> {
        match path {
            "" | "keys" => Some(Node::Folder),
            name => file(&self.files(), name),
        }
    }
}

/// A fake as a file system.
struct Mounted<T> {
    tree: T,
    /// Paths by inode number, less one.
    paths: Mutex<Vec<String>>,
    open: Mutex<HashMap<u64, Box<dyn Handle>>>,
    next: AtomicU64,
}

fn errno(error: std::io::Error) -> fuser::Errno {
    error.into()
}

impl<T: Listed> Mounted<T> {
    fn path(&self, inode: INodeNo) -> String {
        lock(&self.paths)[usize::try_from(inode.0).unwrap() - 1].clone()
    }

    fn child(&self, parent: INodeNo, name: &OsStr) -> String {
        let name = name.to_str().unwrap();
        match self.path(parent) {
            root if root.is_empty() => name.into(),
            parent => format!("{parent}/{name}"),
        }
    }

    fn attributes(&self, path: &str) -> Option<FileAttr> {
        let (kind, perm) = match self.tree.node(path)? {
            Node::Folder => (FileType::Directory, 0o755),
            Node::File(mode) => (FileType::RegularFile, mode),
        };
        let mut paths = lock(&self.paths);
        let at = paths
            .iter()
            .position(|known| known == path)
            .unwrap_or_else(|| {
                paths.push(path.into());
                paths.len() - 1
            });
        Some(FileAttr {
            ino: INodeNo(at as u64 + 1),
            size: 0,
            blocks: 0,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind,
            perm,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 512,
            flags: 0,
        })
    }

    fn entry(&self, path: &str, reply: ReplyEntry) {
        match self.attributes(path) {
            Some(attributes) => reply.entry(&Duration::ZERO, &attributes, Generation(0)),
            None => reply.error(fuser::Errno::ENOENT),
        }
    }
}

impl<T: Listed + 'static> Filesystem for Mounted<T> {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.entry(&self.child(parent, name), reply);
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes(&self.path(inode)) {
            Some(attributes) => reply.attr(&Duration::ZERO, &attributes),
            None => reply.error(fuser::Errno::ENOENT),
        }
    }

    fn mkdir(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        let path = self.child(parent, name);
        match self.tree.make_folder(&path) {
            Ok(()) => self.entry(&path, reply),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        match self.tree.remove_folder(&self.child(parent, name)) {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn open(&self, _: &Request, inode: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let access = match flags.acc_mode() {
            OpenAccMode::O_RDONLY => Access::Read,
            OpenAccMode::O_WRONLY => Access::Write,
            OpenAccMode::O_RDWR => Access::ReadWrite,
        };
        match self.tree.open(&self.path(inode), access) {
            Ok(handle) => {
                let number = self.next.fetch_add(1, Ordering::Relaxed);
                lock(&self.open).insert(number, handle);
                // Each read and write of the caller comes here as it is.
                let flags = FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_NONSEEKABLE;
                reply.opened(FileHandle(number), flags);
            }
            Err(error) => reply.error(errno(error)),
        }
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let mut buffer = vec![0; size as usize];
        let mut open = lock(&self.open);
        match open.get_mut(&handle.0).unwrap().read(&mut buffer) {
            Ok(n) => reply.data(&buffer[..n]),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _offset: u64,
        bytes: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mut open = lock(&self.open);
        match open.get_mut(&handle.0).unwrap().write(bytes) {
            Ok(n) => reply.written(u32::try_from(n).unwrap()),
            Err(error) => reply.error(errno(error)),
        }
    }

    /// At close(2), before it returns: what configfs applies then. `release` would come later.
    fn flush(&self, _: &Request, _: INodeNo, handle: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        drop(lock(&self.open).remove(&handle.0));
        reply.ok();
    }
}

/// A machine with a fake mounted at `place`, or nothing where mounting is impossible.
fn mount<T: Listed + Clone + 'static>(
    test: &str,
    place: &str,
    tree: &T,
) -> Option<(TempDir, BackgroundSession)> {
    let did_not = |why: &dyn std::fmt::Display| println!("mounted {test}: did not run: {why}");
    if !Path::new("/dev/fuse").exists() {
        did_not(&"no /dev/fuse");
        return None;
    }
    let root = TempDir::new().unwrap();
    let path = root.path().join(place);
    fs::create_dir_all(&path).unwrap();
    let file_system = Mounted {
        tree: tree.clone(),
        paths: Mutex::new(vec![String::new()]),
        open: Mutex::default(),
        next: AtomicU64::new(1),
    };
    let mut config = Config::default();
    config.mount_options = vec![MountOption::FSName("sesemi-test".into())];
    match fuser::spawn_mount(file_system, &path, &config) {
        Ok(session) => {
            println!("mounted {test}: ran");
            Some((root, session))
        }
        Err(error) => {
            did_not(&error);
            None
        }
    }
}

fn key(n: u8) -> Binder {
    Binder::certificate(&[n])
}

#[test]
fn tdx_conforms() {
    let intel = FakeIntel::new();
    let fake = FakeTsm::new(
        Some(TsmProvider::Tdx),
        intel_signer(&intel, FakeReport::td(1)),
    );
    let Some((root, _session)) = mount("tdx_conforms", tsm::PATH, &fake) else {
        return;
    };
    fake.limit_reads(1000);
    fake.script([
        TsmFault::Padding(3000),
        TsmFault::OtherRequester,
        TsmFault::Generate(Errno::BUSY),
        TsmFault::Generate(Errno::INTR),
        TsmFault::LostWrite,
        TsmFault::StaleBlob,
        TsmFault::OtherRequesterLate,
    ]);
    let pauses = Arc::new(NotedPauses::default());
    let report = Arc::new(Folder::new(root.path().join(tsm::PATH)));
    conforms(
        TdxAttester::new(report, Arc::clone(&pauses) as _),
        intel.verifier(Tee::Tdx),
        intel.endorsements(Tee::Tdx, NOW),
        Duration::from_secs(NOW),
    );
    assert_eq!(fake.faults_left(), 0);
    assert_eq!(pauses.noted().len(), 1);
    assert!(fake.folders().is_empty());
}

#[test]
fn sgx_under_gramine_conforms() {
    let intel = FakeIntel::new();
    let fake = FakeGramine::new("dcap", intel_signer(&intel, FakeReport::sgx(1)));
    let Some((root, _session)) = mount("sgx_under_gramine_conforms", gramine::PATH, &fake) else {
        return;
    };
    fake.limit_reads(700);
    fake.script([GramineFault::OtherThread, GramineFault::Interrupt]);
    let folder = Arc::new(Folder::new(root.path().join(gramine::PATH)));
    conforms(
        GramineAttester::new(folder, Arc::new(NotedPauses::default())),
        intel.verifier(Tee::Sgx),
        intel.endorsements(Tee::Sgx, NOW),
        Duration::from_secs(NOW),
    );
    assert_eq!(fake.faults_left(), 0);
}

#[test]
fn machines_are_recognised() {
    let snp = FakeTsm::new(
        Some(TsmProvider::Snp { privlevel_floor: 1 }),
        Signer::snp_report(true),
    );
    let Some((root, _session)) = mount("machines_are_recognised", tsm::PATH, &snp) else {
        return;
    };
    snp.set_certificates(certificate_table(true, b"vlek", Some([b"asvk", b"ark"])));
    let attester = Machine::new(root.path()).detect().unwrap();
    assert_eq!(attester.tee(), Tee::Snp);
    attester.collect(&key(1)).unwrap();
    let given = Endorsements::Snp {
        vek: b"vlek".to_vec(),
        chain: vec![b"asvk".to_vec(), b"ark".to_vec()],
    };
    assert_eq!(attester.host_endorsements(), given);
    assert!(snp.folders().is_empty());

    let tdx = FakeTsm::new(Some(TsmProvider::Tdx), Signer::td_quote(10));
    let (root, _session) = mount("machines_are_recognised", tsm::PATH, &tdx).unwrap();
    let attester = Machine::new(root.path()).detect().unwrap();
    let evidence = attester.collect(&key(1)).unwrap();
    assert!(quote_about(&evidence.body, true, &key(1).report_data()).is_some());
    assert!(attester.sealing_key().is_err());

    let sgx = FakeGramine::new("dcap", Signer::sgx_quote(10));
    let (root, _session) = mount("machines_are_recognised", gramine::PATH, &sgx).unwrap();
    let attester = Machine::new(root.path()).detect().unwrap();
    assert_eq!(attester.tee(), Tee::Sgx);
    attester.collect(&key(1)).unwrap();
    attester.sealing_key().unwrap();
}

#[test]
fn a_tee_that_does_not_work_ends_the_search() {
    type Expected = fn(&DetectError) -> bool;
    let arm = FakeTsm::new(Some(TsmProvider::Arm), Signer::td_quote(0));
    let refusing = FakeTsm::new(Some(TsmProvider::Tdx), Signer::td_quote(0));
    refusing.script([TsmFault::Make(Errno::ACCESS)]);
    let cases: [(FakeTsm, Expected); 2] = [
        (arm, |e| matches!(e, DetectError::Unusable { .. })),
        (refusing, |e| matches!(e, DetectError::Silent { .. })),
    ];
    for (fake, expected) in cases {
        let test = "a_tee_that_does_not_work_ends_the_search";
        let Some((root, _session)) = mount(test, tsm::PATH, &fake) else {
            return;
        };
        // What would be taken next.
        fs::create_dir(root.path().join("dev")).unwrap();
        fs::write(root.path().join("dev/sev-guest"), "").unwrap();
        let error = Machine::new(root.path()).detect().unwrap_err();
        assert!(expected(&error), "{error}");
        assert!(fake.folders().is_empty());
    }
    // No provider is no TEE, and not a broken one.
    let none = FakeTsm::new(None, Signer::td_quote(0));
    let test = "a_tee_that_does_not_work_ends_the_search";
    let (root, _session) = mount(test, tsm::PATH, &none).unwrap();
    let error = Machine::new(root.path()).detect().unwrap_err();
    assert!(matches!(error, DetectError::Nothing(_)), "{error}");
    assert!(error.to_string().contains("no provider"), "{error}");
}

#[test]
fn a_folder_is_removed_even_if_the_kernel_fails() {
    let fake = FakeTsm::new(
        Some(TsmProvider::Snp { privlevel_floor: 0 }),
        Signer::snp_report(false),
    );
    let test = "a_folder_is_removed_even_if_the_kernel_fails";
    let Some((root, _session)) = mount(test, tsm::PATH, &fake) else {
        return;
    };
    let report = Arc::new(Folder::new(root.path().join(tsm::PATH)));
    let attester = SnpAttester::new(report, None, Arc::new(NotedPauses::default()));
    for error in [Errno::TIMEDOUT, Errno::NXIO, Errno::IO, Errno::NOTTY] {
        fake.script([TsmFault::Generate(error)]);
        attester.collect(&key(1)).unwrap_err();
        assert!(fake.folders().is_empty(), "{error}");
    }
    attester.collect(&key(1)).unwrap();
}
