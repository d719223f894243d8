//! Makes the envelope vectors, from rules only.

use crypto::vectors::{EnvelopeFresh, response_key_bytes, seal_request, seal_request_padded};
use crypto::{Binding, RequestKey, ResponseKey, sha256};
use protocol::{EnclaveId, PrincipalId, RequestId};

use crate::encodings::ENCODINGS;
use crate::format::{Content, Direction, ENVELOPE, EnvelopeCase, File, Hex, Opens};

pub(crate) fn files() -> Vec<(String, String)> {
    let opens: Vec<_> = opening();
    let mut refused = Vec::new();
    let request = &opens[2];
    let response = opens
        .iter()
        .find(|case| case.direction == Direction::Response)
        .unwrap();
    flips(request, &mut refused);
    flips(response, &mut refused);
    truncations(request, &mut refused);
    elsewhere(request, response, &mut refused);
    splices(request, &opens[3], &mut refused);
    encodings(request, &mut refused);
    padding(&mut refused);
    vec![
        file(
            "envelope-opens.json",
            "Envelopes that open, and what they were made from.",
            opens,
        ),
        file(
            "envelope-refused.json",
            "Envelopes that must be refused, and why.",
            refused,
        ),
    ]
}

fn file(name: &str, about: &str, cases: Vec<EnvelopeCase>) -> (String, String) {
    let file = File {
        format: ENVELOPE.into(),
        about: about.into(),
        cases,
    };
    (
        name.into(),
        serde_json::to_string_pretty(&file).unwrap() + "\n",
    )
}

/// The first bytes of SHA-256 of a name: reproducible, and no two alike.
pub(crate) fn named<const N: usize>(name: &str) -> [u8; N] {
    let mut bytes = [0; N];
    for (chunk, n) in bytes.chunks_mut(32).zip(0u8..) {
        let digest = sha256(&[name.as_bytes(), &[n]].concat());
        chunk.copy_from_slice(&digest.as_bytes()[..chunk.len()]);
    }
    bytes
}

fn fresh(name: &str) -> EnvelopeFresh {
    EnvelopeFresh {
        salt: named(&format!("{name} salt")),
        iv: named(&format!("{name} iv")),
    }
}

fn blank(name: &str, direction: Direction) -> EnvelopeCase {
    EnvelopeCase {
        name: name.into(),
        direction,
        key: Hex(named::<32>("request key").into()),
        user: PrincipalId::new(named("user")),
        model: "mobilenet-v1".parse().unwrap(),
        enclave: EnclaveId::new(named("enclave")),
        request_id: RequestId::new(named("request id")),
        envelope: Hex::default(),
        opens: None,
        refused: None,
    }
}

fn binding(case: &EnvelopeCase) -> Binding<'_> {
    Binding {
        user: &case.user,
        model: &case.model,
        enclave: &case.enclave,
        request_id: &case.request_id,
    }
}

fn opening() -> Vec<EnvelopeCase> {
    let mut cases = Vec::new();
    // The lengths cross every length form of CBOR and several padding buckets.
    for (name, payload) in [
        ("request, empty payload", Content::Hex(Hex(vec![]))),
        ("request, one byte", Content::Hex(Hex(vec![0]))),
        (
            "request, short payload",
            Content::Hex(Hex(b"fixed acidity, 7.4".into())),
        ),
        (
            "request, same payload again",
            Content::Hex(Hex(b"fixed acidity, 7.4".into())),
        ),
        (
            "request, padded without zeros",
            Content::Hex(Hex(vec![0xff; 60])),
        ),
        (
            "request, 1000 bytes",
            Content::Rule {
                seed: "1000".into(),
                len: 1000,
            },
        ),
        (
            "request, 66000 bytes",
            Content::Rule {
                seed: "66000".into(),
                len: 66_000,
            },
        ),
    ] {
        cases.push(request(blank(name, Direction::Request), payload));
    }
    let mut longest = blank("request, shortest and longest names", Direction::Request);
    longest.model = "m".repeat(64).parse().unwrap();
    longest.user = PrincipalId::new([0xff; 32]);
    longest.enclave = EnclaveId::new([0; 48]);
    longest.request_id = RequestId::new([0; 16]);
    cases.push(request(longest, Content::Hex(Hex(b"x".into()))));

    let answered = cases[2]
        .opens
        .as_ref()
        .unwrap()
        .response_key
        .clone()
        .unwrap();
    for (name, payload) in [
        (
            "response, short answer",
            Content::Hex(Hex(b"{\"class\":3}".into())),
        ),
        ("response, empty answer", Content::Hex(Hex(vec![]))),
        (
            "response, 1000 bytes",
            Content::Rule {
                seed: "answer".into(),
                len: 1000,
            },
        ),
    ] {
        let mut case = blank(name, Direction::Response);
        case.key = answered.clone();
        let key = ResponseKey::from_slice(&answered.0).unwrap();
        let fresh = fresh(name);
        let bytes = payload.bytes();
        let envelope = crypto::vectors::seal_response(&key, &binding(&case), &bytes, fresh);
        case.envelope = Hex(envelope.unwrap());
        case.opens = Some(Opens {
            salt: Hex(fresh.salt.into()),
            iv: Hex(fresh.iv.into()),
            payload,
            response_key: None,
        });
        cases.push(case);
    }
    cases
}

fn request(mut case: EnvelopeCase, payload: Content) -> EnvelopeCase {
    let key = RequestKey::from_slice(&case.key.0).unwrap();
    let fresh = fresh(&case.name);
    let sealed = seal_request(&key, &binding(&case), &payload.bytes(), fresh).unwrap();
    case.envelope = Hex(sealed.0);
    case.opens = Some(Opens {
        salt: Hex(fresh.salt.into()),
        iv: Hex(fresh.iv.into()),
        payload,
        response_key: Some(Hex(response_key_bytes(&sealed.1).into())),
    });
    case
}

/// A copy that must be refused.
fn bad(of: &EnvelopeCase, name: String, reason: &str) -> EnvelopeCase {
    EnvelopeCase {
        name,
        opens: None,
        refused: Some(reason.into()),
        ..of.clone()
    }
}

fn with(of: &EnvelopeCase, name: String, reason: &str, envelope: Vec<u8>) -> EnvelopeCase {
    EnvelopeCase {
        envelope: Hex(envelope),
        ..bad(of, name, reason)
    }
}

/// Fields of an envelope, with their lengths in bytes, for a ciphertext of less than 256 bytes.
fn fields(envelope: &[u8]) -> Vec<(&'static str, usize)> {
    let head = if envelope[22] == 0x58 { 2 } else { 1 };
    let around = 10 + 12 + head + 10 + 32 + 1;
    vec![
        ("tag", 2),
        ("array", 1),
        ("protected header", 4),
        ("unprotected header", 2),
        ("iv length", 1),
        ("iv", 12),
        ("ciphertext length", head),
        ("ciphertext", envelope.len() - around - 16),
        ("authentication tag", 16),
        ("recipients", 1),
        ("recipient", 1),
        ("recipient's protected header", 4),
        ("recipient's unprotected header", 2),
        ("salt length", 2),
        ("salt", 32),
        ("recipient's ciphertext", 1),
    ]
}

fn flips(of: &EnvelopeCase, out: &mut Vec<EnvelopeCase>) {
    let mut at = 0;
    for (field, len) in fields(&of.envelope.0) {
        let authenticated = ["iv", "ciphertext", "authentication tag", "salt"].contains(&field);
        let reason = if authenticated {
            "cannot_open"
        } else {
            "malformed"
        };
        for i in 0..len {
            // The response's fields are the same: one bit in each is enough there.
            if of.direction == Direction::Request || i == len / 2 {
                let mut envelope = of.envelope.0.clone();
                envelope[at + i] ^= 1 << (i % 8);
                let name = format!("{}: bit {} of byte {i} of the {field}", of.name, i % 8);
                out.push(with(of, name, reason, envelope));
            }
        }
        at += len;
    }
    assert_eq!(at, of.envelope.0.len());
}

fn truncations(of: &EnvelopeCase, out: &mut Vec<EnvelopeCase>) {
    let whole = &of.envelope.0;
    let mut at = 0;
    for (field, len) in fields(whole) {
        let name = format!("cut before the {field}");
        out.push(with(of, name, "malformed", whole[..at].to_vec()));
        at += len;
    }
    let last = whole.len() - 1;
    out.push(with(
        of,
        "one byte after the end".into(),
        "malformed",
        [whole, &[0][..]].concat(),
    ));
    out.push(with(
        of,
        "twice".into(),
        "malformed",
        [&whole[..], whole].concat(),
    ));
    out.push(with(
        of,
        "one byte before the start".into(),
        "malformed",
        [&[0], &whole[..]].concat(),
    ));
    out.push(with(
        of,
        "null after the end".into(),
        "malformed",
        [&whole[..last], &[0x40, 0xf6]].concat(),
    ));
}

fn elsewhere(request: &EnvelopeCase, response: &EnvelopeCase, out: &mut Vec<EnvelopeCase>) {
    for of in [request, response] {
        let mut push = |what: &str, change: &dyn Fn(&mut EnvelopeCase)| {
            let mut case = bad(of, format!("{}: {what}", of.name), "cannot_open");
            change(&mut case);
            out.push(case);
        };
        push("another user", &|c| {
            c.user = PrincipalId::new(named("another user"))
        });
        push("another model", &|c| {
            c.model = "mobilenet-v2".parse().unwrap()
        });
        push("a model that starts the same", &|c| {
            c.model = "mobilenet-v".parse().unwrap()
        });
        push("another enclave", &|c| {
            c.enclave = EnclaveId::new(named("another enclave"))
        });
        push("another request", &|c| {
            c.request_id = RequestId::new(named("another request"))
        });
        push("another key", &|c| {
            c.key = Hex(named::<32>("another key").into())
        });
        push("the other direction", &|c| {
            c.direction = match c.direction {
                Direction::Request => Direction::Response,
                Direction::Response => Direction::Request,
            };
        });
    }
    let mut case = bad(
        response,
        "response: with the request's key".into(),
        "cannot_open",
    );
    case.key = request.key.clone();
    out.push(case);
    // Same user, model, enclave, request id and payload, and another salt.
    let again = &opening()[3];
    let mut case = bad(
        response,
        "response: with the key of another request".into(),
        "cannot_open",
    );
    case.key = again.opens.as_ref().unwrap().response_key.clone().unwrap();
    out.push(case);
}

fn splices(of: &EnvelopeCase, other: &EnvelopeCase, out: &mut Vec<EnvelopeCase>) {
    let mut at = 0;
    for (field, len) in fields(&of.envelope.0) {
        if ["iv", "ciphertext", "authentication tag", "salt"].contains(&field) {
            let mut envelope = of.envelope.0.clone();
            envelope[at..at + len].copy_from_slice(&other.envelope.0[at..at + len]);
            let name = format!("the {field} of another request");
            out.push(with(of, name, "cannot_open", envelope));
        }
        at += len;
    }
}

fn encodings(of: &EnvelopeCase, out: &mut Vec<EnvelopeCase>) {
    let whole = hex::encode(&of.envelope.0);
    let opens = of.opens.as_ref().unwrap();
    let (iv, salt) = (hex::encode(&opens.iv.0), hex::encode(&opens.salt.0));
    // A ciphertext of 0x26 bytes.
    let sealed = &whole[2 * 24..2 * (24 + 0x26)];
    let render = |template: &str| {
        let hex = template
            .replace("{P}", "43a10103")
            .replace("{U}", &format!("a1054c{iv}"))
            .replace("{C}", &format!("5826{sealed}"))
            .replace("{R}", "83 {D} {S} 40")
            .replace("{D}", "43a10129")
            .replace("{S}", &format!("a1335820{salt}"))
            .replace("{sealed}", sealed)
            .replace("{iv}", &iv)
            .replace("{iv-}", &iv[2..])
            .replace("{salt}", &salt)
            .replace("{salt-}", &salt[2..])
            .replace(' ', "");
        hex::decode(hex).unwrap()
    };
    // The parts make the whole: every case changes one of them, and nothing else.
    assert_eq!(render("d860 84 {P} {U} {C} 81 {R}"), of.envelope.0);
    for (name, template) in ENCODINGS {
        out.push(with(
            of,
            format!("encoding: {name}"),
            "malformed",
            render(template),
        ));
    }
}

fn padding(out: &mut Vec<EnvelopeCase>) {
    let padded = |length: u32, payload: &[u8], zeros: &[u8]| {
        [&length.to_le_bytes(), payload, zeros].concat()
    };
    // 4 + 5 bytes pad to 10.
    for (name, plaintext) in [
        ("none", padded(5, b"hello", &[])),
        ("one byte too many", padded(5, b"hello", &[0, 0])),
        ("a whole bucket too many", padded(5, b"hello", &[0; 3])),
        ("not zero", padded(5, b"hello", &[1])),
        (
            "the length reaches into the padding's end",
            padded(7, b"hello", &[0]),
        ),
        (
            "the length is the largest",
            padded(u32::MAX, b"hello", &[0]),
        ),
        (
            "the length is too small for the size",
            padded(3, b"hello", &[0]),
        ),
        ("the length is cut", vec![5, 0, 0]),
        ("nothing", vec![]),
    ] {
        let mut case = blank(&format!("padding: {name}"), Direction::Request);
        let key = RequestKey::from_slice(&case.key.0).unwrap();
        let envelope = seal_request_padded(&key, &binding(&case), &plaintext, fresh(name)).unwrap();
        case.envelope = Hex(envelope);
        case.refused = Some("padding".into());
        out.push(case);
    }
}
