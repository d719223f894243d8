//! Azure's confidential machines: a vTPM, and a hardware report that it keeps since the boot.
//!
//! The paravisor puts its report at an NV index. The hardware's signature in it covers the vTPM's
//! attestation key; a fresh quote of that key covers the binder. For TDX the hardware report can
//! be verified on its own machine only; the metadata service has a quote made of it.

use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use attestation::{Attester, Binder, CollectError, Evidence, Tee};
use aws_lc_rs::digest::{Context, SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use crypto::secret::SealingKey;
use serde::Deserialize;
use serde_json::json;

use crate::layout::quote_about;
use crate::retry::{Pause, Setback, persist};
use crate::sealing::NoSealingKey;
use crate::tpm::{self, Tpm, TpmError};

/// The paravisor's report.
const NV_REPORT: u32 = 0x0140_0001;
/// The vTPM's attestation key.
const AK: u32 = 0x8100_0003;

const MAGIC: &[u8; 4] = b"HCLA";
/// Offsets in the report: hardware report, its kind, claims.
const HARDWARE: usize = 32;
const KIND: usize = 1224;
const CLAIMS_LEN: usize = 1232;
const CLAIMS: usize = 1236;
const KIND_SNP: u32 = 2;
const KIND_TDX: u32 = 4;
/// Report data in a SEV-SNP report, and in a TDREPORT.
const SNP_REPORT_DATA: usize = HARDWARE + 0x50;
const TD_REPORT_DATA: usize = HARDWARE + 128;
const TD_REPORT: usize = 1024;

const WHAT: &str = "the vTPM";

/// Where a quote of a TDREPORT comes from.
pub trait QuoteService: Send + Sync + fmt::Debug {
    /// # Errors
    /// Of the network, or of the service.
    fn td_quote(&self, td_report: &[u8]) -> io::Result<Vec<u8>>;
}

/// Azure's instance metadata service, which every machine reaches at the same address.
#[derive(Debug, Clone, Copy)]
pub struct MetadataService(pub SocketAddr);

impl Default for MetadataService {
    fn default() -> Self {
        Self(SocketAddr::from((Ipv4Addr::new(169, 254, 169, 254), 80)))
    }
}

const SERVICE_TIMEOUT: Duration = Duration::from_secs(10);
const SERVICE_MAX: u64 = 64 * 1024;

#[derive(Deserialize)]
struct QuoteAnswer {
    quote: String,
}

fn base64url(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok()
}

impl QuoteService for MetadataService {
    fn td_quote(&self, td_report: &[u8]) -> io::Result<Vec<u8>> {
        let body = json!({ "report": URL_SAFE_NO_PAD.encode(td_report) }).to_string();
        let mut stream = TcpStream::connect_timeout(&self.0, SERVICE_TIMEOUT)?;
        stream.set_read_timeout(Some(SERVICE_TIMEOUT))?;
        stream.set_write_timeout(Some(SERVICE_TIMEOUT))?;
        // HTTP/1.0: the answer ends with the connection, and is in one piece.
        let request = format!(
            "POST /acc/tdquote HTTP/1.0\r\nHost: {}\r\nMetadata: true\r\nAccept: application/json\
             \r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.0.ip(),
            body.len()
        );
        stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        stream
            .take(SERVICE_MAX.saturating_add(1))
            .read_to_end(&mut answer)?;
        quote_in(&answer).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

/// The quote in an answer of the service: status 200, and JSON.
fn quote_in(answer: &[u8]) -> Option<Vec<u8>> {
    if answer.len() as u64 > SERVICE_MAX {
        return None;
    }
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let (head, body) = answer.split_at_checked(end.checked_add(4)?)?;
    let mut status = head.split(|byte| *byte == b' ');
    let version = status.next()?;
    if !version.starts_with(b"HTTP/1.") || status.next()? != b"200" {
        return None;
    }
    let answer: QuoteAnswer = serde_json::from_slice(body).ok()?;
    base64url(&answer.quote)
}

fn word(blob: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*blob.get(at..)?.first_chunk()?))
}

/// Which machine the paravisor's report is of; nothing if it is no such report, or the hardware's
/// part does not cover its claims.
fn kind(blob: &[u8]) -> Option<(Tee, &[u8; 64])> {
    let (tee, data_at) = match word(blob, KIND)? {
        KIND_SNP => (Tee::AzSnp, SNP_REPORT_DATA),
        KIND_TDX => (Tee::AzTdx, TD_REPORT_DATA),
        _ => return None,
    };
    let report_data = blob.get(data_at..)?.first_chunk()?;
    let len = usize::try_from(word(blob, CLAIMS_LEN)?).ok()?;
    let claims = blob.get(CLAIMS..)?.get(..len)?;
    let covered = report_data.starts_with(digest(&SHA256, claims).as_ref());
    (blob.starts_with(MAGIC) && covered).then_some((tee, report_data))
}

/// SEV-SNP or TDX behind Azure's vTPM.
pub struct AzureAttester {
    tee: Tee,
    tpm: Arc<dyn Tpm>,
    quotes: Arc<dyn QuoteService>,
    pause: Arc<dyn Pause>,
    /// The last TDREPORT and its quote: the same since the boot, so asked for once.
    td_quote: Mutex<Option<(Vec<u8>, Vec<u8>)>>,
}

impl fmt::Debug for AzureAttester {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AzureAttester")
            .field("tee", &self.tee)
            .finish_non_exhaustive()
    }
}

fn setback(error: TpmError) -> Setback {
    match error {
        TpmError::Busy(_) => Setback::Busy,
        TpmError::Io(source) => Setback::from_io(WHAT, source),
        other => Setback::Final(CollectError::Device {
            what: WHAT,
            source: io::Error::other(other),
        }),
    }
}

/// Whether there is a paravisor's report behind this TPM.
pub(crate) fn is_azure(tpm: &dyn Tpm) -> Result<bool, TpmError> {
    match tpm::nv_size(tpm, NV_REPORT) {
        Ok(_) => Ok(true),
        Err(error) if error.is_missing() => Ok(false),
        Err(error) => Err(error),
    }
}

impl AzureAttester {
    /// Reads the paravisor's report, which says which hardware there is.
    ///
    /// # Errors
    /// [`CollectError`] if there is no such report.
    pub fn new(
        tpm: Arc<dyn Tpm>,
        quotes: Arc<dyn QuoteService>,
        pause: Arc<dyn Pause>,
    ) -> Result<Self, CollectError> {
        let blob = persist(pause.as_ref(), || {
            tpm::nv_read(tpm.as_ref(), NV_REPORT).map_err(setback)
        })?;
        let (tee, _) = kind(&blob).ok_or(CollectError::Unexpected {
            what: "a report of the paravisor",
        })?;
        Ok(Self {
            tee,
            tpm,
            quotes,
            pause,
            td_quote: Mutex::default(),
        })
    }

    fn attempt(&self, nonce: &[u8; 64]) -> Result<Vec<u8>, Setback> {
        let tpm = self.tpm.as_ref();
        let blob = tpm::nv_read(tpm, NV_REPORT).map_err(setback)?;
        let report_data = match kind(&blob) {
            Some((tee, report_data)) if tee == self.tee => report_data,
            _ => return Err(Setback::unexpected("a report of the paravisor")),
        };
        let quote = tpm::quote(tpm, AK, nonce).map_err(setback)?;
        if !quote.message.windows(64).any(|window| window == nonce) {
            return Err(Setback::unexpected("a quote about something else"));
        }
        let registers = tpm::pcr_read(tpm).map_err(setback)?;
        let mut context = Context::new(&SHA256);
        for register in &registers {
            context.update(register);
        }
        // The digest ends the quote. A register may have been extended since it was made.
        if !quote.message.ends_with(context.finish().as_ref()) {
            return Err(Setback::Raced(CollectError::Unexpected {
                what: "registers of another time than the quote",
            }));
        }
        let mut document = json!({
            "version": 1,
            "tpm_quote": {
                "signature": hex::encode(&quote.signature),
                "message": hex::encode(&quote.message),
                "pcrs": registers.map(hex::encode),
            },
            "hcl_report": URL_SAFE_NO_PAD.encode(&blob),
        });
        if self.tee == Tee::AzTdx
            && let Some(document) = document.as_object_mut()
        {
            let quote = URL_SAFE_NO_PAD.encode(self.td_quote(&blob, report_data)?);
            document.insert("td_quote".into(), quote.into());
        }
        Ok(document.to_string().into_bytes())
    }

    fn td_quote(&self, blob: &[u8], report_data: &[u8; 64]) -> Result<Vec<u8>, Setback> {
        let report = blob
            .get(HARDWARE..)
            .and_then(|rest| rest.get(..TD_REPORT))
            .ok_or(Setback::unexpected("a report of the paravisor"))?;
        let mut kept = self.td_quote.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, quote)) = kept.as_ref()
            && of == report
        {
            return Ok(quote.clone());
        }
        let made = self
            .quotes
            .td_quote(report)
            .map_err(|e| Setback::from_io("the metadata service's quote", e))?;
        let quote = quote_about(&made, true, report_data)
            .ok_or(Setback::unexpected("a quote of another report"))?
            .to_vec();
        *kept = Some((report.to_vec(), quote.clone()));
        Ok(quote)
    }
}

impl Attester for AzureAttester {
    fn tee(&self) -> Tee {
        self.tee
    }

    fn collect(&self, binder: &Binder) -> Result<Evidence, CollectError> {
        let nonce = binder.report_data();
        let body = persist(self.pause.as_ref(), || self.attempt(&nonce))?;
        Ok(Evidence {
            tee: self.tee,
            body,
        })
    }

    fn sealing_key(&self) -> Result<SealingKey, CollectError> {
        Err(NoSealingKey::AzureVtpm.into())
    }
}

#[cfg(test)]
mod tests;
