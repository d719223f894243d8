//! As much of TPM 2.0 (TCG, "Trusted Platform Module Library", part 3) as Azure's evidence needs:
//! reading an NV index and PCRs, and a quote. Numbers are big-endian; every response is exact.

use std::fmt;
use std::io;

use rustix::io::Errno;

use crate::files::{Access, Tree};

/// The resource manager's device, from the root of the file system.
pub const PATH: &str = "dev/tpmrm0";

/// Registers of a bank.
pub(crate) const PCRS: usize = 24;
/// Largest response of the kernel's interface.
const RESPONSE_MAX: usize = 4096;
/// Bytes asked for in one TPM2_NV_Read: every TPM gives that many.
const NV_CHUNK: u16 = 512;
/// Largest NV index read.
const NV_MAX: u16 = 8192;
/// TPM2_PCR_Read gives up to 8 registers at once.
const PCR_ROUNDS: usize = PCRS;

const NO_SESSIONS: u16 = 0x8001;
const SESSIONS: u16 = 0x8002;
const CC_NV_READ: u32 = 0x14e;
const CC_QUOTE: u32 = 0x158;
const CC_NV_READ_PUBLIC: u32 = 0x169;
const CC_PCR_READ: u32 = 0x17e;
const RH_OWNER: u32 = 0x4000_0001;
/// An empty password: TPM_RS_PW, no nonce, no attributes, no secret.
const PASSWORD: [u8; 9] = [0x40, 0, 0, 9, 0, 0, 0, 0, 0];
const ALG_RSASSA: u16 = 0x14;
const ALG_SHA256: u16 = 0x0b;

/// Why a TPM gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum TpmError {
    #[error("talking to the TPM")]
    Io(#[source] io::Error),
    #[error("the TPM is at work on something else (code {0:#x})")]
    Busy(u32),
    #[error("the TPM refuses with code {0:#x}")]
    Code(u32),
    #[error("the TPM's answer has a malformed {0}")]
    Malformed(&'static str),
}

impl TpmError {
    /// Whether the handle or index that was named does not exist: TPM_RC_HANDLE, TPM_RC_VALUE or
    /// TPM_RC_REFERENCE_H0 of the first handle.
    pub(crate) const fn is_missing(&self) -> bool {
        matches!(self, Self::Code(0x18b | 0x184 | 0x910))
    }
}

/// One command and its response.
pub trait Tpm: Send + Sync + fmt::Debug {
    /// # Errors
    /// The kernel's.
    fn transact(&self, command: &[u8]) -> io::Result<Vec<u8>>;
}

/// The kernel's device: a command is one write, its response one read.
#[derive(Debug)]
pub struct TpmDevice<T>(pub T);

impl<T: Tree> Tpm for TpmDevice<T> {
    fn transact(&self, command: &[u8]) -> io::Result<Vec<u8>> {
        let mut device = self.0.open(PATH, Access::ReadWrite)?;
        if device.write(command)? != command.len() {
            return Err(io::ErrorKind::WriteZero.into());
        }
        let mut response = vec![0; RESPONSE_MAX];
        // Read at once or not at all: an interrupted read can be made again, the command not.
        let len = loop {
            match device.read(&mut response) {
                Err(e) if Errno::from_io_error(&e) == Some(Errno::INTR) => {}
                done => break done?,
            }
        };
        response.truncate(len);
        Ok(response)
    }
}

/// Takes fields off the front of a response.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], TpmError> {
        let (array, rest) = self
            .0
            .split_first_chunk()
            .ok_or(TpmError::Malformed(field))?;
        self.0 = rest;
        Ok(*array)
    }

    fn u16(&mut self, field: &'static str) -> Result<u16, TpmError> {
        self.array(field).map(u16::from_be_bytes)
    }

    fn u32(&mut self, field: &'static str) -> Result<u32, TpmError> {
        self.array(field).map(u32::from_be_bytes)
    }

    fn bytes(&mut self, len: usize, field: &'static str) -> Result<&'a [u8], TpmError> {
        let (bytes, rest) = self
            .0
            .split_at_checked(len)
            .ok_or(TpmError::Malformed(field))?;
        self.0 = rest;
        Ok(bytes)
    }

    /// A TPM2B: two bytes of length, and the bytes.
    fn sized(&mut self, field: &'static str) -> Result<&'a [u8], TpmError> {
        let len = self.u16(field)?;
        self.bytes(len.into(), field)
    }

    fn end(&self, field: &'static str) -> Result<(), TpmError> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(TpmError::Malformed(field))
        }
    }
}

fn sized(bytes: &[u8]) -> Option<Vec<u8>> {
    let len = u16::try_from(bytes.len()).ok()?;
    Some([&len.to_be_bytes(), bytes].concat())
}

/// Registers of the SHA-256 bank, by bits.
fn selection(registers: u32) -> [u8; 10] {
    let [low, middle, high, _] = registers.to_le_bytes();
    [0, 0, 0, 1, 0, 0x0b, 3, low, middle, high]
}

/// Commands are sent again this often: TPM_RC_RETRY is how a TPM says that it has to write first.
const RESENT: usize = 3;

/// Sends a command, again if the TPM says so, and takes header and session off the response.
fn call(
    tpm: &dyn Tpm,
    code: u32,
    handles: &[u32],
    session: bool,
    parameters: &[u8],
) -> Result<Vec<u8>, TpmError> {
    for _ in 0..RESENT {
        match call_once(tpm, code, handles, session, parameters) {
            Err(TpmError::Busy(_)) => {}
            done => return done,
        }
    }
    call_once(tpm, code, handles, session, parameters)
}

fn call_once(
    tpm: &dyn Tpm,
    code: u32,
    handles: &[u32],
    session: bool,
    parameters: &[u8],
) -> Result<Vec<u8>, TpmError> {
    let handles: Vec<u8> = handles.iter().flat_map(|h| h.to_be_bytes()).collect();
    let mut body = handles;
    if session {
        body.extend([0, 0, 0, 9]);
        body.extend(PASSWORD);
    }
    body.extend(parameters);
    let tag = if session { SESSIONS } else { NO_SESSIONS };
    let len = u32::try_from(body.len())
        .ok()
        .and_then(|len| len.checked_add(10))
        .ok_or(TpmError::Malformed("command"))?;
    let command = [
        &tag.to_be_bytes()[..],
        &len.to_be_bytes(),
        &code.to_be_bytes(),
        &body,
    ]
    .concat();
    let response = tpm.transact(&command).map_err(TpmError::Io)?;

    let mut fields = Fields(&response);
    let said_tag = fields.u16("tag")?;
    let said_len = fields.u32("length")?;
    if usize::try_from(said_len) != Ok(response.len()) {
        return Err(TpmError::Malformed("length"));
    }
    match fields.u32("code")? {
        0 => {}
        // NV_RATE, RETRY, YIELDED, TESTING.
        busy @ (0x920 | 0x922 | 0x908 | 0x90a) => return Err(TpmError::Busy(busy)),
        refused => return Err(TpmError::Code(refused)),
    }
    if said_tag != tag {
        return Err(TpmError::Malformed("tag"));
    }
    if !session {
        return Ok(fields.0.to_vec());
    }
    let len = usize::try_from(fields.u32("parameter size")?)
        .map_err(|_| TpmError::Malformed("parameter size"))?;
    // What follows is the session's: nothing is said with an empty password.
    fields.bytes(len, "parameters").map(<[u8]>::to_vec)
}

/// TPM2_NV_ReadPublic: the length of an index, in bytes.
pub(crate) fn nv_size(tpm: &dyn Tpm, index: u32) -> Result<u16, TpmError> {
    let response = call(tpm, CC_NV_READ_PUBLIC, &[index], false, &[])?;
    let mut fields = Fields(&response);
    let mut public = Fields(fields.sized("NV public area")?);
    if public.u32("NV index")? != index {
        return Err(TpmError::Malformed("NV index"));
    }
    public.u16("name algorithm")?;
    public.u32("NV attributes")?;
    public.sized("authorization policy")?;
    let size = public.u16("NV size")?;
    public.end("NV public area")?;
    Ok(size)
}

/// TPM2_NV_Read, as often as it takes: the whole index, by the owner's empty password.
pub(crate) fn nv_read(tpm: &dyn Tpm, index: u32) -> Result<Vec<u8>, TpmError> {
    let size = nv_size(tpm, index)?;
    if size > NV_MAX {
        return Err(TpmError::Malformed("NV size"));
    }
    let mut content: Vec<u8> = Vec::with_capacity(size.into());
    loop {
        let read = u16::try_from(content.len()).map_err(|_| TpmError::Malformed("NV size"))?;
        let part = size.saturating_sub(read).min(NV_CHUNK);
        if part == 0 {
            return Ok(content);
        }
        let parameters = [part.to_be_bytes(), read.to_be_bytes()].concat();
        let response = call(tpm, CC_NV_READ, &[RH_OWNER, index], true, &parameters)?;
        let mut fields = Fields(&response);
        let bytes = fields.sized("NV content")?;
        fields.end("NV content")?;
        if bytes.len() != usize::from(part) {
            return Err(TpmError::Malformed("NV content"));
        }
        content.extend_from_slice(bytes);
    }
}

/// TPM2_PCR_Read, as often as it takes: the whole SHA-256 bank.
pub(crate) fn pcr_read(tpm: &dyn Tpm) -> Result<[[u8; 32]; PCRS], TpmError> {
    let mut registers = [[0; 32]; PCRS];
    let mut missing: u32 = 0xff_ffff;
    for _ in 0..PCR_ROUNDS {
        let response = call(tpm, CC_PCR_READ, &[], false, &selection(missing))?;
        let mut fields = Fields(&response);
        fields.u32("PCR update counter")?;
        let [count @ .., low, middle, high]: [u8; 10] = fields.array("PCR selection")?;
        let given = u32::from_le_bytes([low, middle, high, 0]);
        if count != [0, 0, 0, 1, 0, 0x0b, 3] || given == 0 || given & !missing != 0 {
            return Err(TpmError::Malformed("PCR selection"));
        }
        if fields.u32("PCR values")? != given.count_ones() {
            return Err(TpmError::Malformed("PCR values"));
        }
        for (index, register) in registers.iter_mut().enumerate() {
            if given & (1 << index) != 0 {
                *register = fields
                    .sized("PCR value")?
                    .try_into()
                    .map_err(|_| TpmError::Malformed("PCR value"))?;
            }
        }
        fields.end("PCR values")?;
        missing &= !given;
        if missing == 0 {
            return Ok(registers);
        }
    }
    Err(TpmError::Malformed("PCR selection"))
}

/// A signed statement of the TPM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Quote {
    /// `TPMS_ATTEST`, what is signed.
    pub(crate) message: Vec<u8>,
    /// RSASSA with SHA-256.
    pub(crate) signature: Vec<u8>,
}

/// TPM2_Quote of the whole SHA-256 bank by the key `ak`, over `data`.
pub(crate) fn quote(tpm: &dyn Tpm, ak: u32, data: &[u8]) -> Result<Quote, TpmError> {
    let data = sized(data).ok_or(TpmError::Malformed("qualifying data"))?;
    let scheme = [ALG_RSASSA.to_be_bytes(), ALG_SHA256.to_be_bytes()].concat();
    let parameters = [&data[..], &scheme, &selection(0xff_ffff)].concat();
    let response = call(tpm, CC_QUOTE, &[ak], true, &parameters)?;
    let mut fields = Fields(&response);
    let message = fields.sized("quote")?.to_vec();
    if fields.u16("signature scheme")? != ALG_RSASSA || fields.u16("hash")? != ALG_SHA256 {
        return Err(TpmError::Malformed("signature scheme"));
    }
    let signature = fields.sized("signature")?.to_vec();
    fields.end("signature")?;
    Ok(Quote { message, signature })
}

#[cfg(test)]
mod tests;
