//! Evidence, claims, appraisal and RA-TLS (RFC 9334 roles); sans-IO.
//!
//! | what | module |
//! |---|---|
//! | a TEE's two halves: [`Attester`] and [`Verifier`] | [`evidence`] |
//! | what evidence is about | [`binder`] |
//! | what a TEE measures, and the configuration measured with it | [`measurements`], [`measured`] |
//! | E_S and E_K | [`identity`] |
//! | reference values that somebody else signed | [`reference`] |
//! | which endorsements are too old by now | [`newest`] |
//! | which evidence is accepted, and the witness that it was | [`policy`], [`appraisal`] |
//! | the TLS channel, and the gate in front of its first byte | [`ratls`], [`gate`] |
//!
//! Every byte format is in docs/protocol.md.

#![cfg_attr(
    not(test),
    warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

pub mod appraisal;
pub mod binder;
pub mod cbor;
pub mod certificate;
pub mod evidence;
pub mod facts;
#[doc(hidden)]
pub mod fuzzing;
pub mod gate;
pub mod identity;
pub mod measured;
pub mod measurements;
pub mod newest;
pub mod platform;
pub mod policy;
pub mod ratls;
pub mod reference;
pub mod scorecard;
pub mod tee;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use appraisal::{
    AppraiseError, Appraised, Examination, Expected, RelyingParty, appraise, examine, satisfies,
};
pub use binder::{Binder, ChannelBinder, Role, SpkiHash};
pub use certificate::{CertificateError, Peer};
pub use evidence::{
    Attester, Claims, CollectError, Endorsements, Evidence, Malformed, Said, Subject, TcbStatus,
    Tee, Verifier, VerifierSet,
};
pub use facts::Facts;
pub use gate::{AttestedPeer, AttestedServer, ClientGate, GateError, ServerGate, Step};
pub use identity::{OwnEnclaveError, enclave_id, own_enclave};
pub use measured::{ConfigHash, Measured, MeasuredConfig};
pub use measurements::Measurements;
pub use newest::Newest;
pub use policy::{Allowed, AppraisalPolicy};
pub use ratls::{
    ClientIdentity, Established, PrincipalIdentity, RatlsError, RatlsIdentity, client_config,
    server_config,
};
pub use reference::{ReferenceError, ReferenceValues};
pub use scorecard::{Check, CheckName, Failed, Scorecard, Status};
