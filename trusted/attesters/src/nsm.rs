//! The Nitro Security Module, `/dev/nsm`: CBOR in and out of one ioctl.

use std::fmt;
use std::io;
use std::sync::Arc;

use attestation::{Attester, Binder, CollectError, Evidence, Tee};
use crypto::secret::SealingKey;
use minicbor::{Decoder, Encoder, data::Type};

use crate::retry::{Pause, Setback, persist};
use crate::sealing::NoSealingKey;

/// Where the device is, from the root of the file system.
pub const PATH: &str = "dev/nsm";

/// What the kernel takes as a response at most; it cuts longer ones silently.
pub const RESPONSE_MAX: usize = 0x3000;
const WHAT: &str = "/dev/nsm";

/// One request and its response.
pub trait NsmDevice: Send + Sync + fmt::Debug {
    /// Gives the length of the response, which may have been cut to `response`'s.
    ///
    /// # Errors
    /// The kernel's.
    fn exchange(&self, request: &[u8], response: &mut [u8]) -> io::Result<usize>;
}

/// AWS Nitro Enclaves.
#[derive(Debug)]
pub struct NitroAttester {
    device: Arc<dyn NsmDevice>,
    pause: Arc<dyn Pause>,
}

/// A vector can be written to without limit, so encoding cannot fail.
fn encoded(
    write: impl FnOnce(
        &mut Encoder<Vec<u8>>,
    ) -> Result<(), minicbor::encode::Error<std::convert::Infallible>>,
) -> Vec<u8> {
    let mut encoder = Encoder::new(Vec::new());
    write(&mut encoder).ok();
    encoder.into_writer()
}

fn attestation_request(user_data: &[u8], nonce: Option<&[u8; 32]>) -> Vec<u8> {
    encoded(|e| {
        e.map(1)?.str("Attestation")?.map(3)?;
        e.str("user_data")?.bytes(user_data)?;
        e.str("nonce")?;
        match nonce {
            Some(nonce) => e.bytes(nonce)?,
            None => e.null()?,
        };
        e.str("public_key")?.null()?;
        Ok(())
    })
}

/// What the module answered.
#[derive(Debug, PartialEq, Eq)]
enum Answer<'a> {
    Document(&'a [u8]),
    /// `DescribeNSM`, whose content is of no interest here.
    Description,
    /// Its own name for an error.
    Error(&'a str),
}

fn answer(response: &[u8]) -> Option<Answer<'_>> {
    let mut d = Decoder::new(response);
    if d.map().ok()? != Some(1) {
        return None;
    }
    let answer = match d.str().ok()? {
        "Error" => Answer::Error(d.str().ok()?),
        "Attestation" => {
            if d.map().ok()? != Some(1) || d.str().ok()? != "document" {
                return None;
            }
            Answer::Document(d.bytes().ok()?)
        }
        "DescribeNSM" => {
            d.skip().ok()?;
            Answer::Description
        }
        _ => return None,
    };
    // Nothing behind it: a cut response is no shorter one.
    (d.position() == response.len()).then_some(answer)
}

/// Whether the document, as it stands, is about what was asked for.
fn about(document: &[u8], user_data: &[u8], nonce: Option<&[u8; 32]>) -> Option<bool> {
    let mut d = Decoder::new(document);
    if d.datatype().ok()? == Type::Tag {
        d.tag().ok()?;
    }
    if d.array().ok()? != Some(4) {
        return None;
    }
    d.skip().ok()?;
    d.skip().ok()?;
    let mut payload = Decoder::new(d.bytes().ok()?);
    let (mut said_data, mut said_nonce) = (None, None);
    let mut left = payload.map().ok()?;
    loop {
        // Newer hypervisors write a map of indefinite length.
        match &mut left {
            Some(0) => break,
            Some(left) => *left = left.checked_sub(1)?,
            None if payload.datatype().ok()? == Type::Break => break,
            None => {}
        }
        let field = match payload.str().ok()? {
            "user_data" => &mut said_data,
            "nonce" => &mut said_nonce,
            _ => {
                payload.skip().ok()?;
                continue;
            }
        };
        *field = if payload.datatype().ok()? == Type::Null {
            payload.null().ok()?;
            None
        } else {
            Some(payload.bytes().ok()?)
        };
    }
    Some(said_data == Some(user_data) && said_nonce == nonce.map(<[u8; 32]>::as_slice))
}

impl NitroAttester {
    #[must_use]
    pub fn new(device: Arc<dyn NsmDevice>, pause: Arc<dyn Pause>) -> Self {
        Self { device, pause }
    }

    /// Whether a module answers at all.
    pub(crate) fn describe(&self) -> Result<(), CollectError> {
        persist(self.pause.as_ref(), || {
            let request = encoded(|e| e.str("DescribeNSM").map(|_| ()));
            self.exchange(&request, |answer| {
                (answer == Answer::Description).then_some(())
            })
        })
    }

    fn exchange<T>(
        &self,
        request: &[u8],
        read: impl FnOnce(Answer<'_>) -> Option<T>,
    ) -> Result<T, Setback> {
        let mut response = vec![0; RESPONSE_MAX];
        let len = self
            .device
            .exchange(request, &mut response)
            .map_err(|e| Setback::from_io(WHAT, e))?;
        let answered = response.get(..len).and_then(answer);
        match answered {
            // The module's own failure: a name, and no cause.
            Some(Answer::Error(name)) => Err(Setback::Final(CollectError::Device {
                what: WHAT,
                source: io::Error::other(format!("the module answers {name:.32}")),
            })),
            Some(other) => read(other).ok_or(Setback::unexpected("another answer of the NSM")),
            None => Err(Setback::unexpected("a malformed or cut answer of the NSM")),
        }
    }
}

impl Attester for NitroAttester {
    fn tee(&self) -> Tee {
        Tee::Nitro
    }

    fn collect(&self, binder: &Binder) -> Result<Evidence, CollectError> {
        let user_data = binder.report_data();
        let request = attestation_request(&user_data, binder.nonce());
        let document = persist(self.pause.as_ref(), || {
            self.exchange(&request, |answer| match answer {
                Answer::Document(document) => Some(document.to_vec()),
                _ => None,
            })
        })?;
        if about(&document, &user_data, binder.nonce()) != Some(true) {
            return Err(CollectError::Unexpected {
                what: "a document about something else",
            });
        }
        Ok(Evidence {
            tee: Tee::Nitro,
            body: document,
        })
    }

    fn sealing_key(&self) -> Result<SealingKey, CollectError> {
        Err(NoSealingKey::Nitro.into())
    }
}

#[cfg(test)]
mod tests;
