//! Chains that are not exactly one path to a leaf that may sign.

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, ExtendedKeyUsagePurpose, IsCa,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, date_time_ymd,
};

use super::*;
use crate::testing::NITRO_NOW;
use crate::testing::p384::{P384Chain, authority, leaf};

fn params() -> Vec<CertificateParams> {
    vec![
        authority("root", 2),
        authority("middle", 1),
        authority("low", 0),
        leaf("leaf"),
    ]
}

fn check(certificates: &[Vec<u8>], pin: &Pin, now: Duration) -> Result<LeafKey, CheckName> {
    let all: Vec<&[u8]> = certificates.iter().rev().map(Vec::as_slice).collect();
    let [leaf, issuers @ .., root] = &all[..] else {
        panic!("a leaf and a root");
    };
    let chain = Chain {
        leaf,
        issuers,
        root,
    };
    let mut card = Scorecard::new(&[]);
    verify(&chain, pin, now, &mut card).map_err(Failed::check)
}

fn check_issued(chain: &P384Chain, now: Duration) -> Result<LeafKey, CheckName> {
    check(&chain.certificates, &pin(&chain.certificates[0]), now)
}

#[test]
fn a_chain_in_order_gives_the_leafs_key() {
    let chain = P384Chain::issue(&params());
    let key = check_issued(&chain, NITRO_NOW).unwrap();
    let signature = chain.sign(b"message").try_into().unwrap();
    assert!(key.signed(b"message", &signature));
    assert!(!key.signed(b"Message", &signature));
    // Without intermediates, too.
    let short = P384Chain::issue(&[authority("root", 0), leaf("leaf")]);
    assert!(check_issued(&short, NITRO_NOW).is_ok());
}

#[test]
fn another_root_with_the_same_name_is_refused() {
    let ours = P384Chain::issue(&params());
    let theirs = P384Chain::issue(&params());
    let refused = check(&theirs.certificates, &pin(&ours.certificates[0]), NITRO_NOW);
    assert_eq!(refused.unwrap_err(), CheckName::RootPinned);
    // Nor does the right root help a chain that it did not issue.
    let mut mixed = theirs.certificates;
    mixed[0].clone_from(&ours.certificates[0]);
    let refused = check(&mixed, &pin(&ours.certificates[0]), NITRO_NOW);
    assert_eq!(refused.unwrap_err(), CheckName::CertificateChain);
}

#[test]
fn order_gaps_and_superfluous_certificates_are_refused() {
    let good = P384Chain::issue(&params()).certificates;
    let other = P384Chain::issue(&params()).certificates;
    let of = |indices: &[usize]| -> Vec<Vec<u8>> {
        indices.iter().map(|index| good[*index].clone()).collect()
    };
    let with_stranger = {
        let mut chain = good.clone();
        chain.insert(1, other[1].clone());
        chain
    };
    let trailing = {
        let mut chain = good.clone();
        chain[1].push(0);
        chain
    };
    for chain in [
        of(&[0, 2, 1, 3]),
        of(&[0, 2, 3]),
        of(&[0, 1, 3]),
        of(&[0, 3]),
        of(&[0, 1, 1, 2, 3]),
        of(&[0, 0, 1, 2, 3]),
        of(&[0, 1, 2, 3, 3]),
        with_stranger,
        trailing,
    ] {
        let refused = check(&chain, &pin(&good[0]), NITRO_NOW);
        assert_eq!(refused.unwrap_err(), CheckName::CertificateChain);
    }
}

#[test]
fn dates_count_to_the_second_for_every_certificate() {
    const FIRST: u64 = 1_767_225_600; // 2026-01-01
    const LAST: u64 = 1_798_675_200; // 2026-12-31
    let at = |chain: &P384Chain, seconds| check_issued(chain, Duration::from_secs(seconds));
    let chain = P384Chain::issue(&params());
    assert!(at(&chain, FIRST).is_ok());
    assert!(at(&chain, LAST).is_ok());
    let current = CheckName::EndorsementsCurrent;
    assert_eq!(at(&chain, FIRST - 1).unwrap_err(), current);
    assert_eq!(at(&chain, LAST + 1).unwrap_err(), current);
    for index in 0..4 {
        let mut late = params();
        late[index].not_before = date_time_ymd(2026, 7, 2);
        let refused = check_issued(&P384Chain::issue(&late), NITRO_NOW);
        assert_eq!(refused.unwrap_err(), current, "{index} not yet valid");
        let mut over = params();
        over[index].not_after = date_time_ymd(2026, 6, 30);
        let refused = check_issued(&P384Chain::issue(&over), NITRO_NOW);
        assert_eq!(refused.unwrap_err(), current, "{index} expired");
    }
}

#[test]
fn every_certificate_may_do_only_what_it_is_for() {
    type Change = fn(&mut Vec<CertificateParams>);
    let changes: &[(&str, Change)] = &[
        ("root cannot sign certificates", |p| {
            p[0].key_usages = vec![KeyUsagePurpose::CrlSign];
        }),
        ("issuer without key usage", |p| p[1].key_usages = vec![]),
        ("issuer cannot sign certificates", |p| {
            p[2].key_usages = vec![KeyUsagePurpose::DigitalSignature];
        }),
        ("issuer is no authority", |p| {
            p[2].is_ca = IsCa::ExplicitNoCa
        }),
        ("issuer does not say", |p| p[1].is_ca = IsCa::NoCa),
        ("path too long", |p| {
            p[1].is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        }),
        ("leaf cannot sign", |p| {
            p[3].key_usages = vec![KeyUsagePurpose::KeyAgreement];
        }),
        ("leaf without key usage", |p| p[3].key_usages = vec![]),
        ("leaf is an authority", |p| {
            p[3].is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        }),
        ("leaf for TLS servers", |p| {
            p[3].extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        }),
        ("issuer for TLS servers", |p| {
            p[1].extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        }),
        ("unknown critical extension in an issuer", |p| {
            p[1].custom_extensions = vec![critical()];
        }),
        ("unknown critical extension in the leaf", |p| {
            p[3].custom_extensions = vec![critical()];
        }),
    ];
    for (what, change) in changes {
        let mut changed = params();
        change(&mut changed);
        let refused = check_issued(&P384Chain::issue(&changed), NITRO_NOW);
        assert_eq!(refused.unwrap_err(), CheckName::CertificateChain, "{what}");
    }
}

fn critical() -> CustomExtension {
    let mut extension = CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
    extension.set_criticality(true);
    extension
}

#[test]
fn other_curves_are_refused() {
    let chain = P384Chain::issue_with(&params(), &PKCS_ECDSA_P256_SHA256);
    let refused = check_issued(&chain, NITRO_NOW);
    assert_eq!(refused.unwrap_err(), CheckName::CertificateChain);
    // A P-256 leaf below P-384 issuers passes webpki, and cannot be our leaf.
    let chain = P384Chain::issue_mixed(&params(), &PKCS_ECDSA_P256_SHA256);
    let refused = check_issued(&chain, NITRO_NOW);
    assert_eq!(refused.unwrap_err(), CheckName::CertificateChain);
}

#[test]
fn bytes_that_are_no_certificate_are_refused() {
    let good = P384Chain::issue(&params()).certificates;
    for index in 1..4 {
        for bad in [&b""[..], b"\x30", &[0xff; 100], &good[index][..50]] {
            let mut chain = good.clone();
            chain[index] = bad.to_vec();
            let refused = check(&chain, &pin(&good[0]), NITRO_NOW);
            assert_eq!(refused.unwrap_err(), CheckName::CertificateChain);
        }
    }
    // A root that is trusted, and is none.
    let refused = check(
        &[b"root".to_vec(), good[3].clone()],
        &pin(b"root"),
        NITRO_NOW,
    );
    assert_eq!(refused.unwrap_err(), CheckName::CertificateChain);
}
