//! Evidence of a fake Azure, with one thing wrong each.

use std::sync::OnceLock;

use aws_lc_rs::rsa::{KeyPair, KeySize};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::evidence::Endorsements;
use crate::facts::{SnpProduct, SnpSigningKey};
use crate::policy::{AzurePolicy, Pcr};
use crate::scorecard::Status;
use crate::testing::azure::{FakeAzure, attest, fake_ak, jwk, runtime_claims};
use crate::testing::dcap::{FakeIntel, FakePck, FakeReport};
use crate::testing::snp::{FAKE_NOW, FakeAmd, FakeChip};

use CheckName::{EvidenceFormat, PcrDigest, RuntimeClaims, TpmQuote, Vmpl};

/// A machine with SEV-SNP, and the AMD that vouches for it.
struct Machine {
    amd: FakeAmd,
    chip: FakeChip,
}

impl Machine {
    fn new() -> Self {
        Self {
            amd: FakeAmd::new(),
            chip: FakeChip::new(SnpProduct::Genoa, SnpSigningKey::Vcek),
        }
    }

    fn endorsements(&self) -> Endorsements {
        self.amd.endorsements(&self.chip)
    }

    /// The hardware's report of the boot.
    fn report(&self, azure: &FakeAzure) -> Vec<u8> {
        let mut report = self.chip.report();
        report.report_data = azure.report_data();
        self.chip.sign(report.to_bytes())
    }

    fn evidence(&self, azure: &FakeAzure) -> Value {
        azure.snp_evidence(&self.report(azure), b"no certificate")
    }

    fn verify(&self, body: Vec<u8>) -> Result<Claims, CheckName> {
        let verifier = AzSnpVerifier::with_roots(self.amd.roots());
        verify(&verifier, body, &self.endorsements())
    }

    /// What refuses this evidence.
    fn refusal(&self, evidence: &Value) -> Option<CheckName> {
        self.verify(evidence.to_string().into_bytes()).err()
    }
}

fn verify(
    verifier: &dyn Verifier,
    body: Vec<u8>,
    endorsements: &Endorsements,
) -> Result<Claims, CheckName> {
    let evidence = Evidence {
        tee: verifier.tee(),
        body,
    };
    let mut card = Scorecard::new(&[]);
    let subject = Subject {
        evidence: &evidence,
        endorsements,
        now: FAKE_NOW,
    };
    verifier.verify(&subject, &mut card).map_err(|failed| {
        let fails = |name: &CheckName| {
            let check = card.check(*name);
            check.is_some_and(|check| check.status == Status::Fail)
        };
        let failing: Vec<_> = CheckName::ALL.iter().copied().filter(fails).collect();
        assert_eq!(failing, [failed.check()], "one check refuses");
        failed.check()
    })
}

fn bytes(value: &Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

/// Another key than the vTPM's.
fn other_key() -> &'static KeyPair {
    static KEY: OnceLock<KeyPair> = OnceLock::new();
    KEY.get_or_init(|| KeyPair::generate(KeySize::Rsa2048).unwrap())
}

#[test]
fn genuine_evidence_says_what_hardware_and_vtpm_say() {
    let machine = Machine::new();
    let azure = FakeAzure::new(b"nonce");
    let claims = machine.verify(bytes(&machine.evidence(&azure))).unwrap();
    assert_eq!(claims.said.nonce.as_deref(), Some(&b"nonce"[..]));
    assert_eq!(claims.said.bound(), b"nonce", "what is fresh is the quote");
    assert_eq!(claims.said.report_data, azure.report_data());
    let Measurements::AzSnp(measured) = claims.measurements() else {
        panic!("measurements of another TEE")
    };
    assert_eq!(measured.hardware.measurement, [0x3e; 48]);
    assert!(measured.secure_boot);
    assert_eq!(measured.pcrs.len(), 24);
    assert_eq!(measured.pcrs[&23], [23; 32]);
    assert!(matches!(claims.facts, Facts::Snp(_)));

    let evidence = Evidence {
        tee: Tee::AzSnp,
        body: bytes(&machine.evidence(&azure)),
    };
    let read = AzSnpVerifier::amd().read(&evidence).unwrap();
    assert_eq!(read, claims.said);
}

#[test]
fn only_quoted_registers_count() {
    let machine = Machine::new();
    let mut azure = FakeAzure::new(b"");
    azure.message = attest(b"", &azure.pcrs, 1 << 4 | 1 << 11);
    let mut evidence = machine.evidence(&azure);
    // Not quoted: what stands there is the host's word.
    evidence["tpm_quote"]["pcrs"][7] = json!("ab".repeat(32));
    let claims = machine.verify(bytes(&evidence)).unwrap();
    let Measurements::AzSnp(measured) = claims.measurements() else {
        panic!("measurements of another TEE")
    };
    let indices: Vec<_> = measured.pcrs.keys().copied().collect();
    assert_eq!(indices, [4, 11]);

    evidence["tpm_quote"]["pcrs"][11] = json!("ab".repeat(32));
    assert_eq!(machine.refusal(&evidence), Some(PcrDigest));
}

#[test]
fn registers_do_not_change_places() {
    let machine = Machine::new();
    let mut evidence = machine.evidence(&FakeAzure::new(b""));
    let pcrs = evidence["tpm_quote"]["pcrs"].as_array_mut().unwrap();
    pcrs.swap(3, 4);
    assert_eq!(machine.refusal(&evidence), Some(PcrDigest));
}

#[test]
fn the_hardware_report_covers_the_claims() {
    let machine = Machine::new();
    let azure = FakeAzure::new(b"");
    let report = machine.report(&azure);

    // Claims with a key of the host's, beside a hardware report that is genuine.
    let mut other = azure.clone();
    other.claims = runtime_claims(&[jwk("HCLAkPub", other_key())], true);
    let evidence = other.snp_evidence(&report, b"");
    assert_eq!(machine.refusal(&evidence), Some(RuntimeClaims));

    // Secure boot claimed of a machine that was not told so.
    other.claims = runtime_claims(&[jwk("HCLAkPub", fake_ak())], false);
    let evidence = other.snp_evidence(&report, b"");
    assert_eq!(machine.refusal(&evidence), Some(RuntimeClaims));

    // Report data that says more than the hash.
    let mut report = machine.chip.report();
    report.report_data = azure.report_data();
    report.report_data[63] = 1;
    let report = machine.chip.sign(report.to_bytes());
    let evidence = azure.snp_evidence(&report, b"");
    assert_eq!(machine.refusal(&evidence), Some(RuntimeClaims));
}

#[test]
fn only_the_paravisor_s_report_vouches() {
    let machine = Machine::new();
    let azure = FakeAzure::new(b"");
    for vmpl in [1, 2, 3] {
        // What root in the guest can have the hardware sign, with claims of its own.
        let mut report = machine.chip.report();
        report.report_data = azure.report_data();
        report.vmpl = vmpl;
        let report = machine.chip.sign(report.to_bytes());
        let evidence = azure.snp_evidence(&report, b"");
        assert_eq!(machine.refusal(&evidence), Some(Vmpl));
    }
}

#[test]
fn the_hardware_s_checks_are_made() {
    let machine = Machine::new();
    let azure = FakeAzure::new(b"");
    let mut report = machine.report(&azure);
    report[0x90] ^= 1;
    let evidence = azure.snp_evidence(&report, b"");
    assert_eq!(machine.refusal(&evidence), Some(CheckName::Signature));

    let evidence = bytes(&machine.evidence(&azure));
    let refused = verify(&AzSnpVerifier::amd(), evidence, &machine.endorsements());
    assert_eq!(refused.err(), Some(CheckName::RootPinned));
}

#[test]
fn the_quote_is_signed_by_the_key_of_the_claims() {
    let machine = Machine::new();
    // The hardware covers another key than the one that signs.
    let mut azure = FakeAzure::new(b"");
    azure.claims = runtime_claims(&[jwk("HCLAkPub", other_key())], true);
    assert_eq!(machine.refusal(&machine.evidence(&azure)), Some(TpmQuote));

    // A key with another name does not sign quotes.
    let keys = [jwk("HCLAkPub", other_key()), jwk("HCLEkPub", fake_ak())];
    azure.claims = runtime_claims(&keys, true);
    assert_eq!(machine.refusal(&machine.evidence(&azure)), Some(TpmQuote));

    // Another nonce, another signature.
    let azure = FakeAzure::new(b"old");
    let fresh = FakeAzure::new(b"new");
    let mut evidence = machine.evidence(&azure);
    evidence["tpm_quote"]["message"] = machine.evidence(&fresh)["tpm_quote"]["message"].clone();
    assert_eq!(machine.refusal(&evidence), Some(TpmQuote));
    for signature in [String::new(), "00".repeat(256), "00".repeat(255)] {
        evidence["tpm_quote"]["signature"] = json!(signature);
        assert_eq!(machine.refusal(&evidence), Some(TpmQuote));
    }
}

#[test]
fn claims_name_the_key_once_and_plainly() {
    let machine = Machine::new();
    let ak = jwk("HCLAkPub", fake_ak());
    let with = |name: &str, value: Value| {
        let mut key: Value = serde_json::from_str(&ak).unwrap();
        key[name] = value;
        key.to_string()
    };
    let modulus = |bytes: usize| json!("_".repeat(bytes * 4 / 3));
    let claims = |keys: &[String]| runtime_claims(keys, true);
    let twice = ak.replacen('{', r#"{"kid":"HCLAkPub","#, 1);
    for bad in [
        claims(&[]),
        claims(&[jwk("HCLEkPub", fake_ak())]),
        claims(&[ak.clone(), ak.clone()]),
        claims(&[ak.clone(), jwk("HCLAkPub", other_key())]),
        claims(&[twice]),
        claims(&[with("kty", json!("EC"))]),
        claims(&[with("e", json!("AQ"))]),
        claims(&[with("e", json!("AAEAAQ"))]),
        claims(&[with("e", json!("AQABAA"))]),
        claims(&[with("e", json!(65537))]),
        claims(&[with("e", Value::Null)]),
        claims(&[with("n", Value::Null)]),
        claims(&[with("n", json!("!"))]),
        claims(&[with("n", modulus(129))]),
        claims(&[with("n", modulus(513))]),
        claims(&[with("n", json!("AA".repeat(200)))]),
        claims(&[with("key_ops", json!(["encrypt"]))]),
        String::new(),
        "[]".into(),
        r#"{"keys":[]}"#.into(),
        claims(std::slice::from_ref(&ak)) + " 1",
        claims(std::slice::from_ref(&ak)).replace("true,", "1,"),
        claims(std::slice::from_ref(&ak)).replacen('{', r#"{"keys":[],"#, 1),
    ] {
        let mut azure = FakeAzure::new(b"");
        azure.claims = bad;
        let refused = machine.refusal(&machine.evidence(&azure));
        assert_eq!(refused, Some(EvidenceFormat), "{}", azure.claims);
    }
}

#[test]
fn what_is_not_claimed_is_not_so() {
    let machine = Machine::new();
    let mut azure = FakeAzure::new(b"");
    azure.claims = azure.claims.replace(r#""secure-boot":true,"#, "");
    let claims = machine.verify(bytes(&machine.evidence(&azure))).unwrap();
    let Measurements::AzSnp(measured) = claims.measurements() else {
        panic!("measurements of another TEE")
    };
    assert!(!measured.secure_boot);
}

#[test]
fn a_quote_is_exactly_a_quote_of_the_sha_256_bank() {
    let machine = Machine::new();
    let good = FakeAzure::new(b"n");
    // Behind the signer, the nonce, the clock and the firmware.
    let selection = 6 + 36 + 3 + 17 + 8;
    for (what, at, byte) in [
        ("magic", 0, 0xfe),
        ("a certified key and no quote", 5, 0x17),
        ("a signer's name that goes on", 6, 1),
        ("a nonce that goes on", 42, 1),
        ("two banks", selection + 3, 2),
        ("no bank", selection + 3, 0),
        ("the SHA-1 bank", selection + 5, 4),
        ("fewer registers", selection + 6, 2),
        ("more registers", selection + 6, 4),
        ("a longer digest", selection + 11, 33),
        ("a shorter digest", selection + 11, 31),
    ] {
        let mut azure = good.clone();
        assert_ne!(azure.message[at], byte);
        azure.message[at] = byte;
        let refused = machine.refusal(&machine.evidence(&azure));
        assert_eq!(refused, Some(EvidenceFormat), "{what}");
    }
    let length = good.message.len();
    for length in (0..length).chain([length + 1]) {
        let mut azure = good.clone();
        azure.message.resize(length, 0);
        let refused = machine.refusal(&machine.evidence(&azure));
        assert_eq!(refused, Some(EvidenceFormat), "{length} bytes");
    }
    let mut azure = good;
    azure.message = attest(b"", &azure.pcrs, 0);
    let refused = machine.refusal(&machine.evidence(&azure));
    assert_eq!(refused, Some(EvidenceFormat), "a quote of nothing");
    azure.message = attest(&[7; 67], &azure.pcrs, 1);
    let refused = machine.refusal(&machine.evidence(&azure));
    assert_eq!(refused, Some(EvidenceFormat), "a nonce that no TPM takes");
}

#[test]
fn the_paravisor_s_header_has_no_choice() {
    let machine = Machine::new();
    let azure = FakeAzure::new(b"");
    let report = machine.report(&azure);
    let blob = azure.hcl_report(&report, 2);
    let end = 1236 + azure.claims.len();
    let free = 32..1216;
    let claims = 1236..end;
    for at in 0..blob.len() {
        if free.contains(&at) || claims.contains(&at) {
            continue;
        }
        let mut changed = blob.clone();
        changed[at] ^= 0x08;
        let refused = HclReport::parse(&changed, Hardware::Snp);
        assert!(refused.is_err(), "byte {at}");
    }
    assert!(HclReport::parse(&blob, Hardware::Tdx).is_err());
    for length in [0, 31, 32, 1215, 1216, 1235, 1236, end - 1] {
        assert!(HclReport::parse(&blob[..length], Hardware::Snp).is_err());
    }
    assert!(HclReport::parse(&blob[..end], Hardware::Snp).is_ok());
    let longer = [&blob[..], &[0; 4096]].concat();
    assert!(HclReport::parse(&longer, Hardware::Snp).is_err());
}

#[test]
fn documents_are_read_in_every_spelling_in_use() {
    let machine = Machine::new();
    let azure = FakeAzure::new(b"n");
    let evidence = machine.evidence(&azure);
    let said = machine.verify(bytes(&evidence)).unwrap().said;

    let envelope = json!({"platform": "az-snp", "evidence": evidence});
    let arrays = json!({
        "quote": {
            "message": azure.message,
            "signature": azure.signature(),
            "pcrs": azure.pcrs,
        },
        "report": azure.hcl_report(&machine.report(&azure), 2),
        "vcek": crate::testing::dcap::pem(&[0x30; 100]),
    });
    for spelled in [&envelope, &arrays] {
        assert_eq!(machine.verify(bytes(spelled)).unwrap().said, said);
    }
    assert_eq!(endorsements_in(&bytes(&arrays)), Some(vec![0x30; 100]));
    let inside = endorsements_in(&bytes(&envelope));
    assert_eq!(inside.as_deref(), Some(&b"no certificate"[..]));
    assert_eq!(endorsements_in(b"{}"), None);
}

#[test]
fn other_documents_are_refused() {
    let machine = Machine::new();
    let good = machine.evidence(&FakeAzure::new(b""));
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut evidence = good.clone();
        change(&mut evidence);
        evidence.to_string()
    };
    let pcrs = |evidence: &mut Value| evidence["tpm_quote"]["pcrs"].take();
    let twice = |field: &str| good.to_string().replacen('{', &format!("{{{field},"), 1);
    let wrong = json!({"platform": "az-tdx", "evidence": good});
    for bad in [
        String::new(),
        "[]".into(),
        "[".repeat(40_000),
        good.to_string() + "{}",
        wrong.to_string(),
        changed(&|evidence| evidence["version"] = json!(2)),
        changed(&|evidence| evidence["more"] = json!(1)),
        changed(&|evidence| evidence["tpm_quote"]["more"] = json!(1)),
        changed(&|evidence| evidence["hcl_report"] = Value::Null),
        changed(&|evidence| evidence["hcl_report"] = json!([256])),
        changed(&|evidence| evidence["hcl_report"] = json!([-1])),
        changed(&|evidence| evidence["hcl_report"] = json!([1.5])),
        changed(&|evidence| evidence["hcl_report"] = json!("A")),
        changed(&|evidence| evidence["hcl_report"] = json!("+_")),
        changed(&|evidence| evidence["vcek"] = json!("-----BEGIN CERTIFICATE-----")),
        changed(&|evidence| evidence["tpm_quote"]["message"] = json!("f")),
        changed(&|evidence| evidence["tpm_quote"]["message"] = json!("fg")),
        changed(&|evidence| drop(pcrs(evidence))),
        changed(&|evidence| {
            let mut list = pcrs(evidence);
            list.as_array_mut().unwrap().pop();
            evidence["tpm_quote"]["pcrs"] = list;
        }),
        changed(&|evidence| {
            let mut list = pcrs(evidence);
            list.as_array_mut().unwrap().push(json!("00".repeat(32)));
            evidence["tpm_quote"]["pcrs"] = list;
        }),
        changed(&|evidence| evidence["tpm_quote"]["pcrs"][0] = json!("00".repeat(31))),
        twice(r#""hcl_report":"AA""#),
        twice(r#""report":"AA""#),
        twice(r#""version":1"#),
        good.to_string() + &" ".repeat(48 * 1024),
    ] {
        let refused = machine.verify(bad.clone().into_bytes()).err();
        let start: String = bad.chars().take(100).collect();
        assert_eq!(refused, Some(EvidenceFormat), "{start}");
    }
}

/// A machine with TDX, its quote over this report data, and the Intel that vouches for it.
fn td(intel: &FakeIntel, report_data: &[u8; 64]) -> Vec<u8> {
    let platform = intel.platform(&FakePck::default());
    platform.quote(&FakeReport::td(0x7d), report_data)
}

#[test]
fn genuine_evidence_of_a_td() {
    let intel = FakeIntel::new();
    let verifier = AzTdxVerifier::with_root(intel.root());
    let endorsements = intel.endorsements(Tee::Tdx, FAKE_NOW.as_secs());
    let azure = FakeAzure::new(b"nonce");
    let quote = td(&intel, &azure.report_data());
    let evidence = azure.tdx_evidence(&quote);
    let claims = verify(&verifier, bytes(&evidence), &endorsements).unwrap();
    let Measurements::AzTdx(measured) = claims.measurements() else {
        panic!("measurements of another TEE")
    };
    assert_eq!(measured.hardware.mrtd, [0x7d; 48]);
    assert_eq!(measured.pcrs.len(), 24);
    assert_eq!(claims.said.bound(), b"nonce");
    assert!(matches!(claims.facts, Facts::Dcap(_)));
    let evidence = Evidence {
        tee: Tee::AzTdx,
        body: bytes(&evidence),
    };
    assert_eq!(verifier.read(&evidence).unwrap(), claims.said);
}

#[test]
fn a_td_s_quote_covers_the_claims() {
    let intel = FakeIntel::new();
    let verifier = AzTdxVerifier::with_root(intel.root());
    let endorsements = intel.endorsements(Tee::Tdx, FAKE_NOW.as_secs());
    let azure = FakeAzure::new(b"");
    let refusal = |evidence: &Value| verify(&verifier, bytes(evidence), &endorsements).err();

    // The paravisor's own report in the blob is not what counts: only the quote is signed.
    let other = td(&intel, &[0; 64]);
    assert_eq!(refusal(&azure.tdx_evidence(&other)), Some(RuntimeClaims));
    let mut more = azure.report_data();
    more[32] = 1;
    let more = td(&intel, &more);
    assert_eq!(refusal(&azure.tdx_evidence(&more)), Some(RuntimeClaims));

    let quote = td(&intel, &azure.report_data());
    let mut evidence = azure.tdx_evidence(&quote);
    evidence["tpm_quote"]["pcrs"][0] = json!("ab".repeat(32));
    assert_eq!(refusal(&evidence), Some(PcrDigest));
    let mut unsigned = azure.tdx_evidence(&quote);
    unsigned["tpm_quote"]["signature"] = json!("");
    assert_eq!(refusal(&unsigned), Some(TpmQuote));

    let mut flipped = quote.clone();
    flipped[48 + 136] ^= 1;
    let refused = refusal(&azure.tdx_evidence(&flipped));
    assert_eq!(refused, Some(CheckName::Signature));
    let mut without = azure.tdx_evidence(&quote);
    without.as_object_mut().unwrap().remove("td_quote");
    assert_eq!(refusal(&without), Some(EvidenceFormat));
    // A report of SEV-SNP is no TD, whoever signed it.
    let machine = Machine::new();
    assert_eq!(refusal(&machine.evidence(&azure)), Some(EvidenceFormat));
}

#[test]
fn registers_and_secure_boot_are_judged() {
    let quoted: BTreeMap<u8, [u8; 32]> = [(4, [4; 32]), (11, [11; 32])].into();
    let judged = |policy: &AzurePolicy, secure_boot| {
        let mut card = Scorecard::new(&[]);
        judge(&quoted, secure_boot, policy, &mut card);
        let failed = |check: &&crate::scorecard::Check| check.status == Status::Fail;
        let failed: Vec<_> = card.checks().iter().filter(failed).collect();
        failed.iter().map(|check| check.name).collect::<Vec<_>>()
    };
    let pcr = |index: u8, values: &[u8]| Pcr {
        index,
        values: values.iter().map(|value| Hex([*value; 32])).collect(),
    };
    let policy = |pcrs: Vec<Pcr<32>>| AzurePolicy {
        pcrs,
        ..AzurePolicy::default()
    };
    assert_eq!(judged(&policy(vec![]), false), []);
    assert_eq!(
        judged(&policy(vec![pcr(4, &[9, 4]), pcr(11, &[11])]), true),
        []
    );
    for wrong in [pcr(4, &[5]), pcr(4, &[]), pcr(7, &[7]), pcr(99, &[0])] {
        let both = vec![wrong, pcr(11, &[11])];
        assert_eq!(judged(&policy(both), true), [CheckName::Pcrs]);
    }
    let secure = AzurePolicy {
        require_secure_boot: true,
        ..AzurePolicy::default()
    };
    assert_eq!(judged(&secure, true), []);
    assert_eq!(judged(&secure, false), [CheckName::SecureBoot]);
}

proptest! {
    #[test]
    fn no_bytes_make_the_parsers_panic(
        blob in proptest::collection::vec(any::<u8>(), 0..1500),
        message in proptest::collection::vec(any::<u8>(), 0..200),
        at in 0_usize..2600,
        byte in any::<u8>(),
    ) {
        drop(Document::parse(&blob, Tee::AzSnp));
        drop(HclReport::parse(&blob, Hardware::Snp));
        drop(Quote::parse(&message));
        let azure = FakeAzure::new(&[1; 32]);
        let mut hcl = azure.hcl_report(&[0; 1184], 2);
        hcl[at] = byte;
        drop(HclReport::parse(&hcl, Hardware::Snp));
        let mut changed = azure.message;
        let length = changed.len();
        changed[at % length] = byte;
        drop(Quote::parse(&changed));
    }
}
