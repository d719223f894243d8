//! The firmware id (FWID) in a leaf's TCG DICE extension: a SHA-384 hash.
//!
//! NVIDIA writes the older form there (`CompositeDeviceID` of Microsoft's RIoT):
//! `SEQUENCE { version INTEGER, SubjectPublicKeyInfo, SEQUENCE { hash OID, FWID OCTET STRING } }`.

use x509_parser::asn1_rs::{Any, FromDer as _, Tag};
use x509_parser::certificate::X509Certificate;

/// 2.23.133.5.4.1.
const TCG_DICE: &[u8] = &[0x67, 0x81, 0x05, 0x05, 0x04, 0x01];
/// 2.16.840.1.101.3.4.2.2.
const SHA384: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02];

/// The one firmware id that a certificate names.
pub(super) fn of(certificate: &[u8]) -> Option<&[u8]> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let mut extensions = certificate
        .tbs_certificate
        .extensions()
        .iter()
        .filter(|extension| extension.oid.as_bytes() == TCG_DICE);
    let (Some(extension), None) = (extensions.next(), extensions.next()) else {
        return None;
    };
    let (outer, []) = item(extension.value, Tag::Sequence)? else {
        return None;
    };
    let (_version, rest) = item(outer, Tag::Integer)?;
    let (_device_key, rest) = item(rest, Tag::Sequence)?;
    let (firmware, []) = item(rest, Tag::Sequence)? else {
        return None;
    };
    let (hash, rest) = item(firmware, Tag::Oid)?;
    let (id, []) = item(rest, Tag::OctetString)? else {
        return None;
    };
    (hash == SHA384 && id.len() == 48).then_some(id)
}

/// Contents of the first DER item, and what follows it.
fn item(der: &[u8], tag: Tag) -> Option<(&[u8], &[u8])> {
    let (rest, any) = Any::from_der(der).ok()?;
    (any.tag() == tag).then_some((any.data, rest))
}
