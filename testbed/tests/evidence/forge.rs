//! Evidence that is perfect but for its root: every certificate keeps what it says and gets a key
//! of the forger's, up to a root with the vendor's name.

use attestation::Endorsements;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;

use crate::case::{Case, pem};
use crate::der::{Curve, Key, is_self_issued, reissue_certificate, reissue_crl};

/// A forged case, and the root with which it would be genuine.
pub(crate) struct Forged {
    pub(crate) case: Case,
    pub(crate) root: Vec<u8>,
}

fn to_pem(certificates: &[Vec<u8>]) -> String {
    let text = certificates.iter().map(|der| {
        let body = BASE64.encode(der);
        let lines: Vec<_> = body
            .as_bytes()
            .chunks(64)
            .map(|line| std::str::from_utf8(line).unwrap())
            .collect();
        format!(
            "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
            lines.join("\n")
        )
    });
    text.collect()
}

/// Where the parts of a DCAP quote are, from its start.
pub(crate) struct Layout {
    pub(crate) body: usize,
    /// Length of authentication data, a `u32`; the rest follows it.
    pub(crate) auth: usize,
    /// Version 4 and later: certification data around the quoting enclave's.
    outer: Option<usize>,
    pub(crate) qe_report: usize,
    pub(crate) qe_signature: usize,
    /// Length of the PEM chain, a `u32`; the chain follows it.
    chain: usize,
}

fn u16_at(bytes: &[u8], at: usize) -> usize {
    usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]))
}

fn u32_at(bytes: &[u8], at: usize) -> usize {
    let four = bytes[at..at + 4].try_into().unwrap();
    usize::try_from(u32::from_le_bytes(four)).unwrap()
}

impl Layout {
    pub(crate) fn of(quote: &[u8]) -> Self {
        let version = u16::from_le_bytes([quote[0], quote[1]]);
        let (body, auth) = match version {
            3 => (48, 48 + 384),
            4 => (48, 48 + 584),
            _ => (54, 54 + u32_at(quote, 50)),
        };
        // Signature and key of the attestation key: 64 bytes each.
        let after_key = auth + 4 + 128;
        let outer = (version > 3).then_some(after_key + 2);
        let qe_report = after_key + if version > 3 { 6 } else { 0 };
        let qe_signature = qe_report + 384;
        let auth_data = qe_signature + 64;
        let chain = auth_data + 2 + u16_at(quote, auth_data) + 2;
        Self {
            body,
            auth,
            outer,
            qe_report,
            qe_signature,
            chain,
        }
    }

    /// The PEM of the PCK certificate and its issuers.
    pub(crate) fn chain<'a>(&self, quote: &'a [u8]) -> &'a str {
        let start = self.chain + 4;
        let text = std::str::from_utf8(&quote[start..start + u32_at(quote, self.chain)]).unwrap();
        text.trim_end_matches('\0')
    }

    /// The quote with another chain in it.
    fn with_chain(&self, quote: &[u8], chain: &str) -> Vec<u8> {
        let old = u32_at(quote, self.chain);
        let end = self.chain + 4 + old;
        let mut new = [&quote[..self.chain + 4], chain.as_bytes(), &quote[end..]].concat();
        for at in [Some(self.chain), self.outer, Some(self.auth)]
            .into_iter()
            .flatten()
        {
            let length = u32_at(quote, at) + chain.len() - old;
            let length = u32::try_from(length).unwrap().to_le_bytes();
            new[at..at + 4].copy_from_slice(&length);
        }
        new
    }
}

/// The forger's copies of Intel's keys.
struct Intel {
    root: Key,
    pck_ca: Key,
    pck: Key,
    signer: Key,
}

impl Intel {
    fn reissue(&self, chain: &str, keys: &[(&Key, &Key)]) -> Vec<Vec<u8>> {
        let chain = pem(chain);
        assert_eq!(chain.len(), keys.len());
        assert!(
            is_self_issued(chain.last().unwrap()),
            "leaf first, root last"
        );
        let reissued = chain
            .iter()
            .zip(keys)
            .map(|(der, (key, issuer))| reissue_certificate(der, key, issuer));
        reissued.collect()
    }

    fn pck_chain(&self, chain: &str) -> Vec<Vec<u8>> {
        self.reissue(
            chain,
            &[
                (&self.pck, &self.pck_ca),
                (&self.pck_ca, &self.root),
                (&self.root, &self.root),
            ],
        )
    }
}

/// A quote and its collateral under a root of the forger's with Intel's name.
pub(crate) fn intel(case: &Case) -> Forged {
    let new = || Key::new(Curve::P256);
    let keys = Intel {
        root: new(),
        pck_ca: new(),
        pck: new(),
        signer: new(),
    };
    let mut case = case.clone();
    let layout = Layout::of(&case.body);
    let chain = keys.pck_chain(layout.chain(&case.body));
    // One root for all chains: signatures with ECDSA differ each time.
    let root = chain.last().unwrap().clone();
    let with_root = |mut chain: Vec<Vec<u8>>| {
        *chain.last_mut().unwrap() = root.clone();
        to_pem(&chain)
    };
    let mut quote = layout.with_chain(&case.body, &to_pem(&chain));
    let report = &quote[layout.qe_report..layout.qe_report + 384];
    let signature = keys.pck.sign_fixed(report);
    quote[layout.qe_signature..layout.qe_signature + 64].copy_from_slice(&signature);
    case.body = quote;

    let mut collateral = case.collateral();
    let text = |collateral: &Value, key: &str| collateral[key].as_str().unwrap().to_owned();
    for (key, certified) in [
        ("pck_crl_issuer_chain", &keys.pck_ca),
        ("tcb_info_issuer_chain", &keys.signer),
        ("qe_identity_issuer_chain", &keys.signer),
    ] {
        let pairs = [(certified, &keys.root), (&keys.root, &keys.root)];
        collateral[key] = with_root(keys.reissue(&text(&collateral, key), &pairs)).into();
    }
    if collateral["pck_certificate_chain"].is_string() {
        let chain = keys.pck_chain(&text(&collateral, "pck_certificate_chain"));
        collateral["pck_certificate_chain"] = with_root(chain).into();
    }
    for (key, issuer) in [("root_ca_crl", &keys.root), ("pck_crl", &keys.pck_ca)] {
        let crl = hex::decode(text(&collateral, key)).unwrap();
        collateral[key] = hex::encode(reissue_crl(&crl, issuer)).into();
    }
    for key in ["tcb_info", "qe_identity"] {
        let signature = keys.signer.sign_fixed(text(&collateral, key).as_bytes());
        collateral[format!("{key}_signature")] = hex::encode(signature).into();
    }
    case.set_collateral(&collateral);
    assert_ne!(case.endorsements, Endorsements::None);
    Forged { case, root }
}

/// The bytes of a CBOR byte string at `at`, and where it ends.
fn bstr(bytes: &[u8], at: usize) -> (&[u8], usize) {
    let (start, length) = match bytes[at] {
        short @ 0x40..=0x57 => (at + 1, usize::from(short - 0x40)),
        0x58 => (at + 2, usize::from(bytes[at + 1])),
        0x59 => (
            at + 3,
            usize::from(u16::from_be_bytes([bytes[at + 1], bytes[at + 2]])),
        ),
        other => panic!("no byte string: {other:#x}"),
    };
    (&bytes[start..start + length], start + length)
}

fn to_bstr(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap();
    let mut text = match u8::try_from(length) {
        Ok(short @ 0..=0x17) => vec![0x40 + short],
        Ok(short) => vec![0x58, short],
        Err(_) => [&[0x59][..], &length.to_be_bytes()].concat(),
    };
    text.extend(bytes);
    text
}

/// Protected header, payload and signature of a COSE document without a tag.
pub(crate) fn cose(document: &[u8]) -> (&[u8], &[u8], &[u8]) {
    assert_eq!(document[0], 0x84, "an array of four");
    let (protected, at) = bstr(document, 1);
    assert_eq!(document[at], 0xa0, "an empty map");
    let (payload, at) = bstr(document, at + 1);
    let (signature, end) = bstr(document, at);
    assert_eq!(end, document.len());
    (protected, payload, signature)
}

pub(crate) fn to_cose(protected: &[u8], payload: &[u8], signature: &[u8]) -> Vec<u8> {
    [
        &[0x84][..],
        &to_bstr(protected),
        &[0xa0],
        &to_bstr(payload),
        &to_bstr(signature),
    ]
    .concat()
}

fn find(bytes: &[u8], what: &[u8]) -> usize {
    let mut windows = bytes.windows(what.len());
    windows.position(|window| window == what).unwrap() + what.len()
}

/// A document under a root of the forger's with AWS's name.
pub(crate) fn nitro(case: &Case) -> Forged {
    let (protected, payload, _) = cose(&case.body);
    let leaf_at = find(payload, b"\x6bcertificate");
    let (leaf, leaf_end) = bstr(payload, leaf_at);
    let bundle_at = find(payload, b"\x68cabundle");
    let count = usize::from(payload[bundle_at] - 0x80);
    let mut bundle_end = bundle_at + 1;
    let mut issuers = Vec::new();
    for _ in 0..count {
        let (certificate, end) = bstr(payload, bundle_end);
        issuers.push(certificate);
        bundle_end = end;
    }
    assert!(is_self_issued(issuers[0]), "root first");
    let mut issuer = Key::new(Curve::P384);
    let mut forged: Vec<Vec<u8>> = Vec::new();
    for certificate in issuers {
        if forged.is_empty() {
            forged.push(reissue_certificate(certificate, &issuer, &issuer));
            continue;
        }
        let key = Key::new(Curve::P384);
        forged.push(reissue_certificate(certificate, &key, &issuer));
        issuer = key;
    }
    let root = forged[0].clone();
    let signer = Key::new(Curve::P384);
    let leaf = reissue_certificate(leaf, &signer, &issuer);
    let bundle: Vec<u8> = forged.iter().flat_map(|der| to_bstr(der)).collect();
    assert!(leaf_end <= bundle_at, "certificate before bundle");
    let payload = [
        &payload[..leaf_at],
        &to_bstr(&leaf),
        &payload[leaf_end..=bundle_at],
        &bundle,
        &payload[bundle_end..],
    ]
    .concat();
    let to_sign = [
        &b"\x84\x6aSignature1"[..],
        &to_bstr(protected),
        &[0x40],
        &to_bstr(&payload),
    ]
    .concat();
    let signature = signer.sign_fixed(&to_sign);
    let mut case = case.clone();
    case.body = to_cose(protected, &payload, &signature);
    Forged { case, root }
}
