//! Every trap of dcap-qvl: what it lets pass must fail here, under its own name.

use std::time::Duration;

use dcap_qvl::QuoteCollateralV3;

use super::*;
use crate::testing::dcap::{
    FakeCollateral, FakeIntel, FakePck, FakePlatform, FakeQe, FakeReport, FakeSgx, FakeTd, TdBody,
    pem,
};

const NOW: u64 = 1_800_000_000;
const DAY: u64 = 24 * 60 * 60;
const DATA: [u8; 64] = [0xda; 64];

struct Case {
    intel: FakeIntel,
    platform: FakePlatform,
}

impl Case {
    fn new() -> Self {
        let intel = FakeIntel::new();
        let platform = intel.platform(&FakePck::default());
        Self { intel, platform }
    }

    fn quote(&self, report: &FakeReport) -> Vec<u8> {
        self.platform.quote(report, &DATA)
    }

    fn collateral(&self, tee: Tee, change: impl FnOnce(&mut FakeCollateral)) -> Vec<u8> {
        let mut collateral = FakeCollateral::new(tee, NOW);
        change(&mut collateral);
        self.intel.collateral(&collateral)
    }

    fn verify(&self, tee: Tee, quote: &[u8], collateral: &[u8]) -> Result<Claims, CheckName> {
        verify(&self.intel.verifier(tee), quote, collateral)
    }

    /// With collateral that fits.
    fn judge(&self, report: &FakeReport) -> Result<Claims, CheckName> {
        let collateral = self.collateral(report.tee(), |_| {});
        self.verify(report.tee(), &self.quote(report), &collateral)
    }

    /// What dcap-qvl says on its own, with everything allowed that its policy can allow.
    fn qvl_accepts(&self, quote: &[u8], collateral: &[u8]) -> bool {
        let collateral: QuoteCollateralV3 = serde_json::from_slice(collateral).unwrap();
        QuoteVerifier::<AwsLc>::new_with_config(self.intel.root())
            .verify(quote, &collateral, NOW)
            .is_ok()
    }
}

fn verify(verifier: &DcapVerifier, quote: &[u8], collateral: &[u8]) -> Result<Claims, CheckName> {
    let endorsements = Endorsements::Dcap {
        collateral: collateral.to_vec(),
    };
    let mut card = Scorecard::new(&[]);
    let now = Duration::from_secs(NOW);
    let verified = verifier.verify_quote(quote, &endorsements, now, &mut card);
    match verified {
        Ok(claims) => {
            assert_eq!(card.first_failure(), None, "{card}");
            Ok(claims)
        }
        Err(failed) => {
            assert_eq!(card.first_failure(), Some(failed), "{card}");
            Err(failed.check())
        }
    }
}

fn td(change: impl FnOnce(&mut FakeTd)) -> FakeReport {
    let mut td = FakeTd::new(0x22);
    change(&mut td);
    FakeReport::Td(Box::new(td))
}

fn sgx(change: impl FnOnce(&mut FakeSgx)) -> FakeReport {
    let mut sgx = FakeSgx::new(0x11);
    change(&mut sgx);
    FakeReport::Sgx(sgx)
}

fn facts(claims: &Claims) -> &DcapFacts {
    match &claims.facts {
        Facts::Dcap(facts) => facts,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_root_is_intels() {
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, INTEL_ROOT);
    let published = "44a0196b2b99f889b8e149e95b807a350e7424964399e885a7cbb8ccfab674d3";
    assert_eq!(hex::encode(hash), published);
    let (_, root) = X509Certificate::from_der(INTEL_ROOT).unwrap();
    assert!(root.subject().to_string().contains("Intel SGX Root CA"));
}

#[test]
fn genuine_quotes_of_every_form_are_accepted_and_read() {
    let case = Case::new();
    let claims = case.judge(&sgx(|_| {})).unwrap();
    let Measurements::Sgx(enclave) = claims.measurements() else {
        panic!("{claims:?}");
    };
    assert_eq!(
        (enclave.mrenclave, enclave.mrsigner),
        ([0x11; 32], [0x51; 32])
    );
    assert_eq!((enclave.isv_prod_id, claims.svn), (7, 2));
    assert_eq!((enclave.attributes, enclave.xfrm), (0b101, 0b11));
    assert_eq!(claims.said.report_data, DATA);
    assert_eq!(claims.tcb, TcbStatus::UpToDate);
    let pck = FakePck::default();
    assert_eq!(facts(&claims).fmspc, pck.fmspc);
    assert_eq!(facts(&claims).ppid, pck.ppid);
    assert_eq!(facts(&claims).tcb_evaluation, 17);
    assert_eq!(facts(&claims).issued, Duration::from_secs(NOW - DAY));
    assert_eq!(facts(&claims).smt, Some(true));

    for body in [TdBody::Td10, TdBody::Td10V5, TdBody::Td15, TdBody::Td15Ex] {
        let claims = case.judge(&td(|td| td.body = body)).unwrap();
        let Measurements::Tdx(measured) = claims.measurements() else {
            panic!("{claims:?}");
        };
        assert_eq!(measured.mrtd, [0x22; 48]);
        assert_eq!(measured.rtmr, [[0xa0; 48], [0xa1; 48], [0xa2; 48]]);
        assert_eq!(
            (measured.td_attributes, measured.xfam),
            (1 << 28, 0x0006_18e7)
        );
        assert_eq!(facts(&claims).rtmr3, Some([0xa3; 48]));
        assert_eq!(facts(&claims).mr_service_td, Some([0; 48]));
        assert_eq!(claims.said.report_data, DATA);
    }
}

#[test]
fn a_quote_is_read_also_if_it_will_be_rejected() {
    let case = Case::new();
    let verifier = case.intel.verifier(Tee::Tdx);
    let mut quote = case.quote(&td(|_| {}));
    quote.truncate(48 + 6 + 648);
    let said = verifier.read_quote(&quote).unwrap();
    let Measurements::Tdx(measured) = said.measurements else {
        panic!("not a TD");
    };
    assert_eq!(measured.mrtd, [0x22; 48]);
    assert!(case.intel.verifier(Tee::Sgx).read_quote(&quote).is_err());
    quote.pop();
    assert!(verifier.read_quote(&quote).is_err());
}

#[test]
fn no_changed_byte_of_a_quote_is_accepted() {
    let case = Case::new();
    let old_root = case.platform.chain().to_owned();
    let at = old_root.rfind("-----BEGIN").unwrap();
    let old_root = old_root[..at].to_owned() + &pem(&case.intel.reissued_root());
    let old_root = FakeQe {
        data: Some(old_root.into_bytes()),
        ..FakeQe::new(Tee::Sgx)
    };
    for (report, qe) in [
        (sgx(|_| {}), FakeQe::new(Tee::Sgx)),
        (sgx(|_| {}), old_root),
        (td(|_| {}), FakeQe::new(Tee::Tdx)),
    ] {
        let verifier = case.intel.verifier(report.tee());
        let quote = case.platform.quote_by(&qe, &report, &DATA);
        let collateral = case.collateral(report.tee(), |_| {});
        assert!(verify(&verifier, &quote, &collateral).is_ok());
        let accepted: Vec<_> = (0..quote.len())
            .filter(|at| {
                let mut changed = quote.clone();
                changed[*at] ^= 1 << (at % 8);
                verify(&verifier, &changed, &collateral).is_ok()
            })
            .collect();
        assert_eq!(accepted, [0; 0]);
        for len in [0, 1, 47, 48, 431, 432, quote.len() - 1] {
            assert_eq!(
                verify(&verifier, &quote[..len], &collateral),
                Err(CheckName::EvidenceFormat),
                "{len}"
            );
        }
    }
}

#[test]
fn only_zeros_may_follow_a_quote() {
    let case = Case::new();
    let collateral = case.collateral(Tee::Sgx, |_| {});
    let quote = case.quote(&sgx(|_| {}));
    let padded = [&quote[..], &[0; 3000]].concat();
    let claims = case.verify(Tee::Sgx, &quote, &collateral);
    assert_eq!(case.verify(Tee::Sgx, &padded, &collateral), claims);
    let hidden = [&padded[..], &[1]].concat();
    assert!(case.qvl_accepts(&hidden, &collateral), "the trap is gone");
    let refused = case.verify(Tee::Sgx, &hidden, &collateral);
    assert_eq!(refused, Err(CheckName::EvidenceFormat));
    let long = [&quote[..], &[0; crate::evidence::EVIDENCE_MAX]].concat();
    let refused = case.verify(Tee::Sgx, &long, &collateral);
    assert_eq!(refused, Err(CheckName::EvidenceFormat));
}

#[test]
fn a_quote_has_one_certification_and_no_more() {
    let case = Case::new();
    let collateral = case.collateral(Tee::Tdx, |_| {});
    let report = td(|_| {});
    let qe = FakeQe {
        outer: 5,
        ..FakeQe::new(Tee::Tdx)
    };
    let quote = case.platform.quote_by(&qe, &report, &DATA);
    assert!(case.qvl_accepts(&quote, &collateral), "the trap is gone");
    let refused = case.verify(Tee::Tdx, &quote, &collateral);
    assert_eq!(refused, Err(CheckName::EvidenceFormat));

    let chain = case.platform.chain();
    for hidden in [
        format!("# hidden\n{chain}"),
        format!("{chain}hidden"),
        chain.replacen("-----\n", "-----\n\n", 1),
    ] {
        let qe = FakeQe {
            data: Some(hidden.into_bytes()),
            ..FakeQe::new(Tee::Tdx)
        };
        let quote = case.platform.quote_by(&qe, &report, &DATA);
        assert!(case.qvl_accepts(&quote, &collateral), "the trap is gone");
        let refused = case.verify(Tee::Tdx, &quote, &collateral);
        assert_eq!(refused, Err(CheckName::EvidenceFormat));
    }
}

#[test]
fn the_chain_ends_at_the_pinned_root() {
    let case = Case::new();
    let collateral = case.collateral(Tee::Sgx, |_| {});
    let report = sgx(|_| {});
    let stranger = FakeIntel::new();
    let certificates = pem::exact(case.platform.chain().as_bytes()).unwrap();
    let [leaf, ca, _] = &certificates[..] else {
        panic!("three certificates");
    };
    let with = |chain: &[&[u8]]| {
        let text: String = chain.iter().map(|der| pem(der)).collect();
        let qe = FakeQe {
            data: Some(text.into_bytes()),
            ..FakeQe::new(Tee::Sgx)
        };
        case.platform.quote_by(&qe, &report, &DATA)
    };
    // Without the root, and with the root's other certificate.
    assert!(
        case.verify(Tee::Sgx, &with(&[leaf, ca]), &collateral)
            .is_ok()
    );
    let reissued = case.intel.reissued_root();
    let quote = with(&[leaf, ca, &reissued]);
    assert!(case.verify(Tee::Sgx, &quote, &collateral).is_ok());

    // A root of the same name, which dcap-qvl does not look at.
    for (chain, check) in [
        (vec![leaf, ca, &stranger.root()], CheckName::RootPinned),
        (vec![leaf, ca, leaf], CheckName::RootPinned),
        (vec![leaf, ca, ca, ca], CheckName::CertificateChain),
    ] {
        let chain: Vec<_> = chain.iter().map(|der| &der[..]).collect();
        let quote = with(&chain);
        assert!(case.qvl_accepts(&quote, &collateral), "the trap is gone");
        assert_eq!(case.verify(Tee::Sgx, &quote, &collateral), Err(check));
    }
    let refused = case.verify(Tee::Sgx, &with(&[leaf]), &collateral);
    assert_eq!(refused, Err(CheckName::CertificateChain));

    // Everything of somebody who calls himself Intel.
    let platform = stranger.platform(&FakePck::default());
    let quote = platform.quote(&report, &DATA);
    let theirs = stranger.collateral(&FakeCollateral::new(Tee::Sgx, NOW));
    assert!(verify(&stranger.verifier(Tee::Sgx), &quote, &theirs).is_ok());
    let refused = case.verify(Tee::Sgx, &quote, &theirs);
    assert_eq!(refused, Err(CheckName::RootPinned));
    assert_eq!(
        verify(&DcapVerifier::sgx(), &quote, &theirs),
        Err(CheckName::RootPinned)
    );
    // Half of it.
    let refused = case.verify(Tee::Sgx, &quote, &collateral);
    assert_eq!(refused, Err(CheckName::RootPinned));
    let refused = case.verify(Tee::Sgx, &case.quote(&report), &theirs);
    assert_eq!(refused, Err(CheckName::RootPinned));
}

#[test]
fn the_quotes_own_chain_counts() {
    let case = Case::new();
    let report = sgx(|_| {});
    let quote = case.quote(&report);
    let other = case.intel.platform(&FakePck::default());
    let foreign = case.collateral(Tee::Sgx, |collateral| {
        collateral.pck_certificate_chain = Some(other.chain().to_owned());
    });
    assert!(!case.qvl_accepts(&quote, &foreign), "the trap is gone");
    assert!(case.verify(Tee::Sgx, &quote, &foreign).is_ok());

    // A quote without one takes the collateral's, which has to fit.
    let qe = FakeQe {
        certification: 3,
        data: Some(vec![0; 404]),
        ..FakeQe::new(Tee::Sgx)
    };
    let quote = case.platform.quote_by(&qe, &report, &DATA);
    let own = case.collateral(Tee::Sgx, |collateral| {
        collateral.pck_certificate_chain = Some(case.platform.chain().to_owned());
    });
    assert!(case.verify(Tee::Sgx, &quote, &own).is_ok());
    assert_eq!(
        case.verify(Tee::Sgx, &quote, &foreign),
        Err(CheckName::AttestationKey)
    );
    assert_eq!(
        case.verify(Tee::Sgx, &quote, &case.collateral(Tee::Sgx, |_| {})),
        Err(CheckName::EndorsementsPresent)
    );
}

#[test]
fn endorsements_of_another_kind_are_none() {
    let case = Case::new();
    let quote = case.quote(&sgx(|_| {}));
    for endorsements in [
        Endorsements::None,
        Endorsements::Snp {
            vek: Vec::new(),
            chain: Vec::new(),
        },
    ] {
        let mut card = Scorecard::new(&[]);
        let verifier = case.intel.verifier(Tee::Sgx);
        let now = Duration::from_secs(NOW);
        let failed = verifier.verify_quote(&quote, &endorsements, now, &mut card);
        assert_eq!(
            failed.map_err(Failed::check),
            Err(CheckName::EndorsementsPresent)
        );
    }
}

#[test]
fn all_dates_of_collateral_count_in_both_directions() {
    let case = Case::new();
    let quote = case.quote(&sgx(|_| {}));
    let future = (NOW + 1, NOW + 30 * DAY);
    let past = (NOW - 30 * DAY, NOW - 1);
    type Change = fn(&mut FakeCollateral, (u64, u64));
    let members: [(Change, bool); 4] = [
        (|collateral, window| collateral.tcb_info = window, false),
        (|collateral, window| collateral.qe_identity = window, false),
        (|collateral, window| collateral.root_crl = window, true),
        (|collateral, window| collateral.pck_crl = window, true),
    ];
    for (change, is_list) in members {
        for window in [future, past] {
            let collateral = case.collateral(Tee::Sgx, |collateral| change(collateral, window));
            if is_list && window == future {
                assert!(case.qvl_accepts(&quote, &collateral), "the trap is gone");
            }
            let refused = case.verify(Tee::Sgx, &quote, &collateral);
            assert_eq!(refused, Err(CheckName::EndorsementsCurrent), "{window:?}");
        }
    }
    // The last second of a list is not one of its validity (webpki), of a judgement it is.
    let collateral = case.collateral(Tee::Sgx, |collateral| collateral.pck_crl.1 = NOW);
    let refused = case.verify(Tee::Sgx, &quote, &collateral);
    assert_eq!(refused, Err(CheckName::EndorsementsCurrent));
    let collateral = case.collateral(Tee::Sgx, |collateral| {
        collateral.tcb_info = (NOW, NOW);
        collateral.qe_identity = (NOW, NOW);
        collateral.pck_crl.0 = NOW;
    });
    assert!(case.verify(Tee::Sgx, &quote, &collateral).is_ok());
}

#[test]
fn the_older_judgement_dates_the_collateral() {
    let case = Case::new();
    let quote = case.quote(&sgx(|_| {}));
    let collateral = case.collateral(Tee::Sgx, |collateral| {
        collateral.tcb_info.0 = NOW - 20 * DAY;
        collateral.qe_evaluation = 16;
    });
    let claims = case.verify(Tee::Sgx, &quote, &collateral).unwrap();
    assert_eq!(
        facts(&claims).issued,
        Duration::from_secs(NOW - 20 * DAY),
        "fresh revocation lists do not make an old judgement new"
    );
    assert_eq!(facts(&claims).tcb_evaluation, 16);
}

#[test]
fn revoked_certificates_and_missing_lists_are_refused() {
    let case = Case::new();
    let quote = case.quote(&sgx(|_| {}));
    type Change = fn(&mut FakeCollateral);
    let changes: [Change; 4] = [
        |collateral| collateral.pck_revoked = true,
        |collateral| collateral.ca_revoked = true,
        |collateral| collateral.tcb_signing_revoked = true,
        // The list of the other issuer of PCK certificates.
        |collateral| collateral.processor_ca = true,
    ];
    for change in changes {
        let collateral = case.collateral(Tee::Sgx, change);
        let refused = case.verify(Tee::Sgx, &quote, &collateral);
        assert_eq!(refused, Err(CheckName::Revocation));
    }
    let good = case.collateral(Tee::Sgx, |_| {});
    let json: serde_json::Value = serde_json::from_slice(&good).unwrap();
    let edit = |edit: &dyn Fn(&mut serde_json::Value)| {
        let mut json = json.clone();
        edit(&mut json);
        case.verify(Tee::Sgx, &quote, json.to_string().as_bytes())
    };
    let flip = |list: &serde_json::Value| {
        let mut bytes = hex::decode(list.as_str().unwrap()).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        hex::encode(bytes)
    };
    let root = json["root_ca_crl"].clone();
    let pck = json["pck_crl"].clone();
    for refused in [
        edit(&|json| json["pck_crl"] = root.clone()),
        edit(&|json| json["root_ca_crl"] = pck.clone()),
        edit(&|json| json["pck_crl"] = flip(&pck).into()),
        edit(&|json| json["root_ca_crl"] = flip(&root).into()),
    ] {
        assert_eq!(refused, Err(CheckName::Revocation));
    }
    for refused in [
        edit(&|json| json["pck_crl"] = "".into()),
        edit(&|json| json["pck_crl"] = format!("{}00", pck.as_str().unwrap()).into()),
        edit(&|json| json["root_ca_crl"] = "0500".into()),
    ] {
        assert_eq!(refused, Err(CheckName::EndorsementsFormat));
    }
}

#[test]
fn a_platform_of_the_processor_ca_says_less() {
    let case = Case::new();
    let platform = case.intel.platform(&FakePck {
        processor_ca: true,
        ..FakePck::default()
    });
    let collateral = case.collateral(Tee::Sgx, |collateral| collateral.processor_ca = true);
    let quote = platform.quote(&sgx(|_| {}), &DATA);
    let claims = case.verify(Tee::Sgx, &quote, &collateral).unwrap();
    assert_eq!(facts(&claims).dynamic_platform, None);
    assert_eq!(facts(&claims).cached_keys, None);
    assert_eq!(facts(&claims).smt, None);
}

#[test]
fn collateral_is_about_this_platform() {
    let case = Case::new();
    let quote = case.quote(&sgx(|_| {}));
    for collateral in [
        case.collateral(Tee::Tdx, |_| {}),
        case.collateral(Tee::Sgx, |collateral| collateral.fmspc[5] ^= 1),
    ] {
        let refused = case.verify(Tee::Sgx, &quote, &collateral);
        assert_eq!(refused, Err(CheckName::EndorsementsMatch));
    }
    let collateral = case.collateral(Tee::Sgx, |collateral| collateral.pce_id = [1, 0]);
    assert!(case.qvl_accepts(&quote, &collateral), "the trap is gone");
    let refused = case.verify(Tee::Sgx, &quote, &collateral);
    assert_eq!(refused, Err(CheckName::EndorsementsMatch));
}

#[test]
fn edited_judgements_are_refused() {
    let case = Case::new();
    let quote = case.quote(&td(|_| {}));
    let good = case.collateral(Tee::Tdx, |collateral| collateral.status = "OutOfDate");
    let json: serde_json::Value = serde_json::from_slice(&good).unwrap();
    for (member, check) in [
        ("tcb_info", CheckName::TcbInfo),
        ("qe_identity", CheckName::QeIdentity),
    ] {
        let text = json[member].as_str().unwrap();
        let upgraded = text.replace("OutOfDate", "UpToDate");
        let extended = text.replace("\"nextUpdate\":\"2027", "\"nextUpdate\":\"2028");
        let spaced = text.replacen(':', ": ", 1);
        let edits = [upgraded, extended, spaced];
        for edited in edits.iter().filter(|edited| *edited != text) {
            let mut json = json.clone();
            json[member] = edited.clone().into();
            let refused = case.verify(Tee::Tdx, &quote, json.to_string().as_bytes());
            assert_eq!(refused, Err(check), "{edited}");
        }
        let mut json = json.clone();
        let signature = format!("{member}_signature");
        let mut bytes = hex::decode(json[&signature].as_str().unwrap()).unwrap();
        bytes[40] ^= 1;
        json[&signature] = hex::encode(bytes).into();
        let refused = case.verify(Tee::Tdx, &quote, json.to_string().as_bytes());
        assert_eq!(refused, Err(check));
    }
    // Signed by the PCK certificate's issuer, who may not.
    let mut json = json;
    json["tcb_info_issuer_chain"] = json["pck_crl_issuer_chain"].clone();
    let refused = case.verify(Tee::Tdx, &quote, json.to_string().as_bytes());
    assert_eq!(refused, Err(CheckName::CertificateChain));
}

#[test]
fn only_intels_quoting_enclave_certifies() {
    let case = Case::new();
    let report = td(|_| {});
    let collateral = case.collateral(Tee::Tdx, |_| {});
    type Change = fn(&mut FakeQe);
    let changes: [(Change, CheckName); 7] = [
        (|qe| qe.mrsigner = [1; 32], CheckName::QeIdentity),
        (|qe| qe.attributes = 0x13, CheckName::QeIdentity),
        (|qe| qe.attributes = 0x01, CheckName::QeIdentity),
        (|qe| qe.isv_prod_id = 1, CheckName::QeIdentity),
        (|qe| qe.isv_svn = 3, CheckName::QeIdentity),
        (|qe| qe.other_key = true, CheckName::AttestationKey),
        (
            |qe| qe.authentication = vec![1; 31],
            CheckName::EvidenceFormat,
        ),
    ];
    for (change, check) in changes {
        let mut qe = FakeQe::new(Tee::Tdx);
        change(&mut qe);
        let quote = case.platform.quote_by(&qe, &report, &DATA);
        assert_eq!(
            case.verify(Tee::Tdx, &quote, &collateral),
            Err(check),
            "{qe:?}"
        );
    }
    // The body of another quote.
    let mut quote = case.quote(&report);
    let other = case.quote(&td(|td| td.mrtd = [9; 48]));
    quote[..700].copy_from_slice(&other[..700]);
    let refused = case.verify(Tee::Tdx, &quote, &collateral);
    assert_eq!(refused, Err(CheckName::Signature));
}

#[test]
fn every_state_of_patches_is_a_claim_and_none_is_lost() {
    let case = Case::new();
    let report = td(|_| {});
    let quote = case.quote(&report);
    for (name, status) in [
        ("UpToDate", TcbStatus::UpToDate),
        ("SWHardeningNeeded", TcbStatus::SwHardeningNeeded),
        ("ConfigurationNeeded", TcbStatus::ConfigurationNeeded),
        (
            "ConfigurationAndSWHardeningNeeded",
            TcbStatus::ConfigurationAndSwHardeningNeeded,
        ),
        ("OutOfDate", TcbStatus::OutOfDate),
        (
            "OutOfDateConfigurationNeeded",
            TcbStatus::OutOfDateConfigurationNeeded,
        ),
    ] {
        let collateral = case.collateral(Tee::Tdx, |collateral| {
            collateral.status = name;
            collateral.advisories = vec!["INTEL-SA-00002", "INTEL-SA-00001"];
        });
        let claims = case.verify(Tee::Tdx, &quote, &collateral).unwrap();
        assert_eq!(claims.tcb, status);
        assert_eq!(
            facts(&claims).advisories,
            ["INTEL-SA-00001", "INTEL-SA-00002"]
        );
    }
    // Module and quoting enclave are part of the platform.
    type Change = fn(&mut FakeCollateral);
    let parts: [Change; 2] = [
        |collateral| collateral.module_status = "OutOfDate",
        |collateral| collateral.qe_status = "OutOfDate",
    ];
    for change in parts {
        let claims = case.verify(Tee::Tdx, &quote, &case.collateral(Tee::Tdx, change));
        assert_eq!(claims.unwrap().tcb, TcbStatus::OutOfDate);
    }
    let refused: [Change; 5] = [
        |collateral| collateral.status = "Revoked",
        |collateral| collateral.module_status = "Revoked",
        |collateral| collateral.qe_status = "Revoked",
        |collateral| collateral.demanded_svn = 4,
        |collateral| collateral.demanded_module_svn = 6,
    ];
    for change in refused {
        let refused = case.verify(Tee::Tdx, &quote, &case.collateral(Tee::Tdx, change));
        assert_eq!(refused, Err(CheckName::TcbStatus));
    }
}

#[test]
fn a_module_that_was_updated_under_the_td_does_not_hide_the_old_one() {
    let case = Case::new();
    // Launched by a module below the only level; the running one meets it.
    let mut old = FakeTd::new(1);
    old.tee_tcb_svn[0] = 4;
    let refused = case.judge(&FakeReport::Td(Box::new(old)));
    assert_eq!(refused, Err(CheckName::TcbStatus));
    let status = tcb_status(dcap_qvl::TcbStatus::TDRelaunchAdvised);
    assert_eq!(status, TcbStatus::OutOfDate);
}

#[test]
fn a_module_of_somebody_else_is_refused() {
    let case = Case::new();
    for report in [
        td(|td| td.mr_signer_seam = [1; 48]),
        td(|td| td.seam_attributes = 1),
        td(|td| td.tee_tcb_svn[1] = 9),
    ] {
        assert_eq!(case.judge(&report), Err(CheckName::TcbInfo));
    }
}

#[test]
fn what_dcap_qvl_stops_at_has_a_name() {
    let case = Case::new();
    for (report, check) in [
        (
            td(|td| td.td_attributes |= 1 << 29),
            CheckName::NotMigratable,
        ),
        (td(|td| td.td_attributes = 0), CheckName::SeptVeDisable),
        (
            td(|td| td.td_attributes |= 1 << 40),
            CheckName::ReservedAttributes,
        ),
        (
            td(|td| td.td_attributes |= 1 << 2),
            CheckName::ReservedAttributes,
        ),
        (
            td(|td| {
                td.body = TdBody::Td10;
                td.td_attributes |= 1 << 17;
            }),
            CheckName::ServiceTd,
        ),
    ] {
        assert_eq!(case.judge(&report), Err(check));
    }
}

#[test]
fn debug_and_service_tds_are_for_the_policy() {
    let case = Case::new();
    for report in [
        sgx(|sgx| sgx.attributes |= 0b10),
        td(|td| td.td_attributes |= 1),
        td(|td| td.td_attributes |= 0x10),
    ] {
        let quote = case.quote(&report);
        let collateral = case.collateral(report.tee(), |_| {});
        assert!(!case.qvl_accepts(&quote, &collateral));
        let claims = case.verify(report.tee(), &quote, &collateral).unwrap();
        assert!(claims.measurements().debug());
    }
    let claims = case.judge(&td(|td| td.mr_service_td = [7; 48])).unwrap();
    assert_eq!(facts(&claims).mr_service_td, Some([7; 48]));
    // dcap-qvl does not look at this field at all.
    let later = td(|td| {
        td.body = TdBody::Td15Ex;
        td.current_service_td = [8; 48];
    });
    let quote = case.quote(&later);
    let collateral = case.collateral(Tee::Tdx, |_| {});
    assert!(case.qvl_accepts(&quote, &collateral), "the trap is gone");
    let claims = case.verify(Tee::Tdx, &quote, &collateral).unwrap();
    assert_eq!(facts(&claims).current_service_td, Some([8; 48]));
    // Nor at these.
    let claims = case.judge(&sgx(|sgx| sgx.attributes |= 1 << 20)).unwrap();
    assert_eq!(facts(&claims).reserved_attributes, 1 << 20);
}

#[test]
fn a_verifier_takes_quotes_of_its_own_tee_only() {
    let case = Case::new();
    let quote = case.quote(&sgx(|_| {}));
    let collateral = case.collateral(Tee::Sgx, |_| {});
    let refused = case.verify(Tee::Tdx, &quote, &collateral);
    assert_eq!(refused, Err(CheckName::EvidenceFormat));
    let quote = case.quote(&td(|_| {}));
    let collateral = case.collateral(Tee::Tdx, |_| {});
    let refused = case.verify(Tee::Sgx, &quote, &collateral);
    assert_eq!(refused, Err(CheckName::EvidenceFormat));
}

#[test]
fn what_an_attacker_wrote_is_short_on_the_card() {
    let case = Case::new();
    let quote = case.quote(&sgx(|_| {}));
    let good = case.collateral(Tee::Sgx, |_| {});
    let mut json: serde_json::Value = serde_json::from_slice(&good).unwrap();
    let text = json["tcb_info"].as_str().unwrap();
    let long = format!("\\n\\u001b[31m{}", "x".repeat(10_000));
    json["tcb_info"] = text.replace("UpToDate", &long).into();
    let endorsements = Endorsements::Dcap {
        collateral: json.to_string().into_bytes(),
    };
    let mut card = Scorecard::new(&[]);
    let verifier = case.intel.verifier(Tee::Sgx);
    let now = Duration::from_secs(NOW);
    let failed = verifier.verify_quote(&quote, &endorsements, now, &mut card);
    assert!(failed.is_err());
    for check in card.checks() {
        assert!(
            check.got.len() < 1000 && !check.got.contains('\u{1b}'),
            "{check:?}"
        );
    }
}
