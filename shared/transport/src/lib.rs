//! Async I/O that trusted and client code share: the attested channel and the model store.
//!
//! Nothing here decides: who is accepted is up to `attestation`, what is asked is up to
//! `protocol::keyservice`.

pub mod channel;
pub mod keyservice_client;
pub mod store;

mod gate;

pub use channel::{
    AcceptError, Acceptor, CallError, Channel, ChannelStream, ConnectError, connect,
};
pub use keyservice_client::KeyserviceClient;
pub use store::{ModelStore, StoreError};
