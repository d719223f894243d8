//! What a provider is asked for.

use attestation::evidence::Malformed;
use attestation::facts::{SnpProduct, SnpSigningKey};
use attestation::platform::{Currency, PckCa, Platform};
use attestation::tee::azure;
use attestation::{Endorsements, Evidence, Tee};

use crate::ProvideError;

/// A platform, and what its host gave away already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    pub platform: Platform,
    /// From [`attestation::Attester::host_endorsements`], or out of the evidence (Azure).
    pub host: Endorsements,
}

impl Wanted {
    /// What is wanted for `evidence`.
    ///
    /// # Errors
    /// [`Malformed`] if it does not say which platform it is of.
    pub fn of(evidence: &Evidence, host: Endorsements) -> Result<Self, Malformed> {
        let platform = Platform::of(evidence)?;
        let host = match (host, evidence.tee) {
            (Endorsements::None, Tee::AzSnp) => match azure::endorsements_in(&evidence.body) {
                Some(vek) => Endorsements::Snp {
                    vek,
                    chain: Vec::new(),
                },
                None => Endorsements::None,
            },
            (host, _) => host,
        };
        Ok(Self { platform, host })
    }

    /// A name for the platform's endorsements, of letters, digits, `-` and `/`; where a folder
    /// keeps them, without extension.
    #[must_use]
    pub fn name(&self) -> String {
        match &self.platform {
            Platform::Plain => "none".into(),
            Platform::Intel { tdx, fmspc, ca } => {
                let tee = if *tdx { "tdx" } else { "sgx" };
                format!("intel/{tee}-{}-{}", hex::encode(fmspc), ca_name(*ca))
            }
            Platform::Amd {
                product,
                key,
                chip_id,
                tcb,
            } => {
                let product = product.map_or("unknown", product_name);
                let tcb = [tcb.fmc, tcb.boot_loader, tcb.tee, tcb.snp, tcb.microcode];
                match key {
                    SnpSigningKey::Vcek => {
                        let chip = hex::encode(chip_id);
                        format!("amd/{product}-vcek-{chip}-{}", hex::encode(tcb))
                    }
                    SnpSigningKey::Vlek => format!("amd/{product}-vlek-{}", hex::encode(tcb)),
                }
            }
        }
    }

    /// Whether evidence of this platform stands alone.
    #[must_use]
    pub const fn needs_none(&self) -> bool {
        matches!(self.platform, Platform::Plain)
    }

    pub(crate) fn not_here(&self) -> ProvideError {
        ProvideError::NotHere {
            platform: self.name(),
        }
    }

    /// Whether `found` is about this platform, as far as it says; how new it is, if it says.
    ///
    /// # Errors
    /// [`ProvideError::Answer`] naming `place`.
    pub(crate) fn accept(
        &self,
        found: &Endorsements,
        place: &str,
    ) -> Result<Option<Currency>, ProvideError> {
        let answer = |what| ProvideError::Answer {
            place: place.into(),
            what,
        };
        let currency = Currency::of(found).map_err(|_| answer("malformed collateral"))?;
        match (&self.platform, found) {
            (Platform::Intel { tdx, fmspc, ca }, Endorsements::Dcap { .. }) => {
                let about = currency
                    .as_ref()
                    .map(|currency| (currency.tdx, currency.fmspc, currency.pck_crl.0));
                if about != Some((*tdx, *fmspc, *ca)) {
                    return Err(answer("collateral of another platform"));
                }
            }
            (Platform::Amd { .. }, Endorsements::Snp { vek, chain }) => {
                if vek.is_empty() || chain.len() != 2 {
                    return Err(answer("an incomplete chain"));
                }
            }
            (Platform::Plain, Endorsements::None) => {}
            _ => return Err(answer("endorsements of another kind")),
        }
        Ok(currency)
    }
}

pub(crate) const fn ca_name(ca: PckCa) -> &'static str {
    match ca {
        PckCa::Processor => "processor",
        PckCa::Platform => "platform",
    }
}

pub(crate) const fn product_name(product: SnpProduct) -> &'static str {
    match product {
        SnpProduct::Milan => "milan",
        SnpProduct::Genoa => "genoa",
        SnpProduct::Turin => "turin",
    }
}
