//! AMD's Key Distribution Service (AMD 57230), and caches that speak like it.
//!
//! It gives the VCEK of any chip at any patch level. A VLEK it gives to its cloud provider only:
//! that comes from the host, and only its issuers from here.

use attestation::Endorsements;
use attestation::facts::{SnpProduct, SnpSigningKey, SnpTcb};
use attestation::platform::Platform;
use futures::future::BoxFuture;
use http::StatusCode;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use crate::fetch::{FetchError, Origin};
use crate::intel::get;
use crate::{ProvideError, Provider, Wanted};

/// A KDS.
#[derive(Debug, Clone)]
pub struct Kds(Origin);

const fn line(product: SnpProduct) -> &'static str {
    match product {
        SnpProduct::Milan => "Milan",
        SnpProduct::Genoa => "Genoa",
        SnpProduct::Turin => "Turin",
    }
}

/// Bytes of the chip id that are asked for.
const fn id_len(product: SnpProduct) -> usize {
    match product {
        SnpProduct::Milan | SnpProduct::Genoa => 64,
        SnpProduct::Turin => 8,
    }
}

fn vcek_path(product: SnpProduct, chip_id: &[u8; 64], tcb: &SnpTcb) -> String {
    let id = chip_id.get(..id_len(product)).unwrap_or_default();
    let fmc = match product {
        SnpProduct::Turin => format!("fmcSPL={:02}&", tcb.fmc),
        SnpProduct::Milan | SnpProduct::Genoa => String::new(),
    };
    format!(
        "/vcek/v1/{}/{}?{fmc}blSPL={:02}&teeSPL={:02}&snpSPL={:02}&ucodeSPL={:02}",
        line(product),
        hex::encode(id),
        tcb.boot_loader,
        tcb.tee,
        tcb.snp,
        tcb.microcode
    )
}

impl Kds {
    /// `origin` without `/vcek/v1`; AMD's own is `https://kdsintf.amd.com`.
    #[must_use]
    pub const fn new(origin: Origin) -> Self {
        Self(origin)
    }

    async fn fetch(&self, wanted: &Wanted) -> Result<Endorsements, ProvideError> {
        let Platform::Amd {
            product,
            key,
            chip_id,
            tcb,
        } = &wanted.platform
        else {
            return Err(wanted.not_here());
        };
        let given = match &wanted.host {
            Endorsements::Snp { vek, .. } => Some(vek.clone()),
            _ => None,
        };
        let candidates = match product {
            Some(product) => vec![*product],
            // Reports of version 2 do not say; the other one's key server knows no such chip.
            None => vec![SnpProduct::Milan, SnpProduct::Genoa],
        };
        let (product, vek) = match (given, key) {
            (Some(vek), _) => (
                named_in(&vek, &candidates).ok_or_else(|| wanted.not_here())?,
                vek,
            ),
            (None, SnpSigningKey::Vlek) => return Err(wanted.not_here()),
            (None, SnpSigningKey::Vcek) => self.first_with(&candidates, chip_id, tcb).await?,
        };
        let found = Endorsements::Snp {
            vek,
            chain: self.chain(product, *key).await?,
        };
        wanted.accept(&found, &self.0.url(""))?;
        Ok(found)
    }

    /// The VCEK from the first product line that has the chip.
    async fn first_with(
        &self,
        candidates: &[SnpProduct],
        chip_id: &[u8; 64],
        tcb: &SnpTcb,
    ) -> Result<(SnpProduct, Vec<u8>), ProvideError> {
        if *chip_id == [0; 64] {
            return Err(ProvideError::ChipMasked);
        }
        let mut last = None;
        for product in candidates {
            let path = vcek_path(*product, chip_id, tcb);
            match get(&self.0, "the VCEK", &path).await {
                Ok(answer) => return Ok((*product, answer.body.to_vec())),
                Err(error) if is_missing(&error) => last = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(last.unwrap_or(ProvideError::ChipMasked))
    }

    async fn chain(
        &self,
        product: SnpProduct,
        key: SnpSigningKey,
    ) -> Result<Vec<Vec<u8>>, ProvideError> {
        let kind = match key {
            SnpSigningKey::Vcek => "vcek",
            SnpSigningKey::Vlek => "vlek",
        };
        let path = format!("/{kind}/v1/{}/cert_chain", line(product));
        let answer = get(&self.0, "the issuers", &path).await?;
        chain_of(&answer.body).ok_or_else(|| ProvideError::Answer {
            place: self.0.url(&path),
            what: "no chain of certificates",
        })
    }
}

/// The product line that a VEK's issuer has in its name, as in `SEV-Milan` and `SEV-VLEK-Milan`.
fn named_in(vek: &[u8], candidates: &[SnpProduct]) -> Option<SnpProduct> {
    let named = |product: &SnpProduct| {
        let line = line(*product).as_bytes();
        vek.windows(line.len()).any(|window| window == line)
    };
    match candidates {
        [product] => Some(*product),
        _ => candidates.iter().copied().find(named),
    }
}

/// Whether the key server knows no such chip.
fn is_missing(error: &ProvideError) -> bool {
    let missing = [StatusCode::NOT_FOUND, StatusCode::BAD_REQUEST];
    matches!(
        error,
        ProvideError::Fetch {
            source: FetchError::Status(status),
            ..
        } if missing.contains(status)
    )
}

/// Two certificates in PEM: ASK or ASVK, then ARK.
pub(crate) fn chain_of(pem: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut chain = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        if chain.len() == 2 {
            return None;
        }
        chain.push(certificate.ok()?.to_vec());
    }
    (chain.len() == 2).then_some(chain)
}

impl Provider for Kds {
    fn provide<'a>(
        &'a self,
        wanted: &'a Wanted,
    ) -> BoxFuture<'a, Result<Endorsements, ProvideError>> {
        Box::pin(self.fetch(wanted))
    }
}

#[cfg(test)]
mod tests;
