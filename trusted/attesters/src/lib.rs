//! Collects evidence from the TEE that this process runs in.
//!
//! [`detect`] finds the TEE by what the machine has, and never settles for a weaker one. Each
//! attester speaks to a small trait of I/O; real files and ioctls are behind [`files`] and
//! [`ioctl`], and fakes that keep the kernel's semantics behind the feature `testing`.
//!
//! | TEE | interface | attester |
//! |---|---|---|
//! | TDX | configfs-tsm (Linux 6.7) | [`tsm::TdxAttester`] |
//! | SEV-SNP | configfs-tsm, `/dev/sev-guest` | [`tsm::SnpAttester`], [`sev_guest::SevGuestAttester`] |
//! | SGX | Gramine `/dev/attestation`, Occlum `/dev/sgx` | [`gramine::GramineAttester`], [`occlum::OcclumAttester`] |
//! | SEV-SNP, TDX at Azure | vTPM `/dev/tpmrm0`, metadata service | [`azure::AzureAttester`] |
//! | Nitro | `/dev/nsm` | [`nsm::NitroAttester`] |
//!
//! What they have in common:
//!
//! * Evidence is compared with what was asked before it is handed on, whatever the interface
//!   promises: a stale blob, another thread's or another requester's is never returned.
//! * What may be read is bounded, what is cut is noticed.
//! * Attempts are bounded ([`retry`]): EINTR and races at once, EBUSY after a pause; a kernel that
//!   timed out is not asked again.
//! * Sealing keys are bound to the measured code. TDX, Nitro and Azure's vTPM have none, and
//!   `sealing_key` says so with an error of kind `Unsupported`.
//!
//! No caller chooses the bytes that a TEE signs: they come out of a typed
//! [`Binder`](attestation::Binder).

#![cfg_attr(
    not(test),
    warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

pub mod azure;
mod certificates;
pub mod detect;
pub mod files;
pub mod gramine;
pub mod ioctl;
mod layout;
pub mod nsm;
pub mod occlum;
pub mod retry;
mod sealing;
pub mod sev_guest;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod tpm;
pub mod tsm;

pub use detect::{DetectError, detect};
