//! A client that was weakened on purpose: it opens answers by docs/protocol.md, but for the tag.

use aws_lc_rs::cipher::{AES_256, DecryptingKey, DecryptionContext, UnboundCipherKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use crypto::RequestKey;
use protocol::invoke::SealedRequest;

const TAG: usize = 16;
const SALT: usize = 32;
/// After the ciphertext: ten constant bytes, the salt, one more constant byte.
const TAIL: usize = 10 + SALT + 1;
/// Before the IV, which is followed by the ciphertext's head.
const HEAD: usize = 10;
const IV: usize = 12;

struct Len32;

impl KeyType for Len32 {
    fn len(&self) -> usize {
        32
    }
}

fn derive(key: &[u8], salt: &[u8], info: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    let prk = Salt::new(HKDF_SHA256, salt).extract(key);
    prk.expand(&[info], Len32).unwrap().fill(&mut out).unwrap();
    out
}

fn cbor(write: impl FnOnce(&mut minicbor::Encoder<Vec<u8>>)) -> Vec<u8> {
    let mut encoder = minicbor::Encoder::new(Vec::new());
    write(&mut encoder);
    encoder.into_writer()
}

fn external_aad(label: &str, request: &SealedRequest) -> Vec<u8> {
    cbor(|e| {
        e.array(5).unwrap().str(label).unwrap();
        e.bytes(request.user.as_bytes()).unwrap();
        e.str(request.model.as_str()).unwrap();
        e.bytes(request.enclave.as_bytes()).unwrap();
        e.bytes(request.request_id.as_bytes()).unwrap();
    })
}

/// Where the ciphertext begins, after its CBOR head.
fn ciphertext_start(envelope: &[u8]) -> usize {
    let head = envelope.get(HEAD + IV).copied().unwrap_or(0x40);
    HEAD + IV
        + match head & 0x1f {
            24 => 2,
            25 => 3,
            26 => 5,
            _ => 1,
        }
}

/// What a stream reader makes of an answer, of which the end may be missing. It knows the salt from
/// an earlier look at the whole, as anybody does who sees the wire; here it is at `salt`.
pub(crate) fn response(
    key: &RequestKey,
    request: &SealedRequest,
    envelope: &[u8],
    salt: &[u8],
) -> Vec<u8> {
    let sent = &request.ciphertext;
    let asked_salt = &sent[sent.len() - 1 - SALT..sent.len() - 1];
    let asked_tag = &sent[sent.len() - TAIL - TAG..sent.len() - TAIL];
    let info = cbor(|e| {
        e.array(3).unwrap().str("sesemi/response-key/1").unwrap();
        e.bytes(&external_aad("sesemi/request/1", request)).unwrap();
        e.bytes(asked_tag).unwrap();
    });
    let response_key = derive(key.to_wire().bytes(), asked_salt, &info);
    let party = |e: &mut minicbor::Encoder<Vec<u8>>, id: &[u8]| {
        e.array(3).unwrap().bytes(id).unwrap();
        e.null().unwrap().null().unwrap();
    };
    let context = cbor(|e| {
        e.array(4).unwrap().u8(3).unwrap();
        party(e, request.enclave.as_bytes());
        party(e, request.user.as_bytes());
        e.array(3).unwrap().u16(256).unwrap();
        e.bytes(&[0xa1, 0x01, 0x29]).unwrap();
        e.bytes(b"sesemi/response/1").unwrap();
    });
    let content_key = derive(&response_key, salt, &context);
    let Some(iv) = envelope.get(HEAD..HEAD + IV) else {
        return Vec::new();
    };
    // GCM counts from 2 for the first block of text.
    let counter: [u8; 16] = [iv, &[0, 0, 0, 2]].concat().try_into().unwrap();
    let start = ciphertext_start(envelope);
    let mut text = envelope.get(start..).unwrap_or_default().to_vec();
    let key = UnboundCipherKey::new(&AES_256, &content_key).unwrap();
    let key = DecryptingKey::ctr(key).unwrap();
    let context = DecryptionContext::Iv128(counter.into());
    key.decrypt(&mut text, context).unwrap().to_vec()
}
