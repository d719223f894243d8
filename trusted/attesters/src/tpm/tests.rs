//! Against the TPM in memory.

use proptest::prelude::*;
use std::sync::Mutex;

use super::*;
use crate::testing::{FakeTpm, TpmFault};

const INDEX: u32 = 0x0140_0001;

fn fake(report: Option<Vec<u8>>) -> FakeTpm {
    let registers = (0..24).map(|i| [i; 32]).collect();
    FakeTpm::new(report, registers, |nonce, _, _| {
        (nonce.to_vec(), vec![5; 256])
    })
}

fn content() -> Vec<u8> {
    (0..2600_u16).map(|i| i.to_be_bytes()[1]).collect()
}

#[test]
fn an_index_is_read_whole() {
    for len in [0, 1, 511, 512, 513, 2600] {
        let mut report = content();
        report.truncate(len);
        assert_eq!(nv_read(&fake(Some(report.clone())), INDEX).unwrap(), report);
    }
    let missing = nv_read(&fake(None), INDEX).unwrap_err();
    assert!(missing.is_missing(), "{missing}");
    let huge = fake(Some(vec![0; 9000]));
    assert!(nv_read(&huge, INDEX).is_err());
}

#[test]
fn the_bank_is_read_eight_registers_at_a_time() {
    let registers = pcr_read(&fake(None)).unwrap();
    assert!(registers.iter().zip(0..).all(|(r, i)| *r == [i; 32]));
}

#[test]
fn a_quote_has_message_and_signature() {
    let made = quote(&fake(None), 0x8100_0003, &[7; 64]).unwrap();
    assert_eq!((made.message, made.signature), (vec![7; 64], vec![5; 256]));
}

#[test]
fn faults_are_errors_at_every_command() {
    for step in 0..7 {
        for fault in [
            TpmFault::Kernel(Errno::IO),
            TpmFault::Code(0x101),
            TpmFault::Cut(0),
            TpmFault::Cut(9),
            TpmFault::Cut(20),
            TpmFault::Trailing,
        ] {
            let tpm = fake(Some(content()));
            tpm.script(vec![TpmFault::None; step]);
            tpm.script([fault]);
            assert!(nv_read(&tpm, INDEX).is_err(), "{fault:?} at {step}");
            assert_eq!(tpm.faults_left(), 0, "{fault:?} at {step}");
        }
    }
    let tpm = fake(None);
    tpm.script([TpmFault::Code(0x922); RESENT + 1]);
    assert!(matches!(pcr_read(&tpm), Err(TpmError::Busy(0x922))));
    tpm.script([TpmFault::Code(0x922); RESENT]);
    pcr_read(&tpm).unwrap();
}

#[derive(Debug)]
struct Answering(Mutex<Vec<u8>>);

impl Tpm for Answering {
    fn transact(&self, _: &[u8]) -> io::Result<Vec<u8>> {
        let body = self.0.lock().unwrap().clone();
        let len = u32::try_from(body.len() + 10).unwrap().to_be_bytes();
        Ok([&[0x80, 1][..], &len, &[0; 4], &body].concat())
    }
}

proptest! {
    #[test]
    fn no_answer_makes_it_panic(body in prop::collection::vec(any::<u8>(), 0..200), head: bool) {
        let mut body = body;
        if head && body.len() > 14 {
            body[4..11].copy_from_slice(&[0, 0, 0, 1, 0, 0x0b, 3]);
        }
        let tpm = Answering(Mutex::new(body));
        nv_size(&tpm, INDEX).ok();
        pcr_read(&tpm).ok();
        quote(&tpm, INDEX, &[0; 64]).ok();
    }
}
