//! The client of SeSeMI: verify KeyService, register, grant, seal, invoke, open.
//!
//! | what | where |
//! |---|---|
//! | a KeyService that has proved to be the pinned one | [`Keyservice`], [`PinnedKeyservice`] |
//! | a model owner: seal, push, register, grant, revoke | [`ModelShelf`], [`Owner`] |
//! | a model user: request keys, sealed inference | [`RequestKeyring`], [`User`], [`InferClient`] |
//! | what an error means and what to do about it | [`Explain`] |
//! | protection against rollback of KeyService | [`EpochMemory`] |
//!
//! Nothing here trusts what carries the messages. KeyService is trusted only after its evidence
//! was appraised on the very connection that is used, and only if it is the pinned E_K. An answer
//! is accepted only if it opens as the answer to the very request that was sent.
//!
//! An owner and a user:
//!
//! ```no_run
//! use attestation::{Tee, VerifierSet};
//! use crypto::IdentityKey;
//! use protocol::{EnclaveId, ModelId, ModelVersion, PrincipalId, Tensor};
//! use sdk::publish::open_store;
//! use sdk::{
//!     EpochMemory, Gateway, InferClient, Keyservice, ModelShelf, PinnedKeyservice,
//!     RequestKeyring, RetryPolicy, WallTime,
//! };
//!
//! # type Result = std::result::Result<(), Box<dyn std::error::Error>>;
//! async fn keyservice(
//!     identity: &IdentityKey,
//!     e_k: EnclaveId,
//!     verifiers: VerifierSet,
//! ) -> std::result::Result<Keyservice, sdk::KeyserviceError> {
//!     let pinned = PinnedKeyservice::new("keyservice.example.org:7443", e_k, vec![Tee::Tdx], verifiers);
//!     let epochs = EpochMemory::new("alice.epochs.json");
//!     Keyservice::connect(pinned, identity, epochs, RetryPolicy::default(), WallTime::system()).await
//! }
//!
//! async fn owner(keyservice: &mut Keyservice, user: PrincipalId, e_s: EnclaveId) -> Result {
//!     let (model, version): (ModelId, _) = ("digits".parse()?, ModelVersion(1));
//!     let shelf = ModelShelf::new("hospital.models");
//!     let mut package = std::fs::File::open("digits.package")?;
//!     let sealed = shelf.seal(&model, version, &mut package, &mut |_done| ())?;
//!     let store = open_store("file:///srv/models")?;
//!     let pushed = shelf.push(&store, &model, version, &sealed).await?;
//!     keyservice.owner().register(&shelf, &pushed).await?;
//!     keyservice.owner().grant(&model, &user, &e_s).await?;
//!     Ok(())
//! }
//!
//! async fn user(keyservice: &mut Keyservice, owner: PrincipalId, e_s: EnclaveId) -> Result {
//!     let model: ModelId = "digits".parse()?;
//!     let keyring = RequestKeyring::new("alice.keys");
//!     keyservice.user().register_request_key(&keyring, &model, &e_s, owner, false).await?;
//!     let gateway = Gateway::new("http://fnpacker.example.org:8080")?;
//!     let client =
//!         InferClient::new(gateway, keyservice.principal(), keyring, RetryPolicy::default());
//!     let input = Tensor::from_f32("x", vec![1, 64], &[0.0; 64])?;
//!     let answer = client.infer(&model, &e_s, &[input]).await?;
//!     println!("{:?} {:?}", answer.outputs[0].to_f32(), answer.telemetry.path);
//!     Ok(())
//! }
//! ```
//!
//! `cargo run -p sesemi-sdk --example infer` runs the last part against a running system.

pub mod audit;
pub mod epochs;
pub mod explain;
pub mod gateway;
pub mod infer;
pub mod keyring;
pub mod keyservice;
pub mod publish;
pub mod request_store;
pub mod retry;
pub mod state_file;
pub mod wall_time;

pub use epochs::EpochMemory;
pub use explain::Explain;
pub use gateway::Gateway;
pub use infer::{Answer, InferClient, InferError};
pub use keyring::RequestKeyring;
pub use keyservice::{Demands, Keyservice, KeyserviceError, Owner, PinnedKeyservice, User};
pub use publish::{ModelShelf, Pushed};
pub use request_store::{RequestStore, RequestStoreError};
pub use retry::RetryPolicy;
pub use wall_time::WallTime;
