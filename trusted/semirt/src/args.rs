//! The command line of a SeMIRT process.

use std::path::PathBuf;

use clap::Parser;

use crate::config::{Config, ConfigError};

/// Serves encrypted inference requests inside a TEE, as a serverless platform's function.
#[derive(Debug, Clone, Parser)]
#[command(name = "semirt", version)]
pub struct Args {
    /// Configuration file (TOML); its [measured] part is hashed into the enclave's identity E_S.
    #[arg(long, default_value = "config/semirt.toml")]
    pub config: PathBuf,
    /// TCP port to listen on; 0 chooses a free one.
    #[arg(long, env = "PORT", default_value_t = 8080)]
    pub port: u16,
    /// KeyService's host:port, for platforms without /init.
    #[arg(long, env = "SESEMI_KEYSERVICE")]
    pub keyservice: Option<String>,
    /// URL of the model store, for platforms without /init.
    #[arg(long, env = "SESEMI_STORE")]
    pub store: Option<String>,
    /// Set by Knative: there is no /init, so both addresses must be known at the start.
    #[arg(long, env = "K_SERVICE", hide = true)]
    pub knative_service: Option<String>,
    /// What to log, in the form of `tracing`, for example `info,semirt=debug`.
    #[arg(long, env = "SESEMI_LOG", default_value = "info")]
    pub log: String,
}

/// Why a process cannot start as asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArgsError {
    #[error("load the configuration")]
    Config(#[from] ConfigError),
    #[error(
        "K_SERVICE is set, so there is no /init, but {0} is not known; set it in the service's \
         environment or in the configuration's [host]"
    )]
    Missing(&'static str),
}

impl Args {
    /// Reads the configuration file and adds the addresses given here.
    pub fn configuration(&self) -> Result<Config, ArgsError> {
        let config =
            Config::load(&self.config)?.with_endpoints(self.keyservice.clone(), self.store.clone());
        if self.knative_service.is_some() {
            if config.host().keyservice.is_none() {
                return Err(ArgsError::Missing("SESEMI_KEYSERVICE"));
            }
            if config.host().store.is_none() {
                return Err(ArgsError::Missing("SESEMI_STORE"));
            }
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(extra: &[&str]) -> Args {
        let config = concat!(env!("CARGO_MANIFEST_DIR"), "/../../config/semirt.toml");
        Args::parse_from([&["semirt", "--config", config], extra].concat())
    }

    #[test]
    fn knative_needs_both_addresses_at_the_start() {
        let knative = args(&["--knative-service", "s", "--store", "file:///m"]);
        let error = knative.configuration().unwrap_err().to_string();
        assert!(error.contains("SESEMI_KEYSERVICE"), "{error}");
        let both = args(&[
            "--knative-service",
            "s",
            "--store",
            "file:///m",
            "--keyservice",
            "k:1",
        ]);
        assert!(both.configuration().is_ok());
        assert!(
            args(&[]).configuration().is_ok(),
            "elsewhere /init gives them"
        );
    }
}
