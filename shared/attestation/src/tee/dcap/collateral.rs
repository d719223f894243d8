//! Intel's collateral: revocation lists, TCB info and QE identity, with their issuers' chains.
//!
//! It is read twice: here for what a check's name depends on (bounded, before anything is
//! believed), and in dcap-qvl, which verifies the signatures over the very same bytes.

use std::time::Duration;

use dcap_qvl::QuoteCollateralV3;
use serde::Deserialize;
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;

use super::{pem, rfc3339};
use crate::evidence::ENDORSEMENTS_MAX;

/// Largest revocation list, in bytes. Intel's PCK lists have 2 to 10 KB.
const CRL_MAX: usize = 32 * 1024;
/// Largest chain, in bytes of PEM. Intel's have 2 to 4 KB.
const CHAIN_MAX: usize = 16 * 1024;
/// Largest TCB info or QE identity, in bytes of JSON. Intel's have up to 12 KB.
const JSON_MAX: usize = 48 * 1024;
/// `r` and `s`.
const SIGNATURE: usize = 64;

/// As PCCS clients write it: `QuoteCollateralV3`, binary parts in hexadecimal. Other members are
/// ignored: nothing is derived from them.
#[derive(Deserialize)]
struct Raw {
    #[serde(default)]
    pck_crl_issuer_chain: String,
    root_ca_crl: String,
    pck_crl: String,
    tcb_info_issuer_chain: String,
    tcb_info: String,
    tcb_info_signature: String,
    qe_identity_issuer_chain: String,
    qe_identity: String,
    qe_identity_signature: String,
    #[serde(default)]
    pck_certificate_chain: Option<String>,
}

/// The head of TCB info or QE identity: what they are about and when.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Judgement {
    pub(super) id: String,
    issue_date: String,
    next_update: String,
    /// Edition of Intel's data.
    #[serde(default)]
    pub(super) tcb_evaluation_data_number: u32,
    /// TCB info only, hexadecimal.
    #[serde(default)]
    pub(super) fmspc: String,
    /// TCB info only, hexadecimal.
    #[serde(default)]
    pub(super) pce_id: String,
}

/// From when to when something is valid, in seconds since the UNIX epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) from: i64,
    pub(super) to: i64,
}

/// A revocation list, as far as it is looked at here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Crl {
    /// Name, DER.
    pub(super) issuer: Vec<u8>,
    pub(super) window: Window,
}

/// Collateral of the right form. Nothing in it is verified.
#[derive(Debug, Clone)]
pub(super) struct Collateral {
    pub(super) raw: QuoteCollateralV3,
    pub(super) root_crl: Crl,
    pub(super) pck_crl: Crl,
    pub(super) tcb_info: Judgement,
    pub(super) tcb_info_window: Window,
    pub(super) qe_identity: Judgement,
    pub(super) qe_identity_window: Window,
    /// Of TCB info, leaf first, DER.
    pub(super) tcb_info_chain: Vec<Vec<u8>>,
    /// Of QE identity, leaf first, DER.
    pub(super) qe_identity_chain: Vec<Vec<u8>>,
    /// For quotes that do not bring their own; leaf first, DER.
    pub(super) pck_chain: Option<Vec<Vec<u8>>>,
}

/// The member that is missing, too long, or of another form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bad(pub(super) String);

fn bad(member: &str) -> Bad {
    Bad(member.to_owned())
}

fn binary(member: &str, text: &str, max: usize) -> Result<Vec<u8>, Bad> {
    if text.len() > max.saturating_mul(2) {
        return Err(Bad(format!("{member}: too long")));
    }
    hex::decode(text).map_err(|_| Bad(format!("{member}: not hexadecimal")))
}

fn signature(member: &str, text: &str) -> Result<Vec<u8>, Bad> {
    let bytes = binary(member, text, SIGNATURE)?;
    if bytes.len() == SIGNATURE {
        Ok(bytes)
    } else {
        Err(bad(member))
    }
}

fn chain(member: &str, text: &str) -> Result<Vec<Vec<u8>>, Bad> {
    if text.len() > CHAIN_MAX {
        return Err(Bad(format!("{member}: too long")));
    }
    pem::lenient(text)
        .filter(|chain| !chain.is_empty())
        .ok_or_else(|| bad(member))
}

fn crl(member: &str, der: &[u8]) -> Result<Crl, Bad> {
    let (rest, crl) = CertificateRevocationList::from_der(der).map_err(|_| bad(member))?;
    if !rest.is_empty() {
        return Err(Bad(format!("{member}: trailing bytes")));
    }
    let to = crl
        .next_update()
        .ok_or_else(|| Bad(format!("{member}: never expires")))?;
    Ok(Crl {
        issuer: crl.issuer().as_raw().to_vec(),
        window: Window {
            from: crl.last_update().timestamp(),
            to: to.timestamp(),
        },
    })
}

fn judgement(member: &str, json: &str) -> Result<(Judgement, Window), Bad> {
    if json.len() > JSON_MAX {
        return Err(Bad(format!("{member}: too long")));
    }
    let judgement: Judgement =
        serde_json::from_str(json).map_err(|error| Bad(format!("{member}: {error}")))?;
    let time = |text: &str| rfc3339::seconds(text).ok_or_else(|| Bad(format!("{member}: date")));
    let window = Window {
        from: time(&judgement.issue_date)?,
        to: time(&judgement.next_update)?,
    };
    Ok((judgement, window))
}

impl Collateral {
    /// Reads collateral; allocates no more than a small multiple of its length.
    pub(super) fn read(json: &[u8]) -> Result<Self, Bad> {
        if json.len() > ENDORSEMENTS_MAX {
            return Err(Bad(format!(
                "{} bytes, at most {ENDORSEMENTS_MAX} are read",
                json.len()
            )));
        }
        let raw: Raw = serde_json::from_slice(json).map_err(|error| Bad(error.to_string()))?;
        if raw.pck_crl_issuer_chain.len() > CHAIN_MAX {
            return Err(bad("pck_crl_issuer_chain"));
        }
        let root_ca_crl = binary("root_ca_crl", &raw.root_ca_crl, CRL_MAX)?;
        let pck_crl = binary("pck_crl", &raw.pck_crl, CRL_MAX)?;
        let (tcb_info, tcb_info_window) = judgement("tcb_info", &raw.tcb_info)?;
        let (qe_identity, qe_identity_window) = judgement("qe_identity", &raw.qe_identity)?;
        let own_chain = raw.pck_certificate_chain.as_deref();
        Ok(Self {
            root_crl: crl("root_ca_crl", &root_ca_crl)?,
            pck_crl: crl("pck_crl", &pck_crl)?,
            tcb_info,
            tcb_info_window,
            qe_identity,
            qe_identity_window,
            tcb_info_chain: chain("tcb_info_issuer_chain", &raw.tcb_info_issuer_chain)?,
            qe_identity_chain: chain("qe_identity_issuer_chain", &raw.qe_identity_issuer_chain)?,
            pck_chain: own_chain
                .map(|text| chain("pck_certificate_chain", text))
                .transpose()?,
            raw: QuoteCollateralV3 {
                tcb_info_signature: signature("tcb_info_signature", &raw.tcb_info_signature)?,
                qe_identity_signature: signature(
                    "qe_identity_signature",
                    &raw.qe_identity_signature,
                )?,
                pck_crl_issuer_chain: raw.pck_crl_issuer_chain,
                root_ca_crl,
                pck_crl,
                tcb_info_issuer_chain: raw.tcb_info_issuer_chain,
                tcb_info: raw.tcb_info,
                qe_identity_issuer_chain: raw.qe_identity_issuer_chain,
                qe_identity: raw.qe_identity,
                pck_certificate_chain: raw.pck_certificate_chain,
            },
        })
    }

    /// What has a date of its own. Certificates' are dcap-qvl's.
    pub(super) fn windows(&self) -> [(&'static str, Window); 4] {
        [
            ("TCB info", self.tcb_info_window),
            ("QE identity", self.qe_identity_window),
            ("root's revocation list", self.root_crl.window),
            ("PCK revocation list", self.pck_crl.window),
        ]
    }

    /// When the judgement of the platform was issued. Revocation lists do not count: a fresh one
    /// must not make an old judgement look new.
    pub(super) fn issued(&self) -> Duration {
        let issued = self.tcb_info_window.from.min(self.qe_identity_window.from);
        Duration::from_secs(u64::try_from(issued).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests;
