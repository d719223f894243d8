//! The user's request keys: one file for each (model, enclave) in a folder beside the identity.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use crypto::secret::RequestKey;
use crypto::{KeyFileError, RngError};
use protocol::{EnclaveId, ErrorCode, ModelId};

use crate::explain::Explain;
use crate::state_file::{
    StateFileError, advice_on_io, code_of_io, create_private_dir, sync_folder,
};

/// Why a key of the client's own cannot be used or kept.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    #[error("there is no request key for model '{model}' in enclave {}", .enclave.short())]
    NoRequestKey { model: ModelId, enclave: EnclaveId },
    #[error("cannot use a key file")]
    KeyFile(#[from] KeyFileError),
    #[error("cannot draw a key")]
    Rng(#[from] RngError),
    #[error("cannot use the folder of keys")]
    Folder(#[from] StateFileError),
}

impl Explain for KeyringError {
    fn code(&self) -> ErrorCode {
        match self {
            Self::NoRequestKey { .. } => ErrorCode::NotFound,
            Self::KeyFile(error) => code_of_key_file(error),
            Self::Rng(_) => ErrorCode::Internal,
            Self::Folder(error) => error.code(),
        }
    }

    fn retryable(&self) -> bool {
        false
    }

    fn advice(&self) -> String {
        match self {
            Self::NoRequestKey { model, .. } => {
                format!("register one: `sesemi key register {model} --owner PRINCIPAL`")
            }
            Self::KeyFile(error) => advice_on_key_file(error),
            Self::Rng(_) => "check the operating system's random number generator".to_owned(),
            Self::Folder(error) => error.advice(),
        }
    }
}

/// The code of a failure with a key file on the caller's own disk.
#[must_use]
pub fn code_of_key_file(error: &KeyFileError) -> ErrorCode {
    match error {
        KeyFileError::Exists { .. } => ErrorCode::Conflict,
        KeyFileError::Write { source, .. } | KeyFileError::Read { source, .. } => {
            code_of_io(source)
        }
        KeyFileError::Exposed { .. } | KeyFileError::Format { .. } => ErrorCode::InvalidRequest,
    }
}

/// What to do about a key file.
#[must_use]
pub fn advice_on_key_file(error: &KeyFileError) -> String {
    match error {
        KeyFileError::Exists { .. } => {
            "choose another name: a key file is never overwritten".to_owned()
        }
        KeyFileError::Exposed { path, .. } => format!(
            "run `chmod 600 {}`; if others use this machine, take the key for known and make a new one",
            path.display()
        ),
        KeyFileError::Format { .. } => "name the file that the client wrote".to_owned(),
        KeyFileError::Write { source, .. } | KeyFileError::Read { source, .. } => {
            advice_on_io(source).to_owned()
        }
    }
}

/// A folder of request keys, mode 0700; each file has mode 0600.
#[derive(Debug, Clone)]
pub struct RequestKeyring {
    folder: PathBuf,
}

/// A key that is about to be registered. Until [`StagedKey::commit`], requests use the old one.
#[derive(Debug)]
pub struct StagedKey {
    key: RequestKey,
    /// Where it lies, if it is not in its place yet.
    staged: Option<PathBuf>,
    path: PathBuf,
}

impl RequestKeyring {
    /// Keeps the keys in `folder`, which appears with the first one.
    #[must_use]
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
        }
    }

    fn path(&self, model: &ModelId, enclave: &EnclaveId) -> PathBuf {
        // A model name has no slash, and the enclave id has a fixed length: no two pairs meet.
        self.folder.join(format!("{model}.{enclave}.key"))
    }

    /// The key that requests to `model` inside `enclave` are sealed with.
    pub fn load(&self, model: &ModelId, enclave: &EnclaveId) -> Result<RequestKey, KeyringError> {
        let path = self.path(model, enclave);
        match RequestKey::read_file(&path) {
            Err(KeyFileError::Read { source, .. })
                if source.kind() == std::io::ErrorKind::NotFound =>
            {
                Err(KeyringError::NoRequestKey {
                    model: model.clone(),
                    enclave: *enclave,
                })
            }
            result => Ok(result?),
        }
    }

    /// The key to register: the one of an earlier registration that did not finish, else the
    /// present one unless `rotate`, else a fresh one. It is on the disk before this returns, so
    /// that KeyService never holds a key that is nowhere else.
    pub fn stage(
        &self,
        model: &ModelId,
        enclave: &EnclaveId,
        rotate: bool,
    ) -> Result<StagedKey, KeyringError> {
        create_private_dir(&self.folder)?;
        let path = self.path(model, enclave);
        let next = path.with_added_extension("next");
        if exists(&next)? {
            let key = RequestKey::read_file(&next)?;
            return Ok(StagedKey {
                key,
                staged: Some(next),
                path,
            });
        }
        if exists(&path)? && !rotate {
            return Ok(StagedKey {
                key: RequestKey::read_file(&path)?,
                staged: None,
                path,
            });
        }
        let key = RequestKey::generate()?;
        key.write_file(&next)?;
        sync_folder(&self.folder)?;
        Ok(StagedKey {
            key,
            staged: Some(next),
            path,
        })
    }

    /// Deletes the key; whether there was one.
    pub fn remove(&self, model: &ModelId, enclave: &EnclaveId) -> Result<bool, KeyringError> {
        let path = self.path(model, enclave);
        let staged = remove(&path.with_added_extension("next"))?;
        let present = remove(&path)?;
        Ok(staged || present)
    }

    /// For which models and enclaves there is a key, sorted. Other files are passed over.
    pub fn list(&self) -> Result<Vec<(ModelId, EnclaveId)>, KeyringError> {
        let failed = |source| StateFileError::io("read the folder", &self.folder, source);
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error).into()),
        };
        let mut keys = Vec::new();
        for entry in entries {
            keys.extend(parse_name(&entry.map_err(failed)?.file_name()));
        }
        keys.sort();
        Ok(keys)
    }
}

impl StagedKey {
    /// The key to register.
    #[must_use]
    pub fn key(&self) -> &RequestKey {
        &self.key
    }

    /// Whether it is another key than the one that requests used until now.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.staged.is_some()
    }

    /// Forgets the key, if it is not in use: KeyService refused it.
    pub fn discard(self) -> Result<(), KeyringError> {
        if let Some(staged) = &self.staged {
            remove(staged)?;
        }
        Ok(())
    }

    /// Takes the key into use, after KeyService has it.
    pub fn commit(self) -> Result<(), KeyringError> {
        let Some(staged) = self.staged else {
            return Ok(());
        };
        fs::rename(&staged, &self.path)
            .map_err(|source| StateFileError::io("rename", &staged, source))?;
        if let Some(folder) = self.path.parent() {
            sync_folder(folder)?;
        }
        Ok(())
    }
}

fn exists(path: &Path) -> Result<bool, StateFileError> {
    path.try_exists()
        .map_err(|source| StateFileError::io("look for", path, source))
}

fn remove(path: &Path) -> Result<bool, StateFileError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(StateFileError::io("delete", path, error)),
    }
}

/// `MODEL.ENCLAVE.key`; the model's name may contain dots, the rest has a fixed length.
fn parse_name(name: &OsStr) -> Option<(ModelId, EnclaveId)> {
    let (model, enclave) = name.to_str()?.strip_suffix(".key")?.rsplit_once('.')?;
    Some((model.parse().ok()?, enclave.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const E: EnclaveId = EnclaveId::new([7; 48]);

    fn model(name: &str) -> ModelId {
        name.parse().unwrap()
    }

    fn keyring() -> (tempfile::TempDir, RequestKeyring) {
        let dir = tempfile::tempdir().unwrap();
        let keyring = RequestKeyring::new(dir.path().join("keys"));
        (dir, keyring)
    }

    #[test]
    fn a_key_is_used_only_after_commit_and_kept_until_then() {
        let (_dir, keyring) = keyring();
        let m = model("m");
        assert!(matches!(
            keyring.load(&m, &E),
            Err(KeyringError::NoRequestKey { .. })
        ));
        let first = keyring.stage(&m, &E, false).unwrap();
        assert!(first.is_new());
        assert!(keyring.load(&m, &E).is_err(), "not registered yet");
        let again = keyring.stage(&m, &E, true).unwrap();
        assert!(
            again.key().ct_eq(first.key()),
            "an unfinished registration goes on"
        );
        first.commit().unwrap();
        let used = keyring.load(&m, &E).unwrap();
        assert!(used.ct_eq(again.key()));
        assert!(keyring.list().unwrap() == [(m, E)]);
    }

    #[test]
    fn only_rotation_draws_a_new_key() {
        let (_dir, keyring) = keyring();
        let m = model("m");
        keyring.stage(&m, &E, false).unwrap().commit().unwrap();
        let old = keyring.load(&m, &E).unwrap();
        let same = keyring.stage(&m, &E, false).unwrap();
        assert!(!same.is_new() && same.key().ct_eq(&old));
        let new = keyring.stage(&m, &E, true).unwrap();
        assert!(new.is_new() && !new.key().ct_eq(&old));
        assert!(
            keyring.load(&m, &E).unwrap().ct_eq(&old),
            "the old one is used until commit"
        );
        let fresh = RequestKey::from_wire(&new.key().to_wire()).unwrap();
        new.commit().unwrap();
        assert!(keyring.load(&m, &E).unwrap().ct_eq(&fresh));
    }

    #[test]
    fn a_discarded_key_leaves_the_old_one_in_use() {
        let (_dir, keyring) = keyring();
        let m = model("m");
        keyring.stage(&m, &E, false).unwrap().commit().unwrap();
        let old = keyring.load(&m, &E).unwrap();
        keyring.stage(&m, &E, true).unwrap().discard().unwrap();
        keyring.stage(&m, &E, false).unwrap().discard().unwrap();
        assert!(keyring.stage(&m, &E, false).unwrap().key().ct_eq(&old));
        assert!(keyring.load(&m, &E).unwrap().ct_eq(&old));
    }

    #[test]
    fn names_that_look_alike_do_not_meet() {
        let (_dir, keyring) = keyring();
        let other = EnclaveId::new([8; 48]);
        for (m, e) in [("a", E), ("a.b", E), ("a", other), ("a.key", E)] {
            keyring
                .stage(&model(m), &e, false)
                .unwrap()
                .commit()
                .unwrap();
        }
        assert_eq!(keyring.list().unwrap().len(), 4);
        assert!(keyring.remove(&model("a.b"), &E).unwrap());
        assert!(!keyring.remove(&model("a.b"), &E).unwrap());
        assert!(keyring.load(&model("a"), &E).is_ok());
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let (_dir, keyring) = keyring();
        let m = model("m");
        keyring.stage(&m, &E, false).unwrap().commit().unwrap();
        let path = keyring.path(&m, &E);
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        let folder = fs::metadata(&keyring.folder).unwrap();
        assert_eq!(folder.permissions().mode() & 0o777, 0o700);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let error = keyring.load(&m, &E).unwrap_err();
        assert!(error.advice().contains("chmod 600"), "{error:?}");
        assert_eq!(error.fault(), protocol::Fault::Caller);
    }

    #[test]
    fn foreign_files_are_passed_over() {
        let (_dir, keyring) = keyring();
        keyring.stage(&model("m"), &E, false).unwrap();
        fs::write(keyring.folder.join("notes.txt"), "x").unwrap();
        fs::write(keyring.folder.join("m.key"), "x").unwrap();
        assert!(keyring.list().unwrap().is_empty());
    }
}
