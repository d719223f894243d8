//! A KDS that lies or has nothing, and hosts that give part of the answer.

use attestation::testing::snp::{FakeAmd, FakeChip};
use attestation::{Evidence, Tee};

use super::*;
use crate::FromHost;
use crate::testing::{FakeServer, ServerFault};
use crate::tests::{origin, wanted};

const PATH: &str = "?blSPL=04&teeSPL=01&snpSPL=24&ucodeSPL=219";

struct World {
    server: FakeServer,
    endorsements: Endorsements,
    chip: FakeChip,
    kds: Kds,
}

async fn world(product: SnpProduct, key: SnpSigningKey) -> World {
    let server = FakeServer::start().await;
    let chip = FakeChip::new(product, key);
    let kind = match key {
        SnpSigningKey::Vcek => "vcek",
        SnpSigningKey::Vlek => "vlek",
    };
    let place = format!("{kind}/v1/{}", line(product));
    let path = format!("/{place}/{}{PATH}", "c1".repeat(64));
    let endorsements = FakeAmd::new().endorsements(&chip);
    server.put_vek(&place, &path, &endorsements);
    let kds = Kds::new(origin(&server));
    World {
        server,
        endorsements,
        chip,
        kds,
    }
}

impl World {
    fn evidence(&self, version: u32) -> Evidence {
        let mut report = self.chip.report();
        report.version = version;
        if version == 2 {
            report.cpuid = [0; 3];
        }
        Evidence {
            tee: Tee::Snp,
            body: self.chip.sign(report.to_bytes()),
        }
    }

    fn vek(&self) -> Vec<u8> {
        match &self.endorsements {
            Endorsements::Snp { vek, .. } => vek.clone(),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn paths_are_those_of_the_specification() {
    let world = world(SnpProduct::Milan, SnpSigningKey::Vcek).await;
    let found = world
        .kds
        .provide(&wanted(&world.evidence(3)))
        .await
        .unwrap();
    assert_eq!(found, world.endorsements);
    let id = "c1".repeat(64);
    let expected = [
        format!("/vcek/v1/Milan/{id}{PATH}"),
        "/vcek/v1/Milan/cert_chain".to_owned(),
    ];
    assert_eq!(world.server.requests(), expected);
}

#[tokio::test]
async fn a_report_that_does_not_say_its_product_is_looked_up_in_both() {
    let world = world(SnpProduct::Genoa, SnpSigningKey::Vcek).await;
    let wanted = wanted(&world.evidence(2));
    let found = world.kds.provide(&wanted).await.unwrap();
    assert_eq!(found, world.endorsements);
    // Asked with the host's certificate, its issuer's name tells.
    let given = Wanted {
        host: Endorsements::Snp {
            vek: world.vek(),
            chain: Vec::new(),
        },
        ..wanted.clone()
    };
    let before = world.server.requests().len();
    assert_eq!(world.kds.provide(&given).await.unwrap(), found);
    assert_eq!(
        world.server.requests()[before..],
        ["/vcek/v1/Genoa/cert_chain"]
    );
    // A key server that is broken is not one that knows no such chip.
    world.server.script([ServerFault::Status(500)]);
    assert!(world.kds.provide(&wanted).await.is_err());
}

#[tokio::test]
async fn a_vlek_comes_from_the_host_and_its_issuers_from_here() {
    let world = world(SnpProduct::Milan, SnpSigningKey::Vlek).await;
    let wanted = wanted(&world.evidence(3));
    let error = world.kds.provide(&wanted).await.unwrap_err();
    assert!(matches!(error, ProvideError::NotHere { .. }), "{error}");
    assert!(world.server.requests().is_empty());
    let given = Wanted {
        host: Endorsements::Snp {
            vek: world.vek(),
            chain: Vec::new(),
        },
        ..wanted
    };
    assert!(FromHost.provide(&given).await.is_err(), "incomplete");
    let found = world.kds.provide(&given).await.unwrap();
    assert_eq!(found, world.endorsements);
    assert_eq!(world.server.requests(), ["/vlek/v1/Milan/cert_chain"]);
    let complete = Wanted {
        host: found.clone(),
        ..given
    };
    assert_eq!(FromHost.provide(&complete).await.unwrap(), found);
}

#[tokio::test]
async fn a_masked_chip_cannot_be_looked_up() {
    let mut world = world(SnpProduct::Milan, SnpSigningKey::Vcek).await;
    world.chip.id = [0; 64];
    let error = world
        .kds
        .provide(&wanted(&world.evidence(3)))
        .await
        .unwrap_err();
    assert!(matches!(error, ProvideError::ChipMasked), "{error}");
    assert!(world.server.requests().is_empty());
}

#[tokio::test]
async fn a_server_that_misbehaves_is_an_error() {
    for step in 0..2 {
        for fault in [
            ServerFault::Status(404),
            ServerFault::Status(429),
            ServerFault::Redirect,
            ServerFault::TooLong { announced: true },
            ServerFault::BreakOff,
        ] {
            let world = world(SnpProduct::Milan, SnpSigningKey::Vcek).await;
            world.server.script(vec![ServerFault::Status(200); step]);
            world.server.script([fault]);
            let outcome = world.kds.provide(&wanted(&world.evidence(3))).await;
            assert!(outcome.is_err(), "{fault:?} at step {step}");
        }
    }
    let world = world(SnpProduct::Milan, SnpSigningKey::Vcek).await;
    world
        .server
        .script([ServerFault::Status(200), ServerFault::Garbage]);
    let outcome = world.kds.provide(&wanted(&world.evidence(3))).await;
    assert!(outcome.is_err(), "no chain");
}

#[test]
fn a_chain_has_two_certificates() {
    let one = attestation::testing::dcap::pem(b"one");
    assert_eq!(chain_of(one.as_bytes()), None);
    assert_eq!(
        chain_of(one.repeat(2).as_bytes()),
        Some(vec![b"one".to_vec(), b"one".to_vec()])
    );
    assert_eq!(chain_of(one.repeat(3).as_bytes()), None);
    assert_eq!(chain_of(b"-----BEGIN CERTIFICATE-----\nx"), None);
}
