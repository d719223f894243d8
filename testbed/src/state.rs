//! The state folder of a developer system: where each part keeps its files.

use std::path::{Path, PathBuf};

/// Paths inside one state folder.
#[derive(Debug, Clone)]
pub struct StateFolder(PathBuf);

impl StateFolder {
    /// Makes the folder and those inside it, readable by this user only.
    pub fn create(root: &Path) -> std::io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt as _;
        let state = Self(std::path::absolute(root)?);
        let folders = [state.store(), state.record(), state.logs(), state.config()];
        for folder in folders
            .into_iter()
            .chain(["owner", "user"].map(|p| state.root().join(p)))
        {
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)?;
        }
        Ok(state)
    }

    #[must_use]
    pub fn root(&self) -> &Path {
        &self.0
    }

    /// The simulated vendor's root key: what stands for the hardware.
    #[must_use]
    pub fn hardware(&self) -> PathBuf {
        self.0.join("simulated-hardware")
    }

    /// The model store: ciphertext only.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.0.join("store")
    }

    /// Everything that crossed the host, as the operator saw it.
    #[must_use]
    pub fn record(&self) -> PathBuf {
        self.0.join("operator-view")
    }

    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.0.join("logs")
    }

    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.0.join("config")
    }

    /// The client profile that the command line reads.
    #[must_use]
    pub fn profile(&self) -> PathBuf {
        self.0.join("profile.toml")
    }
}
