//! The sources of production: keys over the attested channel to KeyService, artifacts from the
//! model store.

use std::sync::Arc;
use std::time::Duration;

use attestation::{ClientIdentity, RatlsIdentity};
use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _};
use protocol::Digest;
use protocol::keyservice::ReleaseRequest;
use service::SharedClock;
use tokio::sync::Mutex;
use transport::{CallError, ConnectError, KeyserviceClient, ModelStore, StoreError, connect};

use crate::config::Endpoints;
use crate::identity::Known;
use crate::sources::{
    Artifact, ArtifactSource, FetchError, KeySource, KeySourceError, OpenSources, OpenSourcesError,
    Released, Sources,
};

/// Longest time for making a channel, and for one call in it.
const CALL_TIME: Duration = Duration::from_secs(5);
/// A channel's verdict is this old at most: evidence says what was true when it was made.
const CHANNEL_AGE_MAX: Duration = Duration::from_secs(10 * 60);
/// The TLS key is this old at most. The evidence in its certificate must stay genuine for as long:
/// Nitro's is for three hours at most.
const IDENTITY_AGE_MAX: Duration = Duration::from_secs(60 * 60);

/// Opens the sources of production.
#[derive(Debug)]
pub(crate) struct ChannelSources {
    known: Known,
    clock: SharedClock,
}

impl ChannelSources {
    pub(crate) const fn new(known: Known, clock: SharedClock) -> Self {
        Self { known, clock }
    }
}

impl OpenSources for ChannelSources {
    fn open(&self, endpoints: &Endpoints) -> Result<Sources, OpenSourcesError> {
        let store = ModelStore::open(&endpoints.store).map_err(|error| OpenSourcesError {
            what: "the model store",
            address: endpoints.store.clone(),
            cause: error.into(),
        })?;
        let keys = ChannelKeys {
            addr: endpoints.keyservice.clone(),
            known: self.known.clone(),
            clock: Arc::clone(&self.clock),
            link: Mutex::default(),
        };
        Ok(Sources {
            keys: Arc::new(keys),
            requests: Arc::new(StoredArtifacts(store.requests())),
            artifacts: Arc::new(StoredArtifacts(store)),
        })
    }
}

/// KeyService at the other end of a channel that is made when it is needed: it does not survive a
/// paused sandbox.
#[derive(Debug)]
struct ChannelKeys {
    addr: String,
    known: Known,
    clock: SharedClock,
    /// Calls go one after the other; many wait for keys at once only at a cold start.
    link: Mutex<Link>,
}

#[derive(Debug, Default)]
struct Link {
    identity: Option<(ClientIdentity, Duration)>,
    client: Option<(KeyserviceClient, Duration)>,
    epoch: HighestEpoch,
}

/// KeyService shows an older state than it did before: what was revoked since would be live again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("keyservice is at epoch {offered}, but was at {seen} before: its state was rolled back")]
struct RolledBack {
    offered: u64,
    seen: u64,
}

/// The highest epoch that this instance saw. It is forgotten with the instance; owners and users
/// remember for longer.
#[derive(Debug, Default)]
struct HighestEpoch(u64);

impl HighestEpoch {
    fn admit(&mut self, offered: u64) -> Result<(), RolledBack> {
        if offered < self.0 {
            return Err(RolledBack {
                offered,
                seen: self.0,
            });
        }
        self.0 = offered;
        Ok(())
    }
}

impl ChannelKeys {
    async fn ask(&self, request: &ReleaseRequest) -> Result<Released, KeySourceError> {
        let mut link = self.link.lock().await;
        let mut attest = Duration::ZERO;
        loop {
            let start = self.clock.monotonic();
            let earlier = link.client.take().filter(|(c, at)| self.usable(c, *at));
            let reused = earlier.is_some();
            let (mut client, made) = match earlier {
                Some(earlier) => earlier,
                None => {
                    let client = self.connect(&mut link).await?;
                    attest += self.clock.monotonic().saturating_sub(start);
                    (client, start)
                }
            };
            let asked = self.clock.monotonic();
            let answer = client.release(request).await;
            let keys = self.clock.monotonic().saturating_sub(asked);
            match answer {
                Ok(release) => {
                    let admitted = link.epoch.admit(release.lease.epoch);
                    admitted.map_err(|error| KeySourceError::NotAttested(error.into()))?;
                    link.client = Some((client, made));
                    return Ok(Released {
                        release,
                        attest,
                        keys,
                    });
                }
                Err(CallError::Remote(error)) => {
                    link.client = Some((client, made));
                    return Err(KeySourceError::Refused(error));
                }
                // A channel from before may have died unseen; for a new one the caller decides.
                Err(error) if error.retryable() && reused => {
                    tracing::debug!(%error, "channel to keyservice was dead, connecting again");
                }
                Err(error) if error.retryable() => {
                    return Err(KeySourceError::Unreachable(error.into()));
                }
                Err(error) => return Err(KeySourceError::Malformed(error.into())),
            }
        }
    }

    fn usable(&self, client: &KeyserviceClient, made: Duration) -> bool {
        client.is_alive() && self.clock.monotonic().saturating_sub(made) < CHANNEL_AGE_MAX
    }

    async fn connect(&self, link: &mut Link) -> Result<KeyserviceClient, KeySourceError> {
        let who = self.identity(link).await?;
        let (known, now) = (&self.known, self.clock.now());
        let channel = connect(&self.addr, &who, &known.keyservice, now, CALL_TIME).await;
        let channel = channel.map_err(|error| match error {
            ConnectError::Refused { source, .. } if source.code.retryable() => {
                KeySourceError::Refused(source)
            }
            error if error.retryable() => KeySourceError::Unreachable(error.into()),
            error => KeySourceError::NotAttested(error.into()),
        })?;
        let admitted = link.epoch.admit(channel.epoch());
        admitted.map_err(|error| KeySourceError::NotAttested(error.into()))?;
        Ok(KeyserviceClient::new(channel))
    }

    async fn identity(&self, link: &mut Link) -> Result<ClientIdentity, KeySourceError> {
        let now = self.clock.monotonic();
        if let Some((who, made)) = &link.identity
            && now.saturating_sub(*made) < IDENTITY_AGE_MAX
        {
            return Ok(who.clone());
        }
        let (attester, config) = (Arc::clone(&self.known.attester), self.known.config.clone());
        // The TEE signs, which may take long.
        let made = tokio::task::spawn_blocking(move || RatlsIdentity::generate(attester, config));
        let identity = made
            .await
            .map_err(|error| KeySourceError::NotAttested(error.into()))?
            .map_err(|error| KeySourceError::NotAttested(error.into()))?;
        let who = ClientIdentity::Instance(Arc::new(identity));
        link.identity = Some((who.clone(), now));
        Ok(who)
    }
}

impl KeySource for ChannelKeys {
    fn release<'a>(
        &'a self,
        request: &'a ReleaseRequest,
    ) -> BoxFuture<'a, Result<Released, KeySourceError>> {
        self.ask(request).boxed()
    }
}

#[derive(Debug)]
struct StoredArtifacts(ModelStore);

impl ArtifactSource for StoredArtifacts {
    fn fetch<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<Artifact, FetchError>> {
        async move {
            let fetched = self.0.fetch(digest).await.map_err(fetch_error)?;
            let chunks = fetched
                .stream
                .map(|chunk| chunk.map_err(fetch_error))
                .boxed();
            Ok(Artifact {
                len: fetched.len,
                chunks,
            })
        }
        .boxed()
    }
}

fn fetch_error(error: StoreError) -> FetchError {
    match error {
        StoreError::NotFound { digest } => FetchError::NotFound(digest),
        error => FetchError::Unavailable(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_never_goes_back() {
        let mut seen = HighestEpoch::default();
        for epoch in [1, 1, 5, 5] {
            seen.admit(epoch).unwrap();
        }
        assert_eq!(
            seen.admit(4),
            Err(RolledBack {
                offered: 4,
                seen: 5
            })
        );
        seen.admit(6).unwrap();
    }
}
