//! Reports that a GPU would never sign.

use super::*;
use crate::testing::nvidia::{FIRMWARE_ID, firmware_extension, pem};
use crate::testing::{FakeGpu, GpuReport, NITRO_NOW};

fn examine_pem(
    gpu: &FakeGpu,
    report: &[u8],
    chain: &[u8],
    nonce: Option<&[u8]>,
) -> (Result<GpuSaid, CheckName>, Scorecard) {
    let mut card = Scorecard::new(&[]);
    let said = gpu
        .verifier()
        .examine(report, chain, nonce, NITRO_NOW, &mut card);
    assert_eq!(said.is_err(), card.first_failure().is_some(), "{card}");
    (said.map_err(Failed::check), card)
}

fn check(gpu: &FakeGpu, report: &[u8]) -> Result<GpuSaid, CheckName> {
    examine_pem(gpu, report, &gpu.chain_pem(), None).0
}

#[test]
fn a_genuine_report_is_read_and_said_to_be_not_compared() {
    let gpu = FakeGpu::new();
    let report = gpu.sign(&GpuReport::default());
    let (said, card) = examine_pem(&gpu, &report, &gpu.chain_pem(), Some(&[0x77; 32]));
    let said = said.unwrap();
    assert_eq!(said.nonce, [0x77; 32]);
    assert_eq!(said.measurements.len(), 4);
    assert_eq!(said.measurements[&2], [2; 48]);
    assert_eq!(said.driver_version.as_deref(), Some("550.90.07"));
    assert_eq!(said.vbios_version, Some(vec![0, 0x9f, 0, 0x96]));
    let line = card.check(CheckName::GpuMeasurements).unwrap();
    assert_eq!(line.status, Status::Unchecked);
    assert!(line.got.contains("not compared"));
    let line = card.check(CheckName::Revocation).unwrap();
    assert_eq!(line.status, Status::Unchecked);
}

#[test]
fn the_root_is_the_one_in_nvidias_verifier() {
    let published = "102bf659d5419614c9d8e6aecebc80454eb26b1df6a769ac720b9a690b167b48";
    assert_eq!(NVIDIA_ROOT.to_string(), published);
    let gpu = FakeGpu::new();
    let report = gpu.sign(&GpuReport::default());
    let mut card = Scorecard::new(&[]);
    let refused = examine(&report, &gpu.chain_pem(), None, NITRO_NOW, &mut card);
    assert_eq!(refused.map_err(Failed::check), Err(CheckName::RootPinned));
}

#[test]
fn no_byte_can_change() {
    let gpu = FakeGpu::new();
    let good = gpu.sign(&GpuReport::default());
    for index in 0..good.len() {
        let mut bad = good.clone();
        bad[index] ^= 1 << (index % 8);
        assert!(check(&gpu, &bad).is_err(), "byte {index}");
    }
    for cut in 0..good.len() {
        assert!(check(&gpu, &good[..cut]).is_err(), "{cut} bytes");
    }
    let mut longer = good;
    longer.push(0);
    assert!(check(&gpu, &longer).is_err());
}

#[test]
fn requests_and_responses_have_one_form() {
    type Change = fn(&mut GpuReport);
    let gpu = FakeGpu::new();
    let changes: &[(&str, Change)] = &[
        ("version of the request", |r| r.request[0] = 0x12),
        ("another request", |r| r.request[1] = 0xe1),
        ("signature not asked for", |r| r.request[2] = 0),
        ("one measurement only", |r| r.request[3] = 1),
        ("reserved bits of the slot", |r| r.request[36] = 0x10),
        ("longer request", |r| r.request.push(0)),
        ("shorter request", |r| r.request.truncate(36)),
        ("version of the response", |r| r.response[0] = 0x10),
        ("an error", |r| r.response[1] = 0x7f),
        ("reserved parameter", |r| r.response[2] = 1),
        ("another slot", |r| r.response[3] = 1),
        ("too few blocks", |r| r.blocks = Some(3)),
        ("too many blocks", |r| r.blocks = Some(5)),
        ("no blocks", |r| r.measurements.clear()),
        ("index 0", |r| r.measurements[1].0 = 0),
        ("index twice", |r| r.measurements[1].0 = 1),
        ("not DMTF's form", |r| r.measurements[1].1 = 2),
        ("value shorter than it says", |r| {
            r.measurements[1].2.truncate(50)
        }),
        ("value longer than it says", |r| r.measurements[1].2.push(0)),
        ("empty value", |r| r.measurements[1].2 = vec![1, 0, 0]),
        ("no value", |r| r.measurements[1].2 = vec![]),
        ("huge value", |r| {
            let len = 2000_u16.to_le_bytes();
            r.measurements[1].2 = [&[1][..], &len, &[0; 2000]].concat();
        }),
        ("opaque field twice", |r| r.opaque.push((3, vec![]))),
    ];
    for (what, change) in changes {
        let mut report = GpuReport::default();
        change(&mut report);
        let refused = check(&gpu, &gpu.sign(&report));
        assert_eq!(refused, Err(CheckName::EvidenceFormat), "{what}");
    }
    let mut other_slot = GpuReport::default();
    other_slot.request[36] = 3;
    other_slot.response[3] = 3;
    assert!(check(&gpu, &gpu.sign(&other_slot)).is_ok());
    let too_long = vec![0x11; 70_000];
    assert_eq!(check(&gpu, &too_long), Err(CheckName::EvidenceFormat));
}

#[test]
fn the_nonce_is_the_one_that_was_asked_with() {
    let gpu = FakeGpu::new();
    let report = gpu.sign(&GpuReport::default());
    for wrong in [&[0x78; 32][..], &[0x77; 31], &[]] {
        let (said, _) = examine_pem(&gpu, &report, &gpu.chain_pem(), Some(wrong));
        assert_eq!(said, Err(CheckName::Nonce));
    }
    let (said, card) = examine_pem(&gpu, &report, &gpu.chain_pem(), None);
    assert!(said.is_ok());
    let line = card.check(CheckName::Nonce).unwrap();
    assert_eq!(line.status, Status::Unchecked);
}

#[test]
fn the_certificate_is_of_the_firmware_that_signed() {
    let gpu = FakeGpu::new();
    let mut report = GpuReport::default();
    report.opaque[2].1 = vec![0xf2; 48];
    let refused = check(&gpu, &gpu.sign(&report));
    assert_eq!(refused, Err(CheckName::AttestationKey));
    for broken in [
        None,
        Some(vec![]),
        Some(FIRMWARE_ID.to_vec()),
        Some(firmware_extension()[..60].to_vec()),
        Some([&firmware_extension()[..], &[0]].concat()),
    ] {
        let gpu = FakeGpu::with_extension(broken);
        let refused = check(&gpu, &gpu.sign(&GpuReport::default()));
        assert_eq!(refused, Err(CheckName::AttestationKey));
    }
    let mut silent = GpuReport::default();
    silent.opaque.remove(2);
    assert!(check(&gpu, &gpu.sign(&silent)).is_ok());
}

#[test]
fn chains_are_complete_and_in_order() {
    let gpu = FakeGpu::new();
    let report = gpu.sign(&GpuReport::default());
    let ders: Vec<_> = gpu.chain.certificates.iter().rev().cloned().collect();
    let with = |ders: &[Vec<u8>]| examine_pem(&gpu, &report, &pem(ders), None).0;
    assert!(with(&ders).is_ok());
    let format = Err(CheckName::EndorsementsFormat);
    assert_eq!(with(&[]), format);
    assert_eq!(with(&ders[..1]), format);
    assert_eq!(with(&vec![ders[0].clone(); 9]), format);
    assert_eq!(with(&ders[..4]), Err(CheckName::RootPinned));
    let chain = Err(CheckName::CertificateChain);
    assert_eq!(with(&[&ders[..2], &ders[3..]].concat()), chain);
    let mut swapped = ders.clone();
    swapped.swap(1, 2);
    assert_eq!(with(&swapped), chain);
    let other: Vec<_> = FakeGpu::new().chain.certificates;
    let mut mixed = ders;
    mixed[0].clone_from(&other[4]);
    assert_eq!(with(&mixed), chain);
    let other = FakeGpu::new().sign(&GpuReport::default());
    assert_eq!(check(&gpu, &other), Err(CheckName::Signature));
    for bad in [
        &b"-----BEGIN CERTIFICATE-----"[..],
        b"\xff\xff",
        &[b'A'; 70_000],
    ] {
        assert_eq!(examine_pem(&gpu, &report, bad, None).0, format);
    }
}
