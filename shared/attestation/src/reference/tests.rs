//! Bundles: what is signed comes back, and nothing else is taken.

use super::*;
use crate::evidence::Tee;
use crate::policy::Hex;

const DAY: u64 = 86_400;
const NOW: Duration = Duration::from_secs(10 * DAY);

fn values() -> ReferenceValues {
    ReferenceValues {
        series: "semirt".into(),
        version: 3,
        not_before: 9 * DAY,
        not_after: 11 * DAY,
        enclaves: Some(vec![EnclaveId::new([1; 48]), EnclaveId::new([2; 48])]),
        measurements: ReferenceMeasurements {
            mrtd: Some(vec![Hex([3; 48])]),
            ..ReferenceMeasurements::default()
        },
    }
}

fn trusted(key: &IdentityKey) -> Trusted {
    Trusted {
        signer: key.principal(),
        series: "semirt".into(),
        seen: 0,
    }
}

#[test]
fn what_is_signed_comes_back() {
    let key = IdentityKey::generate().unwrap();
    let bundle = values().sign(&key).unwrap();
    let opened = ReferenceValues::open(&bundle, &trusted(&key), NOW);
    assert_eq!(opened, Ok(values()));
}

#[test]
fn no_byte_can_change_and_none_can_be_added() {
    let key = IdentityKey::generate().unwrap();
    let bundle = values().sign(&key).unwrap();
    let open = |bytes: &[u8]| ReferenceValues::open(bytes, &trusted(&key), NOW);
    for at in 0..bundle.len() {
        for bit in 0..8 {
            let mut altered = bundle.clone();
            altered[at] ^= 1 << bit;
            assert!(open(&altered).is_err(), "byte {at} bit {bit}");
        }
        assert!(open(&bundle[..at]).is_err(), "cut at {at}");
    }
    assert!(open(&[&bundle[..], &[0]].concat()).is_err());
    assert!(open(&vec![0; BUNDLE_MAX + 1]).is_err());
}

#[test]
fn another_signer_series_time_or_an_older_version_is_refused() {
    let (key, other) = (
        IdentityKey::generate().unwrap(),
        IdentityKey::generate().unwrap(),
    );
    let bundle = values().sign(&key).unwrap();
    let open = |trusted: &Trusted, day: u64| {
        ReferenceValues::open(&bundle, trusted, Duration::from_secs(day * DAY)).map(drop)
    };
    let signer = open(&trusted(&other), 10);
    assert!(matches!(signer, Err(ReferenceError::Signer { .. })));
    let mut expected = trusted(&key);
    expected.series = "keyservice".into();
    let series = open(&expected, 10);
    assert!(matches!(series, Err(ReferenceError::Series { .. })));
    let until = 11 * DAY;
    assert_eq!(
        open(&trusted(&key), 8),
        Err(ReferenceError::NotYet { from: 9 * DAY })
    );
    assert_eq!(open(&trusted(&key), 9), Ok(()));
    assert_eq!(
        open(&trusted(&key), 11),
        Err(ReferenceError::Expired { until })
    );
    let mut seen = trusted(&key);
    for (version, expected) in [
        (2, Ok(())),
        (3, Ok(())),
        (4, Err(ReferenceError::RolledBack { got: 3, seen: 4 })),
    ] {
        seen.seen = version;
        assert_eq!(open(&seen, 10), expected);
    }
}

#[test]
fn a_bundle_narrows_a_policy_and_never_widens_it() {
    let any = AppraisalPolicy::strict(vec![Tee::Tdx], Allowed::Any);
    let narrowed = values().narrow(&any);
    assert_eq!(
        narrowed.enclaves,
        Allowed::These(values().enclaves.unwrap())
    );
    assert_eq!(narrowed.measurements.mrtd, Some(vec![Hex([3; 48])]));

    let mut own = any;
    own.enclaves = Allowed::These(vec![EnclaveId::new([2; 48]), EnclaveId::new([9; 48])]);
    own.measurements.mrtd = Some(vec![Hex([4; 48])]);
    own.measurements.snp = Some(vec![Hex([5; 48])]);
    let narrowed = values().narrow(&own);
    let both = vec![EnclaveId::new([2; 48])];
    assert_eq!(narrowed.enclaves, Allowed::These(both));
    assert_eq!(narrowed.measurements.mrtd, Some(vec![]), "none is in both");
    assert_eq!(narrowed.measurements.snp, Some(vec![Hex([5; 48])]));
}
