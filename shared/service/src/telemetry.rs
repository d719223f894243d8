//! Logs on stderr, and errors with their causes in one line.

use std::error::Error;
use std::fmt;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Starts logging to stderr. `filter` is in `tracing`'s form, for example `info,keyservice=debug`;
/// one that cannot be read falls back to `info`. A second call has no effect.
pub fn init_logging(filter: &str, json: bool) {
    let filter = filter
        .parse()
        .unwrap_or_else(|_| Targets::new().with_default(LevelFilter::INFO));
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let registry = tracing_subscriber::registry().with(filter);
    let started = if json {
        registry.with(layer.json()).try_init()
    } else {
        registry.with(layer.with_target(false)).try_init()
    };
    if started.is_err() {
        tracing::debug!("logging was started before");
    }
}

/// Prints an error and its sources: `open the vault: read record 3: no such file`.
#[derive(Debug, Clone, Copy)]
pub struct ErrorChain<'a>(pub &'a (dyn Error + 'a));

impl fmt::Display for ErrorChain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] std::num::ParseIntError);

    #[test]
    fn a_chain_prints_every_level_once() {
        let inner = "x".parse::<u8>().unwrap_err();
        let text = ErrorChain(&Outer(inner)).to_string();
        assert_eq!(text, "outer: invalid digit found in string");
    }
}
