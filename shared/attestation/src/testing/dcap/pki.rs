//! Certificates and revocation lists of the fake Intel.

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CustomExtension,
    DistinguishedName, DnType, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevocationReason,
    RevokedCertParams, SerialNumber, date_time_ymd,
};

use super::{Certified, Keys, issuer};

/// What a platform's PCK certificate says. The default is up to date by the default collateral.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FakePck {
    pub fmspc: [u8; 6],
    pub ppid: [u8; 16],
    pub pce_id: [u8; 2],
    pub pce_svn: u16,
    pub cpu_svn: [u8; 16],
    /// Issued by the processor CA, whose certificates have none of the three flags.
    pub processor_ca: bool,
    pub dynamic_platform: bool,
    pub cached_keys: bool,
    pub smt: bool,
}

impl Default for FakePck {
    fn default() -> Self {
        Self {
            fmspc: [0x90, 0xc0, 0x6f, 0, 0, 0],
            ppid: [0x99; 16],
            pce_id: [0; 2],
            pce_svn: 13,
            cpu_svn: [3; 16],
            processor_ca: false,
            dynamic_platform: true,
            cached_keys: true,
            smt: true,
        }
    }
}

pub(super) const PCK_SERIAL: u8 = 0x50;
pub(super) const CA_SERIAL: u8 = 0x51;
pub(super) const TCB_SERIAL: u8 = 0x52;
const ROOT_NAME: &str = "Fake SGX Root CA";
const PLATFORM_CA: &str = "Fake SGX PCK Platform CA";
const PROCESSOR_CA: &str = "Fake SGX PCK Processor CA";

fn params(name: &str, serial: u8) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.serial_number = Some(SerialNumber::from_slice(&[serial]));
    params.not_before = date_time_ymd(2018, 1, 1);
    params.not_after = date_time_ymd(2049, 12, 31);
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params
}

fn ca(name: &str, serial: u8) -> CertificateParams {
    let mut params = params(name, serial);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn signed(params: &CertificateParams, by: (&CertificateParams, &KeyPair)) -> Certified {
    let key = KeyPair::generate().unwrap();
    let der = params.signed_by(&key, &issuer(by.0, by.1)).unwrap();
    Certified {
        der: der.der().to_vec(),
        key,
    }
}

/// The root, and whom it certifies.
pub(super) fn keys() -> Keys {
    let root = ca(ROOT_NAME, 1);
    let key = KeyPair::generate().unwrap();
    let der = root.self_signed(&key).unwrap().der().to_vec();
    let by = (&root, &key);
    Keys {
        platform_ca: signed(&ca(PLATFORM_CA, CA_SERIAL), by),
        processor_ca: signed(&ca(PROCESSOR_CA, CA_SERIAL), by),
        tcb_signing: signed(&params("Fake SGX TCB Signing", TCB_SERIAL), by),
        qe_identity_signing: signed(&params("Fake QE Identity Signing", TCB_SERIAL + 1), by),
        root: Certified { key, der },
    }
}

pub(super) fn reissue(key: &KeyPair) -> Vec<u8> {
    ca(ROOT_NAME, 2).self_signed(key).unwrap().der().to_vec()
}

/// A PCK certificate.
pub(super) fn pck(pck: &FakePck, by: &Certified) -> Certified {
    let name = if pck.processor_ca {
        PROCESSOR_CA
    } else {
        PLATFORM_CA
    };
    let mut params = params("Fake SGX PCK Certificate", PCK_SERIAL);
    params.custom_extensions = vec![CustomExtension::from_oid_content(SGX, extension(pck))];
    signed(&params, (&ca(name, CA_SERIAL), &by.key))
}

/// A revocation list. Times are seconds since the UNIX epoch.
pub(super) fn crl(by: &Certified, name: &str, window: (u64, u64), revoked: &[u8]) -> Vec<u8> {
    let at = |seconds| date_time_ymd(1970, 1, 1) + std::time::Duration::from_secs(seconds);
    let revoked = revoked.iter().map(|serial| RevokedCertParams {
        serial_number: SerialNumber::from_slice(&[*serial]),
        revocation_time: at(window.0),
        reason_code: Some(RevocationReason::KeyCompromise),
        invalidity_date: None,
    });
    let params = CertificateRevocationListParams {
        this_update: at(window.0),
        next_update: at(window.1),
        crl_number: SerialNumber::from_slice(&[1]),
        issuing_distribution_point: None,
        revoked_certs: revoked.collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    let crl = params
        .signed_by(&issuer(&ca(name, CA_SERIAL), &by.key))
        .unwrap();
    crl.der().to_vec()
}

pub(super) fn root_crl(keys: &Keys, window: (u64, u64), revoked: &[u8]) -> Vec<u8> {
    crl(&keys.root, ROOT_NAME, window, revoked)
}

pub(super) fn pck_crl(keys: &Keys, processor: bool, window: (u64, u64), revoked: &[u8]) -> Vec<u8> {
    if processor {
        crl(&keys.processor_ca, PROCESSOR_CA, window, revoked)
    } else {
        crl(&keys.platform_ca, PLATFORM_CA, window, revoked)
    }
}

/// "Intel SGX Extensions" of PCK certificates (Intel SGX PCK Certificate and CRL Profile, 1.3.5).
const SGX: &[u64] = &[1, 2, 840, 113_741, 1, 13, 1];
/// The same, encoded.
const SGX_DER: [u8; 9] = [0x2a, 0x86, 0x48, 0x86, 0xf8, 0x4d, 0x01, 0x0d, 0x01];

pub(super) fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let len = content.len();
    let mut der = vec![tag];
    match len {
        0..=0x7f => der.push(u8::try_from(len).unwrap()),
        0x80..=0xff => der.extend([0x81, u8::try_from(len).unwrap()]),
        _ => {
            der.push(0x82);
            der.extend(u16::try_from(len).unwrap().to_be_bytes());
        }
    }
    der.extend(content);
    der
}

fn entry(arc: &[u8], value: &[u8]) -> Vec<u8> {
    let oid = der(0x06, &[&SGX_DER[..], arc].concat());
    der(0x30, &[oid, value.to_vec()].concat())
}

fn integer(value: u16) -> Vec<u8> {
    let [high, low] = value.to_be_bytes();
    // Positive, and no longer than needed.
    match (high, low) {
        (0, 0..=0x7f) => der(0x02, &[low]),
        (0..=0x7f, _) => der(0x02, &[high, low]),
        _ => der(0x02, &[0, high, low]),
    }
}

fn extension(pck: &FakePck) -> Vec<u8> {
    let octets = |bytes: &[u8]| der(0x04, bytes);
    let boolean = |value: bool| der(0x01, &[if value { 0xff } else { 0 }]);
    let mut tcb: Vec<_> = (1..=16)
        .zip(pck.cpu_svn)
        .map(|(arc, svn)| entry(&[2, arc], &integer(svn.into())))
        .collect();
    tcb.push(entry(&[2, 17], &integer(pck.pce_svn)));
    tcb.push(entry(&[2, 18], &octets(&pck.cpu_svn)));
    let mut entries = vec![
        entry(&[1], &octets(&pck.ppid)),
        entry(&[2], &der(0x30, &tcb.concat())),
        entry(&[3], &octets(&pck.pce_id)),
        entry(&[4], &octets(&pck.fmspc)),
        entry(&[5], &der(0x0a, &[1])),
    ];
    if !pck.processor_ca {
        let flags = [
            entry(&[7, 1], &boolean(pck.dynamic_platform)),
            entry(&[7, 2], &boolean(pck.cached_keys)),
            entry(&[7, 3], &boolean(pck.smt)),
        ];
        entries.push(entry(&[6], &octets(&[6; 16])));
        entries.push(entry(&[7], &der(0x30, &flags.concat())));
    }
    der(0x30, &entries.concat())
}
