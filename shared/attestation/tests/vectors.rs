//! Enclave ids and report data as another implementation, made from docs/protocol.md, has them.
#![expect(clippy::unwrap_used, reason = "a panic is how a test reports")]

use std::collections::BTreeMap;
use std::path::Path;

use attestation::measurements::{
    AzureMeasurements, NitroMeasurements, SgxMeasurements, SimulatedMeasurements, SnpMeasurements,
    TdxMeasurements,
};
use attestation::{
    Binder, ChannelBinder, MeasuredConfig, Measurements, Role, SpkiHash, Tee, enclave_id,
};
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Vectors {
    format: String,
    #[serde(rename = "about")]
    _about: String,
    identities: Vec<Identity>,
    binders: Vec<BinderCase>,
    refused_configs: Vec<Refused>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Identity {
    tee: Tee,
    measurements: Vec<(String, Value)>,
    config: String,
    config_hash: String,
    enclave: String,
}

#[derive(Deserialize)]
struct BinderCase {
    role: String,
    own_spki: String,
    report_data: String,
    #[serde(flatten)]
    channel: Option<Channel>,
}

#[derive(Deserialize)]
struct Channel {
    exporter: String,
    peer_nonce: String,
    peer_spki: String,
    config: String,
    epoch: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Refused {
    name: String,
    config: String,
}

fn vectors() -> Vectors {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testvectors/enclave-identity.json");
    let vectors: Vectors = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert_eq!(vectors.format, "sesemi-enclave-identity/1");
    vectors
}

fn bytes(hex: &str) -> Vec<u8> {
    assert!(hex.len().is_multiple_of(2));
    (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
        .collect()
}

fn array<const N: usize>(hex: &str) -> [u8; N] {
    bytes(hex).try_into().unwrap()
}

/// The named values, each of which must be asked for exactly once.
struct Fields(BTreeMap<String, Value>);

impl Fields {
    fn fixed<const N: usize>(&mut self, name: &str) -> [u8; N] {
        array(self.0.remove(name).unwrap().as_str().unwrap())
    }

    fn uint<T: TryFrom<u64, Error: std::fmt::Debug>>(&mut self, name: &str) -> T {
        self.0
            .remove(name)
            .unwrap()
            .as_u64()
            .unwrap()
            .try_into()
            .unwrap()
    }

    fn bool(&mut self, name: &str) -> bool {
        self.0.remove(name).unwrap().as_bool().unwrap()
    }

    fn option(&mut self, name: &str) -> Option<[u8; 48]> {
        self.0.contains_key(name).then(|| self.fixed(name))
    }

    fn pcrs(&mut self) -> BTreeMap<u8, [u8; 32]> {
        let names: Vec<_> = self
            .0
            .keys()
            .filter_map(|name| name.strip_prefix("vtpm_pcr")?.parse().ok())
            .collect();
        names
            .into_iter()
            .map(|index| (index, self.fixed(&format!("vtpm_pcr{index}"))))
            .collect()
    }

    fn snp(&mut self) -> SnpMeasurements {
        SnpMeasurements {
            measurement: self.fixed("measurement"),
            host_data: self.fixed("host_data"),
            id_key_digest: self.fixed("id_key_digest"),
            policy: self.uint("policy"),
            vmpl: self.uint("vmpl"),
            family_id: self.fixed("family_id"),
            image_id: self.fixed("image_id"),
        }
    }

    fn tdx(&mut self) -> TdxMeasurements {
        TdxMeasurements {
            mrtd: self.fixed("mrtd"),
            rtmr: [
                self.fixed("rtmr0"),
                self.fixed("rtmr1"),
                self.fixed("rtmr2"),
            ],
            mr_config_id: self.fixed("mr_config_id"),
            mr_owner: self.fixed("mr_owner"),
            mr_owner_config: self.fixed("mr_owner_config"),
            td_attributes: self.uint("td_attributes"),
            xfam: self.uint("xfam"),
        }
    }

    fn azure<T>(&mut self, hardware: T) -> Box<AzureMeasurements<T>> {
        let (pcrs, secure_boot) = (self.pcrs(), self.bool("secure_boot"));
        Box::new(AzureMeasurements {
            hardware,
            pcrs,
            secure_boot,
        })
    }
}

fn measurements(tee: Tee, fields: Vec<(String, Value)>) -> Measurements {
    let mut f = Fields(fields.into_iter().collect());
    let measurements = match tee {
        Tee::Sgx => Measurements::Sgx(SgxMeasurements {
            mrenclave: f.fixed("mrenclave"),
            mrsigner: f.fixed("mrsigner"),
            isv_prod_id: f.uint("isv_prod_id"),
            attributes: f.uint("attributes"),
            xfrm: f.uint("xfrm"),
            misc_select: f.uint("misc_select"),
        }),
        Tee::Tdx => Measurements::Tdx(Box::new(f.tdx())),
        Tee::Snp => Measurements::Snp(Box::new(f.snp())),
        Tee::Nitro => Measurements::Nitro(Box::new(NitroMeasurements {
            pcr: [f.fixed("pcr0"), f.fixed("pcr1"), f.fixed("pcr2")],
            pcr3: f.option("pcr3"),
            pcr4: f.option("pcr4"),
            pcr8: f.option("pcr8"),
        })),
        Tee::AzSnp => {
            let snp = f.snp();
            Measurements::AzSnp(f.azure(snp))
        }
        Tee::AzTdx => {
            let tdx = f.tdx();
            Measurements::AzTdx(f.azure(tdx))
        }
        Tee::Simulated => Measurements::Simulated(SimulatedMeasurements {
            mr: f.fixed("mr"),
            debug: f.bool("debug"),
        }),
    };
    assert!(f.0.is_empty(), "{tee}: {:?} is not measured", f.0);
    measurements
}

#[test]
fn enclave_ids_are_the_documented_ones() {
    let identities = vectors().identities;
    for tee in Tee::ALL {
        assert!(
            identities.iter().any(|case| case.tee == tee),
            "no vector of {tee}"
        );
    }
    for case in identities {
        let config = MeasuredConfig::from_bytes(&bytes(&case.config)).unwrap();
        assert_eq!(config.hash().to_string(), case.config_hash);
        let measurements = measurements(case.tee, case.measurements);
        assert_eq!(
            enclave_id(&measurements, &config.hash()).to_string(),
            case.enclave
        );
    }
}

#[test]
fn report_data_is_the_documented_one() {
    for case in vectors().binders {
        let own_spki = SpkiHash::of(&bytes(&case.own_spki));
        let role = [Role::Keyservice, Role::Semirt]
            .into_iter()
            .find(|r| r.name() == case.role);
        let binder = match (role, case.channel) {
            (Some(role), Some(channel)) => Binder::channel(ChannelBinder {
                role,
                exporter: array(&channel.exporter),
                peer_nonce: array(&channel.peer_nonce),
                own_spki,
                peer_spki: SpkiHash::of(&bytes(&channel.peer_spki)),
                config: MeasuredConfig::from_bytes(&bytes(&channel.config))
                    .unwrap()
                    .hash(),
                epoch: channel.epoch,
            }),
            (None, None) => Binder::certificate(&bytes(&case.own_spki)),
            _ => panic!(
                "{} is neither a channel's binder nor a certificate's",
                case.role
            ),
        };
        assert_eq!(binder.report_data()[..], bytes(&case.report_data));
    }
}

#[test]
fn configurations_in_other_encodings_are_refused() {
    for case in vectors().refused_configs {
        let read = MeasuredConfig::from_bytes(&bytes(&case.config));
        assert!(read.is_err(), "{}: {read:?}", case.name);
    }
}
