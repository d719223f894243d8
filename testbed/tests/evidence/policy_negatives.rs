//! Genuine evidence that a policy, or what was asked for, does not fit.

use attestation::CheckName::{
    self, EndorsementsCurrent, EvidenceFormat, HostConfig, Measurement, MinimumTcb, Nonce, Pcrs,
    Platform, ReportData, SecurityVersion, SigningKey, TcbEvaluation, TcbStatus, TeeAccepted, Vmpl,
};
use attestation::facts::SnpTcb;
use attestation::policy::{Hex, Pcr};
use attestation::{AppraisalPolicy, Expected, Facts, Newest, Status, Tee};
use cli::commands::evidence::default_policy;

use crate::case::Case;
use crate::failed;
use crate::policies::allowing;

fn policy_for(case: &Case) -> AppraisalPolicy {
    let default = default_policy(case.kind.tees());
    allowing(case, &default, None).unwrap()
}

/// By the policy that `right` makes the case is accepted; by the one that `wrong` makes, `check`
/// fails and nothing else.
fn bites(
    name: &str,
    check: CheckName,
    right: impl FnOnce(&mut AppraisalPolicy),
    wrong: impl FnOnce(&mut AppraisalPolicy),
) {
    let case = Case::load(name);
    let mut policy = policy_for(&case);
    right(&mut policy);
    let outcome = case.judge(&policy);
    assert!(outcome.accepted, "{name}: {}", outcome.card);
    wrong(&mut policy);
    let outcome = case.judge(&policy);
    assert_eq!(failed(&outcome), [check].into(), "{name}: {}", outcome.card);
    assert!(!outcome.accepted);
}

fn value<const N: usize>(case: &str, key: &str) -> Hex<N> {
    let case = Case::load(case);
    let text = case.expect(key).as_str().unwrap();
    let text = text.rsplit('=').next().unwrap();
    Hex(hex::decode(text).unwrap().try_into().unwrap())
}

/// The same with one bit of the last byte another.
fn other<const N: usize>(value: Hex<N>) -> Hex<N> {
    let Hex(mut bytes) = value;
    bytes[N - 1] ^= 1;
    Hex(bytes)
}

#[test]
fn other_code_is_refused_register_by_register() {
    let sgx = "sgx/automata-00606a-swhard";
    let mrenclave = value::<32>(sgx, "mrenclave");
    bites(
        sgx,
        Measurement,
        |policy| policy.measurements.mrenclave = Some(vec![mrenclave]),
        |policy| policy.measurements.mrenclave = Some(vec![other(mrenclave)]),
    );
    let tdx = "tdx/phala-b0c06f-v5-td15ex";
    for key in ["mrtd", "rtmr0", "rtmr1", "rtmr2", "rtmr3"] {
        let right = value::<48>(tdx, key);
        let set = |policy: &mut AppraisalPolicy, value| {
            let measurements = &mut policy.measurements;
            *match key {
                "mrtd" => &mut measurements.mrtd,
                "rtmr0" => &mut measurements.rtmr0,
                "rtmr1" => &mut measurements.rtmr1,
                "rtmr2" => &mut measurements.rtmr2,
                _ => &mut measurements.rtmr3,
            } = Some(vec![value]);
        };
        bites(
            tdx,
            Measurement,
            |policy| set(policy, right),
            |policy| set(policy, other(right)),
        );
    }
    let snp = "snp/lunal-genoa-v5";
    let measurement = value::<48>(snp, "measurement");
    bites(
        snp,
        Measurement,
        |policy| policy.measurements.snp = Some(vec![measurement]),
        |policy| policy.measurements.snp = Some(vec![other(measurement)]),
    );
    let nitro = "nitro/dstack-prod";
    let pcr0 = value::<48>(nitro, "measurement");
    bites(
        nitro,
        Measurement,
        |policy| policy.measurements.pcr0 = Some(vec![pcr0]),
        |policy| policy.measurements.pcr0 = Some(vec![other(pcr0)]),
    );
}

#[test]
fn other_registers_and_start_configurations_are_refused() {
    let nitro = "nitro/dstack-prod";
    let case = Case::load(nitro);
    let pcr4 = case.expect("pcrs")["4"].as_str().unwrap();
    let pcr4 = Hex(hex::decode(pcr4).unwrap().try_into().unwrap());
    let set = |policy: &mut AppraisalPolicy, value| {
        policy.nitro.pcrs = vec![Pcr {
            index: 4,
            values: vec![value],
        }];
    };
    bites(
        nitro,
        Pcrs,
        |policy| set(policy, pcr4),
        |policy| set(policy, other(pcr4)),
    );
    let tdx = "tdx/trustee-00a06d-v4-outofdate";
    let config = value::<48>(tdx, "mrconfigid");
    bites(
        tdx,
        HostConfig,
        |policy| policy.intel.mr_config_ids = Some(vec![config]),
        |policy| policy.intel.mr_config_ids = Some(vec![other(config)]),
    );
    let snp = "snp/trustee-milan-v2-vcek";
    bites(
        snp,
        HostConfig,
        |policy| policy.snp.host_data = Some(vec![Hex([0; 32])]),
        |policy| policy.snp.host_data = Some(vec![Hex([1; 32])]),
    );
    let digest = value::<48>(snp, "id_key_digest");
    bites(
        snp,
        CheckName::IdKeyDigest,
        |policy| policy.snp.id_key_digests = Some(vec![digest]),
        |policy| policy.snp.id_key_digests = Some(vec![other(digest)]),
    );
    let chip = value::<64>(snp, "chip_id");
    bites(
        snp,
        Platform,
        |policy| policy.snp.chip_ids = Some(vec![chip]),
        |policy| policy.snp.chip_ids = Some(vec![other(chip)]),
    );
}

#[test]
fn evidence_for_another_purpose_is_refused() {
    for (name, field) in [
        ("sgx/phala-00a067-confswhard", ReportData),
        ("tdx/phala-b0c06f-v4-uptodate", ReportData),
        ("snp/routex-turin-v5", ReportData),
        ("nitro/dstack-prod", ReportData),
        ("nitro/evervault-ga-debug", ReportData),
        ("nitro/evervault-ga-debug", Nonce),
        ("az-snp/lunal-live-milan", Nonce),
        ("az-snp/trustee-genoa", Nonce),
        ("az-tdx/lunal-live", Nonce),
    ] {
        let case = Case::load(name);
        let policy = policy_for(&case);
        let claims = case.judge(&policy).claims.unwrap();
        let said = match field {
            Nonce => claims.said.nonce.unwrap(),
            _ => claims.said.report_data,
        };
        let expecting = |bytes: &[u8]| match field {
            Nonce => Expected {
                nonce: Some(bytes.to_vec()),
                report_data: None,
            },
            _ => Expected {
                report_data: Some(bytes.to_vec()),
                nonce: None,
            },
        };
        let outcome = case.judge_expecting(&policy, &expecting(&said));
        assert!(outcome.accepted, "{name}: {}", outcome.card);
        let status = outcome.card.check(field).map(|check| check.status);
        assert_eq!(status, Some(Status::Pass), "{name}");
        let mut flipped = said.clone();
        *flipped.last_mut().unwrap() ^= 1;
        for wrong in [&flipped[..], &said[..said.len() - 1], &[]] {
            let outcome = case.judge_expecting(&policy, &expecting(wrong));
            assert_eq!(failed(&outcome), [field].into(), "{name}: {wrong:x?}");
            assert!(!outcome.accepted);
        }
    }
    // The binding as meta.json knows it, too: what the verifier reads is not made up by it.
    let case = Case::load("az-snp/lunal-live-milan");
    let nonce = hex::decode(case.expect("tpm_nonce_hex").as_str().unwrap()).unwrap();
    assert_eq!(nonce, b"attestation-test-fixture");
    let expected = Expected {
        nonce: Some(nonce),
        report_data: None,
    };
    assert!(case.judge_expecting(&policy_for(&case), &expected).accepted);
}

#[test]
fn a_nonce_is_never_answered_where_there_is_none() {
    for name in [
        "sgx/automata-00606a-swhard",
        "tdx/phala-b0c06f-v4-uptodate",
        "snp/lunal-genoa-v5",
        "nitro/dstack-prod",
    ] {
        let case = Case::load(name);
        for nonce in [vec![], vec![0; 32]] {
            let expected = Expected {
                nonce: Some(nonce),
                report_data: None,
            };
            let outcome = case.judge_expecting(&policy_for(&case), &expected);
            assert_eq!(failed(&outcome), [Nonce].into(), "{name}");
        }
    }
}

#[test]
fn another_privilege_level_or_signing_key_needs_its_own_word() {
    let vlek = "snp/trustee-milan-v3-vlek-aws";
    bites(vlek, Vmpl, |_| {}, |policy| policy.snp.vmpls = vec![0]);
    bites(
        vlek,
        Vmpl,
        |_| {},
        |policy| policy.snp.vmpls = vec![0, 2, 3],
    );
    let strict = AppraisalPolicy::strict(vec![Tee::Snp], attestation::Allowed::Any);
    let only_vcek = strict.snp.signing_keys;
    bites(
        vlek,
        SigningKey,
        |_| {},
        |policy| policy.snp.signing_keys = only_vcek,
    );
}

#[test]
fn old_firmware_is_refused_part_by_part() {
    for name in [
        "snp/trustee-milan-v2-vcek",
        "snp/lunal-genoa-v5",
        "snp/routex-turin-v5",
        "az-snp/trustee-genoa",
    ] {
        let case = Case::load(name);
        let claims = case.judge(&policy_for(&case)).claims.unwrap();
        let Facts::Snp(facts) = claims.facts else {
            panic!("{name}");
        };
        let same = facts.reported_tcb;
        let more = |change: fn(&mut SnpTcb)| {
            let mut tcb = same;
            change(&mut tcb);
            tcb
        };
        for higher in [
            more(|tcb| tcb.boot_loader += 1),
            more(|tcb| tcb.tee += 1),
            more(|tcb| tcb.snp += 1),
            more(|tcb| tcb.microcode += 1),
            more(|tcb| tcb.fmc += 1),
        ] {
            bites(
                name,
                MinimumTcb,
                |policy| {
                    policy.snp.minimum_tcb.insert(facts.product, same);
                },
                |policy| {
                    policy.snp.minimum_tcb.insert(facts.product, higher);
                },
            );
        }
    }
}

#[test]
fn patch_states_and_judgements_that_are_not_named_are_refused() {
    let swhard = "sgx/automata-00606a-swhard";
    let strict = AppraisalPolicy::strict(vec![Tee::Sgx], attestation::Allowed::Any);
    bites(
        swhard,
        TcbStatus,
        |_| {},
        |policy| policy.accepted_tcb = strict.accepted_tcb,
    );
    for name in [swhard, "tdx/phala-b0c06f-v5-td15ex"] {
        let case = Case::load(name);
        let number = case.expect("tcb_eval_data_number").as_u64().unwrap();
        let number = u32::try_from(number).unwrap();
        bites(
            name,
            TcbEvaluation,
            |policy| policy.intel.minimum_tcb_evaluation = number,
            |policy| policy.intel.minimum_tcb_evaluation = number + 1,
        );
    }
    bites(
        swhard,
        CheckName::Advisories,
        |policy| policy.intel.accepted_advisories = Some(vec!["INTEL-SA-00615".into()]),
        |policy| policy.intel.refused_advisories = vec!["INTEL-SA-00615".into()],
    );
    for (flag, check) in [
        (0, CheckName::DynamicPlatform),
        (1, CheckName::CachedKeys),
        (2, CheckName::SimultaneousMultithreading),
    ] {
        bites(
            "tdx/phala-b0c06f-v4-uptodate",
            check,
            |_| {},
            |policy| {
                *match flag {
                    0 => &mut policy.intel.allow_dynamic_platform,
                    1 => &mut policy.intel.allow_cached_keys,
                    _ => &mut policy.intel.allow_smt,
                } = false;
            },
        );
    }
    bites(
        swhard,
        SecurityVersion,
        |policy| policy.minimum_svn = 0,
        |policy| policy.minimum_svn = 1,
    );
    bites(
        swhard,
        TeeAccepted,
        |_| {},
        |policy| policy.accepted = vec![Tee::Tdx],
    );
}

/// Older endorsements of the same platform, valid by the host's clock: what Intel signed since says
/// that the clock is wrong, and the channel's appraisal judges by that.
#[test]
fn endorsements_are_refused_once_newer_ones_were_seen() {
    let older = Case::load("tdx/phala-b0c06f-v4-uptodate");
    let newer = Case::load("tdx/phala-b0c06f-v5-td15ex");
    assert_eq!(older.expect("fmspc"), newer.expect("fmspc"));
    let policy = policy_for(&older);
    let old_claims = older.judge(&policy).claims.unwrap();
    let new_claims = newer.judge(&policy).claims.unwrap();
    let mut newest = Newest::default();
    assert!(newest.admit(&new_claims));
    let remembered = newest.clone();
    assert!(!newest.admit(&old_claims), "nothing is forgotten for it");
    assert_eq!(newest, remembered);
    let mut rolled_back = older.clone();
    rolled_back.at = newest.time_floor().as_secs();
    assert!(rolled_back.at > older.at);
    let outcome = rolled_back.judge(&policy);
    assert_eq!(failed(&outcome), [EndorsementsCurrent].into());
}

#[test]
fn evidence_with_something_behind_it_is_refused() {
    for name in [
        "sgx/automata-00606a-swhard",
        "tdx/phala-b0c06f-v4-uptodate",
        "tdx/gotdx-00806f-v4-gcp-padded",
        "snp/lunal-genoa-v5",
        "nitro/dstack-prod",
    ] {
        for tail in [&b"\x01"[..], b"\0\x01", b"trailing"] {
            let mut case = Case::load(name);
            let policy = policy_for(&case);
            case.body.extend(tail);
            let outcome = case.judge(&policy);
            assert_eq!(failed(&outcome), [EvidenceFormat].into(), "{name}");
            assert!(!outcome.accepted, "{name} {tail:?}");
        }
    }
}
