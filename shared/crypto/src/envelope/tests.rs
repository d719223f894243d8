//! The envelope: every refusal first, then what it looks like and that it opens.

use super::*;

struct Ids {
    user: PrincipalId,
    model: ModelId,
    enclave: EnclaveId,
    request_id: RequestId,
}

impl Ids {
    fn new() -> Self {
        Self {
            user: PrincipalId::new([1; 32]),
            model: "resnet".parse().unwrap(),
            enclave: EnclaveId::new([2; 48]),
            request_id: RequestId::new([3; 16]),
        }
    }

    fn binding(&self) -> Binding<'_> {
        Binding {
            user: &self.user,
            model: &self.model,
            enclave: &self.enclave,
            request_id: &self.request_id,
        }
    }
}

fn request_key() -> RequestKey {
    RequestKey::from_slice(&[7; 32]).unwrap()
}

#[test]
fn every_flipped_bit_is_refused() {
    let ids = Ids::new();
    let (envelope, response_key) =
        seal_request(&request_key(), &ids.binding(), b"some features").unwrap();
    let response = seal_response(&response_key, &ids.binding(), b"an answer").unwrap();
    for bit in 0..envelope.len() * 8 {
        let mut changed = envelope.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        open_request(&request_key(), &ids.binding(), &changed).expect_err("flipped");
    }
    for bit in 0..response.len() * 8 {
        let mut changed = response.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        open_response(&response_key, &ids.binding(), &changed).expect_err("flipped");
    }
}

#[test]
fn every_truncation_and_every_extra_byte_is_refused() {
    let ids = Ids::new();
    let (envelope, _) = seal_request(&request_key(), &ids.binding(), &[5; 300]).unwrap();
    for len in 0..envelope.len() {
        let cut = open_request(&request_key(), &ids.binding(), &envelope[..len]);
        assert_eq!(cut.unwrap_err(), OpenError::Malformed, "{len}");
    }
    for longer in [
        [&envelope[..], &[0]].concat(),
        [&[0xd9], &envelope[..]].concat(),
    ] {
        let open = open_request(&request_key(), &ids.binding(), &longer);
        assert_eq!(open.unwrap_err(), OpenError::Malformed);
    }
}

#[test]
fn every_other_binding_and_key_is_refused() {
    let ids = Ids::new();
    let key = request_key();
    let (envelope, response_key) = seal_request(&key, &ids.binding(), b"x").unwrap();
    let response = seal_response(&response_key, &ids.binding(), b"y").unwrap();
    let others = [
        Ids {
            user: PrincipalId::new([9; 32]),
            ..Ids::new()
        },
        Ids {
            model: "resnet2".parse().unwrap(),
            ..Ids::new()
        },
        Ids {
            enclave: EnclaveId::new([9; 48]),
            ..Ids::new()
        },
        Ids {
            request_id: RequestId::new([9; 16]),
            ..Ids::new()
        },
    ];
    for other in &others {
        let open = open_request(&key, &other.binding(), &envelope);
        assert_eq!(open.unwrap_err(), OpenError::CannotOpen);
        let open = open_response(&response_key, &other.binding(), &response);
        assert_eq!(open.unwrap_err(), OpenError::CannotOpen);
    }
    let other_key = RequestKey::from_slice(&[8; 32]).unwrap();
    let open = open_request(&other_key, &ids.binding(), &envelope);
    assert_eq!(open.unwrap_err(), OpenError::CannotOpen);
}

#[test]
fn a_response_opens_as_the_answer_to_its_own_request_only() {
    let ids = Ids::new();
    let key = request_key();
    let (_, first) = seal_request(&key, &ids.binding(), b"same").unwrap();
    let (_, second) = seal_request(&key, &ids.binding(), b"same").unwrap();
    let response = seal_response(&first, &ids.binding(), b"answer").unwrap();
    let open = open_response(&second, &ids.binding(), &response);
    assert_eq!(open.unwrap_err(), OpenError::CannotOpen);
    assert_eq!(
        &*open_response(&first, &ids.binding(), &response).unwrap(),
        b"answer"
    );
}

#[test]
fn the_response_key_depends_on_the_tag_and_every_id() {
    // Even one key, one salt and one iv give another response key when anything else differs.
    let fresh = Fresh {
        salt: [4; 32],
        iv: [5; 12],
    };
    let ids = Ids::new();
    let (_, key) = seal_request_with(&request_key(), &ids.binding(), b"a", &fresh).unwrap();
    let (_, same) = seal_request_with(&request_key(), &ids.binding(), b"a", &fresh).unwrap();
    assert!(key.ct_eq(&same));
    let (_, payload) = seal_request_with(&request_key(), &ids.binding(), b"b", &fresh).unwrap();
    assert!(!key.ct_eq(&payload));
    let other = Ids {
        request_id: RequestId::new([9; 16]),
        ..Ids::new()
    };
    let (_, id) = seal_request_with(&request_key(), &other.binding(), b"a", &fresh).unwrap();
    assert!(!key.ct_eq(&id));
}

#[test]
fn a_message_is_not_one_of_the_other_direction() {
    // The same key bytes in both roles, which no honest party has.
    let ids = Ids::new();
    let (request, _) = seal_request(&request_key(), &ids.binding(), b"x").unwrap();
    let as_response = ResponseKey::from_slice(&[7; 32]).unwrap();
    let open = open_response(&as_response, &ids.binding(), &request);
    assert_eq!(open.unwrap_err(), OpenError::CannotOpen);
    let response = seal_response(&as_response, &ids.binding(), b"x").unwrap();
    let open = open_request(&request_key(), &ids.binding(), &response);
    assert_eq!(open.unwrap_err(), OpenError::CannotOpen);
}

#[test]
fn padding_that_is_not_exact_is_refused_after_authentication() {
    let ids = Ids::new();
    let fresh = Fresh {
        salt: [4; 32],
        iv: [5; 12],
    };
    let padded = |length: u32, payload: &[u8], zeros: usize| {
        [&length.to_le_bytes(), payload, &vec![0; zeros]].concat()
    };
    // 4 + 5 = 9 bytes pad to 10.
    let mut not_zero = padded(5, b"hello", 1);
    *not_zero.last_mut().unwrap() = 1;
    for plaintext in [
        vec![],
        vec![0; 3],
        padded(6, b"hello", 0),
        padded(u32::MAX, b"hello", 1),
        padded(5, b"hello", 0),
        padded(5, b"hello", 2),
        padded(4, b"hell", 2),
        not_zero,
    ] {
        let envelope =
            seal_request_padded(&request_key(), &ids.binding(), &plaintext, &fresh).unwrap();
        let open = open_request(&request_key(), &ids.binding(), &envelope);
        assert_eq!(open.unwrap_err(), OpenError::Padding, "{plaintext:?}");
    }
    let good = padded(5, b"hello", 1);
    let envelope = seal_request_padded(&request_key(), &ids.binding(), &good, &fresh).unwrap();
    let (plaintext, _) = open_request(&request_key(), &ids.binding(), &envelope).unwrap();
    assert_eq!(&*plaintext, b"hello");
}

#[test]
fn the_limits_are_exact() {
    let ids = Ids::new();
    let payload = vec![1; PAYLOAD_MAX + 1];
    let seal = seal_request(&request_key(), &ids.binding(), &payload);
    assert_eq!(
        seal.unwrap_err(),
        SealError::TooLarge {
            len: PAYLOAD_MAX + 1
        }
    );
    let (largest, _) =
        seal_request(&request_key(), &ids.binding(), &payload[..PAYLOAD_MAX]).unwrap();
    assert_eq!(largest.len(), envelope_max());
    let (opened, _) = open_request(&request_key(), &ids.binding(), &largest).unwrap();
    assert_eq!(opened.len(), PAYLOAD_MAX);
    let larger = vec![0; envelope_max() + 1];
    let open = open_request(&request_key(), &ids.binding(), &larger);
    assert_eq!(open.unwrap_err(), OpenError::TooLarge { len: larger.len() });
}

#[test]
fn lengths_are_hidden_inside_a_bucket() {
    let ids = Ids::new();
    let sealed = |len| {
        let (envelope, _) = seal_request(&request_key(), &ids.binding(), &vec![0; len]).unwrap();
        envelope.len()
    };
    assert_eq!(sealed(1_000_000), sealed(1_015_804));
    assert!(sealed(1_015_805) > sealed(1_015_804));
}

#[test]
fn salts_and_ivs_never_repeat_between_messages() {
    let ids = Ids::new();
    let (a, _) = seal_request(&request_key(), &ids.binding(), b"x").unwrap();
    let (b, _) = seal_request(&request_key(), &ids.binding(), b"x").unwrap();
    let (a, b) = (Frame::parse(&a).unwrap(), Frame::parse(&b).unwrap());
    assert_ne!(a.salt, b.salt);
    assert_ne!(a.iv, b.iv);
}

#[test]
fn an_opened_payload_prints_its_length_only() {
    let ids = Ids::new();
    let (envelope, _) = seal_request(&request_key(), &ids.binding(), b"secret").unwrap();
    let (plaintext, _) = open_request(&request_key(), &ids.binding(), &envelope).unwrap();
    assert_eq!(format!("{plaintext:?}"), "Plaintext(6 bytes)");
}

#[test]
fn the_contexts_are_as_documented() {
    let ids = Ids::new();
    let (user, enclave, id) = ("01".repeat(32), "02".repeat(48), "03".repeat(16));
    let context = Context::new(Direction::Request, &ids.binding());
    let label = hex::encode("sesemi/request/1");
    assert_eq!(
        hex::encode(&context.external_aad),
        format!(
            "8570{label}5820{user}66{}5830{enclave}50{id}",
            hex::encode("resnet")
        )
    );
    assert_eq!(
        hex::encode(&context.kdf),
        format!("8403835820{user}f6f6835830{enclave}f6f68319010043a1012950{label}")
    );
    let context = Context::new(Direction::Response, &ids.binding());
    let label = hex::encode("sesemi/response/1");
    assert!(hex::encode(&context.external_aad).starts_with(&format!("8571{label}5820{user}")));
    assert_eq!(
        hex::encode(&context.kdf),
        format!("8403835830{enclave}f6f6835820{user}f6f68319010043a1012951{label}")
    );
}
