//! Against a vTPM and a metadata service in memory, whose evidence the verifiers accept.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use attestation::Endorsements;
use attestation::facts::{SnpProduct, SnpSigningKey};
use attestation::tee::azure::{AzSnpVerifier, AzTdxVerifier};
use attestation::testing::azure::{FakeAzure, attest};
use attestation::testing::dcap::{FakeIntel, FakePck, FakeReport};
use attestation::testing::snp::{FakeAmd, FakeChip};
use rustix::io::Errno;

use super::*;
use crate::testing::conformance::conforms;
use crate::testing::{FakeQuoteService, FakeTpm, NotedPauses, TpmFault};

const NOW: u64 = 1_800_000_000;

fn nobody() -> FakeQuoteService {
    FakeQuoteService::new(|_| Err(Errno::CONNREFUSED.into()))
}

/// The vTPM of a machine with this paravisor's report.
fn tpm(report: Vec<u8>) -> Arc<FakeTpm> {
    let registers = FakeAzure::new(b"").pcrs;
    Arc::new(FakeTpm::new(
        Some(report),
        registers,
        |nonce, pcrs, bits| {
            let mut azure = FakeAzure::new(nonce);
            azure.message = attest(nonce, pcrs, bits);
            let signature = azure.signature();
            (azure.message, signature)
        },
    ))
}

fn attester(tpm: &Arc<FakeTpm>, quotes: FakeQuoteService) -> AzureAttester {
    let pause = Arc::new(NotedPauses::default());
    AzureAttester::new(Arc::clone(tpm) as _, Arc::new(quotes), pause).unwrap()
}

struct Snp {
    amd: FakeAmd,
    endorsements: Endorsements,
    blob: Vec<u8>,
}

fn snp() -> Snp {
    let amd = FakeAmd::new();
    let chip = FakeChip::new(SnpProduct::Milan, SnpSigningKey::Vcek);
    let azure = FakeAzure::new(b"");
    let mut report = chip.report();
    report.report_data = azure.report_data();
    let report = chip.sign(report.to_bytes());
    Snp {
        endorsements: amd.endorsements(&chip),
        blob: azure.hcl_report(&report, KIND_SNP),
        amd,
    }
}

/// The paravisor's report of a TD, and the quote of its TDREPORT.
fn tdx(intel: &FakeIntel) -> (Vec<u8>, Vec<u8>) {
    let azure = FakeAzure::new(b"");
    let mut report = [0x7d; TD_REPORT];
    report[128..192].copy_from_slice(&azure.report_data());
    let quote = intel
        .platform(&FakePck::default())
        .quote(&FakeReport::td(1), &azure.report_data());
    (azure.hcl_report(&report, KIND_TDX), quote)
}

#[test]
fn snp_conforms() {
    let Snp {
        amd,
        endorsements,
        blob,
    } = snp();
    let tpm = tpm(blob);
    let attester = attester(&tpm, nobody());
    tpm.script([TpmFault::Code(0x922), TpmFault::Kernel(Errno::BUSY)]);
    conforms(
        attester,
        AzSnpVerifier::with_roots(amd.roots()),
        endorsements,
        Duration::from_secs(NOW),
    );
    assert_eq!(tpm.faults_left(), 0);
}

#[test]
fn tdx_conforms() {
    let intel = FakeIntel::new();
    let (blob, quote) = tdx(&intel);
    let quotes = FakeQuoteService::new(move |_| Ok(quote.clone()));
    conforms(
        attester(&tpm(blob), quotes.clone()),
        AzTdxVerifier::with_root(intel.root()),
        intel.endorsements(Tee::Tdx, NOW),
        Duration::from_secs(NOW),
    );
    assert_eq!(quotes.asked(), 1, "the quote is as old as the boot");
}

fn collect(tpm: &Arc<FakeTpm>, attester: &AzureAttester, faults: &[TpmFault]) -> bool {
    tpm.script(faults.to_vec());
    let collected = attester.collect(&Binder::certificate(b"key")).is_ok();
    assert_eq!(tpm.faults_left(), 0, "{faults:?}");
    collected
}

#[test]
fn what_is_not_about_the_binder_is_not_handed_on() {
    let tpm = tpm(snp().blob);
    let attester = attester(&tpm, nobody());
    // Public area, six parts, quote, three times eight registers.
    let none = [TpmFault::None; 7].to_vec();
    let after = |fault| [&none[..], &[fault]].concat();
    assert!(!collect(&tpm, &attester, &after(TpmFault::WrongNonce)));
    assert!(!collect(&tpm, &attester, &after(TpmFault::Code(0x1d5))));
    let late = |fault| [&none[..], &[TpmFault::None, fault]].concat();
    assert!(
        collect(&tpm, &attester, &late(TpmFault::Extend)),
        "once more"
    );
    assert!(!collect(&tpm, &attester, &late(TpmFault::Trailing)));
    // A report that the hardware does not cover, and one of another hardware.
    let mut altered = snp().blob;
    altered[CLAIMS + 3] ^= 1;
    let (other, _) = tdx(&FakeIntel::new());
    for report in [altered, other, vec![0; 2600], Vec::new()] {
        tpm.set_report(report);
        assert!(!collect(&tpm, &attester, &[]));
    }
}

#[test]
fn a_quote_of_another_report_is_refused() {
    let intel = FakeIntel::new();
    let (blob, quote) = tdx(&intel);
    let other = intel
        .platform(&FakePck::default())
        .quote(&FakeReport::td(1), &[1; 64]);
    let answers = [
        Ok(other),
        Ok(quote[..100].to_vec()),
        Ok(Vec::new()),
        Err(Errno::TIMEDOUT),
    ];
    for answer in answers {
        let quotes = FakeQuoteService::new(move |_| answer.clone().map_err(Into::into));
        let attester = attester(&tpm(blob.clone()), quotes);
        assert!(attester.collect(&Binder::certificate(b"key")).is_err());
    }
}

#[test]
fn the_tpm_of_another_machine_is_not_azures() {
    let other = FakeTpm::new(None, Vec::new(), |_, _, _| (Vec::new(), Vec::new()));
    assert!(!is_azure(&other).unwrap());
    other.script([TpmFault::Code(0x101)]);
    assert!(is_azure(&other).is_err(), "it does not answer");
    assert!(is_azure(tpm(snp().blob).as_ref()).unwrap());
}

#[test]
fn the_metadata_service_is_asked_over_http() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let quote = URL_SAFE_NO_PAD.encode([9; 100]);
    let good = format!("HTTP/1.1 200 OK\r\nA: b\r\n\r\n{{\"quote\":\"{quote}\"}}");
    let answers = [
        good.clone(),
        good.replace("200", "500"),
        good.replace("quote", "other"),
        "HTTP/1.1 200 OK\r\n\r\n".into(),
        format!("{good}{}", " ".repeat(70_000)),
    ];
    let server = std::thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            let mut buffer = [0; 4096];
            while !request.ends_with(b"}") {
                let n = stream.read(&mut buffer).unwrap();
                request.extend(&buffer[..n]);
            }
            let request = String::from_utf8(request).unwrap();
            assert!(request.starts_with("POST /acc/tdquote HTTP/1.0\r\n"));
            assert!(request.contains("\r\nMetadata: true\r\n"), "{request}");
            // The last one is not read to its end.
            stream.write_all(answer.as_bytes()).ok();
        }
    });
    let service = MetadataService(address);
    assert_eq!(service.td_quote(&[1; 1024]).unwrap(), [9; 100]);
    for _ in 0..4 {
        assert!(service.td_quote(&[1; 1024]).is_err());
    }
    server.join().unwrap();
}
