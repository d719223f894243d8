//! What is signed of a bundle of reference values: one encoding each.
#![no_main]

use attestation::fuzzing::{reference_payload, reference_values};
use attestation::policy::{Hex, ReferenceMeasurements};
use attestation::reference::ReferenceValues;
use libfuzzer_sys::fuzz_target;
use sesemi_fuzz::plant;

fn seeds() -> Option<Vec<u8>> {
    reference_payload(&ReferenceValues {
        series: "stable".into(),
        version: 7,
        not_before: 1,
        not_after: 2_000_000_000,
        enclaves: Some(Vec::new()),
        measurements: ReferenceMeasurements {
            mrenclave: Some(vec![Hex([1; 32]), Hex([2; 32])]),
            snp: Some(vec![Hex([3; 48])]),
            ..ReferenceMeasurements::default()
        },
    })
}

fuzz_target!(init: plant(seeds()), |bytes: &[u8]| {
    if let Some(values) = reference_values(bytes) {
        assert_eq!(reference_payload(&values).as_deref(), Some(bytes));
    }
});
