//! Reports that a fake AMD signs properly, with one thing wrong each.

use aws_lc_rs::rsa::KeyPair;
use proptest::prelude::*;

use super::*;
use crate::facts::{SnpProduct, SnpTcb};
use crate::policy::{Hex, SnpPolicy};
use crate::testing::azure::fake_ak;
use crate::testing::snp::{
    FAKE_NOW, FakeAmd, FakeCertificate, FakeChip, FakeExtension, FakeReport, REPORT, der, ec_key,
    integer, name, oid, pss, rsa_key,
};

use CheckName::{
    AttestationKey, CertificateChain, EndorsementsCurrent, EndorsementsFormat, EndorsementsMatch,
    EndorsementsPresent, EvidenceFormat, RootPinned, Signature,
};
use SnpProduct::{Genoa, Milan, Turin};
use SnpSigningKey::{Vcek, Vlek};

fn appraise_at(
    amd: &FakeAmd,
    body: Vec<u8>,
    endorsements: &Endorsements,
    now: Duration,
) -> (Result<Claims, CheckName>, Scorecard) {
    let evidence = Evidence {
        tee: Tee::Snp,
        body,
    };
    let subject = Subject {
        evidence: &evidence,
        endorsements,
        now,
    };
    let mut card = Scorecard::new(&[]);
    let claims = amd.verifier().verify(&subject, &mut card);
    (claims.map_err(Failed::check), card)
}

fn verify(amd: &FakeAmd, body: Vec<u8>, endorsements: &Endorsements) -> Result<Claims, CheckName> {
    let (claims, card) = appraise_at(amd, body, endorsements, FAKE_NOW);
    if let Err(failed) = &claims {
        let failing: Vec<_> = card
            .checks()
            .iter()
            .filter(|check| check.status == Status::Fail)
            .map(|check| check.name)
            .collect();
        assert_eq!(failing, [*failed], "one check refuses");
    }
    claims
}

/// What a chip of Milan signs, after this change.
fn refusal(change: impl FnOnce(&mut FakeReport)) -> Option<CheckName> {
    refusal_of(&FakeChip::new(Milan, Vcek), change, |_| {})
}

fn refusal_of(
    chip: &FakeChip,
    change: impl FnOnce(&mut FakeReport),
    patch: impl FnOnce(&mut [u8; REPORT]),
) -> Option<CheckName> {
    let amd = FakeAmd::new();
    let mut report = chip.report();
    change(&mut report);
    let mut bytes = report.to_bytes();
    patch(&mut bytes);
    verify(&amd, chip.sign(bytes), &amd.endorsements(chip)).err()
}

#[test]
fn genuine_reports_of_every_product_version_and_key() {
    let amd = FakeAmd::new();
    for product in [Milan, Genoa, Turin] {
        for kind in [Vcek, Vlek] {
            let chip = FakeChip::new(product, kind);
            for version in 2..=5 {
                let mut report = chip.report();
                report.version = version;
                if version == 2 {
                    report.cpuid = [0; 3];
                }
                let body = chip.sign(report.to_bytes());
                let claims = verify(&amd, body, &amd.endorsements(&chip)).unwrap();
                let Facts::Snp(facts) = &claims.facts else {
                    panic!("facts of another TEE")
                };
                assert_eq!(
                    (facts.product, facts.signing_key, facts.version),
                    (product, kind, version)
                );
                assert_eq!(facts.chip_id, chip.id);
                assert_eq!(facts.firmware, (1, 55, 0x1c));
                assert_eq!(facts.policy_abi, (0, 0));
                let fmc = if product == Turin { 2 } else { 0 };
                let microcode = if product == Turin { 71 } else { 219 };
                let tcb = SnpTcb {
                    fmc,
                    boot_loader: 4,
                    tee: 1,
                    snp: 24,
                    microcode,
                };
                assert_eq!(
                    [
                        facts.reported_tcb,
                        facts.committed_tcb,
                        facts.launch_tcb,
                        facts.current_tcb
                    ],
                    [tcb; 4]
                );
                assert_eq!(claims.svn, 7);
                assert_eq!(claims.tcb, TcbStatus::NotApplicable);
                assert_eq!(claims.said.report_data, [0xda; 64]);
                assert_eq!(claims.said.nonce, None);
            }
        }
    }
}

#[test]
fn no_byte_of_a_report_can_change() {
    let amd = FakeAmd::new();
    let chip = FakeChip::new(Turin, Vcek);
    let mut report = chip.report();
    report.version = 5;
    let body = chip.sign(report.to_bytes());
    let endorsements = amd.endorsements(&chip);
    verify(&amd, body.clone(), &endorsements).unwrap();
    for at in 0..REPORT {
        for bits in [0x01, 0x80] {
            let mut changed = body.clone();
            changed[at] ^= bits;
            assert!(verify(&amd, changed, &endorsements).is_err(), "byte {at}");
        }
    }
}

#[test]
fn no_byte_of_a_certificate_can_change() {
    let amd = FakeAmd::new();
    let chip = FakeChip::new(Milan, Vcek);
    let body = chip.sign(chip.report().to_bytes());
    let Endorsements::Snp { vek, chain } = amd.endorsements(&chip) else {
        panic!("endorsements of another TEE")
    };
    let certificates = [vec![vek], chain].concat();
    for which in 0..certificates.len() {
        for at in 0..certificates[which].len() {
            let mut changed = certificates.clone();
            changed[which][at] ^= 1;
            let changed = Endorsements::Snp {
                vek: changed[0].clone(),
                chain: changed[1..].to_vec(),
            };
            let refused = verify(&amd, body.clone(), &changed).is_err();
            assert!(refused, "certificate {which}, byte {at}");
        }
    }
}

#[test]
fn reports_of_another_form_are_refused_though_signed() {
    for version in [0, 1, 6, u32::MAX] {
        assert_eq!(
            refusal(|report| report.version = version),
            Some(EvidenceFormat)
        );
    }
    for algorithm in [0, 2, u32::MAX] {
        let refused = refusal(|report| report.signature_algorithm = algorithm);
        assert_eq!(refused, Some(EvidenceFormat));
    }
    // A processor in a version that has no place for it.
    assert_eq!(refusal(|report| report.version = 2), Some(EvidenceFormat));
    for bit in 5..32 {
        let refused = refusal(|report| report.key_info |= 1 << bit);
        assert_eq!(refused, Some(EvidenceFormat), "key flag {bit}");
    }
    let chip = FakeChip::new(Milan, Vcek);
    for at in (0x4c..0x50)
        .chain(0x18b..0x1a0)
        .chain([0x1eb, 0x1ef])
        .chain(0x1f8..0x2a0)
    {
        let refused = refusal_of(&chip, |_| {}, |bytes| bytes[at] = 1);
        assert_eq!(refused, Some(EvidenceFormat), "reserved byte {at:#x}");
    }
}

#[test]
fn mitigation_vectors_are_read_over_where_a_version_has_them() {
    let chip = FakeChip::new(Genoa, Vcek);
    for (version, refused) in [(3, Some(EvidenceFormat)), (4, None), (5, None)] {
        let got = refusal_of(
            &chip,
            |report| report.version = version,
            |bytes| bytes[0x1f8..0x208].fill(0x0b),
        );
        assert_eq!(got, refused, "version {version}");
    }
}

#[test]
fn real_machines_set_flags_that_the_specification_reserves() {
    assert_eq!(refusal(|report| report.platform_info = u64::MAX), None);
}

#[test]
fn another_length_is_no_report() {
    let amd = FakeAmd::new();
    let chip = FakeChip::new(Milan, Vcek);
    let body = chip.sign(chip.report().to_bytes());
    let longer = [&body[..], &[0]].concat();
    for wrong in [&[][..], &body[..REPORT - 1], &longer] {
        let refused = verify(&amd, wrong.to_vec(), &amd.endorsements(&chip));
        assert_eq!(refused.err(), Some(EvidenceFormat));
    }
}

#[test]
fn only_the_chip_itself_signs_for_it() {
    let amd = FakeAmd::new();
    let (chip, other) = (FakeChip::new(Milan, Vcek), FakeChip::new(Milan, Vcek));
    let body = other.sign(chip.report().to_bytes());
    let refused = verify(&amd, body, &amd.endorsements(&chip));
    assert_eq!(refused.err(), Some(Signature));
}

#[test]
fn the_report_names_the_kind_of_key_that_signed_it() {
    for (kind, flags) in [(Vcek, 1 << 2), (Vlek, 0), (Vcek, 7 << 2), (Vcek, 2 << 2)] {
        let chip = FakeChip::new(Genoa, kind);
        let refused = refusal_of(&chip, |report| report.key_info = flags, |_| {});
        assert_eq!(refused, Some(AttestationKey), "{kind:?} {flags:#x}");
    }
    let masked = refusal(|report| report.key_info |= 0b10);
    assert_eq!(masked, Some(AttestationKey), "the chip's key is masked");
    assert_eq!(refusal(|report| report.key_info |= 1), None, "author key");
}

#[test]
fn a_report_is_of_the_chip_and_the_firmware_of_its_key() {
    let refused = refusal(|report| report.chip_id[63] ^= 1);
    assert_eq!(refused, Some(EndorsementsMatch));
    for product in [Milan, Turin] {
        let chip = FakeChip::new(product, Vcek);
        for part in 0..8 {
            let refused = refusal_of(&chip, |report| report.reported_tcb[part] ^= 1, |_| {});
            assert_eq!(refused, Some(EndorsementsMatch), "{product:?} {part}");
        }
    }
    // A chip id of Turin has 8 bytes; what is behind them is not free.
    let turin = FakeChip::new(Turin, Vcek);
    let refused = refusal_of(&turin, |report| report.chip_id[8] = 1, |_| {});
    assert_eq!(refused, Some(EndorsementsMatch));
    // A provider's key is of no chip.
    let vlek = FakeChip::new(Milan, Vlek);
    assert_eq!(
        refusal_of(&vlek, |report| report.chip_id[0] ^= 1, |_| {}),
        None
    );
    // Masked is a matter of policy: the signature still names the chip.
    assert_eq!(refusal(|report| report.chip_id = [0; 64]), None);
}

#[test]
fn the_processor_is_of_the_root_s_product_line() {
    for (product, cpuid, refused) in [
        (Milan, [0x19, 0x11, 0], true),
        (Milan, [0x1a, 0x02, 0], true),
        (Milan, [0, 0, 0], true),
        (Genoa, [0x19, 0x01, 1], true),
        (Genoa, [0x19, 0xa0, 2], false),
        (Turin, [0x19, 0x02, 1], true),
        (Turin, [0x1a, 0x11, 0], false),
    ] {
        let chip = FakeChip::new(product, Vcek);
        let got = refusal_of(&chip, |report| report.cpuid = cpuid, |_| {});
        let wanted = refused.then_some(EndorsementsMatch);
        assert_eq!(got, wanted, "{product:?} {cpuid:x?}");
    }
}

/// What is wrong with endorsements of a chip of Milan whose parts are these.
struct Parts {
    vek: FakeCertificate,
    ask: FakeCertificate,
    ark: Vec<u8>,
    /// Signs the VEK.
    issuer: &'static KeyPair,
}

fn refused_chain(kind: SnpSigningKey, change: impl FnOnce(&mut Parts)) -> Option<CheckName> {
    let amd = FakeAmd::new();
    let chip = FakeChip::new(Milan, kind);
    let mut parts = Parts {
        vek: FakeAmd::vek(&chip),
        ask: FakeAmd::ask(Milan, kind),
        ark: amd.ark(Milan),
        issuer: FakeAmd::ask_key(),
    };
    change(&mut parts);
    let endorsements = Endorsements::Snp {
        vek: parts.vek.signed_by(parts.issuer),
        chain: vec![parts.ask.signed_by(FakeAmd::ark_key()), parts.ark],
    };
    verify(&amd, chip.sign(chip.report().to_bytes()), &endorsements).err()
}

#[test]
fn endorsements_are_a_vek_and_two_issuers() {
    let amd = FakeAmd::new();
    let chip = FakeChip::new(Milan, Vcek);
    let body = chip.sign(chip.report().to_bytes());
    let Endorsements::Snp { vek, chain } = amd.endorsements(&chip) else {
        panic!("endorsements of another TEE")
    };
    let [ask, ark] = [chain[0].clone(), chain[1].clone()];
    let longer = |certificate: &Vec<u8>| [&certificate[..], &[0]].concat();
    for (vek, chain, check) in [
        (&vek, vec![], EndorsementsPresent),
        (&vek, vec![ark.clone()], EndorsementsPresent),
        (
            &vek,
            vec![ask.clone(), ark.clone(), ark.clone()],
            EndorsementsPresent,
        ),
        (&vec![], vec![ask.clone(), ark.clone()], EndorsementsFormat),
        (
            &vec![0x30; 9000],
            vec![ask.clone(), ark.clone()],
            EndorsementsFormat,
        ),
        (
            &longer(&vek),
            vec![ask.clone(), ark.clone()],
            EndorsementsFormat,
        ),
        (&vek, vec![longer(&ask), ark.clone()], EndorsementsFormat),
        (&vek, vec![ask.clone(), longer(&ark)], EndorsementsFormat),
        (&vek, vec![ark.clone(), ask.clone()], RootPinned),
    ] {
        let endorsements = Endorsements::Snp {
            vek: vek.clone(),
            chain,
        };
        let refused = verify(&amd, body.clone(), &endorsements);
        assert_eq!(refused.err(), Some(check));
    }
    let collateral = vec![];
    for other in [Endorsements::None, Endorsements::Dcap { collateral }] {
        let refused = verify(&amd, body.clone(), &other);
        assert_eq!(refused.err(), Some(EndorsementsPresent));
    }
}

#[test]
fn the_root_is_pinned_not_named() {
    let rogue = FakeAmd::new();
    let refused = refused_chain(Vcek, |parts| parts.ark = rogue.ark(Milan));
    assert_eq!(refused, Some(RootPinned));
    // A real chain says nothing to this AMD, nor this AMD to those who trust the real one.
    let amd = FakeAmd::new();
    let chip = FakeChip::new(Milan, Vcek);
    let evidence = Evidence {
        tee: Tee::Snp,
        body: chip.sign(chip.report().to_bytes()),
    };
    let subject = Subject {
        evidence: &evidence,
        endorsements: &amd.endorsements(&chip),
        now: FAKE_NOW,
    };
    let refused = SnpVerifier::amd().verify(&subject, &mut Scorecard::new(&[]));
    assert_eq!(refused.map_err(Failed::check).err(), Some(RootPinned));
}

#[test]
fn product_lines_do_not_mix() {
    let amd = FakeAmd::new();
    let chip = FakeChip::new(Milan, Vcek);
    let refused = verify(
        &amd,
        chip.sign(chip.report().to_bytes()),
        &Endorsements::Snp {
            vek: FakeAmd::vek(&chip).signed_by(FakeAmd::ask_key()),
            chain: vec![
                FakeAmd::ask(Milan, Vcek).signed_by(FakeAmd::ark_key()),
                amd.ark(Genoa),
            ],
        },
    );
    assert_eq!(refused.err(), Some(CertificateChain));
}

type Change = fn(&mut Parts);

/// Certificates that are signed properly and still no chain.
const BROKEN_CHAINS: &[(&str, Change)] = &[
    ("a VCEK under the issuer of VLEKs", |parts| {
        parts.ask = FakeAmd::ask(Milan, Vlek);
        parts.vek.issuer = name("SEV-VLEK-Milan");
    }),
    ("a VEK of another issuer", |parts| {
        parts.vek.issuer = name("SEV-Genoa");
    }),
    ("an issuer of another root", |parts| {
        parts.ask.issuer = name("ARK-Genoa");
    }),
    ("an issuer of no product", |parts| {
        parts.ask.subject = name("SEV-Rome");
        parts.vek.issuer = name("SEV-Rome");
    }),
    ("a VEK of no kind", |parts| {
        parts.vek.subject = name("SEV-CEK")
    }),
    ("two common names", |parts| {
        let one = name("SEV-VCEK");
        parts.vek.subject = der(0x30, &[&one[2..], &one[2..]]);
    }),
    ("an issuer that is no authority", |parts| {
        parts.ask.extensions[0] = FakeExtension::authority(false);
    }),
    ("an issuer without constraints", |parts| {
        parts.ask.extensions.remove(0);
    }),
    ("an issuer whose key is for other things", |parts| {
        parts.ask.extensions[1] = FakeExtension::usage(0x80);
    }),
    ("an issuer without usage", |parts| {
        parts.ask.extensions.remove(1);
    }),
    ("a VEK that is an authority", |parts| {
        let authority = FakeExtension::authority(true);
        parts.vek.extensions.push(FakeExtension {
            critical: false,
            ..authority
        });
    }),
    ("a critical extension that is unknown", |parts| {
        let unknown = FakeExtension::new(&[0x55, 0x1d, 0x1e], true, der(0x30, &[]));
        parts.ask.extensions.push(unknown);
    }),
    ("an extension twice", |parts| {
        let again = parts.vek.extensions[0].clone();
        parts.vek.extensions.push(again);
    }),
    ("another salt", |parts| {
        parts.vek.algorithms = [pss(20), pss(20)];
    }),
    ("two signature algorithms", |parts| {
        parts.vek.algorithms[0] = pss(20);
    }),
    ("another signature algorithm", |parts| {
        let sha384_with_rsa = [&oid::RSASSA_PSS[..8], &[0x0c]].concat();
        let algorithm = der(0x30, &[&der(0x06, &[&sha384_with_rsa]), &der(0x05, &[])]);
        parts.vek.algorithms = [algorithm.clone(), algorithm];
    }),
    ("an issuer's key that did not sign", |parts| {
        parts.ask.key = rsa_key(FakeAmd::ark_key());
    }),
    ("a short issuer's key", |parts| {
        parts.ask.key = rsa_key(fake_ak());
        parts.issuer = fake_ak();
    }),
    ("an issuer's key of another kind", |parts| {
        parts.ask.key = ec_key(oid::P384, &[4; 97]);
    }),
];

#[test]
fn a_chain_is_more_than_signatures() {
    assert_eq!(refused_chain(Vcek, |_| {}), None);
    for (what, change) in BROKEN_CHAINS {
        assert_eq!(
            refused_chain(Vcek, change),
            Some(CertificateChain),
            "{what}"
        );
    }
}

#[test]
fn a_certificate_of_an_older_form_is_refused() {
    let refused = refused_chain(Vcek, |parts| parts.vek.version = 1);
    assert_eq!(refused, Some(EndorsementsFormat));
}

#[test]
fn certificates_are_current() {
    const EXPIRED: [&str; 2] = ["200101000000Z", "250101000000Z"];
    const EARLY: [&str; 2] = ["260101000000Z", "300101000000Z"];
    for validity in [EXPIRED, EARLY] {
        let vek = refused_chain(Vcek, |parts| parts.vek.validity = validity);
        let ask = refused_chain(Vlek, |parts| parts.ask.validity = validity);
        assert_eq!([vek, ask], [Some(EndorsementsCurrent); 2]);
    }
    let amd = FakeAmd::new();
    let chip = FakeChip::new(Milan, Vcek);
    let body = chip.sign(chip.report().to_bytes());
    for now in [Duration::ZERO, Duration::MAX] {
        let (refused, _) = appraise_at(&amd, body.clone(), &amd.endorsements(&chip), now);
        assert_eq!(refused.err(), Some(EndorsementsCurrent));
    }
}

fn without(parts: &mut Parts, arcs: &[u8]) {
    let oid = [oid::AMD, arcs].concat();
    parts
        .vek
        .extensions
        .retain(|extension| extension.oid != oid);
}

fn with(parts: &mut Parts, arcs: &[u8], value: Vec<u8>) {
    without(parts, arcs);
    parts.vek.extensions.push(FakeExtension::amd(arcs, value));
}

#[test]
fn a_vek_says_what_it_is_for() {
    for arcs in [&[1][..], &[2], &[3, 1], &[3, 2], &[3, 3], &[3, 8], &[4]] {
        let refused = refused_chain(Vcek, |parts| without(parts, arcs));
        assert_eq!(refused, Some(EndorsementsFormat), "without {arcs:?}");
    }
    let ia5 = |text: &[u8]| der(0x16, &[text]);
    let cases: [(&[u8], Vec<u8>); 14] = [
        (&[1], integer(2)),
        (&[2], ia5(b"Genoa")),
        (&[2], ia5(b"Milan2")),
        (&[2], ia5(b"Milan-")),
        (&[2], ia5(b"")),
        (&[2], der(0x0c, &[b"Milan"])),
        (&[2], [&ia5(b"Milan")[..], &[0]].concat()),
        (&[3, 1], vec![]),
        (&[3, 1], vec![0x02, 0x02, 0x00, 0x04]),
        (&[3, 1], vec![0x02, 0x02, 0x01, 0x04]),
        (&[3, 1], vec![0x04, 0x01, 0x04]),
        (&[4], vec![0xc1; 63]),
        (&[4], vec![0xc1; 8]),
        (&[5], ia5(b"CN=cloud.example")),
    ];
    for (arcs, value) in cases {
        let refused = refused_chain(Vcek, |parts| with(parts, arcs, value.clone()));
        assert_eq!(refused, Some(EndorsementsFormat), "{arcs:?} {value:x?}");
    }
    let p256 = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
    for key in [ec_key(p256, &[4; 97]), ec_key(oid::P384, &[4; 65])] {
        let refused = refused_chain(Vcek, |parts| parts.vek.key = key);
        assert_eq!(refused, Some(EndorsementsFormat));
    }
    let refused = refused_chain(Vlek, |parts| without(parts, &[5]));
    assert_eq!(refused, Some(EndorsementsFormat), "a VLEK of nobody");
    let refused = refused_chain(Vlek, |parts| with(parts, &[4], vec![0xc1; 64]));
    assert_eq!(refused, Some(EndorsementsFormat), "a VLEK of a chip");
}

#[test]
fn a_vek_may_be_spelled_as_amd_spells_it() {
    let accepted: [Change; 3] = [
        |parts| with(parts, &[2], der(0x16, &[b"Milan-B0"])),
        |parts| with(parts, &[4], der(0x04, &[&[0xc1; 64]])),
        |parts| {
            for arc in 4..=7 {
                without(parts, &[3, arc]);
            }
        },
    ];
    for change in accepted {
        assert_eq!(refused_chain(Vcek, change), None);
    }
    // Left out means zero, and not anything.
    let refused = refused_chain(Vcek, |parts| with(parts, &[3, 4], integer(1)));
    assert_eq!(refused, Some(EndorsementsMatch));
}

#[test]
fn revocation_is_said_to_be_unchecked() {
    let amd = FakeAmd::new();
    let chip = FakeChip::new(Milan, Vcek);
    let body = chip.sign(chip.report().to_bytes());
    let (claims, card) = appraise_at(&amd, body, &amd.endorsements(&chip), FAKE_NOW);
    assert!(claims.is_ok());
    let revocation = card.check(CheckName::Revocation).unwrap();
    assert_eq!(revocation.status, Status::Unchecked);
}

fn judged(
    policy: &SnpPolicy,
    change: impl FnOnce(&mut SnpMeasurements, &mut SnpFacts),
) -> Vec<CheckName> {
    let amd = FakeAmd::new();
    let chip = FakeChip::new(Milan, Vcek);
    let body = chip.sign(chip.report().to_bytes());
    let claims = verify(&amd, body, &amd.endorsements(&chip)).unwrap();
    let (Measurements::Snp(mut guest), Facts::Snp(mut facts)) =
        (claims.said.measurements, claims.facts)
    else {
        panic!("claims of another TEE")
    };
    change(&mut guest, &mut facts);
    let mut card = Scorecard::new(&[]);
    judge(&guest, &facts, policy, &mut card);
    card.checks()
        .iter()
        .filter(|check| check.status == Status::Fail)
        .map(|check| check.name)
        .collect()
}

type Platform = fn(&mut SnpMeasurements, &mut SnpFacts);

#[test]
fn a_strict_policy_refuses_by_name() {
    let strict = SnpPolicy::default();
    assert_eq!(judged(&strict, |_, _| {}), []);
    let cases: [(Platform, CheckName); 7] = [
        (|guest, _| guest.vmpl = 1, CheckName::Vmpl),
        (
            |guest, _| guest.policy &= !(1 << 17),
            CheckName::GuestPolicy,
        ),
        (|guest, _| guest.policy |= 1 << 26, CheckName::GuestPolicy),
        (|guest, _| guest.policy |= 1 << 63, CheckName::GuestPolicy),
        (|guest, _| guest.policy |= 1 << 18, CheckName::NotMigratable),
        (|_, facts| facts.signing_key = Vlek, CheckName::SigningKey),
        (
            |_, facts| facts.chip_masked = true,
            CheckName::ChipNotMasked,
        ),
    ];
    for (change, check) in cases {
        assert_eq!(judged(&strict, change), [check]);
    }
}

#[test]
fn what_a_policy_names_is_accepted() {
    let policy = SnpPolicy {
        vmpls: vec![0, 1],
        signing_keys: vec![Vcek, Vlek],
        allow_masked_chip: true,
        allow_migration_agent: true,
        ..SnpPolicy::default()
    };
    let accepted = judged(&policy, |guest, facts| {
        guest.vmpl = 1;
        guest.policy |= 1 << 18;
        facts.signing_key = Vlek;
        facts.chip_masked = true;
    });
    assert_eq!(accepted, []);
}

#[test]
fn minimum_levels_hold_for_every_part_and_every_time() {
    let tcb = SnpTcb {
        fmc: 0,
        boot_loader: 4,
        tee: 1,
        snp: 24,
        microcode: 219,
    };
    let policy = |tcb| SnpPolicy {
        minimum_tcb: [(Milan, tcb)].into(),
        ..SnpPolicy::default()
    };
    assert_eq!(judged(&policy(tcb), |_, _| {}), []);
    let older: [Platform; 5] = [
        |_, facts| facts.reported_tcb.boot_loader = 3,
        |_, facts| facts.reported_tcb.microcode = 218,
        |_, facts| facts.committed_tcb.snp = 23,
        |_, facts| facts.committed_tcb.tee = 0,
        |_, facts| facts.launch_tcb.snp = 0,
    ];
    for change in older {
        assert_eq!(judged(&policy(tcb), change), [CheckName::MinimumTcb]);
    }
    let other = SnpPolicy {
        minimum_tcb: [(Turin, SnpTcb { fmc: 9, ..tcb })].into(),
        ..SnpPolicy::default()
    };
    assert_eq!(judged(&other, |_, _| {}), [], "of another product");

    let abi = SnpPolicy {
        minimum_abi: (1, 31),
        ..SnpPolicy::default()
    };
    for (got, refused) in [
        ((1, 31), false),
        ((2, 0), false),
        ((1, 30), true),
        ((0, 55), true),
    ] {
        let failed = judged(&abi, |_, facts| facts.policy_abi = got);
        assert_eq!(failed == [CheckName::MinimumAbi], refused, "{got:?}");
    }
}

#[test]
fn platform_flags_are_judged_where_the_policy_asks() {
    let no_smt = SnpPolicy {
        allow_smt: false,
        ..SnpPolicy::default()
    };
    let smt = CheckName::SimultaneousMultithreading;
    assert_eq!(judged(&no_smt, |_, _| {}), [smt]);
    assert_eq!(
        judged(&no_smt, |guest, _| guest.policy &= !(1 << 16)),
        [smt]
    );
    assert_eq!(judged(&no_smt, |_, facts| facts.platform_info &= !1), [smt]);
    let off: Platform = |guest, facts| {
        guest.policy &= !(1 << 16);
        facts.platform_info &= !1;
    };
    assert_eq!(judged(&no_smt, off), []);

    let aliases = SnpPolicy {
        require_alias_check: true,
        ..SnpPolicy::default()
    };
    assert_eq!(judged(&aliases, |_, _| {}), []);
    let unchecked: Platform = |_, facts| facts.platform_info &= !(1 << 5);
    assert_eq!(judged(&aliases, unchecked), [CheckName::AliasCheck]);
}

#[test]
fn lists_of_machines_and_values_are_closed() {
    let listed = SnpPolicy {
        products: vec![Milan],
        chip_ids: Some(vec![Hex([0xc1; 64])]),
        host_data: Some(vec![Hex([0x05; 32])]),
        id_key_digests: Some(vec![Hex([0x1d; 48])]),
        ..SnpPolicy::default()
    };
    assert_eq!(judged(&listed, |_, _| {}), []);
    let cases: [(Platform, CheckName); 4] = [
        (|_, facts| facts.product = Genoa, CheckName::Platform),
        (|_, facts| facts.chip_id[63] ^= 1, CheckName::Platform),
        (|guest, _| guest.host_data[0] ^= 1, CheckName::HostConfig),
        (
            |guest, _| guest.id_key_digest[0] ^= 1,
            CheckName::IdKeyDigest,
        ),
    ];
    for (change, check) in cases {
        assert_eq!(judged(&listed, change), [check]);
    }
    let nothing = SnpPolicy {
        products: vec![],
        vmpls: vec![],
        signing_keys: vec![],
        host_data: Some(vec![]),
        ..SnpPolicy::default()
    };
    let refused = judged(&nothing, |_, _| {});
    let wanted = [
        CheckName::Vmpl,
        CheckName::SigningKey,
        CheckName::Platform,
        CheckName::HostConfig,
    ];
    assert_eq!(refused, wanted);
    // A masked chip is on no list, not even on one that names the mask.
    let zeros = SnpPolicy {
        chip_ids: Some(vec![Hex([0; 64])]),
        allow_masked_chip: true,
        ..SnpPolicy::default()
    };
    let masked: Platform = |_, facts| {
        facts.chip_id = [0; 64];
        facts.chip_masked = true;
    };
    assert_eq!(judged(&zeros, masked), [CheckName::Platform]);
}

#[test]
fn reading_needs_no_endorsements() {
    let chip = FakeChip::new(Genoa, Vcek);
    let evidence = Evidence {
        tee: Tee::Snp,
        body: chip.report().to_bytes().to_vec(),
    };
    let said = SnpVerifier::amd().read(&evidence).unwrap();
    assert_eq!(said.report_data, [0xda; 64]);
    assert_eq!(said.measurements.fields()[0].1.to_string(), "3e".repeat(48));
}

proptest! {
    #[test]
    fn no_bytes_make_the_verifier_panic(
        body in proptest::collection::vec(any::<u8>(), 1100..1300),
        vek in proptest::collection::vec(any::<u8>(), 0..2000),
        at in 0_usize..1400,
        bits in any::<u8>(),
    ) {
        let amd = FakeAmd::new();
        let chip = FakeChip::new(Milan, Vcek);
        let endorsements = amd.endorsements(&chip);
        prop_assert!(verify(&amd, body, &endorsements).is_err());
        let genuine = chip.sign(chip.report().to_bytes());
        let Endorsements::Snp { vek: mut changed, chain } = endorsements else {
            panic!("endorsements of another TEE")
        };
        if let Some(byte) = changed.get_mut(at) {
            *byte ^= bits;
        }
        for vek in [vek, changed] {
            let endorsements = Endorsements::Snp { vek, chain: chain.clone() };
            drop(verify(&amd, genuine.clone(), &endorsements));
        }
    }
}
