//! Secret types, sealing and opening, the key schedule. No I/O beyond Read, Write and key files.
//!
//! | what | module | format |
//! |---|---|---|
//! | requests and responses | [`envelope`] | `COSE_Encrypt`, RFC 9052 |
//! | model artifacts | [`artifact`] | Tink streaming AEAD, AES256-GCM-HKDF, 1 MiB segments |
//! | records at rest | [`record`] | AES-256-GCM under a key derived per record |
//! | keys | [`secret`] | 32 bytes each, one type per purpose |
//! | who somebody is | [`identity`] | Ed25519, PKCS #8, RFC 8410 |
//!
//! Every byte format is written down in its module and in docs/protocol.md; the vectors in
//! testvectors/ pin it, and testvectors/check.py checks it against libraries that are not ours.
//!
//! ```
//! use crypto::{Binding, RequestKey};
//! # use protocol::{EnclaveId, PrincipalId};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let key = RequestKey::generate()?;
//! let binding = Binding {
//!     user: &PrincipalId::new([1; 32]),
//!     model: &"resnet".parse()?,
//!     enclave: &EnclaveId::new([2; 48]),
//!     request_id: &crypto::random_request_id()?,
//! };
//! // The user:
//! let (request, users_key) = crypto::seal_request(&key, &binding, b"features")?;
//! // The instance, which has the same key from KeyService:
//! let (payload, its_key) = crypto::open_request(&key, &binding, &request)?;
//! assert_eq!(&*payload, b"features");
//! let response = crypto::seal_response(&its_key, &binding, b"answer")?;
//! // The user again:
//! assert_eq!(&*crypto::open_response(&users_key, &binding, &response)?, b"answer");
//! # Ok(())
//! # }
//! ```

#![cfg_attr(not(test), warn(clippy::indexing_slicing))]

pub mod artifact;
pub mod digest;
pub mod envelope;
#[doc(hidden)]
pub mod fuzzing;
pub mod identity;
pub mod record;
pub mod secret;
#[doc(hidden)]
pub mod vectors;

mod aead;
mod cbor;
mod key_file;
mod labels;
mod padding;
mod random;
mod workers;

pub use artifact::{
    ArtifactError, ArtifactOpener, PlaintextSink, SealedArtifact, SinkError, open_artifact,
    plaintext_len, seal_artifact,
};
pub use digest::{DigestWriter, sha256};
pub use envelope::{
    Binding, OpenError, Plaintext, SealError, open_request, open_response, seal_request,
    seal_response,
};
pub use identity::{IdentityError, IdentityKey};
pub use key_file::KeyFileError;
pub use random::{RngError, random_lease_id, random_request_id};
pub use record::{OpenRecordError, SealRecordError, open_record, seal_record};
pub use secret::{KeyLengthError, ModelKey, RequestKey, ResponseKey, SealingKey};
