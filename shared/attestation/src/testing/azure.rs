//! Plays Azure: a paravisor's report, its runtime claims, and a vTPM that signs quotes.

use std::fmt::Write as _;
use std::sync::OnceLock;

use aws_lc_rs::digest::{Context, SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

/// A confidential VM of Azure. Every field may be changed before the evidence is made.
#[derive(Debug, Clone)]
pub struct FakeAzure {
    /// The runtime claims (JSON) that report data is to cover.
    pub claims: String,
    /// `TPMS_ATTEST`, to be signed.
    pub message: Vec<u8>,
    pub pcrs: Vec<[u8; 32]>,
}

/// The vTPM's attestation key, RSA-2048; one for all VMs of a process.
#[must_use]
pub fn fake_ak() -> &'static KeyPair {
    static AK: OnceLock<KeyPair> = OnceLock::new();
    AK.get_or_init(|| KeyPair::generate(KeySize::Rsa2048).unwrap())
}

/// The public part of a key as it stands in runtime claims, under this name.
#[must_use]
pub fn jwk(kid: &str, key: &KeyPair) -> String {
    // RSAPublicKey of 2048 bits: behind two headers, four bytes each, and a zero.
    let modulus = URL_SAFE_NO_PAD.encode(&key.public_key().as_ref()[9..][..256]);
    json!({"kid": kid, "key_ops": ["sign"], "kty": "RSA", "e": "AQAB", "n": modulus}).to_string()
}

/// Runtime claims with these keys.
#[must_use]
pub fn runtime_claims(keys: &[String], secure_boot: bool) -> String {
    format!(
        r#"{{"keys":[{}],"vm-configuration":{{"secure-boot":{secure_boot},"tpm-enabled":true}},"user-data":"00"}}"#,
        keys.join(",")
    )
}

/// `TPMS_ATTEST` over the registers that `selection` names by bits.
#[must_use]
pub fn attest(nonce: &[u8], pcrs: &[[u8; 32]], selection: u32) -> Vec<u8> {
    let mut selected = Context::new(&SHA256);
    for (index, pcr) in pcrs.iter().enumerate() {
        if selection & (1 << index) != 0 {
            selected.update(pcr);
        }
    }
    let [low, middle, high, _] = selection.to_le_bytes();
    let nonce_length = u16::try_from(nonce.len()).unwrap().to_be_bytes();
    [
        &[0xff, 0x54, 0x43, 0x47, 0x80, 0x18][..],
        &[0x00, 0x22, 0x00, 0x0b],
        &[0x4e; 32],
        &nonce_length,
        nonce,
        &[0; 17],
        &[0x20; 8],
        &[0, 0, 0, 1, 0x00, 0x0b, 3, low, middle, high],
        &[0, 32],
        selected.finish().as_ref(),
    ]
    .concat()
}

impl FakeAzure {
    /// A VM that booted securely and quotes all of its registers.
    #[must_use]
    pub fn new(nonce: &[u8]) -> Self {
        let pcrs: Vec<_> = (0..24).map(|index| [index; 32]).collect();
        Self {
            claims: runtime_claims(&[jwk("HCLAkPub", fake_ak())], true),
            message: attest(nonce, &pcrs, 0xff_ffff),
            pcrs,
        }
    }

    /// What the hardware is to sign: the hash of the claims, and zeros.
    #[must_use]
    pub fn report_data(&self) -> [u8; 64] {
        let mut report_data = [0; 64];
        report_data[..32].copy_from_slice(digest(&SHA256, self.claims.as_bytes()).as_ref());
        report_data
    }

    /// The paravisor's report around the hardware's. Type 2 is SEV-SNP, 4 is TDX.
    #[must_use]
    pub fn hcl_report(&self, hardware: &[u8], report_type: u32) -> Vec<u8> {
        let length = u32::try_from(self.claims.len()).unwrap();
        let header = [0x414c_4348, 2, 1236 + length, 2, 0, 0, 0, 0];
        let request = [20 + length, 1, report_type, 1, length];
        let words = |words: &[u32]| words.iter().copied().flat_map(u32::to_le_bytes).collect();
        let [header, request]: [Vec<u8>; 2] = [words(&header), words(&request)];
        let mut room = [0; 1184];
        room[..hardware.len()].copy_from_slice(hardware);
        let mut blob = [&header, &room[..], &request, self.claims.as_bytes()].concat();
        blob.resize(2600, 0);
        blob
    }

    /// The vTPM's signature over the message.
    #[must_use]
    pub fn signature(&self) -> Vec<u8> {
        let ak = fake_ak();
        let mut signature = vec![0; ak.public_modulus_len()];
        let random = SystemRandom::new();
        ak.sign(&RSA_PKCS1_SHA256, &random, &self.message, &mut signature)
            .unwrap();
        signature
    }

    /// Evidence of a machine with SEV-SNP, around a signed report.
    #[must_use]
    pub fn snp_evidence(&self, report: &[u8], vek: &[u8]) -> serde_json::Value {
        self.evidence(&self.hcl_report(report, 2), "vcek", vek)
    }

    /// Evidence of a machine with TDX, around a quote.
    #[must_use]
    pub fn tdx_evidence(&self, quote: &[u8]) -> serde_json::Value {
        self.evidence(&self.hcl_report(&[0x7d; 1024], 4), "td_quote", quote)
    }

    fn evidence(&self, hcl_report: &[u8], name: &str, value: &[u8]) -> serde_json::Value {
        let pcrs: Vec<_> = self.pcrs.iter().map(|pcr| hexadecimal(pcr)).collect();
        json!({
            "version": 1,
            "tpm_quote": {
                "signature": hexadecimal(&self.signature()),
                "message": hexadecimal(&self.message),
                "pcrs": pcrs,
            },
            "hcl_report": URL_SAFE_NO_PAD.encode(hcl_report),
            name: URL_SAFE_NO_PAD.encode(value),
        })
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}
