//! A PCCS that lies, is slow, or has nothing.

use attestation::Tee;
use attestation::testing::dcap::{FakeCollateral, FakeIntel};
use proptest::prelude::*;

use super::*;
use crate::fetch::FetchError;
use crate::testing::{FakeServer, ServerFault};
use crate::tests::{NOW, origin, put_tdx, quote, wanted};

async fn world() -> (FakeServer, FakeIntel, Pcs, Wanted) {
    let (server, intel) = (FakeServer::start().await, FakeIntel::new());
    put_tdx(&server, &intel, &FakeCollateral::new(Tee::Tdx, NOW));
    let pcs = Pcs::new(origin(&server));
    let wanted = wanted(&quote(&intel));
    (server, intel, pcs, wanted)
}

#[tokio::test]
async fn paths_are_those_of_version_4() {
    let (server, intel, pcs, wanted) = world().await;
    let found = pcs.provide(&wanted).await.unwrap();
    assert!(matches!(found, Endorsements::Dcap { .. }));
    let fmspc = hex::encode_upper(FakeCollateral::new(Tee::Tdx, NOW).fmspc);
    assert_eq!(
        server.requests(),
        [
            "/sgx/certification/v4/pckcrl?ca=platform&encoding=der".to_owned(),
            format!("/tdx/certification/v4/tcb?fmspc={fmspc}"),
            "/tdx/certification/v4/qe/identity".to_owned(),
            "/sgx/certification/v4/rootcacrl".to_owned(),
        ]
    );
    drop(intel);
}

#[tokio::test]
async fn the_roots_list_may_be_elsewhere_and_in_der() {
    let (server, intel, pcs, wanted) = world().await;
    let fake = FakeCollateral::new(Tee::Tdx, NOW);
    let collateral = intel.collateral(&fake);
    server.put_collateral("tdx", &fake.fmspc, "platform", &collateral);
    let json: serde_json::Value = serde_json::from_slice(&collateral).unwrap();
    let crl = hex::decode(json["root_ca_crl"].as_str().unwrap()).unwrap();
    server.put("/sgx/certification/v4/rootcacrl", None);
    assert!(pcs.provide(&wanted).await.is_err());
    server.put("/IntelSGXRootCA.der", Some(&crl));
    let pcs = pcs.with_root_crl(origin(&server), "/IntelSGXRootCA.der");
    let found = pcs.provide(&wanted).await.unwrap();
    let Endorsements::Dcap { collateral: found } = found else {
        panic!("{found:?}");
    };
    let found: serde_json::Value = serde_json::from_slice(&found).unwrap();
    assert_eq!(found, json, "every byte that is signed is as it was");
}

#[tokio::test]
async fn a_server_that_misbehaves_is_an_error_at_every_step() {
    for step in 0..4 {
        for fault in [
            ServerFault::Status(500),
            ServerFault::Status(404),
            ServerFault::Redirect,
            ServerFault::TooLong { announced: true },
            ServerFault::TooLong { announced: false },
            ServerFault::BreakOff,
            ServerFault::HugeHead,
            ServerFault::Garbage,
        ] {
            let (server, _, pcs, wanted) = world().await;
            // A fault that does nothing for the steps in front.
            server.script(vec![ServerFault::Status(200); step]);
            server.script([fault]);
            let outcome = pcs.provide(&wanted).await;
            assert!(outcome.is_err(), "{fault:?} at step {step}");
            assert!(server.requests().len() <= 4, "no redirect is followed");
        }
    }
    let (server, _, pcs, wanted) = world().await;
    server.script([ServerFault::NoHeaders]);
    let error = pcs.provide(&wanted).await.unwrap_err();
    assert!(matches!(error, ProvideError::Answer { .. }), "{error}");
    let (server, _, pcs, wanted) = world().await;
    server.script([ServerFault::TooLong { announced: false }]);
    let error = pcs.provide(&wanted).await.unwrap_err();
    let too_long = matches!(
        &error,
        ProvideError::Fetch {
            source: FetchError::TooLong,
            ..
        }
    );
    assert!(too_long, "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_answer_is_given_up() {
    for fault in [ServerFault::Hang, ServerFault::HangInBody] {
        let (server, _, pcs, wanted) = world().await;
        server.script([fault]);
        let error = pcs.provide(&wanted).await.unwrap_err();
        let timeout = matches!(
            &error,
            ProvideError::Fetch {
                source: FetchError::Timeout,
                ..
            }
        );
        assert!(timeout, "{error:?}");
    }
}

#[tokio::test]
async fn answers_about_another_platform_are_refused() {
    type Change = fn(&mut FakeCollateral);
    let changes: [Change; 2] = [
        |c| c.fmspc = [0xee; 6],
        // Under the path of the platform CA.
        |c| c.processor_ca = true,
    ];
    for change in changes {
        let (server, intel, pcs, wanted) = world().await;
        let mut collateral = FakeCollateral::new(Tee::Tdx, NOW);
        change(&mut collateral);
        let fmspc = FakeCollateral::new(Tee::Tdx, NOW).fmspc;
        let json = intel.collateral(&collateral);
        server.put_collateral("tdx", &fmspc, "platform", &json);
        let error = pcs.provide(&wanted).await.unwrap_err();
        assert!(matches!(error, ProvideError::Answer { .. }), "{error}");
    }
    // SGX's judgement for a TD.
    let (server, intel, pcs, wanted) = world().await;
    let sgx = FakeCollateral::new(Tee::Sgx, NOW);
    server.put_collateral("tdx", &sgx.fmspc, "platform", &intel.collateral(&sgx));
    assert!(pcs.provide(&wanted).await.is_err());
}

#[test]
fn encodings_of_revocation_lists() {
    assert_eq!(binary(b"3003\n"), Some(vec![0x30, 3]));
    assert_eq!(binary(&[0x30, 0x82, 1]), Some(vec![0x30, 0x82, 1]));
    assert_eq!(binary(b"-----BEGIN X509 CRL-----"), None);
    assert_eq!(percent_decoded(b"a%20b%0A+").as_deref(), Some("a b\n+"));
    for bad in [&b"%"[..], b"%4", b"%zz", b"%ff"] {
        assert_eq!(percent_decoded(bad), None);
    }
}

proptest! {
    #[test]
    fn no_header_makes_it_panic(value in prop::collection::vec(any::<u8>(), 0..200)) {
        percent_decoded(&value);
        binary(&value);
    }
}
