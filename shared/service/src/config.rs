//! Reads a process's one TOML file.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

/// No configuration of ours is near this long, in bytes.
const CONFIG_MAX: u64 = 1024 * 1024;

/// Why a configuration file was not taken; names the file and, from the parser, line and field.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("read configuration file {}", path.display())]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("configuration file {} is larger than {CONFIG_MAX} bytes", path.display())]
    TooLarge { path: PathBuf },
    #[error("configuration file {} is not valid", path.display())]
    Parse {
        path: PathBuf,
        source: Box<toml::de::Error>,
    },
}

/// Reads and parses `path`; fields that `T` does not know are errors when it denies them.
pub fn load_config<T: DeserializeOwned>(path: &Path) -> Result<T, ConfigError> {
    let read = || -> std::io::Result<String> {
        let mut text = String::new();
        std::fs::File::open(path)?
            .take(CONFIG_MAX + 1)
            .read_to_string(&mut text)?;
        Ok(text)
    };
    let text = read().map_err(|source| ConfigError::Read {
        path: path.into(),
        source,
    })?;
    if text.len() as u64 > CONFIG_MAX {
        return Err(ConfigError::TooLarge { path: path.into() });
    }
    toml::from_str(&text).map_err(|source| ConfigError::Parse {
        path: path.into(),
        source: Box::new(source),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        #[serde(with = "crate::units::duration")]
        wait: std::time::Duration,
        #[serde(with = "crate::units::bytes")]
        memory: u64,
    }

    fn load(text: &str) -> Result<Sample, ConfigError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        load_config(file.path())
    }

    #[test]
    fn human_units_are_read() {
        let sample = load("wait = \"1500ms\"\nmemory = \"2GiB\"").unwrap();
        assert_eq!(sample.wait, std::time::Duration::from_millis(1500));
        assert_eq!(sample.memory, 2 << 30);
    }

    #[test]
    fn an_unknown_field_is_named() {
        let error = load("wait = \"1s\"\nmemory = \"1B\"\nmemroy = 1").unwrap_err();
        assert!(
            crate::ErrorChain(&error).to_string().contains("memroy"),
            "{error:?}"
        );
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = load_config::<Sample>(Path::new("/nonexistent/x.toml")).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/x.toml"));
    }
}
