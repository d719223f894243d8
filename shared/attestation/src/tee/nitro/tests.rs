//! Documents that a hypervisor would never sign, and what a policy asks of those that it does.

use super::*;
use crate::appraisal::{Expected, RelyingParty, examine};
use crate::evidence::{Endorsements, VerifierSet};
use crate::policy::{Allowed, AppraisalPolicy, Pcr};
use crate::testing::nitro::payload;
use crate::testing::{FakeNitro, NITRO_NOW, NitroDocument};
use std::sync::Arc;

fn verify_at(
    verifier: &NitroVerifier,
    evidence: &Evidence,
    now: Duration,
) -> Result<Claims, CheckName> {
    let endorsements = &Endorsements::None;
    let subject = Subject {
        evidence,
        endorsements,
        now,
    };
    let mut card = Scorecard::new(&[]);
    let verified = verifier.verify(&subject, &mut card);
    assert_eq!(verified.is_err(), card.first_failure().is_some(), "{card}");
    verified.map_err(Failed::check)
}

fn verify(nitro: &FakeNitro, evidence: &Evidence) -> Result<Claims, CheckName> {
    verify_at(&nitro.verifier(), evidence, NITRO_NOW)
}

/// The field that a document is refused for, signed though it is.
fn malformed(nitro: &FakeNitro, evidence: &Evidence) -> &'static str {
    let verified = verify(nitro, evidence);
    assert_eq!(verified, Err(CheckName::EvidenceFormat));
    nitro.verifier().read(evidence).unwrap_err().field
}

#[test]
fn a_genuine_document_gives_its_claims() {
    let nitro = FakeNitro::new();
    let mut document = nitro.document();
    document.nonce = Some(vec![7; 512]);
    document.public_key = Some(vec![8; 1024]);
    document.pcrs[8].1 = vec![0x88; 48];
    let evidence = nitro.sign(&document);
    let claims = verify(&nitro, &evidence).unwrap();
    assert_eq!(nitro.verifier().read(&evidence), Ok(claims.said.clone()));
    assert_eq!(claims.said.report_data, [0xda; 64]);
    assert_eq!(claims.said.nonce, Some(vec![7; 512]));
    let measurements = NitroMeasurements {
        pcr: [[0x10; 48], [0x11; 48], [0x12; 48]],
        pcr3: None,
        pcr4: None,
        pcr8: Some([0x88; 48]),
    };
    assert_eq!(
        claims.said.measurements,
        Measurements::Nitro(Box::new(measurements))
    );
    let Facts::Nitro(facts) = claims.facts else {
        panic!("facts of another TEE");
    };
    assert_eq!(facts.timestamp, NITRO_NOW);
    assert_eq!(facts.module_id, "i-0-enc0");
    assert_eq!(facts.pcrs.len(), 16);
    assert_eq!(facts.public_key, Some(vec![8; 1024]));
}

#[test]
fn both_maps_both_tags_and_absent_fields_are_genuine() {
    let nitro = FakeNitro::new();
    let mut document = nitro.document();
    document.indefinite = false;
    document.user_data = None;
    let mut evidence = nitro.sign(&document);
    let claims = verify(&nitro, &evidence).unwrap();
    assert!(claims.said.report_data.is_empty());
    evidence.body.insert(0, 0xd2);
    assert_eq!(verify(&nitro, &evidence), Ok(claims.clone()));
    // Members that may be null may be missing, too.
    let mut members = document.members();
    members.truncate(6);
    let evidence = nitro.sign_payload(&payload(&members, false));
    assert_eq!(verify(&nitro, &evidence), Ok(claims));
}

#[test]
fn the_root_is_the_one_that_aws_publishes() {
    let published = "641a0321a3e244efe456463195d606317ed7cdcc3c1756e09893f3c68f79bb5b";
    assert_eq!(NitroVerifier::aws().root.to_string(), published);
    let nitro = FakeNitro::new();
    let evidence = nitro.sign(&nitro.document());
    for verifier in [NitroVerifier::aws(), FakeNitro::new().verifier()] {
        let refused = verify_at(&verifier, &evidence, NITRO_NOW);
        assert_eq!(refused, Err(CheckName::RootPinned));
    }
}

#[test]
fn no_byte_can_change() {
    let nitro = FakeNitro::new();
    let good = nitro.sign(&nitro.document());
    for index in 0..good.body.len() {
        let mut bad = good.clone();
        bad.body[index] ^= 1 << (index % 8);
        assert!(verify(&nitro, &bad).is_err(), "byte {index}");
    }
    for cut in 0..good.body.len() {
        let bad = Evidence {
            tee: Tee::Nitro,
            body: good.body[..cut].to_vec(),
        };
        assert_eq!(
            verify(&nitro, &bad),
            Err(CheckName::EvidenceFormat),
            "{cut}"
        );
    }
    let mut longer = good;
    longer.body.push(0);
    assert_eq!(malformed(&nitro, &longer), "end: trailing bytes");
}

#[test]
fn a_signature_of_another_document_or_key_is_refused() {
    let nitro = FakeNitro::new();
    let good = nitro.sign(&nitro.document());
    let mut other = nitro.document();
    other.module_id.push('x');
    let other = nitro.sign(&other);
    let signature = good.body.len() - 96;
    let mut spliced = good.clone();
    spliced.body[signature..].copy_from_slice(&other.body[other.body.len() - 96..]);
    assert_eq!(verify(&nitro, &spliced), Err(CheckName::Signature));
    // The right certificates, and a document that their key did not sign.
    let stranger = FakeNitro::new().sign(&nitro.document());
    assert_eq!(verify(&nitro, &stranger), Err(CheckName::Signature));
    let mut snp = good;
    snp.tee = Tee::Snp;
    assert_eq!(malformed(&nitro, &snp), "kind of TEE");
}

#[test]
fn the_envelope_has_one_encoding() {
    let nitro = FakeNitro::new();
    let good = nitro.sign(&nitro.document()).body;
    assert_eq!(
        &good[..9],
        [0x84, 0x44, 0xa1, 1, 0x38, 0x22, 0xa0, 0x59, good[8]]
    );
    let with = |edit: &dyn Fn(&mut Vec<u8>)| {
        let mut body = good.clone();
        edit(&mut body);
        let tee = Tee::Nitro;
        malformed(&nitro, &Evidence { tee, body })
    };
    let splice = |at: std::ops::Range<usize>, bytes: &'static [u8]| {
        with(&|body| drop(body.splice(at.clone(), bytes.iter().copied())))
    };
    assert_eq!(splice(0..0, &[0xd1]), "tag");
    assert_eq!(splice(0..0, &[0xd8, 0x12]), "tag");
    assert_eq!(splice(0..0, &[0xd2, 0xd2]), "COSE_Sign1 structure");
    assert_eq!(splice(0..1, &[0x85]), "COSE_Sign1 structure");
    assert_eq!(splice(0..1, &[0x9f]), "COSE_Sign1 structure");
    assert_eq!(splice(0..1, &[0x98, 4]), "COSE_Sign1 structure");
    // ES256, another spelling of -35, a second header, none.
    assert_eq!(splice(1..6, &[0x43, 0xa1, 1, 0x26]), "protected header");
    assert_eq!(
        splice(1..6, &[0x45, 0xa1, 1, 0x39, 0, 0x22]),
        "protected header"
    );
    assert_eq!(splice(1..2, &[0x58, 4]), "protected header");
    assert_eq!(
        splice(1..6, &[0x46, 0xa2, 1, 0x38, 0x22, 4, 0x40]),
        "protected header"
    );
    assert_eq!(splice(1..6, &[0x40]), "protected header");
    assert_eq!(splice(6..7, &[0xa1, 4, 0x40]), "unprotected header");
    assert_eq!(splice(6..7, &[0xbf, 0xff]), "unprotected header");
    assert_eq!(splice(6..7, &[0xb8, 0]), "unprotected header");
    assert_eq!(splice(7..8, &[0x5a, 0, 0]), "payload");
    let signature = good.len() - 98;
    assert_eq!(
        splice(signature..signature + 2, &[0x59, 0, 96]),
        "signature"
    );
    assert_eq!(splice(signature..signature + 3, &[0x58, 95]), "signature");
    let long = |body: &mut Vec<u8>| body.resize(0x3001, 0);
    assert_eq!(with(&long), "length");
}

#[test]
fn every_field_is_there_once_and_within_its_bounds() {
    type Change = fn(&mut NitroDocument);
    let nitro = FakeNitro::new();
    let changes: &[(&str, Change)] = &[
        ("module_id", |d| d.module_id.clear()),
        ("digest", |d| d.digest = "SHA256".into()),
        ("timestamp", |d| d.timestamp = Duration::ZERO),
        ("pcrs", |d| d.pcrs.clear()),
        ("pcrs", |d| drop(d.pcrs.remove(0))),
        ("pcrs", |d| drop(d.pcrs.remove(2))),
        ("pcrs", |d| d.pcrs[5].0 = 32),
        ("pcrs", |d| d.pcrs[5].0 = 256),
        ("pcrs", |d| d.pcrs[5].0 = 4),
        ("pcrs", |d| d.pcrs[5].1 = vec![0; 47]),
        ("pcrs", |d| d.pcrs[5].1 = vec![0; 32]),
        ("pcrs", |d| d.pcrs[5].1 = vec![0; 64]),
        ("pcrs", |d| {
            d.pcrs = (0..33).map(|n| (n, vec![0; 48])).collect()
        }),
        ("certificate", |d| d.certificate.clear()),
        ("certificate", |d| d.certificate = vec![0; 1025]),
        ("cabundle", |d| d.cabundle.clear()),
        ("cabundle", |d| d.cabundle[1].clear()),
        ("cabundle", |d| d.cabundle[1] = vec![0; 1025]),
        ("cabundle", |d| d.cabundle = vec![vec![0]; 8]),
        ("public_key", |d| d.public_key = Some(vec![])),
        ("public_key", |d| d.public_key = Some(vec![0; 1025])),
        ("user_data", |d| d.user_data = Some(vec![0; 513])),
        ("nonce", |d| d.nonce = Some(vec![0; 513])),
    ];
    for (field, change) in changes {
        let mut document = nitro.document();
        change(&mut document);
        assert_eq!(malformed(&nitro, &nitro.sign(&document)), *field);
    }
}

#[test]
fn the_payload_has_each_member_once_in_one_encoding() {
    let nitro = FakeNitro::new();
    let good = nitro.document().members();
    let of = |members: &[(String, Vec<u8>)]| {
        malformed(&nitro, &nitro.sign_payload(&payload(members, false)))
    };
    for index in 0..good.len() {
        let name = good[index].0.clone();
        let mut twice = good.clone();
        twice.push(good[index].clone());
        assert_eq!(of(&twice), name, "twice");
        // The second value is not what is looked at, nor the first.
        twice.swap(index, good.len());
        twice[index].1 = vec![0xf6];
        assert_eq!(of(&twice), name, "null and again");
        if index < 6 {
            let mut missing = good.clone();
            missing.remove(index);
            assert_eq!(of(&missing), name, "missing");
            let mut null = good.clone();
            null[index].1 = vec![0xf6];
            assert_eq!(of(&null), name, "null");
        }
        for other in [
            &[0x00][..],
            &[0x20],
            &[0x80],
            &[0xa0],
            &[0xf7],
            &[0xf4],
            &[],
        ] {
            let mut wrong = good.clone();
            wrong[index].1 = other.to_vec();
            let _ = of(&wrong);
        }
    }
    let mut unknown = good.clone();
    unknown.push(("extra".into(), vec![0xf6]));
    assert_eq!(of(&unknown), "payload's key");

    let long_forms = [
        (2, vec![0x3b; 9], "timestamp"),
        (2, vec![0x1b, 0, 0, 0, 0, 0xff, 0, 0, 0], "timestamp"),
        (2, vec![0xfb, 0x42, 0, 0, 0, 0, 0, 0, 0], "timestamp"),
        (1, [&[0x78, 6][..], b"SHA384"].concat(), "digest"),
        (
            1,
            [&[0x7f, 0x66][..], b"SHA384", &[0xff]].concat(),
            "digest",
        ),
        (7, vec![0x58, 1, 0], "user_data"),
        (7, vec![0x5f, 0x41, 0, 0xff], "user_data"),
        (8, vec![0x5b, 0x80, 0, 0, 0, 0, 0, 0, 0], "nonce"),
        (5, vec![0x9f, 0x41, 0, 0xff], "cabundle"),
        (
            5,
            vec![0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            "cabundle",
        ),
        (3, vec![0xbf, 0xff], "pcrs"),
        (3, vec![0xb8, 1, 0, 0x58, 48], "pcrs"),
    ];
    for (index, value, field) in long_forms {
        let mut wrong = good.clone();
        wrong[index].1 = value;
        assert_eq!(of(&wrong), field);
    }
    for (tail, definite) in [(&[0xf6][..], true), (&[0xff], true), (&[0xff], false)] {
        let mut long = payload(&good, !definite);
        long.extend(tail);
        let field = malformed(&nitro, &nitro.sign_payload(&long));
        assert_eq!(field, "payload: trailing bytes");
    }
    let unended = payload(&good, true);
    let unended = &unended[..unended.len() - 1];
    assert_eq!(
        malformed(&nitro, &nitro.sign_payload(unended)),
        "payload's key"
    );
}

#[test]
fn certificates_are_judged_at_the_time_that_is_given() {
    let nitro = FakeNitro::new();
    let evidence = nitro.sign(&nitro.document());
    for seconds in [0, 1_767_225_599, 1_798_675_201, u64::MAX] {
        let refused = verify_at(&nitro.verifier(), &evidence, Duration::from_secs(seconds));
        assert_eq!(refused, Err(CheckName::EndorsementsCurrent), "{seconds}");
    }
    let mut document = nitro.document();
    document.cabundle.swap(1, 2);
    let refused = verify(&nitro, &nitro.sign(&document));
    assert_eq!(refused, Err(CheckName::CertificateChain));
    document = nitro.document();
    document.cabundle.remove(0);
    let refused = verify(&nitro, &nitro.sign(&document));
    assert_eq!(refused, Err(CheckName::RootPinned));
}

fn policy() -> AppraisalPolicy {
    AppraisalPolicy::strict(vec![Tee::Nitro], Allowed::Any)
}

/// The first check that a policy fails a document at.
fn judged(document: &NitroDocument, policy: AppraisalPolicy, now: Duration) -> Option<CheckName> {
    let nitro = FakeNitro::new();
    let (leaf, bundle) = nitro.chain.certificates.split_last().unwrap();
    let mut document = document.clone();
    document.certificate.clone_from(leaf);
    document.cabundle = bundle.to_vec();
    let relying = RelyingParty {
        verifiers: VerifierSet::new(vec![Arc::new(nitro.verifier())]),
        policy,
    };
    let evidence = nitro.sign(&document);
    let expected = Expected::default();
    let none = Endorsements::None;
    let examined = examine(&relying, &evidence, &none, &expected, None, now);
    let failed = examined.card.first_failure().map(Failed::check);
    assert_eq!(examined.accepted(), failed.is_none());
    failed
}

#[test]
fn old_and_future_documents_are_refused() {
    let document = FakeNitro::new().document();
    let at = |now| judged(&document, policy(), now);
    let second = Duration::from_secs(1);
    let milli = Duration::from_millis(1);
    let limit = 300 * second;
    assert_eq!(at(NITRO_NOW), None);
    assert_eq!(at(NITRO_NOW + limit), None);
    assert_eq!(at(NITRO_NOW - limit), None);
    let stale = Some(CheckName::Freshness);
    assert_eq!(at(NITRO_NOW + limit + milli), stale);
    assert_eq!(at(NITRO_NOW - limit - milli), stale);
    let mut patient = policy();
    patient.nitro.max_age_s = u64::MAX;
    assert_eq!(judged(&document, patient, NITRO_NOW + 1000 * limit), None);
    let mut hasty = policy();
    hasty.nitro.max_age_s = 0;
    assert_eq!(judged(&document, hasty, NITRO_NOW + milli), stale);
}

#[test]
fn debug_enclaves_are_refused_by_default() {
    let mut document = FakeNitro::new().document();
    for index in 0..3 {
        document.pcrs[index].1 = vec![0; 48];
    }
    let refused = judged(&document, policy(), NITRO_NOW);
    assert_eq!(refused, Some(CheckName::NotDebug));
    let mut lax = policy();
    lax.allow_debug = true;
    assert_eq!(judged(&document, lax, NITRO_NOW), None);
}

#[test]
fn registers_are_compared_with_the_policys() {
    let document = FakeNitro::new().document();
    let ask = |index, values: &[u8]| Pcr {
        index,
        values: values.iter().map(|byte| Hex([*byte; 48])).collect(),
    };
    let with = |pcrs| {
        let mut policy = policy();
        policy.nitro.pcrs = pcrs;
        judged(&document, policy, NITRO_NOW)
    };
    let refused = Some(CheckName::Pcrs);
    assert_eq!(with(vec![ask(1, &[0x11]), ask(4, &[0x45, 0x44])]), None);
    assert_eq!(with(vec![ask(4, &[0x45])]), refused);
    assert_eq!(with(vec![ask(4, &[])]), refused);
    assert_eq!(with(vec![ask(4, &[0x45]), ask(1, &[0x11])]), refused);
    // Asked twice, both answers count.
    assert_eq!(with(vec![ask(4, &[0x44]), ask(4, &[0x45])]), refused);
    // Registers that there are not.
    assert_eq!(with(vec![ask(16, &[0])]), refused);
    assert_eq!(with(vec![ask(255, &[0])]), refused);

    let mut reference = policy();
    reference.measurements.pcr0 = Some(vec![Hex([0x10; 48])]);
    assert_eq!(judged(&document, reference.clone(), NITRO_NOW), None);
    reference.measurements.pcr0 = Some(vec![Hex([0x11; 48])]);
    let refused = judged(&document, reference, NITRO_NOW);
    assert_eq!(refused, Some(CheckName::Measurement));
}
