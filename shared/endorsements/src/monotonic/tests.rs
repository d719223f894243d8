//! Nothing goes back.

use proptest::prelude::*;

use super::*;

fn currency(fmspc: u8, tdx: bool, tcb: (u64, u32), qe: (u64, u32), crls: (u64, u64)) -> Currency {
    let edition = |(issued, evaluation)| Edition {
        issued: Duration::from_secs(issued),
        evaluation,
    };
    Currency {
        tdx,
        fmspc: [fmspc; 6],
        tcb_info: edition(tcb),
        qe_identity: edition(qe),
        root_crl: Duration::from_secs(crls.0),
        pck_crl: (PckCa::Platform, Duration::from_secs(crls.1)),
        next_update: Duration::from_secs(1000),
    }
}

#[test]
fn no_part_can_hide_behind_another() {
    let base = currency(1, true, (10, 5), (10, 5), (10, 10));
    let mut seen = Monotonic::default();
    assert_eq!(seen.admit(&base), Ok(true));
    assert_eq!(seen.admit(&base), Ok(false), "nothing to write");
    for (older, part) in [
        (currency(1, true, (9, 5), (20, 6), (20, 20)), "the TCB info"),
        (
            currency(1, true, (20, 4), (20, 6), (20, 20)),
            "the TCB info",
        ),
        (
            currency(1, true, (20, 6), (9, 5), (20, 20)),
            "the QE identity",
        ),
        // Another platform shares the quoting enclave and the lists.
        (
            currency(2, true, (1, 1), (9, 5), (20, 20)),
            "the QE identity",
        ),
        (
            currency(2, true, (1, 1), (20, 5), (9, 20)),
            "the root revocation list",
        ),
        (
            currency(2, false, (1, 1), (1, 1), (20, 9)),
            "the PCK revocation list",
        ),
    ] {
        let before = seen.clone();
        assert_eq!(seen.check(&older), Err(Older { part }));
        assert_eq!(seen.admit(&older), Err(Older { part }));
        assert_eq!(seen, before, "what is refused is not remembered");
    }
    // Another platform and another TEE have histories of their own.
    assert_eq!(
        seen.admit(&currency(2, false, (1, 1), (1, 1), (10, 10))),
        Ok(true)
    );
    assert_eq!(seen.newest(), Duration::from_secs(10));
}

prop_compose! {
    fn any_currency()(
        fmspc in 0_u8..2, tdx: bool, tcb in (0_u64..4, 0_u32..4), qe in (0_u64..4, 0_u32..4),
        crls in (0_u64..4, 0_u64..4),
    ) -> Currency {
        currency(fmspc, tdx, tcb, qe, crls)
    }
}

proptest! {
    /// Whatever a host offers in whatever order: what is accepted never goes back, and a restart
    /// in between changes nothing.
    #[test]
    fn what_is_accepted_never_goes_back(offers in prop::collection::vec(any_currency(), 0..40)) {
        let mut seen = Monotonic::default();
        let mut accepted: Vec<Currency> = Vec::new();
        let mut newest = Duration::ZERO;
        for offer in offers {
            let stored = serde_json::to_string(&seen).unwrap();
            seen = serde_json::from_str(&stored).unwrap();
            let same = |other: &&Currency| other.tdx == offer.tdx && other.fmspc == offer.fmspc;
            let qe = |other: &&Currency| other.tdx == offer.tdx;
            let goes_back = accepted.iter().filter(same).any(|a| !offer.tcb_info.not_older(&a.tcb_info))
                || accepted.iter().filter(qe).any(|a| !offer.qe_identity.not_older(&a.qe_identity))
                || accepted.iter().any(|a| offer.root_crl < a.root_crl || offer.pck_crl < a.pck_crl);
            prop_assert_eq!(seen.admit(&offer).is_err(), goes_back);
            prop_assert!(seen.newest() >= newest);
            newest = seen.newest();
            if !goes_back {
                accepted.push(offer);
            }
        }
    }
}
