//! Platforms of the fake vendors.

use super::*;
use crate::testing::dcap::{FakeCollateral, FakeIntel, FakePck, FakeReport};
use crate::testing::snp::{FakeAmd, FakeChip};

const NOW: u64 = 1_800_000_000;

fn evidence(tee: Tee, body: Vec<u8>) -> Evidence {
    Evidence { tee, body }
}

#[test]
fn a_quote_names_its_machine() {
    let intel = FakeIntel::new();
    for processor_ca in [false, true] {
        let pck = FakePck {
            processor_ca,
            ..FakePck::default()
        };
        let quote = intel.platform(&pck).quote(&FakeReport::td(1), &[0; 64]);
        let expected = Platform::Intel {
            tdx: true,
            fmspc: pck.fmspc,
            ca: if processor_ca {
                PckCa::Processor
            } else {
                PckCa::Platform
            },
        };
        assert_eq!(
            Platform::of(&evidence(Tee::Tdx, quote.clone())),
            Ok(expected)
        );
        assert!(Platform::of(&evidence(Tee::Sgx, quote.clone())).is_err());
        assert!(Platform::of(&evidence(Tee::Tdx, quote[..600].to_vec())).is_err());
    }
}

#[test]
fn a_report_names_its_chip() {
    for product in [SnpProduct::Milan, SnpProduct::Genoa, SnpProduct::Turin] {
        for key in [SnpSigningKey::Vcek, SnpSigningKey::Vlek] {
            let chip = FakeChip::new(product, key);
            let report = chip.sign(chip.report().to_bytes());
            let platform = Platform::of(&evidence(Tee::Snp, report)).unwrap();
            let Platform::Amd {
                product: said,
                key: said_key,
                chip_id,
                tcb,
            } = platform
            else {
                panic!("{platform:?}");
            };
            assert_eq!((said, said_key, chip_id), (Some(product), key, chip.id));
            assert_eq!(tcb.snp, 24, "{product:?}");
        }
    }
    assert!(Platform::of(&evidence(Tee::Snp, vec![0; 1184])).is_err());
}

#[test]
fn collateral_says_how_new_each_part_is() {
    let mut fake = FakeCollateral::new(Tee::Tdx, NOW);
    fake.tcb_info = (NOW - 5, NOW + 50);
    fake.qe_identity = (NOW - 6, NOW + 60);
    fake.root_crl = (NOW - 7, NOW + 40);
    fake.pck_crl = (NOW - 8, NOW + 70);
    fake.qe_evaluation = 16;
    fake.processor_ca = true;
    let collateral = FakeIntel::new().collateral(&fake);
    let at = Duration::from_secs;
    let currency = Currency::of(&Endorsements::Dcap { collateral }).unwrap();
    let edition = |issued, evaluation| Edition {
        issued: at(issued),
        evaluation,
    };
    let expected = Currency {
        tdx: true,
        fmspc: fake.fmspc,
        tcb_info: edition(NOW - 5, 17),
        qe_identity: edition(NOW - 6, 16),
        root_crl: at(NOW - 7),
        pck_crl: (PckCa::Processor, at(NOW - 8)),
        next_update: at(NOW + 40),
    };
    assert_eq!(currency, Some(expected));
    assert!(edition(2, 1).not_older(&edition(1, 1)));
    assert!(
        !edition(2, 1).not_older(&edition(1, 2)),
        "newer date, older data"
    );
    let none = Endorsements::Dcap {
        collateral: b"{}".to_vec(),
    };
    assert!(Currency::of(&none).is_err());
    let chip = FakeChip::new(SnpProduct::Milan, SnpSigningKey::Vcek);
    assert_eq!(Currency::of(&FakeAmd::new().endorsements(&chip)), Ok(None));
}
