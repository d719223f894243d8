//! The client configuration: where things are, who is pinned, which names stand for which ids.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use attestation::{Allowed, AppraisalPolicy, RelyingParty, Tee, VerifierSet};
use protocol::{EnclaveId, PrincipalId};
use sdk::keyservice::PinnedKeyservice;
use serde::Deserialize;

use crate::args::Global;

/// Where the profile is looked for when nobody names one.
pub const DEFAULT_PATH: &str = ".state/profile.toml";
/// Largest profile, in bytes.
const FILE_MAX: u64 = 1024 * 1024;

/// Why the profile, or something that should be in it, cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    #[error(
        "there is no profile: neither --profile nor SESEMI_PROFILE is given, and {DEFAULT_PATH} does not exist"
    )]
    None,
    #[error("cannot read the profile {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("profile {path} is larger than {FILE_MAX} bytes")]
    TooLarge { path: PathBuf },
    #[error("profile {path} is not valid")]
    Parse {
        path: PathBuf,
        source: Box<toml::de::Error>,
    },
    #[error("the profile has no {0}")]
    Lacks(&'static str),
    #[error("no file is named for the identity")]
    NoIdentity,
    #[error("'{text}' is neither {kind} nor a name under [{table}]; names there: {known}")]
    Name {
        text: String,
        kind: &'static str,
        table: &'static str,
        known: String,
    },
}

impl ProfileError {
    /// What to do about it.
    #[must_use]
    pub fn advice(&self) -> String {
        match self {
            Self::None => "start a system with `sesemi-dev up`, which writes one, or copy config/sesemi.toml and name it with --profile".to_owned(),
            Self::Read { .. } => "check the file's name and that you may read it".to_owned(),
            Self::TooLarge { .. } | Self::Parse { .. } => {
                "correct the file; config/sesemi.toml shows every setting".to_owned()
            }
            Self::Lacks(what) => format!("add {what} to the profile; config/sesemi.toml shows how"),
            Self::NoIdentity => {
                "name it with --identity, or set `identity` in the profile".to_owned()
            }
            Self::Name { table, .. } => {
                format!("write the id in lower-case hexadecimal, or add the name under [{table}]")
            }
        }
    }
}

/// Where KeyService is, and which one it must be.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyserviceSettings {
    /// `host:port`.
    pub address: String,
    /// E_K: the only KeyService that is talked to.
    pub enclave: EnclaveId,
    /// Kinds of TEE that it may run in.
    pub accepted: Vec<Tee>,
    /// Accept a KeyService whose memory the host can read. Never outside development.
    #[serde(default)]
    pub allow_debug: bool,
    /// Lowest security version of the TEE; 0 leaves it unchecked.
    #[serde(default)]
    pub minimum_svn: u64,
}

impl KeyserviceSettings {
    /// The pin: this enclave, in these kinds of TEE, and nothing else.
    #[must_use]
    pub fn pin(&self, verifiers: VerifierSet) -> PinnedKeyservice {
        let mut policy =
            AppraisalPolicy::strict(self.accepted.clone(), Allowed::These(vec![self.enclave]));
        policy.allow_debug = self.allow_debug;
        policy.minimum_svn = self.minimum_svn;
        PinnedKeyservice {
            address: self.address.clone(),
            relying: Arc::new(RelyingParty { verifiers, policy }),
        }
    }
}

/// Where requests go.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InferenceSettings {
    /// FnPacker, `http://host:port`.
    pub url: String,
    /// E_S: an id or a name from `[enclaves]`; `--enclave` overrides it.
    #[serde(default)]
    pub enclave: Option<String>,
}

/// Where sealed artifacts go.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreSettings {
    /// `file:///folder`, `s3://bucket/prefix`, `gs://…`, `az://…`.
    pub url: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawProfile {
    #[serde(default)]
    identity: Option<PathBuf>,
    #[serde(default)]
    keyservice: Option<KeyserviceSettings>,
    #[serde(default)]
    inference: Option<InferenceSettings>,
    #[serde(default)]
    store: Option<StoreSettings>,
    #[serde(default)]
    roots: BTreeMap<Tee, PathBuf>,
    #[serde(default)]
    principals: BTreeMap<String, PrincipalId>,
    #[serde(default)]
    enclaves: BTreeMap<String, EnclaveId>,
}

/// What a command may ask of the profile and the global flags together.
#[derive(Debug, Clone, Default)]
pub struct Profile {
    raw: RawProfile,
    /// Where it was read; `None` if there is none.
    path: Option<PathBuf>,
    /// `--identity`.
    identity: Option<PathBuf>,
}

impl Profile {
    /// Reads the file that the flags name, else the default file if there is one.
    ///
    /// Without any file this is an empty profile: `identity new` needs none. Whatever a command
    /// then asks for is an error that says so.
    pub fn find(global: &Global) -> Result<Self, ProfileError> {
        let identity = global.identity.clone();
        let default = Path::new(DEFAULT_PATH);
        let path = match &global.profile {
            Some(path) => path.clone(),
            None if default.exists() => default.to_path_buf(),
            None => {
                return Ok(Self {
                    identity,
                    ..Self::default()
                });
            }
        };
        let raw = Self::read(&path)?;
        Ok(Self {
            raw,
            path: Some(path),
            identity,
        })
    }

    fn read(path: &Path) -> Result<RawProfile, ProfileError> {
        let failed = |source| ProfileError::Read {
            path: path.into(),
            source,
        };
        let mut text = String::new();
        let file = std::fs::File::open(path).map_err(failed)?;
        io::Read::read_to_string(&mut io::Read::take(file, FILE_MAX + 1), &mut text)
            .map_err(failed)?;
        if text.len() as u64 > FILE_MAX {
            return Err(ProfileError::TooLarge { path: path.into() });
        }
        toml::from_str(&text).map_err(|source| ProfileError::Parse {
            path: path.into(),
            source: Box::new(source),
        })
    }

    /// Where it was read, if there is one.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Paths in the profile are relative to its folder.
    fn beside(&self, path: &Path) -> PathBuf {
        match self.path.as_deref().and_then(Path::parent) {
            Some(folder) => folder.join(path),
            None => path.to_path_buf(),
        }
    }

    fn lacks(&self, what: &'static str) -> ProfileError {
        if self.path.is_some() {
            ProfileError::Lacks(what)
        } else {
            ProfileError::None
        }
    }

    /// The identity key file: `--identity`, else the profile's.
    pub fn identity(&self) -> Result<PathBuf, ProfileError> {
        match (&self.identity, &self.raw.identity) {
            (Some(path), _) => Ok(path.clone()),
            (None, Some(path)) => Ok(self.beside(path)),
            (None, None) => Err(ProfileError::NoIdentity),
        }
    }

    /// `[keyservice]`.
    pub fn keyservice(&self) -> Result<&KeyserviceSettings, ProfileError> {
        self.raw
            .keyservice
            .as_ref()
            .ok_or_else(|| self.lacks("[keyservice]"))
    }

    /// `url` under `[inference]`.
    pub fn inference_url(&self) -> Result<&str, ProfileError> {
        let inference = self.raw.inference.as_ref();
        inference
            .map(|i| i.url.as_str())
            .ok_or_else(|| self.lacks("[inference]"))
    }

    /// `url` under `[store]`, or the one given.
    pub fn store_url<'a>(&'a self, given: Option<&'a str>) -> Result<&'a str, ProfileError> {
        given
            .or_else(|| self.raw.store.as_ref().map(|s| s.url.as_str()))
            .ok_or_else(|| self.lacks("[store]"))
    }

    /// The file of a TEE's root of trust, where it is not built in.
    #[must_use]
    pub fn root(&self, tee: Tee) -> Option<PathBuf> {
        self.raw.roots.get(&tee).map(|path| self.beside(path))
    }

    /// A principal by id or by name.
    pub fn principal(&self, text: &str) -> Result<PrincipalId, ProfileError> {
        let kind = "a principal id of 64 hexadecimal digits";
        lookup(text, kind, "principals", &self.raw.principals)
    }

    /// E_S by id or by name; without one, the profile's.
    pub fn enclave(&self, text: Option<&str>) -> Result<EnclaveId, ProfileError> {
        let configured = || {
            self.raw
                .inference
                .as_ref()
                .and_then(|i| i.enclave.as_deref())
        };
        let text = text
            .or_else(configured)
            .ok_or_else(|| self.lacks("`enclave` under [inference] (or give --enclave)"))?;
        lookup(
            text,
            "an enclave id of 96 hexadecimal digits",
            "enclaves",
            &self.raw.enclaves,
        )
    }

    /// The profile's name for a principal, if it has one.
    #[must_use]
    pub fn name_of(&self, principal: &PrincipalId) -> Option<&str> {
        let mut names = self.raw.principals.iter();
        names
            .find(|(_, id)| *id == principal)
            .map(|(name, _)| name.as_str())
    }

    /// The profile's name for an enclave, if it has one.
    #[must_use]
    pub fn enclave_name_of(&self, enclave: &EnclaveId) -> Option<&str> {
        let mut names = self.raw.enclaves.iter();
        names
            .find(|(_, id)| *id == enclave)
            .map(|(name, _)| name.as_str())
    }
}

/// An id is taken as an id before any name is looked at, so that no name can stand for another id.
fn lookup<T: Copy + std::str::FromStr>(
    text: &str,
    kind: &'static str,
    table: &'static str,
    names: &BTreeMap<String, T>,
) -> Result<T, ProfileError> {
    if let Ok(id) = text.parse() {
        return Ok(id);
    }
    names.get(text).copied().ok_or_else(|| {
        let known: Vec<_> = names.keys().map(String::as_str).collect();
        let known = if known.is_empty() {
            "none".to_owned()
        } else {
            known.join(", ")
        };
        ProfileError::Name {
            text: text.chars().take(100).collect(),
            kind,
            table,
            known,
        }
    })
}

/// The client's files that lie beside an identity key: `alice.pem` → `alice.keys/` and so on, so
/// that several identities can share a folder.
#[derive(Debug, Clone)]
pub struct Home {
    identity: PathBuf,
}

impl Home {
    #[must_use]
    pub fn beside(identity: PathBuf) -> Self {
        Self { identity }
    }

    /// The identity key file itself.
    #[must_use]
    pub fn identity(&self) -> &Path {
        &self.identity
    }

    /// Request keys.
    #[must_use]
    pub fn keys(&self) -> PathBuf {
        self.identity.with_extension("keys")
    }

    /// Model keys and records of what was pushed.
    #[must_use]
    pub fn models(&self) -> PathBuf {
        self.identity.with_extension("models")
    }

    /// The highest epoch seen of every KeyService.
    #[must_use]
    pub fn epochs(&self) -> PathBuf {
        self.identity.with_extension("epochs.json")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(text: &str) -> (tempfile::TempDir, Result<Profile, ProfileError>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("profile.toml");
        std::fs::write(&path, text).unwrap();
        let global = Global {
            profile: Some(path),
            ..Global::default()
        };
        (dir, Profile::find(&global))
    }

    #[test]
    fn the_example_is_valid_and_complete() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/sesemi.toml");
        let global = Global {
            profile: Some(path),
            ..Global::default()
        };
        let profile = Profile::find(&global).unwrap();
        assert!(profile.identity().unwrap().ends_with("config/alice.pem"));
        assert!(!profile.keyservice().unwrap().allow_debug);
        assert!(profile.inference_url().unwrap().starts_with("http://"));
        assert!(profile.store_url(None).is_ok());
        assert!(profile.enclave(None).is_ok());
        assert!(profile.root(Tee::Simulated).is_none());
    }

    #[test]
    fn unknown_settings_and_wrong_ids_are_named() {
        for (text, named) in [
            ("identiy = 'x'", "identiy"),
            ("[keyservice]\naddress='h:1'", "enclave"),
            (
                "[keyservice]\naddress='h:1'\nenclave='00'\naccepted=[]",
                "enclave id",
            ),
            ("[principals]\nbob = 'b0b'", "principal id"),
            ("[roots]\nsimulaed = 'x'", "simulaed"),
            ("identity = ", "1"),
        ] {
            let error = profile(text).1.unwrap_err();
            let source = std::error::Error::source(&error).unwrap().to_string();
            assert!(source.contains(named), "{text}: {source}");
        }
    }

    #[test]
    fn names_stand_for_ids_but_never_in_place_of_another_id() {
        let (a, b) = ("aa".repeat(32), "bb".repeat(32));
        let text = format!("[principals]\nalice = '{a}'\n{b} = '{a}'\n");
        let profile = profile(&text).1.unwrap();
        assert_eq!(profile.principal("alice").unwrap().to_string(), a);
        assert_eq!(
            profile.principal(&b).unwrap().to_string(),
            b,
            "the id itself wins"
        );
        assert_eq!(
            profile.name_of(&a.parse().unwrap()),
            Some("alice").or(Some(b.as_str()))
        );
        let error = profile.principal("carol").unwrap_err().to_string();
        assert!(
            error.contains("carol") && error.contains("alice"),
            "{error}"
        );
        assert!(profile.enclave(None).is_err() && profile.enclave(Some("x")).is_err());
    }

    #[test]
    fn paths_are_relative_to_the_profile_and_flags_to_the_working_folder() {
        let (dir, profile) = profile("identity = 'alice.pem'\n[roots]\nsimulated = '/r/root.pem'");
        let mut profile = profile.unwrap();
        assert_eq!(profile.identity().unwrap(), dir.path().join("alice.pem"));
        assert_eq!(
            profile.root(Tee::Simulated).unwrap(),
            Path::new("/r/root.pem")
        );
        profile.identity = Some("bob.pem".into());
        assert_eq!(profile.identity().unwrap(), Path::new("bob.pem"));
    }

    #[test]
    fn what_is_missing_is_an_error_that_says_what_to_do() {
        let empty = Profile::default();
        for error in [
            empty.keyservice().map(|_| ()).unwrap_err(),
            empty.inference_url().map(|_| ()).unwrap_err(),
            empty.store_url(None).map(|_| ()).unwrap_err(),
            empty.enclave(None).map(|_| ()).unwrap_err(),
        ] {
            assert!(matches!(error, ProfileError::None), "{error}");
            assert!(error.advice().contains("sesemi-dev up"));
        }
        assert!(matches!(empty.identity(), Err(ProfileError::NoIdentity)));
        assert_eq!(empty.store_url(Some("file:///x")).unwrap(), "file:///x");
    }

    #[test]
    fn files_beside_an_identity_do_not_meet_those_of_another() {
        let (a, b) = (
            Home::beside("d/alice.pem".into()),
            Home::beside("d/bob.pem".into()),
        );
        assert_eq!(a.keys(), Path::new("d/alice.keys"));
        assert_eq!(a.epochs(), Path::new("d/alice.epochs.json"));
        assert_ne!(a.models(), b.models());
    }
}
