//! `/dev/nsm` (drivers/misc/nsm.c) and the module behind it, in memory.

use std::fmt;
use std::io;
use std::sync::Arc;

use minicbor::{Decoder, Encoder};
use rustix::io::Errno;

use super::{Script, errno};
use crate::nsm::NsmDevice;

/// Makes a document about user data and nonce.
#[derive(Clone)]
pub struct NsmSigner(Arc<Sign>);

type Sign = dyn Fn(Option<&[u8]>, Option<&[u8]>) -> Vec<u8> + Send + Sync;

impl NsmSigner {
    pub fn new(
        sign: impl Fn(Option<&[u8]>, Option<&[u8]>) -> Vec<u8> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(sign))
    }

    /// Shaped like a document (COSE_Sign1), signed by nobody.
    #[must_use]
    pub fn unsigned() -> Self {
        Self::new(|user_data, nonce| {
            let mut payload = Encoder::new(Vec::new());
            payload.map(3).unwrap().str("module_id").unwrap();
            payload.str("i-0").unwrap();
            for (name, value) in [("user_data", user_data), ("nonce", nonce)] {
                payload.str(name).unwrap();
                match value {
                    Some(bytes) => payload.bytes(bytes).unwrap(),
                    None => payload.null().unwrap(),
                };
            }
            let mut document = Encoder::new(Vec::new());
            document.array(4).unwrap().bytes(&[0xa1]).unwrap();
            document.map(0).unwrap();
            document.bytes(&payload.into_writer()).unwrap();
            document.bytes(&[0; 96]).unwrap();
            document.into_writer()
        })
    }
}

impl fmt::Debug for NsmSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NsmSigner")
    }
}

/// What goes wrong next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NsmFault {
    /// The ioctl fails.
    Kernel(Errno),
    /// The module answers with its own name for an error.
    Module(&'static str),
    /// The response is cut to that many bytes, silently.
    Cut(usize),
    WrongUserData,
    WrongNonce,
    /// Any bytes.
    Answer(Vec<u8>),
}

/// The device.
#[derive(Debug)]
pub struct FakeNsm {
    signer: NsmSigner,
    script: Script<NsmFault>,
}

impl FakeNsm {
    #[must_use]
    pub fn new(signer: NsmSigner) -> Self {
        Self {
            signer,
            script: Script::default(),
        }
    }

    /// Faults, in this order.
    pub fn script(&self, faults: impl IntoIterator<Item = NsmFault>) {
        self.script.add(faults);
    }

    /// Faults that have not happened yet.
    #[must_use]
    pub fn faults_left(&self) -> usize {
        self.script.left()
    }

    fn respond(&self, request: &[u8], fault: Option<&NsmFault>) -> Option<Vec<u8>> {
        let mut response = Encoder::new(Vec::new());
        let mut d = Decoder::new(request);
        if d.datatype().ok()? == minicbor::data::Type::String {
            if d.str().ok()? != "DescribeNSM" {
                return None;
            }
            response.map(1).ok()?.str("DescribeNSM").ok()?.map(1).ok()?;
            response.str("max_pcrs").ok()?.u8(32).ok()?;
            return Some(response.into_writer());
        }
        if d.map().ok()?? != 1 || d.str().ok()? != "Attestation" {
            return None;
        }
        let mut fields: [Option<Vec<u8>>; 3] = [None, None, None];
        for _ in 0..d.map().ok()?? {
            let name = d.str().ok()?;
            let at = ["user_data", "nonce", "public_key"]
                .iter()
                .position(|known| *known == name)?;
            if d.datatype().ok()? == minicbor::data::Type::Null {
                d.null().ok()?;
            } else {
                fields[at] = Some(d.bytes().ok()?.to_vec());
            }
        }
        let [mut user_data, mut nonce, _] = fields;
        match fault {
            Some(NsmFault::WrongUserData) => user_data = Some(vec![0xee; 64]),
            Some(NsmFault::WrongNonce) => nonce = Some(vec![0xee; 32]),
            _ => {}
        }
        let document = (self.signer.0)(user_data.as_deref(), nonce.as_deref());
        response.map(1).ok()?.str("Attestation").ok()?.map(1).ok()?;
        response.str("document").ok()?.bytes(&document).ok()?;
        Some(response.into_writer())
    }
}

fn error(name: &str) -> Vec<u8> {
    let mut response = Encoder::new(Vec::new());
    response
        .map(1)
        .unwrap()
        .str("Error")
        .unwrap()
        .str(name)
        .unwrap();
    response.into_writer()
}

impl NsmDevice for FakeNsm {
    fn exchange(&self, request: &[u8], response: &mut [u8]) -> io::Result<usize> {
        if request.len() > 0x1000 {
            return errno(Errno::MSGSIZE);
        }
        let fault = self.script.take(|f| Some(f.clone()));
        let mut answer = match &fault {
            Some(NsmFault::Kernel(error)) => return errno(*error),
            Some(NsmFault::Module(name)) => error(name),
            Some(NsmFault::Answer(bytes)) => bytes.clone(),
            other => self
                .respond(request, other.as_ref())
                .unwrap_or_else(|| error("InvalidArgument")),
        };
        if let Some(NsmFault::Cut(len)) = fault {
            answer.truncate(len);
        }
        answer.truncate(response.len());
        response[..answer.len()].copy_from_slice(&answer);
        Ok(answer.len())
    }
}
