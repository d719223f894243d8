//! For tests only: a TEE in software, an in-memory channel, and the suite that every pair of
//! attester and verifier must pass.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::missing_panics_doc,
    reason = "compiled for tests only, where a panic is the way to report"
)]

pub mod azure;
pub mod ccc;
pub mod dcap;
pub mod genuine;
pub mod nitro;
pub mod nvidia;
pub mod p384;
pub mod snp;
mod soft_tee;
mod suite;

use std::sync::Arc;

use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};

pub use nitro::{FakeNitro, NITRO_NOW, NitroDocument};
pub use nvidia::{FakeGpu, GpuReport};
pub use soft_tee::{SoftEnclave, SoftTee};
pub use suite::{Pair, attester_suite};

use crate::gate::frame::{LENGTH_PREFIX, frame_len};
use crate::gate::{AttestedPeer, AttestedServer, ClientGate, GateError, ServerGate, Step};
use crate::ratls::server_name;

/// Which side ended a handshake, and why.
#[derive(Debug)]
pub enum HandshakeFailure {
    Client(rustls::Error),
    Server(rustls::Error),
}

/// Runs a TLS handshake in memory, to the end on both sides.
///
/// # Errors
/// [`HandshakeFailure`] of the side that found the error, not of the one that got the alert.
pub fn handshake(
    client: ClientConfig,
    server: ServerConfig,
) -> Result<(ClientConnection, ServerConnection), HandshakeFailure> {
    let mut client = ClientConnection::new(Arc::new(client), server_name()).unwrap();
    let mut server = ServerConnection::new(Arc::new(server)).unwrap();
    loop {
        let mut moved = false;
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let mut unread = &wire[..];
        while !unread.is_empty() {
            moved = true;
            server.read_tls(&mut unread).unwrap();
            server
                .process_new_packets()
                .map_err(HandshakeFailure::Server)?;
        }
        wire.clear();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut unread = &wire[..];
        while !unread.is_empty() {
            moved = true;
            client.read_tls(&mut unread).unwrap();
            client
                .process_new_packets()
                .map_err(HandshakeFailure::Client)?;
        }
        if !moved {
            assert!(
                !client.is_handshaking() && !server.is_handshaking(),
                "handshake stalled"
            );
            return Ok((client, server));
        }
    }
}

/// Splits what a gate wants sent into frames without their lengths.
#[must_use]
pub fn frames(mut wire: &[u8]) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    while let Some((prefix, rest)) = wire.split_first_chunk::<LENGTH_PREFIX>() {
        let (frame, rest) = rest.split_at(frame_len(*prefix).unwrap());
        frames.push(frame.to_vec());
        wire = rest;
    }
    assert!(wire.is_empty(), "half a length");
    frames
}

/// Carries frames between two gates until both are open.
///
/// # Errors
/// [`GateError`] of whichever side refused, which the other then hears of.
pub fn pass_gates(
    mut client: ClientGate,
    hello: &[u8],
    mut server: ServerGate,
) -> Result<(AttestedServer, AttestedPeer), GateError> {
    let mut to_server = frames(hello);
    let mut to_client = Vec::new();
    let mut at_server = None;
    loop {
        for frame in std::mem::take(&mut to_server) {
            match server.on_frame(&frame)? {
                Step::Read => {}
                Step::Send(wire) => to_client.extend(frames(&wire)),
                Step::SendAndDone(wire, peer) => {
                    to_client.extend(frames(&wire));
                    at_server = Some(peer);
                }
                Step::Done(peer) => at_server = Some(peer),
            }
        }
        if to_client.is_empty() {
            panic!("both sides wait for a frame");
        }
        for frame in std::mem::take(&mut to_client) {
            match client.on_frame(&frame)? {
                Step::Read => {}
                Step::Send(wire) => to_server.extend(frames(&wire)),
                Step::SendAndDone(_, server) | Step::Done(server) => {
                    let peer = at_server.expect("the server opens its gate first");
                    return Ok((server, peer));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_software_tee_passes_the_suite() {
        let tee = SoftTee::new(1);
        let attester = tee.attester(SoftEnclave::new(0x11));
        attester_suite(&Pair {
            attester,
            verifier: tee.verifier(),
            endorsements: crate::evidence::Endorsements::None,
            now: Duration::ZERO,
        });
    }

    #[test]
    fn fake_intels_enclaves_pass_the_suite() {
        const NOW: u64 = 1_800_000_000;
        for report in [dcap::FakeReport::sgx(0x11), dcap::FakeReport::td(0x22)] {
            let tee = report.tee();
            let intel = dcap::FakeIntel::new();
            let attester = intel.attester(report, NOW);
            attester_suite(&Pair {
                endorsements: attester.host_endorsements(),
                attester,
                verifier: Arc::new(intel.verifier(tee)),
                now: Duration::from_secs(NOW),
            });
        }
    }
}
