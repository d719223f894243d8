//! Records: moved, older, cut and changed ones are refused.

use super::*;

fn key() -> SealingKey {
    SealingKey::from_slice(&[7; 32]).unwrap()
}

#[test]
fn every_flipped_bit_and_every_truncation_is_refused() {
    let record = seal_record(&key(), b"grants/7", 3, b"content").unwrap();
    for bit in 0..record.len() * 8 {
        let mut changed = record.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        let expected = if bit < 8 {
            OpenRecordError::Malformed
        } else {
            OpenRecordError::CannotOpen
        };
        assert_eq!(
            open_record(&key(), b"grants/7", 3, &changed).unwrap_err(),
            expected,
            "{bit}"
        );
    }
    for len in 0..record.len() {
        open_record(&key(), b"grants/7", 3, &record[..len]).expect_err("cut");
    }
    let longer = [&record[..], &[0]].concat();
    open_record(&key(), b"grants/7", 3, &longer).expect_err("longer");
}

#[test]
fn another_place_epoch_or_key_is_refused() {
    let record = seal_record(&key(), b"grants/7", 3, b"content").unwrap();
    let refused = |key: &SealingKey, id: &[u8], epoch| {
        assert_eq!(
            open_record(key, id, epoch, &record).unwrap_err(),
            OpenRecordError::CannotOpen
        );
    };
    refused(&key(), b"grants/8", 3);
    refused(&key(), b"grants/7 ", 3);
    refused(&key(), b"", 3);
    refused(&key(), b"grants/7", 2);
    refused(&key(), b"grants/7", 4);
    refused(&SealingKey::from_slice(&[8; 32]).unwrap(), b"grants/7", 3);
    assert_eq!(
        &**open_record(&key(), b"grants/7", 3, &record).unwrap(),
        b"content"
    );
}

#[test]
fn two_records_of_the_same_content_have_nothing_in_common() {
    let a = seal_record(&key(), b"id", 1, &[0; 64]).unwrap();
    let b = seal_record(&key(), b"id", 1, &[0; 64]).unwrap();
    assert_eq!(a.len(), 64 + RECORD_OVERHEAD);
    assert_ne!(a[1..33], b[1..33]);
    assert_ne!(a[33..], b[33..]);
}

#[test]
fn the_limits_are_exact() {
    let plain = vec![0; RECORD_MAX + 1];
    let seal = seal_record(&key(), b"id", 1, &plain);
    assert_eq!(
        seal.unwrap_err(),
        SealRecordError::TooLarge {
            len: RECORD_MAX + 1
        }
    );
    let record = seal_record(&key(), b"id", 1, &plain[1..]).unwrap();
    assert_eq!(
        open_record(&key(), b"id", 1, &record).unwrap().len(),
        RECORD_MAX
    );
    let longer = vec![FORMAT; RECORD_MAX + RECORD_OVERHEAD + 1];
    let open = open_record(&key(), b"id", 1, &longer);
    assert_eq!(
        open.unwrap_err(),
        OpenRecordError::TooLarge { len: longer.len() }
    );
}
