//! Keeps the newest answer of another provider, and asks again before it ends.

use std::collections::HashMap;
use std::time::Duration;

use attestation::Endorsements;
use attestation::platform::Currency;
use futures::future::BoxFuture;
use service::SharedClock;
use tokio::sync::Mutex;

use crate::monotonic::{Monotonic, Older};
use crate::{ProvideError, Provider, Wanted};

const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Asked again when an answer is this old.
pub const REFRESH_AFTER: Duration = DAY;
/// And when it ends this soon: Intel's have 30 days.
pub const REFRESH_BEFORE_END: Duration = DAY;
/// Pause after a failure, while the kept answer is still good.
pub const RETRY_AFTER: Duration = Duration::from_secs(5 * 60);
/// Platforms kept; a process has one, a relying party that fetches for its peers more.
const PLATFORMS_MAX: usize = 64;

#[derive(Debug, Clone)]
struct Kept {
    endorsements: Endorsements,
    currency: Option<Currency>,
    asked: Duration,
    /// When to ask again, since the UNIX epoch.
    refresh: Duration,
}

impl Kept {
    /// Whether its validity has ended, if it says when.
    fn ended(&self, now: Duration) -> bool {
        self.currency
            .as_ref()
            .is_some_and(|currency| currency.next_update <= now)
    }
}

/// One provider's answers, kept in memory. Requests wait for each other: a process asks for its
/// own platform, once a day.
#[derive(Debug)]
pub struct Cached<P> {
    provider: P,
    clock: SharedClock,
    kept: Mutex<HashMap<String, Kept>>,
}

impl<P: Provider> Cached<P> {
    pub fn new(provider: P, clock: SharedClock) -> Self {
        Self {
            provider,
            clock,
            kept: Mutex::default(),
        }
    }

    async fn answer(&self, wanted: &Wanted) -> Result<Endorsements, ProvideError> {
        let now = self.clock.now();
        let name = wanted.name();
        let mut all = self.kept.lock().await;
        let kept = all.get(&name);
        if let Some(kept) = kept
            // A clock that went back must not make an answer last.
            && (kept.asked..kept.refresh).contains(&now)
        {
            return Ok(kept.endorsements.clone());
        }
        let found = match self.provider.provide(wanted).await {
            Ok(found) => judge(wanted, found, kept, now),
            Err(error) => Err(error),
        };
        match (found, all.get_mut(&name)) {
            (Ok(found), _) => {
                let endorsements = found.endorsements.clone();
                if all.len() >= PLATFORMS_MAX && !all.contains_key(&name) {
                    forget_oldest(&mut all);
                }
                all.insert(name, found);
                Ok(endorsements)
            }
            (Err(error), Some(kept)) if !kept.ended(now) => {
                tracing::warn!(
                    error = %service::ErrorChain(&error),
                    platform = name,
                    "endorsements are not renewed yet"
                );
                kept.asked = now;
                kept.refresh = now.saturating_add(RETRY_AFTER);
                Ok(kept.endorsements.clone())
            }
            (Err(error), _) => Err(error),
        }
    }
}

fn judge(
    wanted: &Wanted,
    endorsements: Endorsements,
    kept: Option<&Kept>,
    now: Duration,
) -> Result<Kept, ProvideError> {
    let currency = wanted.accept(&endorsements, "the provider")?;
    let mut refresh = now.saturating_add(REFRESH_AFTER);
    if let Some(currency) = &currency {
        if currency.next_update <= now {
            return Err(ProvideError::Expired);
        }
        not_older(currency, kept).map_err(ProvideError::Older)?;
        let before_end = currency.next_update.saturating_sub(REFRESH_BEFORE_END);
        // Close to its end it is asked for again every hour, not every time.
        let soonest = now.saturating_add(HOUR).min(currency.next_update);
        refresh = refresh.min(before_end).max(soonest);
    }
    Ok(Kept {
        endorsements,
        currency,
        asked: now,
        refresh,
    })
}

fn not_older(currency: &Currency, kept: Option<&Kept>) -> Result<(), Older> {
    let mut seen = Monotonic::default();
    if let Some(before) = kept.and_then(|kept| kept.currency.as_ref()) {
        seen.admit(before)?;
    }
    seen.check(currency)
}

fn forget_oldest(all: &mut HashMap<String, Kept>) {
    let oldest = all
        .iter()
        .min_by_key(|(_, kept)| kept.asked)
        .map(|(name, _)| name.clone());
    if let Some(oldest) = oldest {
        all.remove(&oldest);
    }
}

impl<P: Provider> Provider for Cached<P> {
    fn provide<'a>(
        &'a self,
        wanted: &'a Wanted,
    ) -> BoxFuture<'a, Result<Endorsements, ProvideError>> {
        Box::pin(self.answer(wanted))
    }
}

#[cfg(test)]
mod tests;
