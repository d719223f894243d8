//! Intel's Provisioning Certification Service, version 4, and caches that speak like it (PCCS).

use std::borrow::Cow;

use attestation::Endorsements;
use attestation::platform::Platform;
use bytes::Bytes;
use futures::future::BoxFuture;
use http::HeaderMap;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::fetch::{Answer, Origin};
use crate::wanted::ca_name;
use crate::{ProvideError, Provider, Wanted};

/// A PCCS, or Intel's own service.
#[derive(Debug, Clone)]
pub struct Pcs {
    origin: Origin,
    /// Intel's own service has no path for the root's revocation list: it is at
    /// `https://certificates.trustedservices.intel.com/IntelSGXRootCA.der`.
    root_crl: Option<(Origin, String)>,
}

#[derive(Deserialize)]
struct TcbInfoAnswer<'a> {
    #[serde(rename = "tcbInfo", borrow)]
    signed: &'a RawValue,
    #[serde(borrow)]
    signature: Cow<'a, str>,
}

#[derive(Deserialize)]
struct QeIdentityAnswer<'a> {
    #[serde(rename = "enclaveIdentity", borrow)]
    signed: &'a RawValue,
    #[serde(borrow)]
    signature: Cow<'a, str>,
}

/// `QuoteCollateralV3`, binary parts in hexadecimal.
#[derive(Serialize)]
struct Collateral {
    pck_crl_issuer_chain: String,
    root_ca_crl: String,
    pck_crl: String,
    tcb_info_issuer_chain: String,
    tcb_info: String,
    tcb_info_signature: String,
    qe_identity_issuer_chain: String,
    qe_identity: String,
    qe_identity_signature: String,
}

impl Pcs {
    /// `origin` without `/sgx/certification/v4`.
    #[must_use]
    pub const fn new(origin: Origin) -> Self {
        Self {
            origin,
            root_crl: None,
        }
    }

    /// Takes the root's revocation list from another place.
    #[must_use]
    pub fn with_root_crl(self, origin: Origin, path: impl Into<String>) -> Self {
        Self {
            root_crl: Some((origin, path.into())),
            ..self
        }
    }

    async fn get(&self, what: &'static str, path: &str) -> Result<Answer, ProvideError> {
        get(&self.origin, what, path).await
    }

    fn answer(&self, what: &'static str) -> ProvideError {
        ProvideError::Answer {
            place: self.origin.url(""),
            what,
        }
    }

    async fn fetch(&self, wanted: &Wanted) -> Result<Endorsements, ProvideError> {
        let Platform::Intel { tdx, fmspc, ca } = &wanted.platform else {
            return Err(wanted.not_here());
        };
        let tee = if *tdx { "tdx" } else { "sgx" };
        let path = |tee, rest: &str| format!("/{tee}/certification/v4/{rest}");
        let fmspc = hex::encode_upper(fmspc);

        let crl_path = format!("pckcrl?ca={}&encoding=der", ca_name(*ca));
        let crl = self
            .get("the PCK revocation list", &path("sgx", &crl_path))
            .await?;
        let tcb = self
            .get("the TCB info", &path(tee, &format!("tcb?fmspc={fmspc}")))
            .await?;
        let qe = self
            .get("the QE identity", &path(tee, "qe/identity"))
            .await?;
        let root_crl = match &self.root_crl {
            Some((origin, path)) => get(origin, "the root revocation list", path).await?,
            None => {
                self.get("the root revocation list", &path("sgx", "rootcacrl"))
                    .await?
            }
        };

        // Text out of the middle of the answer, as it stands: that is what is signed.
        let tcb_info: TcbInfoAnswer<'_> =
            serde_json::from_slice(&tcb.body).map_err(|_| self.answer("malformed TCB info"))?;
        let qe_identity: QeIdentityAnswer<'_> =
            serde_json::from_slice(&qe.body).map_err(|_| self.answer("malformed QE identity"))?;
        let chain = |headers: &HeaderMap, names: &[&str]| {
            let value = names.iter().find_map(|name| headers.get(*name));
            value
                .and_then(|value| percent_decoded(value.as_bytes()))
                .ok_or_else(|| self.answer("no issuer chain"))
        };
        let crl_der = |body: &Bytes| {
            binary(body).ok_or_else(|| self.answer("a revocation list of unknown encoding"))
        };
        let collateral = Collateral {
            pck_crl_issuer_chain: chain(&crl.headers, &["sgx-pck-crl-issuer-chain"])?,
            root_ca_crl: hex::encode(crl_der(&root_crl.body)?),
            pck_crl: hex::encode(crl_der(&crl.body)?),
            tcb_info_issuer_chain: chain(
                &tcb.headers,
                &["tcb-info-issuer-chain", "sgx-tcb-info-issuer-chain"],
            )?,
            tcb_info: tcb_info.signed.get().to_owned(),
            tcb_info_signature: tcb_info.signature.into_owned(),
            qe_identity_issuer_chain: chain(&qe.headers, &["sgx-enclave-identity-issuer-chain"])?,
            qe_identity: qe_identity.signed.get().to_owned(),
            qe_identity_signature: qe_identity.signature.into_owned(),
        };
        let collateral =
            serde_json::to_vec(&collateral).map_err(|_| self.answer("unusable collateral"))?;
        let found = Endorsements::Dcap { collateral };
        wanted.accept(&found, &self.origin.url(""))?;
        Ok(found)
    }
}

pub(crate) async fn get(
    origin: &Origin,
    what: &'static str,
    path: &str,
) -> Result<Answer, ProvideError> {
    origin
        .get(path)
        .await
        .map_err(|source| ProvideError::Fetch {
            what,
            url: origin.url(path),
            source,
        })
}

/// DER as it is, or in hexadecimal: a PCCS gives the root's list so.
fn binary(body: &[u8]) -> Option<Vec<u8>> {
    const SEQUENCE: u8 = 0x30;
    if body.first() == Some(&SEQUENCE) && body.get(1).is_some_and(|length| *length >= 0x80) {
        return Some(body.to_vec());
    }
    hex::decode(body.trim_ascii()).ok()
}

/// Percent-decoding (RFC 3986 §2.1); `+` is itself.
fn percent_decoded(value: &[u8]) -> Option<String> {
    let mut decoded = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        if *first == b'%' {
            let (digits, tail) = rest.split_first_chunk::<2>()?;
            let mut byte = [0];
            hex::decode_to_slice(digits, &mut byte).ok()?;
            decoded.extend(byte);
            rest = tail;
        } else {
            decoded.push(*first);
        }
    }
    String::from_utf8(decoded).ok()
}

impl Provider for Pcs {
    fn provide<'a>(
        &'a self,
        wanted: &'a Wanted,
    ) -> BoxFuture<'a, Result<Endorsements, ProvideError>> {
        Box::pin(self.fetch(wanted))
    }
}

#[cfg(test)]
mod tests;
