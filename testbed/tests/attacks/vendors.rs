//! Evidence of real kinds of TEE that a vendor, played by a test, signed properly: debug, out of date,
//! revoked, of another root, not alone in its guest, made for another purpose.

use std::sync::Arc;
use std::time::Duration;

use attestation::evidence::{Evidence, VerifierSet};
use attestation::facts::{SnpProduct, SnpSigningKey, SnpTcb};
use attestation::policy::{Hex, ServiceTds};
use attestation::tee::dcap::DcapVerifier;
use attestation::tee::nitro::NitroVerifier;
use attestation::tee::snp::SnpVerifier;
use attestation::testing::dcap::{
    FakeCollateral, FakeIntel, FakePck, FakePlatform, FakeReport, FakeSgx, FakeTd,
};
use attestation::testing::snp::{FAKE_NOW, FakeAmd, FakeChip, FakeReport as SnpReport};
use attestation::testing::{FakeNitro, NITRO_NOW, NitroDocument, SoftEnclave, SoftTee};
use attestation::{
    Allowed, AppraisalPolicy, Binder, ChannelBinder, Check, CheckName, Claims, Endorsements,
    Expected, Failed, Malformed, Measurements, RelyingParty, Role, Said, Scorecard, SpkiHash,
    Status, Subject, TcbStatus, Tee, Verifier, appraise, examine,
};
use serde_json::Value;

use crate::lab::{SEMIRT, e_k, keyservice_config, semirt_config};

const NOW: u64 = 1_800_000_000;
const DAY: u64 = 24 * 60 * 60;
const DATA: [u8; 64] = [0xda; 64];

/// A relying party, ours or weakened, and what it looks at.
#[derive(Debug)]
struct Case {
    evidence: Evidence,
    endorsements: Endorsements,
    verifier: Arc<dyn Verifier>,
    now: Duration,
}

impl Case {
    fn strict(&self) -> AppraisalPolicy {
        AppraisalPolicy::strict(vec![self.evidence.tee], Allowed::Any)
    }

    /// The check that refuses it, if any does.
    fn judge(&self, verifier: &Arc<dyn Verifier>, policy: AppraisalPolicy) -> Option<CheckName> {
        let relying = RelyingParty {
            verifiers: VerifierSet::new(vec![Arc::clone(verifier)]),
            policy,
        };
        let expected = Expected::default();
        let (evidence, endorsements) = (&self.evidence, &self.endorsements);
        let examined = examine(&relying, evidence, endorsements, &expected, None, self.now);
        assert_eq!(
            examined.accepted(),
            examined.card.first_failure().is_none(),
            "{}",
            examined.card
        );
        // "Genuine" sums up; what it sums up is the name that counts.
        let failed = |check: &&Check| {
            check.status == Status::Fail && check.name != CheckName::EvidenceGenuine
        };
        examined
            .card
            .checks()
            .iter()
            .find(failed)
            .map(|check| check.name)
    }

    fn ours(&self) -> Option<CheckName> {
        self.judge(&self.verifier, self.strict())
    }

    /// Accepted where the policy is weakened, refused at `check` by ours: the same bytes.
    fn bites(&self, check: CheckName, weaken: impl FnOnce(&mut AppraisalPolicy)) {
        let mut weak = self.strict();
        weaken(&mut weak);
        assert_eq!(self.judge(&self.verifier, weak), None, "{check}: weakened");
        assert_eq!(self.ours(), Some(check));
    }

    /// The same with another verifier instead of another policy.
    fn bites_without(&self, check: CheckName, weakened: impl Verifier + 'static) {
        let weakened: Arc<dyn Verifier> = Arc::new(weakened);
        assert_eq!(
            self.judge(&weakened, self.strict()),
            None,
            "{check}: weakened"
        );
        assert_eq!(self.ours(), Some(check));
    }
}

/// Intel, and one of its machines.
struct Intel {
    vendor: FakeIntel,
    platform: FakePlatform,
}

impl Intel {
    fn new() -> Self {
        let vendor = FakeIntel::new();
        let platform = vendor.platform(&FakePck::default());
        Self { vendor, platform }
    }

    fn case(&self, report: &FakeReport, change: impl FnOnce(&mut FakeCollateral)) -> Case {
        let tee = report.tee();
        let mut collateral = FakeCollateral::new(tee, NOW);
        change(&mut collateral);
        Case {
            evidence: Evidence {
                tee,
                body: self.platform.quote(report, &DATA),
            },
            endorsements: Endorsements::Dcap {
                collateral: self.vendor.collateral(&collateral),
            },
            verifier: Arc::new(self.vendor.verifier(tee)),
            now: Duration::from_secs(NOW),
        }
    }
}

fn sgx(change: impl FnOnce(&mut FakeSgx)) -> FakeReport {
    let mut sgx = FakeSgx::new(0x11);
    change(&mut sgx);
    FakeReport::Sgx(sgx)
}

fn td(change: impl FnOnce(&mut FakeTd)) -> FakeReport {
    let mut td = FakeTd::new(0x22);
    change(&mut td);
    FakeReport::Td(Box::new(td))
}

/// A chip's report with one thing changed before it was signed.
fn snp(
    amd: &FakeAmd,
    product: SnpProduct,
    kind: SnpSigningKey,
    change: impl FnOnce(&mut SnpReport),
) -> Case {
    let chip = FakeChip::new(product, kind);
    let mut report = chip.report();
    change(&mut report);
    Case {
        evidence: Evidence {
            tee: Tee::Snp,
            body: chip.sign(report.to_bytes()),
        },
        endorsements: amd.endorsements(&chip),
        verifier: Arc::new(amd.verifier()),
        now: FAKE_NOW,
    }
}

fn milan(amd: &FakeAmd, change: impl FnOnce(&mut SnpReport)) -> Case {
    snp(amd, SnpProduct::Milan, SnpSigningKey::Vcek, change)
}

fn nitro(aws: &FakeNitro, change: impl FnOnce(&mut NitroDocument)) -> Case {
    let mut document = aws.document();
    change(&mut document);
    Case {
        evidence: aws.sign(&document),
        endorsements: Endorsements::None,
        verifier: Arc::new(aws.verifier()),
        now: NITRO_NOW,
    }
}

#[test]
fn attack_05_debug_enclave() {
    let (intel, amd, aws) = (Intel::new(), FakeAmd::new(), FakeNitro::new());
    let debug: [(Case, Case); 4] = [
        (
            intel.case(&sgx(|_| {}), |_| {}),
            intel.case(&sgx(|sgx| sgx.attributes |= 1 << 1), |_| {}),
        ),
        (
            intel.case(&td(|_| {}), |_| {}),
            intel.case(&td(|td| td.td_attributes |= 1), |_| {}),
        ),
        (
            milan(&amd, |_| {}),
            milan(&amd, |report| report.policy |= 1 << 19),
        ),
        (
            nitro(&aws, |_| {}),
            nitro(&aws, |document| document.pcrs[0].1 = vec![0; 48]),
        ),
    ];
    for (production, debug) in debug {
        assert_eq!(production.ours(), None);
        debug.bites(CheckName::NotDebug, |policy| policy.allow_debug = true);
    }
    // On the channel, too; and a debug enclave is another enclave to grants and pins.
    let debug = SoftEnclave {
        debug: true,
        ..SEMIRT
    };
    let config = semirt_config(e_k());
    assert_ne!(
        SoftTee::enclave_id(debug, &config),
        SoftTee::enclave_id(SEMIRT, &config)
    );
}

/// Collateral of yesterday after today's, by a relying party that remembers and one that does not.
fn older_after_newer(intel: &Intel) {
    let party = || RelyingParty {
        verifiers: VerifierSet::new(vec![Arc::new(intel.vendor.verifier(Tee::Sgx))]),
        policy: AppraisalPolicy::strict(vec![Tee::Sgx], Allowed::Any),
    };
    let appraised = |party: &RelyingParty, days_old: u64, now: u64| {
        let mut case = intel.case(&sgx(|_| {}), |collateral| {
            let window = (NOW - days_old * DAY, NOW - days_old * DAY + 30 * DAY);
            collateral.tcb_info = window;
            collateral.qe_identity = window;
            collateral.root_crl = window;
            collateral.pck_crl = window;
        });
        let data = Binder::channel(binder()).report_data();
        case.evidence.body = intel.platform.quote(&sgx(|_| {}), &data);
        let (evidence, endorsements) = (&case.evidence, &case.endorsements);
        let (config, now) = (keyservice_config(), Duration::from_secs(now));
        appraise(party, evidence, endorsements, &binder(), &config, now)
            .map(drop)
            .map_err(|error| error.failed())
    };
    let remembers = party();
    assert_eq!(appraised(&remembers, 1, NOW), Ok(()));
    assert_eq!(appraised(&party(), 10, NOW), Ok(()), "weakened: no memory");
    let refused = appraised(&remembers, 10, NOW);
    assert_eq!(refused, Err(CheckName::EndorsementsNotOlder));
    // And with it the clock: what has been signed by the vendor has come to pass.
    let then = NOW - 20 * DAY;
    assert_eq!(appraised(&party(), 40, then), Ok(()), "weakened: no memory");
    let refused = appraised(&remembers, 40, then);
    assert_eq!(refused, Err(CheckName::EndorsementsCurrent));
}

#[test]
fn attack_06_downgraded_platform() {
    let (intel, amd) = (Intel::new(), FakeAmd::new());
    let report = sgx(|_| {});
    // A platform without Intel's patches.
    let outdated = intel.case(&report, |collateral| collateral.status = "OutOfDate");
    outdated.bites(CheckName::TcbStatus, |policy| {
        policy.accepted_tcb.push(TcbStatus::OutOfDate);
    });
    // A judgement from before the patches were known to be needed, still within its dates.
    let stale = intel.case(&report, |collateral| collateral.tcb_evaluation = 16);
    assert_eq!(stale.ours(), None, "a policy has to name the judgement");
    let mut demands = stale.strict();
    demands.intel.minimum_tcb_evaluation = 17;
    let refused = stale.judge(&stale.verifier, demands);
    assert_eq!(refused, Some(CheckName::TcbEvaluation));
    // A judgement that has expired, and a host that sets the clock back to when it had not.
    let window = (NOW - 40 * DAY, NOW - 10 * DAY);
    let mut expired = intel.case(&report, |collateral| {
        collateral.tcb_info = window;
        collateral.qe_identity = window;
        collateral.root_crl = window;
        collateral.pck_crl = window;
    });
    assert_eq!(expired.ours(), Some(CheckName::EndorsementsCurrent));
    expired.now = Duration::from_secs(NOW - 20 * DAY);
    assert_eq!(expired.ours(), None, "weakened: the clock is the host's");

    older_after_newer(&intel);

    // AMD has no judgement: the policy names the patch level, of what is reported and of what the
    // firmware can no longer be taken back from.
    let current = SnpTcb {
        boot_loader: 4,
        tee: 1,
        snp: 24,
        microcode: 219,
        ..SnpTcb::default()
    };
    let demands = |case: &Case| {
        let mut policy = case.strict();
        policy.snp.minimum_tcb.insert(SnpProduct::Milan, current);
        case.judge(&case.verifier, policy)
    };
    assert_eq!(demands(&milan(&amd, |_| {})), None);
    let committed_less = milan(&amd, |report| report.committed_tcb[7] = 200);
    assert_eq!(committed_less.ours(), None, "weakened: no minimum");
    assert_eq!(demands(&committed_less), Some(CheckName::MinimumTcb));
    let mut older = FakeChip::new(SnpProduct::Milan, SnpSigningKey::Vcek);
    older.tcb[7] = 200;
    let rolled_back = Case {
        evidence: Evidence {
            tee: Tee::Snp,
            body: older.sign(older.report().to_bytes()),
        },
        endorsements: amd.endorsements(&older),
        ..milan(&amd, |_| {})
    };
    assert_eq!(rolled_back.ours(), None, "weakened: no minimum");
    assert_eq!(demands(&rolled_back), Some(CheckName::MinimumTcb));
}

/// A verifier that takes an empty list for the one that came: "unknown is good".
#[derive(Debug)]
struct IgnoresRevocation {
    genuine: DcapVerifier,
    nobody_revoked: Endorsements,
}

impl Verifier for IgnoresRevocation {
    fn tee(&self) -> Tee {
        self.genuine.tee()
    }

    fn read(&self, evidence: &Evidence) -> Result<Said, Malformed> {
        self.genuine.read(evidence)
    }

    fn verify(&self, subject: &Subject<'_>, card: &mut Scorecard) -> Result<Claims, Failed> {
        let subject = Subject {
            endorsements: &self.nobody_revoked,
            ..*subject
        };
        self.genuine.verify(&subject, card)
    }
}

#[test]
fn attack_07_revoked_platform() {
    let intel = Intel::new();
    let report = sgx(|_| {});
    let ignores = || IgnoresRevocation {
        genuine: intel.vendor.verifier(Tee::Sgx),
        nobody_revoked: intel.vendor.endorsements(Tee::Sgx, NOW),
    };
    type Change = fn(&mut FakeCollateral);
    let revoked: [Change; 3] = [
        |collateral| collateral.pck_revoked = true,
        |collateral| collateral.ca_revoked = true,
        // Withheld: another issuer's list instead, on which this platform cannot be.
        |collateral| collateral.processor_ca = true,
    ];
    for change in revoked {
        let case = intel.case(&report, change);
        case.bites_without(CheckName::Revocation, ignores());
    }
    // Withheld: no list, an empty one, garbage.
    for list in [Value::Null, Value::String(String::new()), "00".into()] {
        let mut case = intel.case(&report, |_| {});
        let Endorsements::Dcap { collateral } = &case.endorsements else {
            panic!("no collateral")
        };
        let mut json: Value = serde_json::from_slice(collateral).unwrap();
        let lists = json.as_object_mut().unwrap();
        assert!(lists.insert("pck_crl".into(), list.clone()).is_some());
        case.endorsements = Endorsements::Dcap {
            collateral: serde_json::to_vec(&json).unwrap(),
        };
        let weakened: Arc<dyn Verifier> = Arc::new(ignores());
        assert_eq!(case.judge(&weakened, case.strict()), None);
        let refused = case.ours();
        assert!(
            matches!(
                refused,
                Some(CheckName::EndorsementsFormat | CheckName::Revocation)
            ),
            "{list}: {refused:?}"
        );
    }
}

#[test]
fn attack_08_rogue_root() {
    // Weakened: whoever is at the end of the chain is the vendor.
    let (intel, stranger) = (Intel::new(), Intel::new());
    for report in [sgx(|_| {}), td(|_| {})] {
        let theirs = stranger.case(&report, |_| {});
        let case = Case {
            verifier: Arc::new(intel.vendor.verifier(report.tee())),
            ..stranger.case(&report, |_| {})
        };
        assert_eq!(theirs.ours(), None, "under its own root");
        assert_eq!(case.ours(), Some(CheckName::RootPinned));
        let shipped: Arc<dyn Verifier> = match report.tee() {
            Tee::Sgx => Arc::new(DcapVerifier::sgx()),
            _ => Arc::new(DcapVerifier::tdx()),
        };
        let refused = theirs.judge(&shipped, theirs.strict());
        assert_eq!(refused, Some(CheckName::RootPinned));
    }
    let (amd, aws) = (FakeAmd::new(), FakeNitro::new());
    for product in [SnpProduct::Milan, SnpProduct::Genoa, SnpProduct::Turin] {
        let theirs = snp(&amd, product, SnpSigningKey::Vcek, |_| {});
        assert_eq!(theirs.ours(), None, "under its own root");
        let shipped: Arc<dyn Verifier> = Arc::new(SnpVerifier::amd());
        let refused = theirs.judge(&shipped, theirs.strict());
        assert_eq!(refused, Some(CheckName::RootPinned));
    }
    let theirs = nitro(&aws, |_| {});
    assert_eq!(theirs.ours(), None, "under its own root");
    let shipped: Arc<dyn Verifier> = Arc::new(NitroVerifier::aws());
    let refused = theirs.judge(&shipped, theirs.strict());
    assert_eq!(refused, Some(CheckName::RootPinned));

    // Product lines mixed: a chip's key under the issuers of another line, all of them AMD's.
    let chip = FakeChip::new(SnpProduct::Milan, SnpSigningKey::Vcek);
    let mut mixed = snp(&amd, SnpProduct::Milan, SnpSigningKey::Vcek, |_| {});
    mixed.evidence.body = chip.sign(chip.report().to_bytes());
    let genoa = FakeChip::new(SnpProduct::Genoa, SnpSigningKey::Vcek);
    let (Endorsements::Snp { vek, .. }, Endorsements::Snp { chain, .. }) =
        (amd.endorsements(&chip), amd.endorsements(&genoa))
    else {
        panic!("not AMD's")
    };
    mixed.endorsements = Endorsements::Snp { vek, chain };
    assert_eq!(mixed.ours(), Some(CheckName::CertificateChain));
    // Weakened: a policy that does not ask for the product takes an old line for a new one.
    let old_line = milan(&amd, |_| {});
    let mut turin_only = old_line.strict();
    turin_only.snp.products = vec![SnpProduct::Turin];
    assert_eq!(old_line.ours(), None);
    let refused = old_line.judge(&old_line.verifier, turin_only);
    assert_eq!(refused, Some(CheckName::Platform));
}

/// A verifier that looks at what was measured, and not at how the TD runs.
#[derive(Debug)]
struct ReadsOnly(DcapVerifier);

impl Verifier for ReadsOnly {
    fn tee(&self) -> Tee {
        self.0.tee()
    }

    fn read(&self, evidence: &Evidence) -> Result<Said, Malformed> {
        self.0.read(evidence)
    }

    fn verify(&self, subject: &Subject<'_>, card: &mut Scorecard) -> Result<Claims, Failed> {
        let wanted = "a quote";
        let mut said = self
            .read(subject.evidence)
            .map_err(|error| card.fail(CheckName::EvidenceFormat, wanted, error.to_string()))?;
        if let Measurements::Tdx(td) = &mut said.measurements {
            td.td_attributes = 1 << 28;
        }
        let facts = attestation::facts::DcapFacts {
            mr_service_td: Some([0; 48]),
            ..Default::default()
        };
        Ok(Claims {
            said,
            svn: 0,
            tcb: TcbStatus::UpToDate,
            facts: attestation::Facts::Dcap(Box::new(facts)),
        })
    }
}

#[test]
fn attack_09_not_alone_in_the_guest() {
    let (intel, amd) = (Intel::new(), FakeAmd::new());
    let ours = |change: fn(&mut SnpReport)| milan(&amd, change);
    ours(|report| report.vmpl = 1).bites(CheckName::Vmpl, |policy| policy.snp.vmpls = vec![0, 1]);
    ours(|report| report.policy |= 1 << 18).bites(CheckName::NotMigratable, |policy| {
        policy.snp.allow_migration_agent = true;
    });
    snp(&amd, SnpProduct::Milan, SnpSigningKey::Vlek, |_| {})
        .bites(CheckName::SigningKey, |policy| {
            policy.snp.signing_keys.push(SnpSigningKey::Vlek)
        });
    // A provider's key, and a chip that is not said: nobody knows which machine it was.
    let masked = snp(&amd, SnpProduct::Milan, SnpSigningKey::Vlek, |report| {
        report.chip_id = [0; 64];
    });
    let vlek = |policy: &mut AppraisalPolicy| policy.snp.signing_keys.push(SnpSigningKey::Vlek);
    let mut weak = masked.strict();
    vlek(&mut weak);
    assert_eq!(
        masked.judge(&masked.verifier, weak.clone()),
        Some(CheckName::ChipNotMasked)
    );
    weak.snp.allow_masked_chip = true;
    assert_eq!(masked.judge(&masked.verifier, weak), None);
    // TDX: a service TD that may rule this one, page faults that the host invents.
    intel
        .case(&td(|td| td.mr_service_td = [0x5e; 48]), |_| {})
        .bites(CheckName::ServiceTd, |policy| {
            policy.intel.service_tds = ServiceTds::These(vec![Hex([0x5e; 48])]);
        });
    // What no policy can allow: a TD that may be moved to another machine.
    for (check, attributes) in [
        (CheckName::NotMigratable, (1 << 29) | (1 << 28)),
        (CheckName::SeptVeDisable, 0),
    ] {
        let case = intel.case(&td(|td| td.td_attributes = attributes), |_| {});
        case.bites_without(check, ReadsOnly(intel.vendor.verifier(Tee::Tdx)));
    }
}

fn binder() -> ChannelBinder {
    ChannelBinder {
        role: Role::Keyservice,
        exporter: [1; 32],
        peer_nonce: [2; 32],
        own_spki: SpkiHash::of(b"own"),
        peer_spki: SpkiHash::of(b"peer"),
        config: keyservice_config().hash(),
        epoch: 5,
    }
}

#[test]
fn attack_10_evidence_of_another_purpose() {
    let intel = Intel::new();
    let relying = RelyingParty {
        verifiers: VerifierSet::new(vec![Arc::new(intel.vendor.verifier(Tee::Sgx))]),
        policy: AppraisalPolicy::strict(vec![Tee::Sgx], Allowed::Any),
    };
    let wanted = Binder::channel(binder()).report_data();
    let appraised = |data: &[u8; 64]| {
        let mut case = intel.case(&sgx(|_| {}), |_| {});
        case.evidence.body = intel.platform.quote(&sgx(|_| {}), data);
        assert_eq!(case.ours(), None, "genuine, whatever it was made for");
        let (evidence, endorsements) = (&case.evidence, &case.endorsements);
        let config = keyservice_config();
        appraise(
            &relying,
            evidence,
            endorsements,
            &binder(),
            &config,
            case.now,
        )
        .map(drop)
        .map_err(|error| error.failed())
    };
    // Weakened: only the first half is compared, as by verifiers that expect a SHA-256; the second is
    // the attacker's. Or: what it begins with, as long as the attacker's field is empty.
    let mut half = wanted;
    half[32..].fill(0xee);
    let compares_half = |data: &[u8; 64]| data[..32] == wanted[..32];
    assert!(compares_half(&half));
    assert_eq!(appraised(&half), Err(CheckName::ReportData));

    // Weakened: one hash over fields that are merely put together. Role and exporter of one purpose
    // are a longer role of another.
    let joined = |fields: &[&[u8]]| crypto::sha256(&fields.concat());
    assert_eq!(
        joined(&[b"semirt", b"exporter"]),
        joined(&[b"semirte", b"xporter"])
    );
    // Ours: evidence for a certificate, of the other role, and of the enclave's look at itself are not
    // evidence of this channel; what is, is.
    let purposes = [
        Binder::certificate(b"own"),
        Binder::channel(ChannelBinder {
            role: Role::Semirt,
            ..binder()
        }),
        Binder::channel(ChannelBinder {
            exporter: [0; 32],
            peer_nonce: [0; 32],
            ..binder()
        }),
    ];
    for purpose in purposes {
        let refused = appraised(&purpose.report_data());
        assert_eq!(refused, Err(CheckName::ReportData), "{purpose:?}");
    }
    assert_eq!(appraised(&wanted), Ok(()));
}
