//! Finds endorsements: what vendors say about the platform that evidence is of.
//!
//! | where from | what | module |
//! |---|---|---|
//! | a PCCS, or Intel's PCS | SGX, TDX: collateral | [`intel`] |
//! | a KDS, or a cache of it | SEV-SNP: VCEK and its issuers; the issuers of a VLEK | [`amd`] |
//! | a folder | all, for machines without a network | [`folder`] |
//! | the host (`auxblob`) | SEV-SNP: VCEK or VLEK, perhaps its issuers | [`Wanted::host`] |
//!
//! [`FirstOf`] asks several in turn, [`Cached`] keeps the newest answer and asks again before it
//! ends, [`Endorsing`] makes an attester out of an attester and a provider. [`Monotonic`] is the
//! state of a relying party that never accepts older collateral after newer.
//!
//! All of it is hostile input: endorsements are signed, and verifiers believe nothing that is
//! not. So plain HTTP to a cache in the same network gives up no security, only privacy; HTTPS
//! needs roots that the operator names. What is bounded here is time, memory and where requests
//! go: one address, no redirect, no proxy.

#![cfg_attr(
    not(test),
    warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

pub mod amd;
pub mod cached;
pub mod endorsing;
pub mod fetch;
pub mod folder;
pub mod intel;
pub mod monotonic;
pub mod sources;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod wanted;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use attestation::Endorsements;
use futures::future::BoxFuture;

pub use amd::Kds;
pub use cached::Cached;
pub use endorsing::Endorsing;
pub use fetch::{FetchError, Origin};
pub use folder::Folder;
pub use intel::Pcs;
pub use monotonic::{Monotonic, Older};
pub use sources::Sources;
pub use wanted::Wanted;

/// Why there are no endorsements.
#[derive(Debug, thiserror::Error)]
pub enum ProvideError {
    /// This provider has none for such a platform; another may.
    #[error("nobody here has endorsements of {platform}")]
    NotHere { platform: String },
    #[error("the evidence does not say which platform it is of")]
    Evidence(#[source] attestation::evidence::Malformed),
    #[error("the host hides which chip this is, so that nobody can be asked for its key")]
    ChipMasked,
    #[error("fetching {what} from {url}")]
    Fetch {
        what: &'static str,
        url: String,
        #[source]
        source: FetchError,
    },
    #[error("{place} answers with {what}")]
    Answer { place: String, what: &'static str },
    #[error("reading {path}")]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the endorsements that were found have ended to be valid")]
    Expired,
    #[error("the endorsements that were found are older than those seen before")]
    Older(#[source] Older),
}

/// Somebody to ask for endorsements.
pub trait Provider: Send + Sync + fmt::Debug {
    /// Endorsements of the platform; nothing about them is verified but that they are about it.
    ///
    /// # Errors
    /// [`ProvideError`].
    fn provide<'a>(
        &'a self,
        wanted: &'a Wanted,
    ) -> BoxFuture<'a, Result<Endorsements, ProvideError>>;
}

/// Gives what the host gave, if it is complete.
#[derive(Debug, Clone, Copy, Default)]
pub struct FromHost;

impl Provider for FromHost {
    fn provide<'a>(
        &'a self,
        wanted: &'a Wanted,
    ) -> BoxFuture<'a, Result<Endorsements, ProvideError>> {
        let found = match &wanted.host {
            complete @ Endorsements::Snp { chain, .. } if !chain.is_empty() => Ok(complete.clone()),
            _ => Err(wanted.not_here()),
        };
        Box::pin(std::future::ready(found))
    }
}

/// Asks one after the other; the first answer counts.
#[derive(Debug, Clone)]
pub struct FirstOf(pub Vec<Arc<dyn Provider>>);

impl Provider for FirstOf {
    fn provide<'a>(
        &'a self,
        wanted: &'a Wanted,
    ) -> BoxFuture<'a, Result<Endorsements, ProvideError>> {
        Box::pin(async move {
            let mut error = wanted.not_here();
            for provider in &self.0 {
                match provider.provide(wanted).await {
                    Ok(found) => return Ok(found),
                    // What somebody tried and could not tells more than that nobody has it.
                    Err(ProvideError::NotHere { .. }) => {}
                    Err(failed) => error = failed,
                }
            }
            Err(error)
        })
    }
}

#[cfg(test)]
mod tests;
