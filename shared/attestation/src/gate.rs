//! The attest gate: before any application byte, both ends of a TLS connection show that they
//! are in an enclave *now*, in *this* connection. Sans-IO: bytes of frames in, steps out.
//!
//! ```text
//! client                                   server
//! Hello{kind, nonce_c, endorsements} ──▶   certificate appraised
//!                                   ◀──    ServerAttest{nonce_s, evidence(nonce_c), endorsements, config, epoch}
//! appraised
//! InstanceAttest{evidence(nonce_s)} ──▶    appraised           (instances only)
//!                                   ◀──    Verdict
//! ```
//!
//! Evidence is bound to the TLS exporter, the other side's nonce, both TLS keys, the role, the
//! measured configuration and KeyService's epoch ([`crate::binder::ChannelBinder`]), and must be
//! of the enclave that is named in the certificate.

mod error;
pub mod frame;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use protocol::PrincipalId;

use crate::appraisal::{Appraisal, Appraised, CertificateClaims, RelyingParty};
use crate::binder::{Binder, ChannelBinder, Role};
use crate::certificate::Peer;
use crate::evidence::{Endorsements, Evidence, Subject};
use crate::measured::{Measured, MeasuredConfig};
use crate::ratls::{ClientIdentity, Established, RatlsIdentity};
use crate::scorecard::Scorecard;
pub use error::GateError;
use frame::{ClientKind, Frame};

/// What to do next. Frames have their length in front already.
#[derive(Debug)]
pub enum Step<T> {
    /// Send this, then read a frame.
    Send(Vec<u8>),
    /// Read another frame.
    Read,
    /// Send this; then the gate is open.
    SendAndDone(Vec<u8>, T),
    /// The gate is open.
    Done(T),
}

/// Who passed KeyService's gate.
#[derive(Debug)]
pub enum AttestedPeer {
    /// An owner or user, who proved possession of the identity key. Nothing that is released to
    /// enclaves can be released to it: there is no [`Appraised`] here.
    Principal(PrincipalId),
    /// An enclave, attested in this connection.
    Instance(Appraised),
}

/// What a client knows of the KeyService whose gate it passed.
#[derive(Debug)]
pub struct AttestedServer {
    pub appraised: Appraised,
    /// KeyService's epoch, bound by its evidence: it must not fall below one seen before.
    pub epoch: u64,
}

fn nonce() -> Result<[u8; 32], GateError> {
    let mut nonce = [0; 32];
    aws_lc_rs::rand::fill(&mut nonce).map_err(|_| GateError::Random)?;
    Ok(nonce)
}

fn binder(
    established: &Established,
    role: Role,
    own: bool,
    peer_nonce: [u8; 32],
    config: &MeasuredConfig,
    epoch: u64,
) -> ChannelBinder {
    let spkis = (established.own_spki, established.peer.spki());
    let (own_spki, peer_spki) = if own { spkis } else { (spkis.1, spkis.0) };
    ChannelBinder {
        role,
        exporter: established.exporter,
        peer_nonce,
        own_spki,
        peer_spki,
        config: config.hash(),
        epoch,
    }
}

fn config_of(role: Role, bytes: &[u8]) -> Result<MeasuredConfig, GateError> {
    let config = MeasuredConfig::from_bytes(bytes).map_err(GateError::Config)?;
    match (role, config.measured()) {
        (Role::Semirt, Measured::Semirt(_)) | (Role::Keyservice, Measured::Keyservice(_)) => {
            Ok(config)
        }
        _ => Err(GateError::ConfigKind {
            expected: role.name(),
            got: config.kind(),
        }),
    }
}

/// KeyService's side of one connection.
pub struct ServerGate {
    established: Established,
    identity: Arc<RatlsIdentity>,
    relying: Arc<RelyingParty>,
    epoch: u64,
    now: Duration,
    state: ServerState,
}

enum ServerState {
    AwaitHello,
    AwaitInstance {
        nonce: [u8; 32],
        card: Scorecard,
        certificate: CertificateClaims,
        endorsements: Endorsements,
    },
    Closed,
}

impl fmt::Debug for ServerGate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerGate")
            .field("established", &self.established)
            .finish_non_exhaustive()
    }
}

impl ServerGate {
    /// `epoch` is KeyService's; `now` is time since the UNIX epoch, for verifiers.
    ///
    /// # Errors
    /// [`GateError::OtherIdentity`] if the connection was not made with `identity`, or if that is
    /// not a KeyService's.
    pub fn new(
        established: Established,
        identity: Arc<RatlsIdentity>,
        relying: Arc<RelyingParty>,
        epoch: u64,
        now: Duration,
    ) -> Result<Self, GateError> {
        let is_keyservice = matches!(identity.config().measured(), Measured::Keyservice(_));
        if established.own_spki != identity.spki() || !is_keyservice {
            return Err(GateError::OtherIdentity);
        }
        Ok(Self {
            established,
            identity,
            relying,
            epoch,
            now,
            state: ServerState::AwaitHello,
        })
    }

    /// Takes one frame, without its length. Blocks while the TEE signs.
    ///
    /// # Errors
    /// [`GateError`]; the gate is shut for good then.
    pub fn on_frame(&mut self, body: &[u8]) -> Result<Step<AttestedPeer>, GateError> {
        let state = std::mem::replace(&mut self.state, ServerState::Closed);
        let frame = Frame::read(body).map_err(GateError::Frame)?;
        match (state, frame) {
            (
                ServerState::AwaitHello,
                Frame::Hello {
                    kind,
                    nonce,
                    endorsements,
                },
            ) => self.on_hello(kind, nonce, endorsements),
            (
                ServerState::AwaitInstance {
                    nonce,
                    card,
                    certificate,
                    endorsements,
                },
                Frame::InstanceAttest { evidence, config },
            ) => {
                let subject = Subject {
                    evidence: &evidence,
                    endorsements: &endorsements,
                    now: self.now,
                };
                self.on_instance(nonce, card, &certificate, &subject, &config)
            }
            _ => Err(GateError::OutOfOrder),
        }
    }

    fn on_hello(
        &mut self,
        kind: ClientKind,
        client_nonce: [u8; 32],
        endorsements: Endorsements,
    ) -> Result<Step<AttestedPeer>, GateError> {
        match (kind, self.established.peer.clone()) {
            (ClientKind::Principal, Peer::Principal(principal)) => {
                let mut frames = self.attest(client_nonce, [0; 32])?;
                frames.extend(Frame::Verdict(Ok(())).to_wire().map_err(GateError::Write)?);
                Ok(Step::SendAndDone(
                    frames,
                    AttestedPeer::Principal(principal),
                ))
            }
            (ClientKind::Instance, Peer::Instance { evidence, spki }) => {
                // Before the TEE is asked for evidence: who has none of its own costs us little.
                let subject = Subject {
                    evidence: &evidence,
                    endorsements: &endorsements,
                    now: self.now,
                };
                let (card, certificate) =
                    Appraisal::new(self.established.card.clone(), &self.relying)
                        .certificate(&subject, &spki)
                        .map_err(GateError::Appraise)?;
                let nonce = nonce()?;
                let frame = self.attest(client_nonce, nonce)?;
                self.state = ServerState::AwaitInstance {
                    nonce,
                    card,
                    certificate,
                    endorsements,
                };
                Ok(Step::Send(frame))
            }
            _ => Err(GateError::OtherKind),
        }
    }

    fn attest(&self, client_nonce: [u8; 32], nonce: [u8; 32]) -> Result<Vec<u8>, GateError> {
        let config = self.identity.config();
        let binder = binder(
            &self.established,
            Role::Keyservice,
            true,
            client_nonce,
            config,
            self.epoch,
        );
        let evidence = self
            .identity
            .attester()
            .collect(&Binder::channel(binder))
            .map_err(GateError::Collect)?;
        let config = config.as_bytes().to_vec();
        Frame::ServerAttest {
            nonce,
            evidence,
            endorsements: self.identity.endorsements().clone(),
            config,
            epoch: self.epoch,
        }
        .to_wire()
        .map_err(GateError::Write)
    }

    fn on_instance(
        &self,
        nonce: [u8; 32],
        card: Scorecard,
        certificate: &CertificateClaims,
        subject: &Subject<'_>,
        config: &[u8],
    ) -> Result<Step<AttestedPeer>, GateError> {
        let config = config_of(Role::Semirt, config)?;
        let binder = binder(
            &self.established,
            Role::Semirt,
            false,
            nonce,
            &config,
            self.epoch,
        );
        let appraised = Appraisal::new(card, &self.relying)
            .channel(subject, &binder, &config, Some(certificate))
            .map_err(GateError::Appraise)?;
        let verdict = Frame::Verdict(Ok(())).to_wire().map_err(GateError::Write)?;
        Ok(Step::SendAndDone(
            verdict,
            AttestedPeer::Instance(appraised),
        ))
    }
}

/// The side of an owner, a user or a SeMIRT.
pub struct ClientGate {
    established: Established,
    who: ClientIdentity,
    relying: Arc<RelyingParty>,
    now: Duration,
    nonce: [u8; 32],
    state: ClientState,
}

enum ClientState {
    AwaitServer,
    AwaitVerdict(AttestedServer),
    Closed,
}

impl fmt::Debug for ClientGate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientGate")
            .field("established", &self.established)
            .finish_non_exhaustive()
    }
}

impl ClientGate {
    /// The gate and the first frame to send. The policy's `enclaves` pin E_K.
    ///
    /// # Errors
    /// [`GateError::OtherIdentity`] if the connection was not made as `who`.
    pub fn new(
        established: Established,
        who: ClientIdentity,
        relying: Arc<RelyingParty>,
        now: Duration,
    ) -> Result<(Self, Vec<u8>), GateError> {
        let (kind, endorsements) = match &who {
            ClientIdentity::Principal(_) => (ClientKind::Principal, Endorsements::None),
            ClientIdentity::Instance(instance) => {
                if !matches!(instance.config().measured(), Measured::Semirt(_)) {
                    return Err(GateError::OtherIdentity);
                }
                (ClientKind::Instance, instance.endorsements().clone())
            }
        };
        if established.own_spki != who.spki() {
            return Err(GateError::OtherIdentity);
        }
        let nonce = nonce()?;
        let hello = Frame::Hello {
            kind,
            nonce,
            endorsements,
        }
        .to_wire()
        .map_err(GateError::Write)?;
        let state = ClientState::AwaitServer;
        Ok((
            Self {
                established,
                who,
                relying,
                now,
                nonce,
                state,
            },
            hello,
        ))
    }

    /// Takes one frame, without its length. Blocks while the TEE signs.
    ///
    /// # Errors
    /// [`GateError`]; the gate is shut for good then.
    pub fn on_frame(&mut self, body: &[u8]) -> Result<Step<AttestedServer>, GateError> {
        let state = std::mem::replace(&mut self.state, ClientState::Closed);
        let frame = Frame::read(body).map_err(GateError::Frame)?;
        match (state, frame) {
            (
                ClientState::AwaitServer,
                Frame::ServerAttest {
                    nonce,
                    evidence,
                    endorsements,
                    config,
                    epoch,
                },
            ) => {
                let server = self.appraise(&evidence, &endorsements, &config, epoch)?;
                let step = self.answer(nonce, epoch)?;
                self.state = ClientState::AwaitVerdict(server);
                Ok(step)
            }
            (ClientState::AwaitVerdict(server), Frame::Verdict(Ok(()))) => Ok(Step::Done(server)),
            (
                ClientState::AwaitServer | ClientState::AwaitVerdict(_),
                Frame::Verdict(Err(error)),
            ) => Err(GateError::Refused(error)),
            _ => Err(GateError::OutOfOrder),
        }
    }

    fn appraise(
        &self,
        evidence: &Evidence,
        endorsements: &Endorsements,
        config: &[u8],
        epoch: u64,
    ) -> Result<AttestedServer, GateError> {
        let Peer::Instance {
            evidence: in_certificate,
            spki,
        } = &self.established.peer
        else {
            return Err(GateError::OtherKind);
        };
        let config = config_of(Role::Keyservice, config)?;
        let binder = binder(
            &self.established,
            Role::Keyservice,
            false,
            self.nonce,
            &config,
            epoch,
        );
        let subject = |evidence| Subject {
            evidence,
            endorsements,
            now: self.now,
        };
        let (card, certificate) = Appraisal::new(self.established.card.clone(), &self.relying)
            .certificate(&subject(in_certificate), spki)
            .map_err(GateError::Appraise)?;
        let appraised = Appraisal::new(card, &self.relying)
            .channel(&subject(evidence), &binder, &config, Some(&certificate))
            .map_err(GateError::Appraise)?;
        Ok(AttestedServer { appraised, epoch })
    }

    fn answer(
        &self,
        server_nonce: [u8; 32],
        epoch: u64,
    ) -> Result<Step<AttestedServer>, GateError> {
        let ClientIdentity::Instance(identity) = &self.who else {
            return Ok(Step::Read);
        };
        let config = identity.config();
        let binder = binder(
            &self.established,
            Role::Semirt,
            true,
            server_nonce,
            config,
            epoch,
        );
        let evidence = identity
            .attester()
            .collect(&Binder::channel(binder))
            .map_err(GateError::Collect)?;
        Frame::InstanceAttest {
            evidence,
            config: config.as_bytes().to_vec(),
        }
        .to_wire()
        .map(Step::Send)
        .map_err(GateError::Write)
    }
}

#[cfg(test)]
mod tests;
