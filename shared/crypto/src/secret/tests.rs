//! Keys: exact lengths, nothing printed, files that are private and never overwritten.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::*;

#[test]
fn every_length_but_32_is_refused() {
    for len in (0..100).filter(|&n| n != 32) {
        let bytes = vec![1; len];
        assert_eq!(
            ModelKey::from_slice(&bytes).unwrap_err(),
            KeyLengthError { got: len }
        );
        let wire = WireKey::new(&bytes);
        assert_eq!(
            RequestKey::from_wire(&wire).unwrap_err(),
            KeyLengthError { got: len }
        );
    }
}

#[test]
fn equality_is_of_all_bytes() {
    let key = SealingKey::from_slice(&[9; 32]).unwrap();
    assert!(key.ct_eq(&SealingKey::from_slice(&[9; 32]).unwrap()));
    for byte in 0..32 {
        let mut other = [9; 32];
        other[byte] ^= 0x80;
        assert!(
            !key.ct_eq(&SealingKey::from_slice(&other).unwrap()),
            "{byte}"
        );
    }
}

#[test]
fn two_generated_keys_differ() {
    assert!(
        !ModelKey::generate()
            .unwrap()
            .ct_eq(&ModelKey::generate().unwrap())
    );
}

#[test]
fn nothing_of_a_key_is_printed() {
    let key = ResponseKey::from_slice(&[0x41; 32]).unwrap();
    assert_eq!(format!("{key:?} {key:#?}"), "ResponseKey ResponseKey");
}

#[test]
fn the_wire_form_round_trips() {
    let key = RequestKey::generate().unwrap();
    assert!(RequestKey::from_wire(&key.to_wire()).unwrap().ct_eq(&key));
}

#[test]
fn a_key_file_is_private_and_never_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    let key = ModelKey::generate().unwrap();
    key.write_file(&path).unwrap();
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let again = ModelKey::generate().unwrap().write_file(&path);
    assert!(
        matches!(again, Err(KeyFileError::Exists { .. })),
        "{again:?}"
    );
    assert!(ModelKey::read_file(&path).unwrap().ct_eq(&key));
}

#[test]
fn a_key_file_that_others_can_read_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    ModelKey::generate().unwrap().write_file(&path).unwrap();
    for mode in [0o640, 0o604, 0o620, 0o602, 0o610, 0o601] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let read = ModelKey::read_file(&path);
        assert!(
            matches!(read, Err(KeyFileError::Exposed { mode: m, .. }) if m == mode),
            "{mode:o}"
        );
    }
}

#[test]
fn a_key_file_of_another_kind_or_form_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    let key = "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE=";
    let good = format!("sesemi-model-key-1:{key}\n");
    let put = |content: &[u8]| {
        drop(fs::remove_file(&path));
        key_file::write(&path, content).unwrap();
    };
    put(good.as_bytes());
    assert!(
        ModelKey::read_file(&path)
            .unwrap()
            .ct_eq(&ModelKey::from_slice(&[0x41; 32]).unwrap())
    );
    let refused = RequestKey::read_file(&path).unwrap_err();
    assert!(matches!(refused, KeyFileError::Format { .. }));
    assert!(!refused.to_string().contains(key), "{refused}");

    let (short, long) = (&key[4..], format!("QUFB{key}"));
    for bad in [
        String::new(),
        "sesemi-model-key-1:".into(),
        format!("sesemi-model-key-1 {key}\n"),
        format!("sesemi-model-key-2:{key}\n"),
        format!("sesemi-model-key-1:{short}\n"),
        format!("sesemi-model-key-1:{long}\n"),
        format!("sesemi-model-key-1:{}\n", key.trim_end_matches('=')),
        format!("sesemi-model-key-1:{}!=\n", &key[..42]),
        format!("{good}\n"),
        format!("\n{good}"),
        format!("{good}{}", " ".repeat(5000)),
    ] {
        put(bad.as_bytes());
        let read = ModelKey::read_file(&path);
        assert!(
            matches!(read, Err(KeyFileError::Format { .. })),
            "{bad:?} {read:?}"
        );
    }
}

#[test]
fn a_key_file_that_cannot_be_read_or_written_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("no").join("key");
    let read = ModelKey::read_file(&missing).unwrap_err();
    assert!(matches!(read, KeyFileError::Read { .. }), "{read:?}");
    let written = ModelKey::generate()
        .unwrap()
        .write_file(&missing)
        .unwrap_err();
    assert!(matches!(written, KeyFileError::Write { .. }), "{written:?}");
}

#[test]
fn a_sealing_key_is_bound_to_its_context() {
    let key = SealingKey::from_slice(&[7; 32]).unwrap();
    let one = key.bound_to(b"one").unwrap();
    assert!(one.ct_eq(&key.bound_to(b"one").unwrap()));
    assert!(!one.ct_eq(&key.bound_to(b"two").unwrap()));
    assert!(!one.ct_eq(&key));
    let other = SealingKey::from_slice(&[8; 32]).unwrap();
    assert!(!one.ct_eq(&other.bound_to(b"one").unwrap()));
}
