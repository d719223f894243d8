//! Every measured field, of every TEE, must change the enclave id.

use std::collections::{BTreeMap, BTreeSet};

use protocol::measured::KeyserviceMeasured;

use super::*;
use crate::measured::MeasuredConfig;
use crate::measurements::{
    AzureMeasurements, NitroMeasurements, SgxMeasurements, SimulatedMeasurements, SnpMeasurements,
    TdxMeasurements,
};
use crate::policy::AppraisalPolicy;

fn sgx() -> SgxMeasurements {
    SgxMeasurements {
        mrenclave: [1; 32],
        mrsigner: [2; 32],
        isv_prod_id: 3,
        attributes: 4,
        xfrm: 5,
        misc_select: 6,
    }
}

fn tdx() -> TdxMeasurements {
    TdxMeasurements {
        mrtd: [1; 48],
        rtmr: [[2; 48], [3; 48], [4; 48]],
        mr_config_id: [5; 48],
        mr_owner: [6; 48],
        mr_owner_config: [7; 48],
        td_attributes: 1 << 28,
        xfam: 9,
    }
}

fn snp() -> SnpMeasurements {
    SnpMeasurements {
        measurement: [1; 48],
        host_data: [2; 32],
        id_key_digest: [3; 48],
        policy: 0x3_0000,
        vmpl: 0,
        family_id: [4; 16],
        image_id: [5; 16],
    }
}

fn nitro() -> NitroMeasurements {
    NitroMeasurements {
        pcr: [[1; 48], [2; 48], [3; 48]],
        pcr3: None,
        pcr4: None,
        pcr8: None,
    }
}

fn azure<T>(hardware: T, pcr4: [u8; 32], secure_boot: bool) -> AzureMeasurements<T> {
    AzureMeasurements {
        hardware,
        pcrs: BTreeMap::from([(4, pcr4)]),
        secure_boot,
    }
}

#[expect(clippy::too_many_lines, reason = "a table")]
fn all() -> Vec<Measurements> {
    let z48 = [0xee; 48];
    let mut all = Vec::new();
    all.extend(
        [
            sgx(),
            SgxMeasurements {
                mrenclave: [9; 32],
                ..sgx()
            },
            SgxMeasurements {
                mrsigner: [9; 32],
                ..sgx()
            },
            SgxMeasurements {
                isv_prod_id: 9,
                ..sgx()
            },
            SgxMeasurements {
                attributes: 6,
                ..sgx()
            },
            SgxMeasurements { xfrm: 9, ..sgx() },
            SgxMeasurements {
                misc_select: 9,
                ..sgx()
            },
        ]
        .map(Measurements::Sgx),
    );
    all.extend(
        [
            tdx(),
            TdxMeasurements { mrtd: z48, ..tdx() },
            TdxMeasurements {
                rtmr: [z48, [3; 48], [4; 48]],
                ..tdx()
            },
            TdxMeasurements {
                rtmr: [[2; 48], z48, [4; 48]],
                ..tdx()
            },
            TdxMeasurements {
                rtmr: [[2; 48], [3; 48], z48],
                ..tdx()
            },
            TdxMeasurements {
                mr_config_id: z48,
                ..tdx()
            },
            TdxMeasurements {
                mr_owner: z48,
                ..tdx()
            },
            TdxMeasurements {
                mr_owner_config: z48,
                ..tdx()
            },
            TdxMeasurements {
                td_attributes: 1,
                ..tdx()
            },
            TdxMeasurements { xfam: 10, ..tdx() },
        ]
        .map(|tdx| Measurements::Tdx(Box::new(tdx))),
    );
    all.extend(
        [
            snp(),
            SnpMeasurements {
                measurement: z48,
                ..snp()
            },
            SnpMeasurements {
                host_data: [9; 32],
                ..snp()
            },
            SnpMeasurements {
                id_key_digest: z48,
                ..snp()
            },
            SnpMeasurements {
                policy: 1 << 19,
                ..snp()
            },
            SnpMeasurements { vmpl: 1, ..snp() },
            SnpMeasurements {
                family_id: [9; 16],
                ..snp()
            },
            SnpMeasurements {
                image_id: [9; 16],
                ..snp()
            },
        ]
        .map(|snp| Measurements::Snp(Box::new(snp))),
    );
    all.extend(
        [
            nitro(),
            NitroMeasurements {
                pcr: [[0; 48], [2; 48], [3; 48]],
                ..nitro()
            },
            NitroMeasurements {
                pcr: [[1; 48], z48, [3; 48]],
                ..nitro()
            },
            NitroMeasurements {
                pcr: [[1; 48], [2; 48], z48],
                ..nitro()
            },
            NitroMeasurements {
                pcr3: Some(z48),
                ..nitro()
            },
            NitroMeasurements {
                pcr4: Some(z48),
                ..nitro()
            },
            NitroMeasurements {
                pcr8: Some(z48),
                ..nitro()
            },
        ]
        .map(|nitro| Measurements::Nitro(Box::new(nitro))),
    );
    all.extend(
        [
            azure(snp(), [1; 32], true),
            azure(snp(), [2; 32], true),
            azure(snp(), [1; 32], false),
            azure(SnpMeasurements { vmpl: 2, ..snp() }, [1; 32], true),
        ]
        .map(|azure| Measurements::AzSnp(Box::new(azure))),
    );
    all.extend(
        [azure(tdx(), [1; 32], true), azure(tdx(), [1; 32], false)]
            .map(|azure| Measurements::AzTdx(Box::new(azure))),
    );
    all.extend(
        [([1; 48], false), ([2; 48], false), ([1; 48], true)]
            .map(|(mr, debug)| Measurements::Simulated(SimulatedMeasurements { mr, debug })),
    );
    all
}

#[test]
fn no_two_measurements_or_configurations_share_an_id() {
    let config = |ttl| {
        MeasuredConfig::keyservice(
            &KeyserviceMeasured { lease_ttl_s: ttl },
            &AppraisalPolicy::default(),
        )
        .unwrap()
        .hash()
    };
    let ids: BTreeSet<_> = all()
        .iter()
        .flat_map(|measurements| {
            [
                enclave_id(measurements, &config(1)),
                enclave_id(measurements, &config(2)),
            ]
        })
        .collect();
    assert_eq!(ids.len(), all().len() * 2);
}

#[test]
fn debug_is_seen_in_every_tee() {
    let debug: Vec<_> = all().into_iter().filter(Measurements::debug).collect();
    let expected = [
        Measurements::Sgx(SgxMeasurements {
            attributes: 6,
            ..sgx()
        }),
        Measurements::Tdx(Box::new(TdxMeasurements {
            td_attributes: 1,
            ..tdx()
        })),
        Measurements::Snp(Box::new(SnpMeasurements {
            policy: 1 << 19,
            ..snp()
        })),
        Measurements::Nitro(Box::new(NitroMeasurements {
            pcr: [[0; 48], [2; 48], [3; 48]],
            ..nitro()
        })),
        Measurements::Simulated(SimulatedMeasurements {
            mr: [1; 48],
            debug: true,
        }),
    ];
    assert_eq!(debug, expected);
}

/// The encoding is a promise to auditors and to every stored grant: it must not drift.
#[test]
fn the_id_of_a_known_enclave_is_fixed() {
    let measurements = Measurements::Simulated(SimulatedMeasurements {
        mr: [0x11; 48],
        debug: false,
    });
    let config = MeasuredConfig::keyservice(
        &KeyserviceMeasured { lease_ttl_s: 60 },
        &AppraisalPolicy::default(),
    )
    .unwrap();
    // 83 78 1c "sesemi/measured/keyservice/2" 18 3c 58 30 <policy hash>
    let config_cbor = [
        &[0x83, 0x78, 0x1c][..],
        b"sesemi/measured/keyservice/2",
        &[0x18, 0x3c, 0x58, 0x30],
        config.policy().as_bytes(),
    ];
    assert_eq!(config.as_bytes(), config_cbor.concat());
    let cbor = [
        &[0x84, 0x70][..],
        b"sesemi/enclave/1",
        &[0x69],
        b"simulated",
        &[0x82, 0x82, 0x62],
        b"mr",
        &[0x58, 48],
        &[0x11; 48],
        &[0x82, 0x65],
        b"debug",
        &[0xf4, 0x58, 48],
        config.hash().as_bytes(),
    ]
    .concat();
    let hash = digest::digest(&digest::SHA384, &cbor);
    assert_eq!(
        enclave_id(&measurements, &config.hash()).as_bytes(),
        hash.as_ref()
    );
}
