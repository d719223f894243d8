//! Makes the artifact vectors, from rules only.

use crypto::sha256;
use protocol::ModelVersion;

use crate::format::{ARTIFACT, ArtifactCase, Content, Cut, Edit, File, Hex, Names, SEGMENT};
use crate::make_envelopes::named;

const HEADER: usize = 40;
const TAG: usize = 16;
/// Plaintext in the first segment and in each further one.
const FIRST: usize = SEGMENT - HEADER - TAG;
const NEXT: usize = SEGMENT - TAG;
/// Artifacts up to this length are in the file as they are.
const INLINE_MAX: usize = 1024;

pub(crate) fn files() -> Vec<(String, String)> {
    let opens = vec![
        case("empty", rule("empty", 0)),
        case("one byte", Content::Hex(Hex(vec![0x42]))),
        case(
            "a short text",
            Content::Hex(Hex(b"the weights of a very small model".into())),
        ),
        case("one byte less than a segment", rule("a", FIRST - 1)),
        case("exactly one segment", rule("b", FIRST)),
        case("one byte more than a segment", rule("c", FIRST + 1)),
        case("exactly two segments", rule("d", FIRST + NEXT)),
        case("three segments, the last short", three()),
        case("exactly three segments", rule("f", FIRST + 2 * NEXT)),
        {
            let mut longest = case("longest model name, highest version", rule("g", 100));
            longest.seal.model = "z".repeat(64).parse().unwrap();
            longest.seal.version = ModelVersion(u32::MAX);
            longest
        },
    ];
    let mut refused = Vec::new();
    flips(&mut refused);
    truncations(&mut refused);
    orders(&mut refused);
    elsewhere(&mut refused);
    crafted(&mut refused);
    digests(&mut refused);
    vec![
        file("artifact-opens.json", "Artifacts that open.", opens),
        file(
            "artifact-refused.json",
            "Artifacts that must be refused, and why.",
            refused,
        ),
    ]
}

fn file(name: &str, about: &str, mut cases: Vec<ArtifactCase>) -> (String, String) {
    for case in &mut cases {
        let bytes = case.bytes();
        case.len = bytes.len() as u64;
        case.sha256 = sha256(&bytes);
        case.artifact = (bytes.len() <= INLINE_MAX).then_some(Hex(bytes));
    }
    let file = File {
        format: ARTIFACT.into(),
        about: about.into(),
        cases,
    };
    (
        name.into(),
        serde_json::to_string_pretty(&file).unwrap() + "\n",
    )
}

fn rule(seed: &str, len: usize) -> Content {
    Content::Rule {
        seed: seed.into(),
        len,
    }
}

fn three() -> Content {
    rule("three", FIRST + NEXT + 1000)
}

fn names() -> Names {
    Names {
        key: Hex(named::<32>("model key").into()),
        model: "mobilenet-v1".parse().unwrap(),
        version: ModelVersion(3),
    }
}

fn case(name: &str, plaintext: Content) -> ArtifactCase {
    ArtifactCase {
        name: name.into(),
        seal: names(),
        salt: Hex(named::<32>(&format!("{name} salt")).into()),
        nonce_prefix: Hex(named::<7>(&format!("{name} nonce prefix")).into()),
        plaintext,
        segments: Vec::new(),
        edits: Vec::new(),
        len: 0,
        sha256: sha256(b""),
        artifact: None,
        open: None,
        announced: None,
        registered: None,
        refused: None,
        refused_segment: None,
    }
}

/// The artifact of three segments (or of one, if `short`), which opens unless it is edited.
fn base(name: &str, short: bool) -> ArtifactCase {
    let plaintext = if short { rule("short", 24) } else { three() };
    let mut case = case(if short { "short base" } else { "base" }, plaintext);
    case.name = name.into();
    case
}

fn cannot_open(mut case: ArtifactCase, segment: u32) -> ArtifactCase {
    case.refused = Some("cannot_open".into());
    case.refused_segment = Some(segment);
    case
}

fn refused(mut case: ArtifactCase, reason: &str) -> ArtifactCase {
    case.refused = Some(reason.into());
    case
}

fn flips(out: &mut Vec<ArtifactCase>) {
    // Every byte of a short one.
    for at in 0..HEADER + 24 + TAG {
        let field = match at {
            0 => "header length",
            1..33 => "salt",
            33..40 => "nonce prefix",
            40..64 => "ciphertext",
            _ => "tag",
        };
        let mut case = base(&format!("bit {} of byte {at}, {field}", at % 8), true);
        case.edits.push(Edit::Flip {
            at,
            mask: 1 << (at % 8),
        });
        out.push(cannot_open(case, 0));
    }
    // First and last byte of ciphertext and tag of every segment of a long one.
    let end = 2 * SEGMENT + 1000 + TAG;
    for (segment, start, stop) in [
        (0, HEADER, SEGMENT),
        (1, SEGMENT, 2 * SEGMENT),
        (2, 2 * SEGMENT, end),
    ] {
        for at in [start, stop - TAG - 1, stop - TAG, stop - 1] {
            let mut case = base(&format!("segment {segment}: byte {at}"), false);
            case.edits.push(Edit::Flip { at, mask: 0x80 });
            out.push(cannot_open(case, segment));
        }
    }
}

fn truncations(out: &mut Vec<ArtifactCase>) {
    let mut cut = |len: usize, reason: &str, segment: Option<u32>| {
        let mut case = base(&format!("cut to {len} bytes"), false);
        case.edits.push(Edit::Truncate { len });
        out.push(match segment {
            Some(segment) => cannot_open(case, segment),
            None => refused(case, reason),
        });
    };
    cut(0, "length", None);
    cut(1, "length", None);
    cut(HEADER, "length", None);
    cut(HEADER + TAG - 1, "length", None);
    cut(HEADER + TAG, "", Some(0));
    cut(SEGMENT - 1, "", Some(0));
    cut(SEGMENT, "", Some(0));
    cut(SEGMENT + 1, "length", None);
    cut(SEGMENT + TAG, "length", None);
    cut(SEGMENT + TAG + 1, "", Some(1));
    cut(2 * SEGMENT, "", Some(1));
    cut(2 * SEGMENT + TAG, "length", None);
    cut(2 * SEGMENT + 999 + TAG, "", Some(2));

    let mut case = base("one byte after the end", false);
    case.edits.push(Edit::Append {
        bytes: Hex(vec![0]),
    });
    out.push(cannot_open(case, 2));
    let mut case = base("a tag's worth of bytes after the end", true);
    case.edits.push(Edit::Append {
        bytes: Hex(vec![0; TAG]),
    });
    out.push(cannot_open(case, 0));

    let mut case = base("announced one byte longer than it is", false);
    case.announced = Some((2 * SEGMENT + 1000 + TAG + 1) as u64);
    out.push(refused(case, "truncated"));
    let mut case = base("announced one byte shorter than it is", false);
    case.announced = Some((2 * SEGMENT + 1000 + TAG - 1) as u64);
    out.push(refused(case, "too_long"));
}

fn orders(out: &mut Vec<ArtifactCase>) {
    for (what, segments, at) in [
        ("first two swapped", &[1, 0, 2][..], 0),
        ("first missing", &[1, 2], 0),
        ("second missing", &[0, 2], 1),
        ("last missing", &[0, 1], 1),
        ("second twice", &[0, 1, 1, 2], 2),
        ("first twice", &[0, 0, 1, 2], 1),
        ("last twice, its first time in the middle", &[0, 2, 1, 2], 1),
        ("all twice", &[0, 1, 2, 0, 1, 2], 2),
    ] {
        let mut case = base(&format!("segments: {what}"), false);
        case.edits.push(Edit::Order {
            segments: segments.into(),
        });
        out.push(cannot_open(case, at));
    }
    for (segment, at) in [(0, 1), (1, 1), (2, 2)] {
        let mut case = base(
            &format!("segment {segment} of an artifact of the same key"),
            false,
        );
        case.edits.push(Edit::Splice {
            segment,
            salt: Hex(named::<32>("another salt").into()),
            nonce_prefix: case.nonce_prefix.clone(),
            plaintext: three(),
        });
        // A foreign first segment brings its header with it and opens; ours then do not.
        out.push(cannot_open(case, at));
    }
}

fn elsewhere(out: &mut Vec<ArtifactCase>) {
    let mut with = |what: &str, change: &dyn Fn(&mut Names)| {
        for short in [true, false] {
            let size = if short { "short" } else { "long" };
            let mut case = base(&format!("{size}: {what}"), short);
            let mut names = names();
            change(&mut names);
            case.open = Some(names);
            out.push(cannot_open(case, 0));
        }
    };
    with("another key", &|n| {
        n.key = Hex(named::<32>("another model key").into())
    });
    with("another model", &|n| {
        n.model = "mobilenet-v2".parse().unwrap()
    });
    with("a model that starts the same", &|n| {
        n.model = "mobilenet-v".parse().unwrap()
    });
    with("an older version", &|n| n.version = ModelVersion(2));
    with("a newer version", &|n| n.version = ModelVersion(4));
    with("a version that starts the same", &|n| {
        n.version = ModelVersion(31)
    });
}

/// Made with the right key by somebody who does not keep to the format.
fn crafted(out: &mut Vec<ArtifactCase>) {
    let mut push = |what: &str, cuts: &[(usize, bool)], reason: &str, segment: Option<u32>| {
        let len = cuts.iter().map(|(take, _)| take).sum();
        let mut case = case(&format!("crafted: {what}"), rule("crafted", len));
        case.segments = cuts
            .iter()
            .map(|&(take, last)| Cut { take, last })
            .collect();
        out.push(match segment {
            Some(segment) => cannot_open(case, segment),
            None => refused(case, reason),
        });
    };
    push(
        "no segment is the last",
        &[(FIRST, false), (NEXT, false), (9, false)],
        "",
        Some(2),
    );
    push(
        "the first says that it is the last",
        &[(FIRST, true), (9, true)],
        "",
        Some(0),
    );
    push(
        "two say that they are the last",
        &[(FIRST, false), (NEXT, true), (9, true)],
        "",
        Some(1),
    );
    push(
        "one segment that is not the last",
        &[(9, false)],
        "",
        Some(0),
    );
    push(
        "an empty segment at the end",
        &[(FIRST, false), (0, true)],
        "length",
        None,
    );
    push(
        "a short segment in the middle",
        &[(FIRST, false), (9, false), (NEXT, true)],
        "",
        Some(1),
    );
    push(
        "a first segment that is short",
        &[(9, false), (NEXT, true)],
        "",
        Some(0),
    );
    push(
        "a segment that is too long",
        &[(FIRST + 1, false), (9, true)],
        "",
        Some(0),
    );
}

/// Authentic under key, model and version, and not what the owner registered.
fn digests(out: &mut Vec<ArtifactCase>) {
    for short in [true, false] {
        let size = if short { "short" } else { "long" };
        let mut case = base(
            &format!("{size}: an earlier artifact of the same version"),
            short,
        );
        case.registered = Some(sha256(b"what the owner registered"));
        out.push(refused(case, "digest"));
    }
    // Whatever else is wrong, bytes that are not the registered ones are reported as that.
    let mut case = base("a changed byte, and the registered digest", false);
    case.registered = Some(sha256(&case.bytes()));
    case.edits.push(Edit::Flip {
        at: SEGMENT + 5,
        mask: 1,
    });
    out.push(refused(case, "digest"));
    let mut case = base(
        "another model's artifact in the place of the registered one",
        true,
    );
    case.registered = Some(sha256(&case.bytes()));
    case.seal.model = "densenet-121".parse().unwrap();
    case.open = Some(names());
    out.push(refused(case, "digest"));
}
