//! Appraisal of claims that the software TEE does not make: patch states, lying verifiers.

use protocol::measured::KeyserviceMeasured;

use super::*;
use crate::binder::Role;
use crate::evidence::{Malformed, Said, Verifier};
use crate::facts::Facts;
use crate::measurements::{SgxMeasurements, SimulatedMeasurements};

fn config() -> MeasuredConfig {
    MeasuredConfig::keyservice(
        &KeyserviceMeasured { lease_ttl_s: 60 },
        &AppraisalPolicy::default(),
    )
    .unwrap()
}

fn binder() -> ChannelBinder {
    ChannelBinder {
        role: Role::Keyservice,
        exporter: [1; 32],
        peer_nonce: [2; 32],
        own_spki: SpkiHash::of(b"own"),
        peer_spki: SpkiHash::of(b"peer"),
        config: config().hash(),
        epoch: 0,
    }
}

/// Finds every evidence genuine, and reads these claims from it.
#[derive(Debug)]
struct Says(Tee, Claims);

impl Verifier for Says {
    fn tee(&self) -> Tee {
        self.0
    }

    fn read(&self, _evidence: &Evidence) -> Result<Said, Malformed> {
        Ok(self.1.said.clone())
    }

    fn verify(&self, _subject: &Subject<'_>, _card: &mut Scorecard) -> Result<Claims, Failed> {
        Ok(self.1.clone())
    }
}

fn sgx(tcb: TcbStatus) -> Claims {
    claims_of(
        Measurements::Sgx(SgxMeasurements {
            mrenclave: [1; 32],
            mrsigner: [2; 32],
            isv_prod_id: 3,
            attributes: 4,
            xfrm: 5,
            misc_select: 6,
        }),
        tcb,
    )
}

fn claims_of(measurements: Measurements, tcb: TcbStatus) -> Claims {
    Claims {
        said: Said {
            measurements,
            report_data: Binder::channel(binder()).report_data().to_vec(),
            nonce: None,
        },
        svn: 1,
        tcb,
        facts: Facts::None,
    }
}

fn appraise_claims(tee: Tee, claims: Claims, tcb: &[TcbStatus]) -> Result<Appraised, CheckName> {
    let mut policy = AppraisalPolicy::strict(vec![tee], Allowed::Any);
    policy.accepted_tcb = tcb.to_vec();
    let verifiers = VerifierSet::new(vec![Arc::new(Says(tee, claims))]);
    let relying = RelyingParty { verifiers, policy };
    let evidence = Evidence { tee, body: vec![1] };
    try_appraise(&relying, &evidence).map_err(|e| e.failed())
}

fn try_appraise(relying: &RelyingParty, evidence: &Evidence) -> Result<Appraised, AppraiseError> {
    let none = Endorsements::None;
    appraise(
        relying,
        evidence,
        &none,
        &binder(),
        &config(),
        Duration::ZERO,
    )
}

#[test]
fn a_platform_s_patch_state_must_be_named() {
    use TcbStatus::{NotApplicable, OutOfDate, Revoked, SwHardeningNeeded, UpToDate};
    let of = |tcb, accepted: &[TcbStatus]| appraise_claims(Tee::Sgx, sgx(tcb), accepted).err();
    assert_eq!(of(UpToDate, &[UpToDate]), None);
    assert_eq!(of(SwHardeningNeeded, &[UpToDate, SwHardeningNeeded]), None);
    for tcb in [OutOfDate, SwHardeningNeeded, Revoked] {
        assert_eq!(of(tcb, &[UpToDate]), Some(CheckName::TcbStatus), "{tcb}");
    }
    assert_eq!(of(Revoked, &[Revoked]), Some(CheckName::TcbStatus));
    // A verifier of a TEE that has patch states must not get around them.
    assert_eq!(of(NotApplicable, &[UpToDate]), Some(CheckName::TcbStatus));
}

#[test]
fn a_verifier_cannot_answer_for_another_tee() {
    let simulated = claims_of(
        Measurements::Simulated(SimulatedMeasurements {
            mr: [1; 48],
            debug: false,
        }),
        TcbStatus::NotApplicable,
    );
    let refused = appraise_claims(Tee::Sgx, simulated, &[TcbStatus::UpToDate]).err();
    assert_eq!(refused, Some(CheckName::EvidenceGenuine));
}

#[test]
fn the_scorecard_shows_what_passed_what_failed_and_what_was_not_looked_at() {
    let policy = AppraisalPolicy::strict(vec![Tee::Sgx], Allowed::Any);
    let claims = sgx(TcbStatus::OutOfDate);
    let verifiers = VerifierSet::new(vec![Arc::new(Says(Tee::Sgx, claims))]);
    let relying = RelyingParty { verifiers, policy };
    let evidence = Evidence {
        tee: Tee::Sgx,
        body: vec![1],
    };
    let error = try_appraise(&relying, &evidence).unwrap_err();
    let statuses: Vec<_> = error
        .scorecard()
        .checks()
        .iter()
        .map(|check| (check.name, check.status))
        .collect();
    let expected = [
        (CheckName::TlsVersion, Status::Unchecked),
        (CheckName::KeyExchange, Status::Unchecked),
        (CheckName::ApplicationProtocol, Status::Unchecked),
        (CheckName::FullHandshake, Status::Unchecked),
        (CheckName::CertificateTee, Status::Unchecked),
        (CheckName::CertificateEvidence, Status::Unchecked),
        (CheckName::CertificateKey, Status::Unchecked),
        (CheckName::MeasuredConfig, Status::Pass),
        (CheckName::TeeAccepted, Status::Pass),
        (CheckName::EvidenceGenuine, Status::Pass),
        (CheckName::ReportData, Status::Pass),
        (CheckName::NotDebug, Status::Pass),
        (CheckName::SecurityVersion, Status::Unchecked),
        (CheckName::TcbStatus, Status::Fail),
        (CheckName::Measurement, Status::Unchecked),
        (CheckName::SameEnclave, Status::Unchecked),
        (CheckName::Enclave, Status::Unchecked),
    ];
    assert_eq!(statuses, expected);
    let failed = error.scorecard().check(CheckName::TcbStatus).unwrap();
    assert_eq!(failed.expected, "one of [up-to-date]");
    assert_eq!(failed.got, "out-of-date");
    assert_eq!(
        error.to_string(),
        "appraising evidence failed at \"platform patch state\": \
         expected one of [up-to-date], got out-of-date"
    );
    let json = serde_json::to_string(error.scorecard()).unwrap();
    assert_eq!(
        &serde_json::from_str::<Scorecard>(&json).unwrap(),
        error.scorecard()
    );
}
