//! The parser against the writer of the tests, and against anything else.

use proptest::prelude::*;

use super::*;
use crate::evidence::Tee;
use crate::testing::dcap::{FakeIntel, FakePck, FakeReport, FakeTd, TdBody};

fn quotes() -> Vec<Vec<u8>> {
    let platform = FakeIntel::new().platform(&FakePck::default());
    let td = |body| {
        FakeReport::Td(Box::new(FakeTd {
            body,
            ..FakeTd::new(2)
        }))
    };
    let reports = [
        FakeReport::sgx(1),
        td(TdBody::Td10),
        td(TdBody::Td10V5),
        td(TdBody::Td15),
        td(TdBody::Td15Ex),
    ];
    let quote = |report| platform.quote(report, &[5; 64]);
    reports.iter().map(quote).collect()
}

#[test]
fn every_form_is_read_to_its_last_byte() {
    for (quote, (version, tee)) in quotes().iter().zip([
        (3, Tee::Sgx),
        (4, Tee::Tdx),
        (5, Tee::Tdx),
        (5, Tee::Tdx),
        (5, Tee::Tdx),
    ]) {
        let read = read(quote).unwrap();
        assert_eq!(read.exact, quote);
        assert_eq!(read.report.version, version);
        assert_eq!(read.report.said.measurements.tee(), tee);
        assert_eq!(read.report.said.report_data, [5; 64]);
        assert!(matches!(&read.certification, Certification::Chain(chain) if chain.len() == 3));
        for len in 0..quote.len() {
            assert!(super::read(&quote[..len]).is_err(), "{len}");
        }
    }
}

#[test]
fn lengths_add_up_or_are_refused() {
    for quote in quotes() {
        // Every place of a length or type: no other value than the right one is read.
        let version = quote[0];
        let body = match version {
            5 => 54 + usize::from(u16::from_le_bytes([quote[50], quote[51]])),
            4 => 48 + 584,
            _ => 48 + 384,
        };
        let mut places = vec![0, 1, 2, 3, 4, 12, body, body + 1, body + 2, body + 3];
        if version == 5 {
            places.extend(48..54);
        }
        if version > 3 {
            places.extend(body + 132..body + 138);
        }
        for at in places {
            for value in [1, 0x7f, 0x80, 0xff] {
                let mut changed = quote.clone();
                changed[at] ^= value;
                assert!(read(&changed).is_err(), "byte {at}");
            }
        }
    }
}

#[test]
fn sgx_in_newer_versions_is_read_for_its_measurement() {
    let quote = &quotes()[0];
    let mut four = quote.clone();
    four[0] = 4;
    assert_eq!(read_report(&four).unwrap().version, 4);
    let mut five = quote.clone();
    five[0] = 5;
    five.splice(48..48, [1, 0, 0x80, 1, 0, 0]);
    let report = read_report(&five).unwrap();
    assert_eq!(report.said, read_report(quote).unwrap().said);
}

proptest! {
    #[test]
    fn anything_at_all_is_read_without_panic(
        form in 0_usize..5,
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
    ) {
        thread_local! {
            static QUOTES: Vec<Vec<u8>> = quotes();
        }
        let mut quote = QUOTES.with(|quotes| quotes[form].clone());
        for (at, value) in edits {
            let at = at.index(quote.len());
            quote[at] = value;
        }
        quote.truncate(cut.index(quote.len() + 1).max(40));
        if let Ok(read) = read(&quote) {
            prop_assert!(read.exact.len() <= quote.len());
        }
        drop(read_report(&quote));
    }
}
