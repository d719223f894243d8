//! Opens every envelope and artifact in testvectors/, of which at least half must be refused.
//!
//! The ignored test writes the files again; another one fails if that would change any of them.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod encodings;
mod format;
mod make_artifacts;
mod make_envelopes;

use std::collections::BTreeSet;
use std::fs;

use crypto::vectors::EnvelopeFresh;
use crypto::{
    ArtifactError, ArtifactOpener, Binding, ModelKey, OpenError, PlaintextSink, RequestKey,
    ResponseKey, SinkError,
};

use format::{ArtifactCase, Direction, EnvelopeCase};

#[test]
fn every_envelope_opens_or_is_refused_as_written() {
    let cases: Vec<EnvelopeCase> = format::cases(format::ENVELOPE);
    check_mix(
        cases
            .iter()
            .map(|case| (case.name.as_str(), case.refused.is_some())),
    );
    for case in &cases {
        let binding = Binding {
            user: &case.user,
            model: &case.model,
            enclave: &case.enclave,
            request_id: &case.request_id,
        };
        let (opened, response_key) = match case.direction {
            Direction::Request => {
                let key = RequestKey::from_slice(&case.key.0).unwrap();
                match crypto::open_request(&key, &binding, &case.envelope.0) {
                    Ok((plaintext, key)) => (Ok(plaintext), Some(key)),
                    Err(e) => (Err(e), None),
                }
            }
            Direction::Response => {
                let key = ResponseKey::from_slice(&case.key.0).unwrap();
                (
                    crypto::open_response(&key, &binding, &case.envelope.0),
                    None,
                )
            }
        };
        match (&case.opens, &case.refused) {
            (Some(opens), None) => {
                let plaintext = opened.unwrap_or_else(|e| panic!("{}: {e}", case.name));
                assert!(*plaintext == opens.payload.bytes(), "{}", case.name);
                let response_key = response_key.map(|k| crypto::vectors::response_key_bytes(&k));
                let expected = opens.response_key.as_ref().map(format::Hex::array);
                assert_eq!(response_key, expected, "{}", case.name);
                assert!(
                    seal_again(case, &binding, opens) == case.envelope.0,
                    "{}",
                    case.name
                );
            }
            (None, Some(reason)) => {
                let error = opened.map(|p| p.len()).expect_err(&case.name);
                assert_eq!(envelope_reason(&error), reason, "{}", case.name);
            }
            _ => panic!("{} either opens or is refused", case.name),
        }
    }
}

/// The vector's salt and iv give the vector's bytes: the format has no freedom left.
fn seal_again(case: &EnvelopeCase, binding: &Binding<'_>, opens: &format::Opens) -> Vec<u8> {
    let fresh = EnvelopeFresh {
        salt: opens.salt.array(),
        iv: opens.iv.array(),
    };
    let payload = opens.payload.bytes();
    match case.direction {
        Direction::Request => {
            let key = RequestKey::from_slice(&case.key.0).unwrap();
            crypto::vectors::seal_request(&key, binding, &payload, fresh)
                .unwrap()
                .0
        }
        Direction::Response => {
            let key = ResponseKey::from_slice(&case.key.0).unwrap();
            crypto::vectors::seal_response(&key, binding, &payload, fresh).unwrap()
        }
    }
}

#[test]
fn every_artifact_opens_or_is_refused_as_written() {
    struct Collected(Vec<u8>);
    impl PlaintextSink for Collected {
        fn begin(&mut self, plaintext_len: u64) -> Result<(), SinkError> {
            self.0
                .reserve_exact(usize::try_from(plaintext_len).unwrap());
            Ok(())
        }
        fn write(&mut self, segment: &[u8]) -> Result<(), SinkError> {
            self.0.extend_from_slice(segment);
            Ok(())
        }
    }

    let cases: Vec<ArtifactCase> = format::cases(format::ARTIFACT);
    check_mix(
        cases
            .iter()
            .map(|case| (case.name.as_str(), case.refused.is_some())),
    );
    for case in &cases {
        let bytes = case.bytes();
        assert_eq!(bytes.len() as u64, case.len, "{}", case.name);
        assert_eq!(crypto::sha256(&bytes), case.sha256, "{}", case.name);
        assert!(
            case.artifact.as_ref().is_none_or(|hex| hex.0 == bytes),
            "{}",
            case.name
        );

        let names = case.open.as_ref().unwrap_or(&case.seal);
        let key = ModelKey::from_slice(&names.key.0).unwrap();
        let digest = case.registered.unwrap_or(case.sha256);
        let len = case.announced.unwrap_or(case.len);
        let mut sink = Collected(Vec::new());
        let result = ArtifactOpener::new(&key, &names.model, names.version, digest, len, 2)
            .and_then(|mut opener| {
                for chunk in bytes.chunks(100_000) {
                    opener.push(chunk, &mut sink)?;
                }
                opener.finish(&mut sink)
            });
        match (&case.refused, result) {
            (None, result) => {
                result.unwrap_or_else(|e| panic!("{}: {e}", case.name));
                assert!(sink.0 == case.plaintext.bytes(), "{}", case.name);
            }
            (Some(reason), result) => {
                let (got, segment) = artifact_reason(&result.expect_err(&case.name));
                assert_eq!(
                    (got, segment),
                    (reason.as_str(), case.refused_segment),
                    "{}",
                    case.name
                );
                // What came out before the refusal is a true beginning, and not all of it.
                let plain = case.plaintext.bytes();
                assert!(plain.starts_with(&sink.0), "{}", case.name);
            }
        }
    }
}

#[test]
fn the_files_are_what_the_generator_makes() {
    for (name, text) in generated() {
        let committed = fs::read_to_string(format::folder().join(&name)).unwrap_or_default();
        assert!(
            committed == text,
            "{name} differs; if the format changed on purpose, run: \
             cargo test -p sesemi-crypto --test vectors -- --ignored"
        );
    }
}

#[test]
#[ignore = "writes testvectors/"]
fn write_the_files() {
    for (name, text) in generated() {
        fs::write(format::folder().join(name), text).unwrap();
    }
}

fn generated() -> Vec<(String, String)> {
    make_envelopes::files()
        .into_iter()
        .chain(make_artifacts::files())
        .collect()
}

/// Names are unique, and at least half of the cases must fail to open.
fn check_mix<'a>(cases: impl Iterator<Item = (&'a str, bool)>) {
    let (mut names, mut refused) = (BTreeSet::new(), 0);
    for (name, is_refused) in cases {
        assert!(names.insert(name), "two vectors are called '{name}'");
        refused += usize::from(is_refused);
    }
    assert!(!names.is_empty() && refused < names.len() && refused * 2 >= names.len());
}

fn envelope_reason(error: &OpenError) -> &'static str {
    match error {
        OpenError::TooLarge { .. } => "too_large",
        OpenError::Malformed => "malformed",
        OpenError::CannotOpen => "cannot_open",
        OpenError::Padding => "padding",
    }
}

fn artifact_reason(error: &ArtifactError) -> (&'static str, Option<u32>) {
    match error {
        ArtifactError::Length { .. } => ("length", None),
        ArtifactError::TooLarge { .. } => ("too_large", None),
        ArtifactError::Truncated { .. } => ("truncated", None),
        ArtifactError::TooLong { .. } => ("too_long", None),
        ArtifactError::Digest { .. } => ("digest", None),
        ArtifactError::CannotOpen { segment } => ("cannot_open", Some(*segment)),
        other => panic!("{other}"),
    }
}
