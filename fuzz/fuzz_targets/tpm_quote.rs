//! `TPMS_ATTEST`, in Azure's JSON around it: only what the TPM signed is accepted.
#![no_main]

use std::sync::LazyLock;

use attestation::testing::genuine::Genuine;
use attestation::{Evidence, Scorecard, Tee};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use sesemi_fuzz::{genuine, pick, plant, seed};

/// Evidence with its JSON, whose message is in hexadecimal text.
static ALL: LazyLock<Vec<(Genuine, Value)>> = LazyLock::new(|| {
    let json = |it: Genuine| {
        let json: Value = serde_json::from_slice(&it.evidence.body).ok()?;
        json["tpm_quote"]["message"].as_str()?;
        Some((it, json))
    };
    genuine(&[Tee::AzSnp, Tee::AzTdx])
        .into_iter()
        .filter_map(json)
        .collect()
});

fn message(json: &Value) -> Vec<u8> {
    let text = json["tpm_quote"]["message"].as_str().unwrap_or_default();
    hex::decode(text).unwrap_or_default()
}

fuzz_target!(
    init: plant(ALL.iter().enumerate().map(|(index, (_, json))| seed(&[index], &message(json)))),
    |bytes: &[u8]| {
        let Some(((genuine, json), bytes)) = pick(&ALL, bytes) else {
            return;
        };
        let mut changed = json.clone();
        changed["tpm_quote"]["message"] = hex::encode(bytes).into();
        let evidence = Evidence {
            tee: genuine.evidence.tee,
            body: changed.to_string().into_bytes(),
        };
        if genuine.verifier.read(&evidence).is_err() {
            return;
        }
        let card = &mut Scorecard::new(&[]);
        if genuine.verify(&evidence, &genuine.endorsements, card).is_ok() {
            assert_eq!(bytes, message(json));
        }
    }
);
