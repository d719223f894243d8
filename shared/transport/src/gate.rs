//! Carries frames of the attest gate over a TLS stream.

use std::io;

use attestation::gate::frame::{LENGTH_PREFIX, frame_len};
use attestation::{AttestedPeer, AttestedServer, ClientGate, GateError, ServerGate, Step};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Why the gate was not passed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PassError {
    #[error("exchanging frames of the attest gate")]
    Io(#[from] io::Error),
    #[error("passing the attest gate")]
    Gate(#[from] GateError),
}

/// One side's state machine, whichever side it is.
pub(crate) trait Gate: Send + 'static {
    type Passed: Send + 'static;

    fn on_frame(&mut self, body: &[u8]) -> Result<Step<Self::Passed>, GateError>;
}

impl Gate for ServerGate {
    type Passed = AttestedPeer;

    fn on_frame(&mut self, body: &[u8]) -> Result<Step<AttestedPeer>, GateError> {
        Self::on_frame(self, body)
    }
}

impl Gate for ClientGate {
    type Passed = AttestedServer;

    fn on_frame(&mut self, body: &[u8]) -> Result<Step<AttestedServer>, GateError> {
        Self::on_frame(self, body)
    }
}

/// Reads frames and does what the gate says until it is open or shut.
pub(crate) async fn pass<S, G>(stream: &mut S, mut gate: G) -> Result<G::Passed, PassError>
where
    S: AsyncRead + AsyncWrite + Unpin,
    G: Gate,
{
    loop {
        let frame = match read_frame(stream).await {
            Ok(frame) => frame,
            Err(PassError::Gate(error)) => return Err(refuse(stream, error).await),
            Err(error) => return Err(error),
        };
        // Off the async workers: a TEE may take seconds to sign, and must not stall other peers.
        let (back, step) = tokio::task::spawn_blocking(move || {
            let step = gate.on_frame(&frame);
            (gate, step)
        })
        .await
        .map_err(io::Error::other)?;
        gate = back;
        match step {
            Ok(Step::Read) => {}
            Ok(Step::Send(frame)) => send(stream, &frame).await?,
            Ok(Step::SendAndDone(frame, passed)) => {
                send(stream, &frame).await?;
                return Ok(passed);
            }
            Ok(Step::Done(passed)) => return Ok(passed),
            Err(error) => return Err(refuse(stream, error).await),
        }
    }
}

async fn read_frame<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Vec<u8>, PassError> {
    let mut prefix = [0; LENGTH_PREFIX];
    stream.read_exact(&mut prefix).await?;
    let len = frame_len(prefix).map_err(GateError::Frame)?;
    let mut body = vec![0; len];
    stream.read_exact(&mut body).await?;
    Ok(body)
}

async fn send<S: AsyncWrite + Unpin>(stream: &mut S, frame: &[u8]) -> io::Result<()> {
    stream.write_all(frame).await?;
    stream.flush().await
}

/// Tells the peer, if it still listens; the cause is what matters here.
async fn refuse<S: AsyncWrite + Unpin>(stream: &mut S, error: GateError) -> PassError {
    if let Some(frame) = error.verdict_frame()
        && send(stream, &frame).await.is_ok()
    {
        let _closed = stream.shutdown().await;
    }
    PassError::Gate(error)
}
