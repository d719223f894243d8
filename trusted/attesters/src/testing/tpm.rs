//! Azure's vTPM in memory: one NV index, one key, one bank of registers.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex};

use rustix::io::Errno;

use super::{Script, errno, lock};
use crate::azure::QuoteService;
use crate::tpm::Tpm;

/// Makes a quote's message and signature from nonce, registers and selection.
type Quoter = dyn Fn(&[u8], &[[u8; 32]], u32) -> (Vec<u8>, Vec<u8>) + Send + Sync;

/// What goes wrong next, one for each command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TpmFault {
    Kernel(Errno),
    /// A response code, as in 0x922 for "retry".
    Code(u32),
    /// The response is cut to that many bytes.
    Cut(usize),
    /// Bytes behind the response, not counted in its length.
    Trailing,
    /// A register is extended before this command.
    Extend,
    /// The quote is about another nonce.
    WrongNonce,
    None,
}

/// The TPM.
pub struct FakeTpm {
    report: Mutex<Option<Vec<u8>>>,
    registers: Mutex<Vec<[u8; 32]>>,
    quoter: Box<Quoter>,
    script: Script<TpmFault>,
}

impl fmt::Debug for FakeTpm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FakeTpm")
    }
}

impl FakeTpm {
    /// Without a report it is the TPM of an ordinary machine.
    pub fn new(
        report: Option<Vec<u8>>,
        registers: Vec<[u8; 32]>,
        quoter: impl Fn(&[u8], &[[u8; 32]], u32) -> (Vec<u8>, Vec<u8>) + Send + Sync + 'static,
    ) -> Self {
        Self {
            report: Mutex::new(report),
            registers: Mutex::new(registers),
            quoter: Box::new(quoter),
            script: Script::default(),
        }
    }

    /// Faults, one for each command.
    pub fn script(&self, faults: impl IntoIterator<Item = TpmFault>) {
        self.script.add(faults);
    }

    /// Faults that have not happened yet.
    #[must_use]
    pub fn faults_left(&self) -> usize {
        self.script.left()
    }

    /// What the NV index holds from now on.
    pub fn set_report(&self, report: Vec<u8>) {
        *lock(&self.report) = Some(report);
    }

    /// The response to a command: code and parameters. Handle and session are where they belong.
    fn answer(&self, code: u32, body: &[u8], fault: &TpmFault) -> Result<Vec<u8>, u32> {
        const NO_SUCH_INDEX: u32 = 0x18b;
        let registers = lock(&self.registers).clone();
        let sized = |bytes: &[u8]| {
            let len = u16::try_from(bytes.len()).unwrap();
            [&len.to_be_bytes()[..], bytes].concat()
        };
        let report = lock(&self.report).clone();
        match code {
            0x169 => {
                let size = u16::try_from(report.ok_or(NO_SUCH_INDEX)?.len()).unwrap();
                let public = [
                    &body[..4],
                    &[0, 0x0b, 0, 2, 0, 2, 0, 0],
                    &size.to_be_bytes(),
                ];
                let name = sized(&[0x0b; 34]);
                Ok([sized(&public.concat()), name].concat())
            }
            0x14e => {
                assert_eq!(body[..4], [0x40, 0, 0, 1], "the owner reads");
                let at = 8 + 4 + 9;
                let word = |at: usize| usize::from(u16::from_be_bytes([body[at], body[at + 1]]));
                let (len, offset) = (word(at), word(at + 2));
                let report = report.ok_or(NO_SUCH_INDEX)?;
                // TPM_RC_NV_RANGE.
                let part = report.get(offset..offset + len).ok_or(0x146_u32)?;
                Ok(sized(part))
            }
            0x17e => {
                let wanted = u32::from_le_bytes([body[7], body[8], body[9], 0]);
                let given = (0..24).filter(|i| wanted & (1 << i) != 0).take(8);
                let given: Vec<u32> = given.collect();
                let bits: u32 = given.iter().map(|i| 1 << i).sum();
                let [low, middle, high, _] = bits.to_le_bytes();
                let mut answer = vec![0, 0, 0, 7, 0, 0, 0, 1, 0, 0x0b, 3, low, middle, high];
                answer.extend(u32::try_from(given.len()).unwrap().to_be_bytes());
                for i in given {
                    answer.extend(sized(&registers[i as usize]));
                }
                Ok(answer)
            }
            0x158 => {
                assert_eq!(body[..4], [0x81, 0, 0, 3], "the attestation key");
                let at = 4 + 4 + 9;
                let len = usize::from(u16::from_be_bytes([body[at], body[at + 1]]));
                // TPM2B_DATA holds a hash of the largest kind and its name.
                if len > 66 {
                    return Err(0x1d5);
                }
                let nonce = match fault {
                    TpmFault::WrongNonce => vec![0xee; len],
                    _ => body[at + 2..at + 2 + len].to_vec(),
                };
                let rest = &body[at + 2 + len..];
                assert_eq!(rest[..4], [0, 0x14, 0, 0x0b], "RSASSA with SHA-256");
                let bits = u32::from_le_bytes([rest[11], rest[12], rest[13], 0]);
                let (message, signature) = (self.quoter)(&nonce, &registers, bits);
                let scheme = [0, 0x14, 0, 0x0b];
                Ok([&sized(&message)[..], &scheme, &sized(&signature)].concat())
            }
            // TPM_RC_COMMAND_CODE.
            _ => Err(0x143),
        }
    }
}

impl Tpm for FakeTpm {
    fn transact(&self, command: &[u8]) -> io::Result<Vec<u8>> {
        let fault = self.script.take(|f| Some(*f));
        let fault = fault.unwrap_or(TpmFault::None);
        if let TpmFault::Kernel(error) = fault {
            return errno(error);
        }
        if fault == TpmFault::Extend {
            lock(&self.registers)[16][0] ^= 1;
        }
        let word = |at: usize| u32::from_be_bytes(command[at..at + 4].try_into().unwrap());
        assert_eq!(word(2) as usize, command.len(), "length of the command");
        let session = command[..2] == [0x80, 2];
        let answered = match fault {
            TpmFault::Code(code) => Err(code),
            _ => self.answer(word(6), &command[10..], &fault),
        };
        let (tag, code, body) = match answered {
            Err(code) => (0x8001_u16, code, Vec::new()),
            Ok(answer) if session => {
                let len = u32::try_from(answer.len()).unwrap().to_be_bytes();
                let body = [&len[..], &answer, &[0, 0, 1, 0, 0]].concat();
                (0x8002, 0, body)
            }
            Ok(answer) => (0x8001, 0, answer),
        };
        let len = u32::try_from(body.len() + 10).unwrap();
        let mut response = tag.to_be_bytes().to_vec();
        response.extend(len.to_be_bytes());
        response.extend(code.to_be_bytes());
        response.extend(body);
        match fault {
            TpmFault::Cut(len) => response.truncate(len),
            TpmFault::Trailing => response.push(0),
            _ => {}
        }
        Ok(response)
    }
}

/// Azure's metadata service, which makes quotes of reports.
#[derive(Clone)]
pub struct FakeQuoteService(Arc<Service>);

type MakeQuote = dyn Fn(&[u8]) -> io::Result<Vec<u8>> + Send + Sync;

struct Service {
    make: Box<MakeQuote>,
    asked: Mutex<usize>,
}

impl fmt::Debug for FakeQuoteService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FakeQuoteService")
    }
}

impl FakeQuoteService {
    /// `make` gets the TDREPORT.
    pub fn new(make: impl Fn(&[u8]) -> io::Result<Vec<u8>> + Send + Sync + 'static) -> Self {
        Self(Arc::new(Service {
            make: Box::new(make),
            asked: Mutex::new(0),
        }))
    }

    /// How often it was asked.
    #[must_use]
    pub fn asked(&self) -> usize {
        *lock(&self.0.asked)
    }
}

impl QuoteService for FakeQuoteService {
    fn td_quote(&self, td_report: &[u8]) -> io::Result<Vec<u8>> {
        *lock(&self.0.asked) += 1;
        (self.0.make)(td_report)
    }
}
