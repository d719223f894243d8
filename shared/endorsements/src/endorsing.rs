//! An attester that finds the endorsements of its own platform.

use std::fmt;
use std::sync::Arc;

use attestation::{Attester, Binder, CollectError, Endorsements, Evidence, Tee};
use crypto::secret::SealingKey;
use tokio::runtime::Handle;

use crate::{ProvideError, Provider, Wanted};

/// Another attester, with a provider for its platform's endorsements.
pub struct Endorsing {
    attester: Arc<dyn Attester>,
    provider: Arc<dyn Provider>,
    runtime: Handle,
}

impl fmt::Debug for Endorsing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endorsing")
            .field("attester", &self.attester)
            .field("provider", &self.provider)
            .finish_non_exhaustive()
    }
}

impl Endorsing {
    /// `runtime` does the provider's I/O while [`Attester::endorsements`] blocks: so that must
    /// not be called on one of its own async threads, but on those for blocking work.
    #[must_use]
    pub fn new(attester: Arc<dyn Attester>, provider: Arc<dyn Provider>, runtime: Handle) -> Self {
        Self {
            attester,
            provider,
            runtime,
        }
    }

    fn find(&self, evidence: &Evidence) -> Result<Endorsements, ProvideError> {
        let wanted =
            Wanted::of(evidence, self.host_endorsements()).map_err(ProvideError::Evidence)?;
        if wanted.needs_none() {
            return Ok(Endorsements::None);
        }
        self.runtime.block_on(self.provider.provide(&wanted))
    }
}

impl Attester for Endorsing {
    fn tee(&self) -> Tee {
        self.attester.tee()
    }

    fn collect(&self, binder: &Binder) -> Result<Evidence, CollectError> {
        self.attester.collect(binder)
    }

    fn host_endorsements(&self) -> Endorsements {
        self.attester.host_endorsements()
    }

    fn endorsements(&self, evidence: &Evidence) -> Result<Endorsements, CollectError> {
        self.find(evidence)
            .map_err(|error| CollectError::Endorsements(Box::new(error)))
    }

    fn sealing_key(&self) -> Result<SealingKey, CollectError> {
        self.attester.sealing_key()
    }
}
