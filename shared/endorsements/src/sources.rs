//! The part of a configuration file that says where endorsements come from.

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use service::SharedClock;

use crate::fetch::OriginError;
use crate::{Cached, FirstOf, Folder, FromHost, Kds, Origin, Pcs, Provider};

/// In TOML: the table `[endorsements]`. Not measured: whoever chooses badly is not accepted by
/// its peers. What the host put beside the evidence comes first, then these in this order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sources {
    /// Folder of files, for machines without a network; see [`crate::folder`].
    pub folder: Option<PathBuf>,
    /// Base address of a PCCS, as in `http://pccs.internal:8081`: SGX, TDX.
    pub pccs: Option<String>,
    /// Base address of a KDS or a cache of it: SEV-SNP.
    pub kds: Option<String>,
    /// Roots for https addresses, a file of certificates in PEM.
    pub roots: Option<PathBuf>,
}

impl Sources {
    /// # Errors
    /// [`OriginError`] if an address is none, or is https without usable roots.
    pub fn open(&self, clock: &SharedClock) -> Result<Arc<dyn Provider>, OriginError> {
        let origin = |base: &String| Origin::new(base, self.roots.as_deref());
        let mut providers: Vec<Arc<dyn Provider>> = vec![Arc::new(FromHost)];
        if let Some(folder) = &self.folder {
            providers.push(Arc::new(Folder::new(folder)));
        }
        if let Some(pccs) = self.pccs.as_ref().map(origin).transpose()? {
            providers.push(Arc::new(Cached::new(Pcs::new(pccs), Arc::clone(clock))));
        }
        if let Some(kds) = self.kds.as_ref().map(origin).transpose()? {
            providers.push(Arc::new(Cached::new(Kds::new(kds), Arc::clone(clock))));
        }
        Ok(Arc::new(FirstOf(providers)))
    }
}

#[cfg(test)]
mod tests {
    use service::SystemClock;

    use super::*;

    fn open(sources: &Sources) -> Result<Arc<dyn Provider>, OriginError> {
        let clock: SharedClock = Arc::new(SystemClock::default());
        sources.open(&clock)
    }

    #[test]
    fn addresses_are_checked_before_the_first_connection() {
        open(&Sources::default()).unwrap();
        let good = Sources {
            folder: Some("/var/lib/endorsements".into()),
            pccs: Some("http://pccs.internal:8081".into()),
            kds: Some("http://kds.internal/cache".into()),
            roots: None,
        };
        open(&good).unwrap();
        for bad in [
            "pccs.internal",
            "ftp://pccs",
            "http://u@pccs",
            "https://pccs",
        ] {
            let sources = Sources {
                pccs: Some(bad.into()),
                ..good.clone()
            };
            assert!(open(&sources).is_err(), "{bad}");
        }
    }
}
