//! Artifacts: every way to change one, both errors told apart, bounds on memory and length.

use std::io::Read;

use super::*;
use crate::digest::sha256;

const KEY: [u8; 32] = [7; 32];
/// Plaintext bytes in the first segment and in each further one.
const FIRST: usize = SEGMENT_LEN - HEADER_LEN - TAG_LEN;
const NEXT: usize = SEGMENT_LEN - TAG_LEN;

#[derive(Default)]
struct Collected {
    announced: Option<u64>,
    bytes: Vec<u8>,
    longest: usize,
    refuse_after: Option<usize>,
}

impl PlaintextSink for Collected {
    fn begin(&mut self, plaintext_len: u64) -> Result<(), SinkError> {
        assert_eq!(
            self.announced.replace(plaintext_len),
            None,
            "begin came twice"
        );
        Ok(())
    }

    fn write(&mut self, segment: &[u8]) -> Result<(), SinkError> {
        assert!(self.announced.is_some(), "write came before begin");
        self.longest = self.longest.max(segment.len());
        self.bytes.extend_from_slice(segment);
        match self.refuse_after {
            Some(limit) if self.bytes.len() > limit => Err(SinkError::new("no room")),
            _ => Ok(()),
        }
    }
}

fn key() -> ModelKey {
    ModelKey::from_slice(&KEY).unwrap()
}

fn model() -> ModelId {
    "resnet".parse().unwrap()
}

/// Bytes of which no two segments are alike.
fn plaintext(len: usize) -> Vec<u8> {
    (0u64..)
        .flat_map(|n| *sha256(&n.to_le_bytes()).as_bytes())
        .take(len)
        .collect()
}

fn seal(plain: &[u8], threads: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let sealed = seal_artifact_on(
        threads,
        &key(),
        &model(),
        ModelVersion(3),
        &mut &*plain,
        &mut out,
    )
    .unwrap();
    assert_eq!(
        sealed,
        SealedArtifact {
            len: out.len() as u64,
            digest: sha256(&out)
        }
    );
    out
}

/// Opens what has the right digest, pushed in pieces of `piece` bytes.
fn open_pieces(
    artifact: &[u8],
    digest: Digest,
    piece: usize,
    threads: usize,
) -> (Collected, Result<(), ArtifactError>) {
    let mut sink = Collected::default();
    let len = artifact.len() as u64;
    let mut opener =
        match ArtifactOpener::new(&key(), &model(), ModelVersion(3), digest, len, threads) {
            Ok(opener) => opener,
            Err(e) => return (sink, Err(e)),
        };
    for chunk in artifact.chunks(piece) {
        if let Err(e) = opener.push(chunk, &mut sink) {
            opener
                .finish(&mut sink)
                .expect_err("an error does not go away");
            return (sink, Err(e));
        }
    }
    let result = opener.finish(&mut sink);
    (sink, result)
}

fn open(artifact: &[u8]) -> Result<(), ArtifactError> {
    open_pieces(artifact, sha256(artifact), SEGMENT_LEN, 2).1
}

#[test]
fn lengths_around_every_boundary_round_trip() {
    let sizes = [
        0,
        1,
        FIRST - 1,
        FIRST,
        FIRST + 1,
        FIRST + NEXT - 1,
        FIRST + NEXT,
    ];
    let sizes = sizes
        .into_iter()
        .chain([FIRST + NEXT + 1, FIRST + 3 * NEXT, FIRST + 4 * NEXT + 9]);
    for len in sizes {
        let plain = plaintext(len);
        for threads in [0, 1, 2, 3] {
            let artifact = seal(&plain, threads);
            assert_eq!(plaintext_len(artifact.len() as u64).unwrap(), len as u64);
            let (sink, result) = open_pieces(&artifact, sha256(&artifact), 1_000_003, threads);
            result.unwrap();
            assert_eq!(sink.announced, Some(len as u64));
            assert!(sink.bytes == plain, "{len} bytes on {threads} threads");
            assert!(sink.longest <= SEGMENT_LEN);
        }
    }
}

#[test]
fn pieces_of_any_size_give_the_same() {
    let plain = plaintext(FIRST + NEXT + 5);
    let artifact = seal(&plain, 2);
    for piece in [
        7,
        4096,
        SEGMENT_LEN - 1,
        SEGMENT_LEN,
        SEGMENT_LEN + 1,
        usize::MAX,
    ] {
        let (sink, result) = open_pieces(&artifact, sha256(&artifact), piece, 2);
        result.unwrap();
        assert!(sink.bytes == plain, "{piece}");
    }
}

#[test]
fn a_changed_byte_anywhere_in_a_small_artifact_is_refused() {
    let artifact = seal(b"weights", 1);
    for at in 0..artifact.len() {
        let mut changed = artifact.clone();
        changed[at] ^= 1;
        // As the host would do it: the digest is the registered one.
        let (sink, result) = open_pieces(&changed, sha256(&artifact), 100, 1);
        assert!(
            matches!(result, Err(ArtifactError::Digest { .. })),
            "{at} {result:?}"
        );
        assert!(sink.bytes.is_empty());
        // As an owner could do it: the digest fits.
        let result = open(&changed);
        assert!(
            matches!(result, Err(ArtifactError::CannotOpen { segment: 0 })),
            "{at} {result:?}"
        );
    }
}

#[test]
fn a_changed_byte_in_any_segment_ends_the_output_before_that_segment() {
    let plain = plaintext(FIRST + 2 * NEXT + 100);
    let artifact = seal(&plain, 2);
    for (segment, written) in [(0, 0), (1, FIRST), (2, FIRST + NEXT), (3, FIRST + 2 * NEXT)] {
        for at in [
            segment * SEGMENT_LEN + 45,
            ((segment + 1) * SEGMENT_LEN).min(artifact.len()) - 1,
        ] {
            let mut changed = artifact.clone();
            changed[at] ^= 0x80;
            for threads in [1, 2, 5] {
                let (sink, result) = open_pieces(&changed, sha256(&changed), 65536, threads);
                let Err(ArtifactError::CannotOpen { segment: s }) = result else {
                    panic!("{at}: {result:?}");
                };
                assert_eq!(s as usize, segment);
                assert!(sink.bytes == plain[..written], "{at} {threads}");
                let (_, result) = open_pieces(&changed, sha256(&artifact), 65536, threads);
                assert!(
                    matches!(result, Err(ArtifactError::Digest { .. })),
                    "{at} {result:?}"
                );
            }
        }
    }
}

#[test]
fn segments_in_another_order_or_number_are_refused() {
    let artifact = seal(&plaintext(FIRST + 3 * NEXT), 2);
    let segments: Vec<_> = artifact.chunks(SEGMENT_LEN).collect();
    for order in [
        &[1, 0, 2, 3][..],
        &[0, 2, 1, 3],
        &[0, 1, 3, 2],
        &[0, 1, 2],
        &[0, 1],
        &[0],
        &[1, 2, 3],
        &[0, 1, 1, 2, 3],
        &[0, 1, 2, 3, 3],
        &[0, 1, 3],
    ] {
        let changed: Vec<u8> = order
            .iter()
            .flat_map(|&i| segments[i].iter().copied())
            .collect();
        let result = open(&changed);
        assert!(
            matches!(result, Err(ArtifactError::CannotOpen { .. })),
            "{order:?} {result:?}"
        );
    }
}

#[test]
fn another_key_model_or_version_is_refused() {
    let artifact = seal(b"weights", 1);
    let digest = sha256(&artifact);
    let open = |key: &ModelKey, model: &str, version, digest| {
        let mut sink = Collected::default();
        let (model, len) = (model.parse().unwrap(), artifact.len() as u64);
        let mut src = artifact.as_slice();
        open_artifact(
            key,
            &model,
            ModelVersion(version),
            digest,
            &mut src,
            len,
            1,
            &mut sink,
        )
    };
    let cannot = |result| {
        assert!(matches!(
            result,
            Err(ArtifactError::CannotOpen { segment: 0 })
        ))
    };
    cannot(open(
        &ModelKey::from_slice(&[8; 32]).unwrap(),
        "resnet",
        3,
        digest,
    ));
    cannot(open(&key(), "resnet2", 3, digest));
    cannot(open(&key(), "resne", 3, digest));
    cannot(open(&key(), "resnet", 33, digest));
    cannot(open(&key(), "resnet", 2, digest));
    let other = open(&key(), "resnet", 3, sha256(b"another"));
    assert!(matches!(other, Err(ArtifactError::Digest { got, .. }) if got == digest));
    open(&key(), "resnet", 3, digest).unwrap();
}

#[test]
fn the_last_segment_is_only_last() {
    let plain = plaintext(FIRST + NEXT + 4);
    let (a, rest) = plain.split_at(FIRST);
    let (b, c) = rest.split_at(NEXT);
    let fresh = Fresh {
        salt: [1; 32],
        prefix: [2; 7],
    };
    let crafted = |segments: &[(&[u8], bool)]| {
        seal_segments(&fresh, &key(), &model(), ModelVersion(3), segments).unwrap()
    };
    open(&crafted(&[(a, false), (b, false), (c, true)])).unwrap();
    for segments in [
        &[(a, false), (b, false), (c, false)][..],
        &[(a, true), (b, false), (c, true)],
        &[(a, false), (b, true), (c, true)],
        &[(a, false)],
    ] {
        let result = open(&crafted(segments));
        assert!(
            matches!(result, Err(ArtifactError::CannotOpen { .. })),
            "{result:?}"
        );
    }
    // An empty last segment would be a second form of the same plaintext.
    let result = open(&crafted(&[(a, false), (b, false), (&[], true)]));
    assert!(
        matches!(result, Err(ArtifactError::Length { .. })),
        "{result:?}"
    );
}

#[test]
fn impossible_lengths_are_refused_before_any_byte() {
    let segment = SEGMENT_LEN as u64;
    for len in [0, 1, 55, segment + 1, segment + 16, 5 * segment + 16] {
        let result = plaintext_len(len);
        assert!(
            matches!(result, Err(ArtifactError::Length { len: l }) if l == len),
            "{len}"
        );
    }
    for (len, plain) in [
        (56, 0),
        (57, 1),
        (segment, segment - 56),
        (segment + 17, segment - 55),
    ] {
        assert_eq!(plaintext_len(len).unwrap(), plain);
    }
    let segments = (PACKAGE_MAX + 40).div_ceil(segment - 16);
    let largest = PACKAGE_MAX + 40 + 16 * segments;
    assert_eq!(plaintext_len(largest).unwrap(), PACKAGE_MAX);
    for len in [largest + 1, u64::MAX] {
        let result = plaintext_len(len);
        assert!(matches!(
            result,
            Err(ArtifactError::TooLarge { .. } | ArtifactError::Length { .. })
        ));
    }
}

#[test]
fn fewer_or_more_bytes_than_announced_are_refused() {
    let artifact = seal(&plaintext(FIRST + 10), 2);
    let (len, digest) = (artifact.len() as u64, sha256(&artifact));
    let new = || ArtifactOpener::new(&key(), &model(), ModelVersion(3), digest, len, 2).unwrap();
    let mut sink = Collected::default();
    let mut opener = new();
    opener
        .push(&artifact[..artifact.len() - 1], &mut sink)
        .unwrap();
    let result = opener.finish(&mut sink);
    assert!(
        matches!(result, Err(ArtifactError::Truncated { missing: 1 })),
        "{result:?}"
    );

    let mut sink = Collected::default();
    let result = new().finish(&mut sink);
    assert!(
        matches!(result, Err(ArtifactError::Truncated { .. })),
        "{result:?}"
    );

    let mut sink = Collected::default();
    let mut opener = new();
    opener.push(&artifact, &mut sink).unwrap();
    let result = opener.push(&[0], &mut sink);
    assert!(
        matches!(result, Err(ArtifactError::TooLong { .. })),
        "{result:?}"
    );
    opener
        .finish(&mut sink)
        .expect_err("an error does not go away");

    let read = |mut src: &[u8]| {
        let (key, model, version) = (key(), model(), ModelVersion(3));
        let mut sink = Collected::default();
        open_artifact(&key, &model, version, digest, &mut src, len, 2, &mut sink)
    };
    read(&artifact).unwrap();
    let result = read(&artifact[..artifact.len() - 1]);
    assert!(
        matches!(result, Err(ArtifactError::Truncated { missing: 1 })),
        "{result:?}"
    );
    let result = read(&[&artifact[..], &[0]].concat());
    assert!(
        matches!(result, Err(ArtifactError::TooLong { .. })),
        "{result:?}"
    );
}

#[test]
fn a_sink_that_refuses_ends_it_for_good() {
    let artifact = seal(&plaintext(FIRST + 2 * NEXT), 2);
    let (len, digest) = (artifact.len() as u64, sha256(&artifact));
    let mut opener =
        ArtifactOpener::new(&key(), &model(), ModelVersion(3), digest, len, 1).unwrap();
    let mut sink = Collected {
        refuse_after: Some(FIRST),
        ..Collected::default()
    };
    let (first, rest) = artifact.split_at(2 * SEGMENT_LEN);
    let error = opener.push(first, &mut sink).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the receiver of the opened artifact refused it"
    );
    assert_eq!(Error::source(&error).unwrap().to_string(), "no room");
    let written = sink.bytes.len();
    opener.push(rest, &mut sink).unwrap();
    let result = opener.finish(&mut sink);
    assert!(
        matches!(result, Err(ArtifactError::CannotOpen { segment: 1 })),
        "{result:?}"
    );
    assert_eq!(
        sink.bytes.len(),
        written,
        "nothing is written after a refusal"
    );
}

#[test]
fn a_reader_that_fails_or_gives_little_at_a_time() {
    struct Slow<'a>(&'a [u8], bool);
    impl Read for Slow<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.1 = !self.1;
            if self.1 {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let len = buffer.len().min(30_000);
            self.0.read(&mut buffer[..len])
        }
    }
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::TimedOut.into())
        }
    }
    let (key, model, version) = (key(), model(), ModelVersion(3));
    let plain = plaintext(FIRST + 100);
    let mut artifact = Vec::new();
    let sealed = seal_artifact(
        &key,
        &model,
        version,
        &mut Slow(&plain, false),
        &mut artifact,
    )
    .unwrap();
    let (mut sink, digest, len) = (Collected::default(), sealed.digest, sealed.len);
    let mut src = Slow(&artifact, false);
    open_artifact(&key, &model, version, digest, &mut src, len, 1, &mut sink).unwrap();
    assert!(sink.bytes == plain);

    let result = seal_artifact(&key, &model, version, &mut Broken, &mut Vec::new());
    assert!(matches!(result, Err(ArtifactError::Read(_))), "{result:?}");
    let mut sink = Collected::default();
    let result = open_artifact(
        &key,
        &model,
        version,
        digest,
        &mut Broken,
        len,
        1,
        &mut sink,
    );
    assert!(matches!(result, Err(ArtifactError::Read(_))), "{result:?}");
    let mut full: &mut [u8] = &mut [0; 50];
    let result = seal_artifact(&key, &model, version, &mut &*plain, &mut full);
    assert!(matches!(result, Err(ArtifactError::Write(_))), "{result:?}");
}

#[test]
fn memory_is_bounded_by_the_threads_and_by_the_artifact() {
    let new = |len, threads| {
        let digest = Digest::new([0; 32]);
        ArtifactOpener::new(&key(), &model(), ModelVersion(3), digest, len, threads).unwrap()
    };
    let huge = new(PACKAGE_MAX, 3);
    assert_eq!(huge.memory(), 2 * 3 * SEGMENT_LEN);
    let tiny = new(100, 64);
    assert_eq!(tiny.memory(), 200);
    assert_eq!(
        new(PACKAGE_MAX, usize::MAX).memory(),
        2 * THREADS_MAX * SEGMENT_LEN
    );
}

#[test]
fn an_opener_prints_neither_key_nor_plaintext() {
    let artifact = seal(b"AAAAAAAA", 1);
    let len = artifact.len() as u64;
    let mut opener =
        ArtifactOpener::new(&key(), &model(), ModelVersion(3), sha256(&artifact), len, 1).unwrap();
    opener.push(&artifact, &mut Collected::default()).unwrap();
    let text = format!("{opener:?}");
    assert!(!text.contains("65") && !text.contains("key"), "{text}");
}
