//! Appraisal policies: what is read is written and read again as the same, in one canonical form.
#![no_main]

use attestation::policy::Hex;
use attestation::policy::{Pcr, SgxProduct};
use attestation::{Allowed, AppraisalPolicy, Tee};
use libfuzzer_sys::fuzz_target;
use sesemi_fuzz::plant;

fn seeds() -> Vec<Vec<u8>> {
    let mut full = AppraisalPolicy::strict(Tee::ALL.to_vec(), Allowed::These(Vec::new()));
    full.measurements.mrenclave = Some(vec![Hex([1; 32])]);
    full.measurements.sgx_products = Some(vec![SgxProduct {
        mrsigner: Hex([2; 32]),
        isv_prod_id: 3,
        minimum_isv_svn: 4,
    }]);
    full.intel.refused_advisories.push("INTEL-SA-00615".into());
    full.nitro.pcrs.push(Pcr {
        index: 8,
        values: vec![Hex([5; 48])],
    });
    let strict = AppraisalPolicy::strict(vec![Tee::Sgx], Allowed::Any);
    let json = serde_json::to_vec(&full).expect("a policy that can be written");
    [full, strict]
        .iter()
        .map(|policy| {
            toml::to_string(policy)
                .expect("a policy that can be written")
                .into_bytes()
        })
        .chain([json])
        .collect()
}

fuzz_target!(init: plant(seeds()), |bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    // TOML is for files, JSON for the API.
    let read = toml::from_str(text).ok();
    let Some(policy) = read.or_else(|| serde_json::from_str::<AppraisalPolicy>(text).ok()) else {
        return;
    };
    let written = toml::to_string(&policy).expect("what was read can be written");
    let again: AppraisalPolicy = toml::from_str(&written).expect("what was written can be read");
    assert_eq!(again, policy);
    let json = serde_json::to_string(&policy).expect("what was read can be written");
    let again: AppraisalPolicy = serde_json::from_str(&json).expect("what was written can be read");
    assert_eq!(again, policy);
    let canonical = policy.to_canonical().expect("a canonical form");
    assert_eq!(again.to_canonical().expect("a canonical form"), canonical);
});
