//! From started to serving: `/init` once, or at the start where a platform has no `/init`.

use std::sync::{Arc, Mutex};

use protocol::action::InitValue;
use service::{SharedClock, Shutdown};

use crate::config::{Config, Endpoints};
use crate::lock::lock;
use crate::serve::{Identity, Serve};
use crate::sources::{OpenSources, OpenSourcesError};

/// Why `/init` was refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InitError {
    /// In the words of OpenWhisk's own runtimes.
    #[error("Cannot initialize the action more than once.")]
    Again,
    #[error(
        "SESEMI_KEYSERVICE and SESEMI_STORE must be init parameters of the action, or in the \
         instance's configuration"
    )]
    NoAddresses,
    #[error("the instance has served requests with other addresses already")]
    InUse,
    #[error("open the sources of keys and models")]
    Sources(#[from] OpenSourcesError),
}

#[derive(Debug, Default)]
struct State {
    initialised: bool,
    serving: Option<(Endpoints, Arc<Serve>)>,
    /// A request has been given what serves, be it that its body has not come yet.
    in_use: bool,
}

/// One instance's life.
#[derive(Debug)]
pub(crate) struct Lifecycle {
    config: Config,
    identity: Identity,
    opener: Arc<dyn OpenSources>,
    clock: SharedClock,
    shutdown: Shutdown,
    state: Mutex<State>,
}

impl Lifecycle {
    /// Serves at once when the configuration has both addresses.
    pub(crate) fn new(
        config: Config,
        identity: Identity,
        opener: Arc<dyn OpenSources>,
        clock: SharedClock,
        shutdown: Shutdown,
    ) -> Result<Self, OpenSourcesError> {
        let state = Mutex::default();
        let this = Self {
            config,
            identity,
            opener,
            clock,
            shutdown,
            state,
        };
        if let Some(endpoints) = this.config.host().endpoints(|_| None) {
            let serve = this.make(&endpoints)?;
            lock(&this.state).serving = Some((endpoints, serve));
        }
        Ok(this)
    }

    pub(crate) const fn config(&self) -> &Config {
        &self.config
    }

    pub(crate) const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Takes addresses from `/init`, and nothing else: no measured setting can come this way. An
    /// instance that serves already accepts one `/init`, since OpenWhisk always sends it.
    pub(crate) fn init(&self, value: &InitValue) -> Result<(), InitError> {
        let mut state = lock(&self.state);
        if state.initialised {
            return Err(InitError::Again);
        }
        let env = |name: &str| value.env.get(name).map(String::as_str);
        let endpoints = self
            .config
            .host()
            .endpoints(env)
            .ok_or(InitError::NoAddresses)?;
        match &state.serving {
            Some((known, _)) if *known == endpoints => {}
            // What it remembers (whose models, which requests) must not be shaken off.
            Some(_) if state.in_use => return Err(InitError::InUse),
            _ => {
                let serve = self.make(&endpoints)?;
                state.serving = Some((endpoints, serve));
            }
        }
        state.initialised = true;
        Ok(())
    }

    /// What serves, when there is something. From now on it stays that one: two at once would
    /// serve two owners, or one request twice (test `a_stalled_body_pins_what_serves`).
    pub(crate) fn serving(&self) -> Option<Arc<Serve>> {
        let mut state = lock(&self.state);
        let serve = state.serving.as_ref().map(|(_, serve)| Arc::clone(serve));
        state.in_use |= serve.is_some();
        serve
    }

    /// Whether a request would be served now.
    pub(crate) fn ready(&self) -> bool {
        !self.shutdown.token().is_cancelled() && lock(&self.state).serving.is_some()
    }

    fn make(&self, endpoints: &Endpoints) -> Result<Arc<Serve>, OpenSourcesError> {
        let sources = self.opener.open(endpoints)?;
        let tracker = self.shutdown.tracker().clone();
        let clock = Arc::clone(&self.clock);
        let serve = Arc::new(Serve::new(
            &self.config,
            self.identity.clone(),
            sources,
            clock,
            tracker,
        ));
        serve.sweep_until(self.shutdown.token());
        tracing::info!(
            keyservice = endpoints.keyservice,
            store = endpoints.store,
            "initialised"
        );
        Ok(serve)
    }
}
