//! Frames of the attest gate: canonical CBOR behind a 4-byte big-endian length.

use protocol::limits::GATE_FRAME_MAX;
use protocol::{ErrorCode, WireError};

use crate::cbor::{CborError, Reader, Writer, require_at_most, require_canonical};
use crate::evidence::{ENDORSEMENTS_MAX, EVIDENCE_MAX, Endorsements, Evidence, Tee};
use crate::measured::CONFIG_MAX;

/// Bytes of the length in front of every frame.
pub const LENGTH_PREFIX: usize = 4;
/// Longest sentence in a verdict, in bytes.
const MESSAGE_MAX: usize = 512;

/// AMD's chain has two issuers.
const ISSUERS_MAX: u64 = 4;

const WHAT: &str = "a frame of the attest gate";
const DCAP: &str = "dcap";
const SNP: &str = "snp";
const HELLO: &str = "sesemi/gate/hello/2";
const SERVER_ATTEST: &str = "sesemi/gate/server-attest/2";
const INSTANCE_ATTEST: &str = "sesemi/gate/instance-attest/1";
const VERDICT: &str = "sesemi/gate/verdict/1";

/// Why bytes are not a frame of the gate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("a frame of the attest gate has {got} bytes, 1 to {GATE_FRAME_MAX} are allowed")]
    Length { got: u64 },
    #[error("reading a frame of the attest gate")]
    Content(#[source] CborError),
}

/// The length of the frame behind this prefix, in bytes; checked before anything is allocated.
///
/// # Errors
/// [`FrameError::Length`] for 0 and for more than [`GATE_FRAME_MAX`].
pub fn frame_len(prefix: [u8; LENGTH_PREFIX]) -> Result<usize, FrameError> {
    let got = u32::from_be_bytes(prefix);
    match usize::try_from(got) {
        Ok(len @ 1..=GATE_FRAME_MAX) => Ok(len),
        _ => Err(FrameError::Length { got: got.into() }),
    }
}

/// As whom a client wants to pass the gate; its certificate must be of that kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClientKind {
    Principal,
    Instance,
}

impl ClientKind {
    const fn name(self) -> &'static str {
        match self {
            Self::Principal => "principal",
            Self::Instance => "instance",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Frame {
    /// Client to server.
    Hello {
        kind: ClientKind,
        nonce: [u8; 32],
        /// For the evidence in an instance's certificate, and for what it will send here.
        endorsements: Endorsements,
    },
    /// Server to client: evidence over the client's nonce, and a nonce for the client's evidence.
    ServerAttest {
        nonce: [u8; 32],
        evidence: Evidence,
        endorsements: Endorsements,
        config: Vec<u8>,
        epoch: u64,
    },
    /// Instance to server: evidence over the server's nonce.
    InstanceAttest { evidence: Evidence, config: Vec<u8> },
    /// Server to client: the gate is open, or why not.
    Verdict(Result<(), WireError>),
}

impl Frame {
    /// The frame with its length in front, ready to be sent.
    ///
    /// # Errors
    /// [`FrameError`] if evidence or configuration are larger than a frame.
    pub(crate) fn to_wire(&self) -> Result<Vec<u8>, FrameError> {
        let body = self.encode();
        let length = u32::try_from(body.len())
            .ok()
            .filter(|_| body.len() <= GATE_FRAME_MAX)
            .ok_or(FrameError::Length {
                got: body.len() as u64,
            })?;
        Ok([&length.to_be_bytes()[..], &body].concat())
    }

    /// Reads a frame without its length; accepts the canonical encoding only.
    pub(crate) fn read(body: &[u8]) -> Result<Self, FrameError> {
        if body.is_empty() || body.len() > GATE_FRAME_MAX {
            return Err(FrameError::Length {
                got: body.len() as u64,
            });
        }
        let frame = Self::decode(body).map_err(FrameError::Content)?;
        require_canonical(WHAT, body, &frame.encode()).map_err(FrameError::Content)?;
        Ok(frame)
    }

    fn encode(&self) -> Vec<u8> {
        let writer = Writer::new();
        match self {
            Self::Hello {
                kind,
                nonce,
                endorsements,
            } => {
                let writer = writer.array(4).text(HELLO).text(kind.name()).bytes(nonce);
                write_endorsements(writer, endorsements)
            }
            Self::ServerAttest {
                nonce,
                evidence,
                endorsements,
                config,
                epoch,
            } => {
                let writer = writer.array(6).text(SERVER_ATTEST).bytes(nonce);
                write_endorsements(write_evidence(writer, evidence), endorsements)
                    .bytes(config)
                    .uint(*epoch)
            }
            Self::InstanceAttest { evidence, config } => {
                let writer = writer.array(3).text(INSTANCE_ATTEST);
                write_evidence(writer, evidence).bytes(config)
            }
            Self::Verdict(Ok(())) => writer.array(2).text(VERDICT).bool(true),
            Self::Verdict(Err(error)) => writer
                .array(4)
                .text(VERDICT)
                .bool(false)
                .text(error.code.name())
                .text(clipped(&error.message)),
        }
        .done()
    }

    fn decode(body: &[u8]) -> Result<Self, CborError> {
        let mut reader = Reader::new(WHAT, body);
        let fields = reader.any_array()?;
        match (reader.text()?, fields) {
            (HELLO, 4) => {
                let name = reader.text()?;
                let kind = [ClientKind::Principal, ClientKind::Instance]
                    .into_iter()
                    .find(|kind| kind.name() == name)
                    .ok_or_else(|| reader.wrong())?;
                Ok(Self::Hello {
                    kind,
                    nonce: reader.fixed()?,
                    endorsements: read_endorsements(&mut reader)?,
                })
            }
            (SERVER_ATTEST, 6) => Ok(Self::ServerAttest {
                nonce: reader.fixed()?,
                evidence: read_evidence(&mut reader)?,
                endorsements: read_endorsements(&mut reader)?,
                config: read_config(&mut reader)?,
                epoch: reader.uint()?,
            }),
            (INSTANCE_ATTEST, 3) => Ok(Self::InstanceAttest {
                evidence: read_evidence(&mut reader)?,
                config: read_config(&mut reader)?,
            }),
            (VERDICT, 2) => match reader.bool()? {
                true => Ok(Self::Verdict(Ok(()))),
                false => Err(reader.wrong()),
            },
            (VERDICT, 4) => match reader.bool()? {
                true => Err(reader.wrong()),
                false => read_refusal(&mut reader).map(|error| Self::Verdict(Err(error))),
            },
            _ => Err(reader.wrong()),
        }
    }
}

fn clipped(message: &str) -> &str {
    message
        .get(..message.floor_char_boundary(MESSAGE_MAX))
        .unwrap_or_default()
}

fn write_evidence(writer: Writer, evidence: &Evidence) -> Writer {
    writer
        .array(2)
        .text(evidence.tee.name())
        .bytes(&evidence.body)
}

fn read_evidence(reader: &mut Reader<'_>) -> Result<Evidence, CborError> {
    reader.array(2)?;
    let tee = Tee::from_name(reader.text()?).ok_or_else(|| reader.wrong())?;
    let body = reader.bytes()?;
    require_at_most("evidence", body.len(), EVIDENCE_MAX)?;
    Ok(Evidence {
        tee,
        body: body.to_vec(),
    })
}

fn write_endorsements(writer: Writer, endorsements: &Endorsements) -> Writer {
    match endorsements {
        Endorsements::None => writer.array(0),
        Endorsements::Dcap { collateral } => writer.array(2).text(DCAP).bytes(collateral),
        Endorsements::Snp { vek, chain } => {
            let writer = writer.array(3).text(SNP).bytes(vek).array(chain.len());
            chain
                .iter()
                .fold(writer, |writer, issuer| writer.bytes(issuer))
        }
    }
}

fn read_endorsements(reader: &mut Reader<'_>) -> Result<Endorsements, CborError> {
    const PARTS: &str = "endorsements";
    let fields = reader.any_array()?;
    if fields == 0 {
        return Ok(Endorsements::None);
    }
    match (reader.text()?, fields) {
        (DCAP, 2) => {
            let collateral = reader.bytes()?;
            require_at_most(PARTS, collateral.len(), ENDORSEMENTS_MAX)?;
            Ok(Endorsements::Dcap {
                collateral: collateral.to_vec(),
            })
        }
        (SNP, 3) => {
            let vek = reader.bytes()?;
            let mut total = vek.len();
            let issuers = reader.any_array()?;
            if issuers > ISSUERS_MAX {
                return Err(reader.wrong());
            }
            let mut chain = Vec::new();
            for _ in 0..issuers {
                let issuer = reader.bytes()?;
                total = total.saturating_add(issuer.len());
                chain.push(issuer.to_vec());
            }
            require_at_most(PARTS, total, ENDORSEMENTS_MAX)?;
            Ok(Endorsements::Snp {
                vek: vek.to_vec(),
                chain,
            })
        }
        _ => Err(reader.wrong()),
    }
}

fn read_config(reader: &mut Reader<'_>) -> Result<Vec<u8>, CborError> {
    let config = reader.bytes()?;
    require_at_most("a measured configuration", config.len(), CONFIG_MAX)?;
    Ok(config.to_vec())
}

fn read_refusal(reader: &mut Reader<'_>) -> Result<WireError, CborError> {
    let name = reader.text()?;
    let code = ErrorCode::ALL
        .iter()
        .copied()
        .find(|code| code.name() == name)
        .ok_or_else(|| reader.wrong())?;
    let message = reader.text()?;
    require_at_most("the sentence of a verdict", message.len(), MESSAGE_MAX)?;
    Ok(WireError::new(code, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames() -> Vec<Frame> {
        let evidence = Evidence {
            tee: Tee::Simulated,
            body: vec![1; 40],
        };
        vec![
            Frame::Hello {
                kind: ClientKind::Principal,
                nonce: [1; 32],
                endorsements: Endorsements::None,
            },
            Frame::Hello {
                kind: ClientKind::Instance,
                nonce: [1; 32],
                endorsements: Endorsements::Snp {
                    vek: vec![1; 30],
                    chain: vec![vec![2; 20], vec![3; 10]],
                },
            },
            Frame::ServerAttest {
                nonce: [2; 32],
                evidence: evidence.clone(),
                endorsements: Endorsements::Dcap {
                    collateral: vec![b'{'; 40],
                },
                config: vec![3; 30],
                epoch: 4,
            },
            Frame::InstanceAttest {
                evidence,
                config: vec![3; 30],
            },
            Frame::Verdict(Ok(())),
            Frame::Verdict(Err(WireError::new(ErrorCode::NotAttested, "no"))),
        ]
    }

    #[test]
    fn round_trips_and_refuses_truncation_and_trailing_bytes() {
        for frame in frames() {
            let wire = frame.to_wire().unwrap();
            let (prefix, body) = wire.split_first_chunk::<LENGTH_PREFIX>().unwrap();
            assert_eq!(frame_len(*prefix), Ok(body.len()));
            assert_eq!(Frame::read(body), Ok(frame.clone()));
            for cut in 0..body.len() {
                assert!(Frame::read(&body[..cut]).is_err(), "{frame:?} cut at {cut}");
            }
            assert!(Frame::read(&[body, &[0]].concat()).is_err(), "{frame:?}");
        }
    }

    #[test]
    fn lengths_are_bounded_before_anything_is_read() {
        assert!(frame_len([0; 4]).is_err());
        assert!(frame_len([0xff; 4]).is_err());
        let max = u32::try_from(GATE_FRAME_MAX).unwrap();
        assert_eq!(frame_len(max.to_be_bytes()), Ok(GATE_FRAME_MAX));
        assert!(frame_len((max + 1).to_be_bytes()).is_err());
        assert!(Frame::read(&[]).is_err());
    }

    #[test]
    fn oversized_evidence_configuration_and_sentences_are_refused() {
        let evidence = |len| Evidence {
            tee: Tee::Simulated,
            body: vec![1; len],
        };
        let hello = |endorsements| Frame::Hello {
            kind: ClientKind::Instance,
            nonce: [0; 32],
            endorsements,
        };
        let half = vec![0; ENDORSEMENTS_MAX / 2];
        let refused = [
            hello(Endorsements::Dcap {
                collateral: vec![0; ENDORSEMENTS_MAX + 1],
            }),
            hello(Endorsements::Snp {
                vek: half.clone(),
                chain: vec![half, vec![0]],
            }),
            hello(Endorsements::Snp {
                vek: vec![],
                chain: vec![vec![]; 5],
            }),
            Frame::InstanceAttest {
                evidence: evidence(EVIDENCE_MAX + 1),
                config: vec![],
            },
            Frame::InstanceAttest {
                evidence: evidence(1),
                config: vec![0; CONFIG_MAX + 1],
            },
        ];
        for frame in refused {
            assert!(Frame::read(&frame.encode()).is_err());
        }
        let huge = Frame::InstanceAttest {
            evidence: evidence(GATE_FRAME_MAX),
            config: vec![],
        };
        assert!(huge.to_wire().is_err());
        let long = "ä".repeat(MESSAGE_MAX);
        let verdict = Frame::Verdict(Err(WireError::new(ErrorCode::Internal, long)));
        assert!(Frame::read(&verdict.encode()).is_ok());
    }
}
