//! Bounds of collateral, before anything in it is believed.

use super::*;
use crate::evidence::Tee;
use crate::testing::dcap::{FakeCollateral, FakeIntel};
use serde_json::Value;

const NOW: u64 = 1_800_000_000;

fn good() -> Value {
    let json = FakeIntel::new().collateral(&FakeCollateral::new(Tee::Tdx, NOW));
    serde_json::from_slice(&json).unwrap()
}

fn read(json: &Value) -> Result<Collateral, Bad> {
    Collateral::read(json.to_string().as_bytes())
}

#[test]
fn good_collateral_is_read() {
    let read = read(&good()).unwrap();
    assert_eq!(read.tcb_info.id, "TDX");
    assert_eq!(read.qe_identity.id, "TD_QE");
    assert_eq!(read.tcb_info_chain.len(), 2);
    assert_eq!(read.pck_chain, None);
    for (what, window) in read.windows() {
        assert!(window.from < window.to, "{what}");
    }
}

#[test]
fn every_member_is_needed_and_bounded() {
    let json = good();
    let members: Vec<_> = json.as_object().unwrap().keys().cloned().collect();
    assert_eq!(members.len(), 9);
    for member in &members {
        let mut bad = json.clone();
        bad[member] = "A".repeat(60_000).into();
        assert!(read(&bad).is_err(), "{member}");
        bad[member] = Value::Null;
        assert!(read(&bad).is_err(), "{member}");
        let mut bad = json.clone();
        bad.as_object_mut().unwrap().remove(member);
        // The issuer of the list is the issuer of the quote's certificate.
        assert_eq!(
            read(&bad).is_err(),
            member != "pck_crl_issuer_chain",
            "{member}"
        );
    }
    let mut long = json.clone();
    long["unknown"] = "x".repeat(ENDORSEMENTS_MAX).into();
    assert!(read(&long).is_err());
    let mut many = json;
    let chain = many["tcb_info_issuer_chain"].as_str().unwrap().repeat(3);
    many["tcb_info_issuer_chain"] = chain.into();
    assert!(read(&many).is_err());
}

#[test]
fn other_texts_are_refused() {
    let json = good().to_string();
    for bad in [
        String::new(),
        "null".to_owned(),
        "[]".to_owned(),
        format!("{json}x"),
        "[".repeat(60_000),
        json.replacen('{', "{\"tcb_info\":\"\",", 1),
        json.replacen("\\\"issueDate\\\":\\\"20", "\\\"issueDate\\\":\\\"x0", 1),
        json.replacen(
            "\\\"version\\\"",
            "\\\"id\\\":\\\"SGX\\\",\\\"version\\\"",
            1,
        ),
    ] {
        assert!(Collateral::read(bad.as_bytes()).is_err(), "{:.80}", bad);
    }
}
