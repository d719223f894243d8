//! Each knob of the policy, alone.

use std::sync::Arc;
use std::time::Duration;

use crate::appraisal::{Examination, Expected, RelyingParty, examine};
use crate::evidence::{Evidence, TcbStatus, Tee, VerifierSet};
use crate::policy::{Allowed, AppraisalPolicy, Hex, IntelPolicy, ServiceTds};
use crate::scorecard::{CheckName, Status};
use crate::testing::dcap::{
    FakeCollateral, FakeIntel, FakePck, FakeReport, FakeSgx, FakeTd, TdBody,
};

const NOW: u64 = 1_800_000_000;

struct Case {
    report: FakeReport,
    pck: FakePck,
    collateral: FakeCollateral,
    policy: AppraisalPolicy,
}

fn case(report: FakeReport) -> Case {
    let tee = report.tee();
    Case {
        report,
        pck: FakePck::default(),
        collateral: FakeCollateral::new(tee, NOW),
        policy: AppraisalPolicy::strict(vec![tee], Allowed::Any),
    }
}

impl Case {
    fn examine(&self) -> Examination {
        let intel = FakeIntel::new();
        let tee = self.report.tee();
        let relying = RelyingParty {
            verifiers: VerifierSet::new(vec![Arc::new(intel.verifier(tee))]),
            policy: self.policy.clone(),
        };
        let evidence = Evidence {
            tee,
            body: intel.platform(&self.pck).quote(&self.report, &[0; 64]),
        };
        let endorsements = crate::evidence::Endorsements::Dcap {
            collateral: intel.collateral(&self.collateral),
        };
        let now = Duration::from_secs(NOW);
        let expected = Expected::default();
        examine(&relying, &evidence, &endorsements, &expected, None, now)
    }

    /// Refused by `check` alone; accepted after `allow`.
    fn refused_until(mut self, check: CheckName, allow: impl FnOnce(&mut AppraisalPolicy)) {
        let examination = self.examine();
        assert!(!examination.accepted(), "{}", examination.card);
        let failed = examination.card.checks().iter();
        let failed = failed.filter(|check| check.status == Status::Fail);
        let failed: Vec<_> = failed.map(|check| check.name).collect();
        assert_eq!(failed, [check], "{}", examination.card);
        allow(&mut self.policy);
        let examination = self.examine();
        assert!(examination.accepted(), "{}", examination.card);
    }
}

fn sgx() -> Case {
    case(FakeReport::sgx(1))
}

fn td(change: impl FnOnce(&mut FakeTd)) -> Case {
    let mut td = FakeTd::new(1);
    change(&mut td);
    case(FakeReport::Td(Box::new(td)))
}

fn changed(mut case: Case, change: impl FnOnce(&mut Case)) -> Case {
    change(&mut case);
    case
}

fn intel(change: impl FnOnce(&mut IntelPolicy)) -> impl FnOnce(&mut Case) {
    |case: &mut Case| change(&mut case.policy.intel)
}

#[test]
fn the_strict_policy_accepts_a_good_platform() {
    assert!(sgx().examine().accepted());
    assert!(td(|_| {}).examine().accepted());
}

#[test]
fn states_and_debug_are_accepted_by_name_only() {
    changed(sgx(), |case| case.collateral.status = "SWHardeningNeeded").refused_until(
        CheckName::TcbStatus,
        |policy| {
            policy.accepted_tcb.push(TcbStatus::SwHardeningNeeded);
        },
    );
    let debug = FakeSgx {
        attributes: 0b111,
        ..FakeSgx::new(1)
    };
    case(FakeReport::Sgx(debug))
        .refused_until(CheckName::NotDebug, |policy| policy.allow_debug = true);
    td(|td| td.td_attributes |= 1)
        .refused_until(CheckName::NotDebug, |policy| policy.allow_debug = true);
}

#[test]
fn old_judgements_are_refused_though_dcap_qvl_ignores_their_number() {
    changed(sgx(), intel(|intel| intel.minimum_tcb_evaluation = 18)).refused_until(
        CheckName::TcbEvaluation,
        |policy| {
            policy.intel.minimum_tcb_evaluation = 17;
        },
    );
    // The lower of two numbers counts.
    changed(sgx(), |case| {
        case.policy.intel.minimum_tcb_evaluation = 17;
        case.collateral.qe_evaluation = 16;
    })
    .refused_until(CheckName::TcbEvaluation, |policy| {
        policy.intel.minimum_tcb_evaluation = 16;
    });
}

#[test]
fn advisories_are_refused_by_name_or_by_not_being_named() {
    let open = |case: &mut Case| case.collateral.advisories = vec!["INTEL-SA-00615"];
    changed(changed(sgx(), open), |case| {
        case.policy.intel.refused_advisories = vec!["intel-sa-00615".into()];
    })
    .refused_until(CheckName::Advisories, |policy| {
        policy.intel.refused_advisories = vec!["INTEL-SA-00614".into()];
    });
    changed(changed(sgx(), open), |case| {
        case.policy.intel.accepted_advisories = Some(vec!["INTEL-SA-00001".into()]);
    })
    .refused_until(CheckName::Advisories, |policy| {
        policy.intel.accepted_advisories = Some(vec!["INTEL-SA-00615".into()]);
    });
}

#[test]
fn platform_flags_are_refused_if_the_policy_says_so() {
    changed(sgx(), intel(|intel| intel.allow_dynamic_platform = false)).refused_until(
        CheckName::DynamicPlatform,
        |policy| {
            policy.intel.allow_dynamic_platform = true;
        },
    );
    changed(sgx(), intel(|intel| intel.allow_cached_keys = false)).refused_until(
        CheckName::CachedKeys,
        |policy| {
            policy.intel.allow_cached_keys = true;
        },
    );
    changed(sgx(), intel(|intel| intel.allow_smt = false)).refused_until(
        CheckName::SimultaneousMultithreading,
        |policy| {
            policy.intel.allow_smt = true;
        },
    );
    // Not set, or not said.
    let strict = |intel: &mut IntelPolicy| {
        intel.allow_dynamic_platform = false;
        intel.allow_cached_keys = false;
        intel.allow_smt = false;
    };
    let clear = changed(changed(sgx(), intel(strict)), |case| {
        case.pck.dynamic_platform = false;
        case.pck.cached_keys = false;
        case.pck.smt = false;
    });
    assert!(clear.examine().accepted());
    let silent = changed(changed(sgx(), intel(strict)), |case| {
        case.pck.processor_ca = true;
        case.collateral.processor_ca = true;
    });
    assert!(silent.examine().accepted());
}

#[test]
fn machines_can_be_listed() {
    changed(sgx(), intel(|intel| intel.ppids = Some(vec![Hex([1; 16])]))).refused_until(
        CheckName::Platform,
        |policy| {
            policy.intel.ppids = Some(vec![Hex([1; 16]), Hex([0x99; 16])]);
        },
    );
    let none = changed(sgx(), intel(|intel| intel.ppids = Some(Vec::new())));
    assert!(!none.examine().accepted());
}

#[test]
fn service_tds_are_accepted_by_name_only() {
    let allow = |value| {
        move |policy: &mut AppraisalPolicy| {
            policy.intel.service_tds = ServiceTds::These(vec![Hex([value; 48])]);
        }
    };
    td(|td| td.mr_service_td = [7; 48]).refused_until(CheckName::ServiceTd, allow(7));
    td(|td| td.mr_service_td = [7; 48]).refused_until(CheckName::ServiceTd, |policy| {
        policy.intel.service_tds = ServiceTds::Any;
    });
    // Bound after the TD was created.
    td(|td| {
        td.body = TdBody::Td15Ex;
        td.current_service_td = [8; 48];
    })
    .refused_until(CheckName::ServiceTd, allow(8));
    // May be bound at any time, and the quote does not say what is: no list covers that.
    let hidden = td(|td| td.td_attributes |= 1 << 17);
    let listed = changed(hidden, |case| allow(9)(&mut case.policy));
    listed.refused_until(CheckName::ServiceTd, |policy| {
        policy.intel.service_tds = ServiceTds::Any;
    });
    // One of two.
    let two = td(|td| {
        td.body = TdBody::Td15Ex;
        td.mr_service_td = [7; 48];
        td.current_service_td = [8; 48];
    });
    let two = changed(two, |case| allow(7)(&mut case.policy));
    assert!(!two.examine().accepted());
}

#[test]
fn the_hosts_configuration_can_be_pinned() {
    let pinned = td(|td| td.mr_config_id = [3; 48]);
    changed(
        pinned,
        intel(|intel| intel.mr_config_ids = Some(vec![Hex([4; 48])])),
    )
    .refused_until(CheckName::HostConfig, |policy| {
        policy.intel.mr_config_ids = Some(vec![Hex([3; 48])]);
    });
}

#[test]
fn attributes_without_meaning_are_refused_always() {
    let sgx = FakeSgx {
        attributes: 0b101 | 1 << 30,
        ..FakeSgx::new(1)
    };
    let examination = case(FakeReport::Sgx(sgx)).examine();
    let failed = examination
        .card
        .first_failure()
        .map(|failed| failed.check());
    assert_eq!(failed, Some(CheckName::ReservedAttributes));
}

#[test]
fn measurements_are_compared() {
    td(|td| td.rtmr[3] = [9; 48]).examine();
    changed(td(|td| td.rtmr[3] = [9; 48]), |case| {
        case.policy.measurements.rtmr3 = Some(vec![Hex([8; 48])]);
    })
    .refused_until(CheckName::Measurement, |policy| {
        policy.measurements.rtmr3 = Some(vec![Hex([9; 48])]);
    });
    changed(sgx(), |case| {
        case.policy.measurements.mrenclave = Some(vec![Hex([2; 32])]);
    })
    .refused_until(CheckName::Measurement, |policy| {
        policy.measurements.mrenclave = Some(vec![Hex([1; 32])]);
    });
}

#[test]
fn an_enclave_has_no_checks_of_tds() {
    let examination = sgx().examine();
    for name in [CheckName::SeptVeDisable, CheckName::ServiceTd] {
        let check = examination.card.check(name).unwrap();
        assert_eq!(check.status, Status::NotApplicable);
    }
    assert_eq!(examination.claims.unwrap().tee(), Tee::Sgx);
}
