//! AMD's certificate chain: ARK (pinned), ASK or ASVK, and the key that signs reports (AMD 57230).

use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{RSA_PSS_2048_8192_SHA384, UnparsedPublicKey};
use x509_parser::asn1_rs::Any;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{KeyUsage, X509Extension};
use x509_parser::oid_registry::{
    OID_KEY_TYPE_EC_PUBLIC_KEY, OID_PKCS1_RSAENCRYPTION, OID_PKCS1_RSASSAPSS,
    OID_X509_EXT_BASIC_CONSTRAINTS, OID_X509_EXT_KEY_USAGE, Oid,
};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::signature_algorithm::RsaSsaPssParams;
use x509_parser::x509::{AlgorithmIdentifier, X509Name, X509Version};

use super::product::{AmdRoot, line};
use super::vek::Vek;
use crate::facts::{SnpProduct, SnpSigningKey};
use crate::policy::Hex;
use crate::scorecard::{CheckName, Failed, Scorecard};

/// Largest certificate, in bytes: AMD's have 1.3 to 1.7 KB.
const CERTIFICATE_MAX: usize = 8 * 1024;
/// 1.2.840.113549.1.1.8, id-mgf1.
const MGF1: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x08];
/// 2.16.840.1.101.3.4.2.2.
const SHA384: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02];
/// 1.3.132.0.34, secp384r1.
const P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];

/// Verifies the chain down to the VEK, of which it returns what it says about the chip.
///
/// # Errors
/// [`Failed`] for a chain that is not AMD's, or not valid at `now`.
pub(super) fn verify(
    roots: &[AmdRoot],
    vek: &[u8],
    chain: &[Vec<u8>],
    now: Duration,
    card: &mut Scorecard,
) -> Result<Vek, Failed> {
    let parts = format!("{} issuers", chain.len());
    let [ask, ark] = chain else {
        let wanted = "the VEK, its issuer (ASK or ASVK) and the root (ARK)";
        return Err(card.fail(CheckName::EndorsementsPresent, wanted, parts));
    };
    card.record(CheckName::EndorsementsPresent, true, "2 issuers", parts);

    let pin: [u8; 32] = digest(&SHA256, ark).as_ref().try_into().unwrap_or([0; 32]);
    let vek = parse("VEK", vek, card)?;
    let ask = parse("ASK", ask, card)?;
    let ark = parse("ARK", ark, card)?;
    let format = CheckName::EndorsementsFormat;
    card.record(format, true, "three X.509 certificates", "three");

    let root = roots.iter().find(|root| root.sha256 == pin);
    let got = format!("SHA-256 {}", Hex(pin));
    let Some(AmdRoot { product, .. }) = root else {
        return Err(card.fail(CheckName::RootPinned, "a root of AMD's", got));
    };
    card.record(CheckName::RootPinned, true, "a root of AMD's", got);

    let wanted = format!("ARK-{0}, SEV-{0} or SEV-VLEK-{0}, VEK", line(*product));
    let kind = match links(&vek, &ask, &ark, *product) {
        Ok(kind) => kind,
        Err(why) => return Err(card.fail(CheckName::CertificateChain, wanted, why)),
    };
    card.record(CheckName::CertificateChain, true, wanted, "valid");
    current(&[("VEK", &vek), ("ASK", &ask), ("ARK", &ark)], now, card)?;
    Vek::read(&vek, *product, kind)
        .map_err(|why| card.fail(format, "the extensions of a VEK (AMD 57230)", why))
}

fn parse<'a>(
    name: &str,
    der: &'a [u8],
    card: &mut Scorecard,
) -> Result<X509Certificate<'a>, Failed> {
    let parsed = if der.len() > CERTIFICATE_MAX {
        None
    } else {
        X509Certificate::from_der(der).ok()
    };
    match parsed {
        // Bytes behind the certificate would be covered by no signature.
        Some(([], certificate)) if certificate.version() == X509Version::V3 => Ok(certificate),
        _ => {
            let wanted = "one X.509 certificate of version 3 in DER";
            let got = format!("{name}: {} bytes that are not", der.len());
            Err(card.fail(CheckName::EndorsementsFormat, wanted, got))
        }
    }
}

/// Names, constraints and signatures, from the pinned root down. The root's own signature says
/// nothing that the pin does not say.
fn links(
    vek: &X509Certificate<'_>,
    ask: &X509Certificate<'_>,
    ark: &X509Certificate<'_>,
    product: SnpProduct,
) -> Result<SnpSigningKey, &'static str> {
    let line = line(product);
    if common_name(ark.subject()) != Some(&format!("ARK-{line}")) {
        return Err("the root's name is not the product line's");
    }
    let issuer = common_name(ask.subject());
    let (kind, name) = if issuer == Some(&format!("SEV-{line}")) {
        (SnpSigningKey::Vcek, "SEV-VCEK")
    } else if issuer == Some(&format!("SEV-VLEK-{line}")) {
        (SnpSigningKey::Vlek, "SEV-VLEK")
    } else {
        return Err("the issuer of the VEK is not of the root's product line");
    };
    if common_name(vek.subject()) != Some(name) {
        return Err("the VEK's kind is not its issuer's");
    }
    certificate_authority(ark)?;
    certificate_authority(ask)?;
    end_entity(vek)?;
    issued(ask, ark)?;
    issued(vek, ask)?;
    Ok(kind)
}

/// The one common name, if there is exactly one.
fn common_name<'a>(name: &'a X509Name<'_>) -> Option<&'a str> {
    let mut names = name.iter_common_name();
    match (names.next(), names.next()) {
        (Some(name), None) => name.as_str().ok(),
        _ => None,
    }
}

fn known_extensions(
    certificate: &X509Certificate<'_>,
    known: &[Oid<'_>],
) -> Result<(), &'static str> {
    certificate
        .extensions_map()
        .map_err(|_| "a certificate has an extension twice")?;
    let unknown =
        |extension: &&X509Extension<'_>| extension.critical && !known.contains(&extension.oid);
    match certificate.extensions().iter().find(unknown) {
        Some(_) => Err("a certificate has an unknown critical extension"),
        None => Ok(()),
    }
}

fn certificate_authority(certificate: &X509Certificate<'_>) -> Result<(), &'static str> {
    known_extensions(
        certificate,
        &[OID_X509_EXT_BASIC_CONSTRAINTS, OID_X509_EXT_KEY_USAGE],
    )?;
    let constraints = certificate.basic_constraints().ok().flatten();
    if !constraints.is_some_and(|extension| extension.value.ca) {
        return Err("an issuer is not a certificate authority");
    }
    let usage = certificate.key_usage().ok().flatten();
    if !usage.is_some_and(|extension| KeyUsage::key_cert_sign(extension.value)) {
        return Err("an issuer's key is not for certificates");
    }
    Ok(())
}

/// AMD's VEKs have neither constraints nor usages; none may make it an authority.
fn end_entity(certificate: &X509Certificate<'_>) -> Result<(), &'static str> {
    known_extensions(certificate, &[])?;
    match certificate.basic_constraints() {
        Ok(None) => Ok(()),
        Ok(Some(extension)) if !extension.value.ca => Ok(()),
        Ok(Some(_)) | Err(_) => Err("the VEK is a certificate authority"),
    }
}

fn issued(
    certificate: &X509Certificate<'_>,
    issuer: &X509Certificate<'_>,
) -> Result<(), &'static str> {
    if certificate.issuer().as_raw() != issuer.subject().as_raw() {
        return Err("a certificate names another issuer");
    }
    let algorithm = &certificate.tbs_certificate.signature;
    if !spelled_once(certificate.as_raw()) || !is_pss_sha384(algorithm) {
        return Err("a certificate is not signed with RSA-PSS and SHA-384");
    }
    let key = issuer.public_key();
    let bits = match key.parsed() {
        Ok(PublicKey::RSA(rsa)) => rsa.modulus.len(),
        _ => 0,
    };
    // 4096 bits, and the zero in front that keeps the number positive.
    if key.algorithm.algorithm != OID_PKCS1_RSAENCRYPTION || bits != 513 {
        return Err("an issuer's key is not RSA of 4096 bits");
    }
    UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA384, &key.subject_public_key.data)
        .verify(
            certificate.tbs_certificate.as_ref(),
            &certificate.signature_value.data,
        )
        .map_err(|_| "a certificate's signature is not its issuer's")
}

/// Whether what is outside of the signed part is DER, and names the algorithm as the signed part
/// does: no signature covers it, and the parser lets some of it pass.
fn spelled_once(certificate: &[u8]) -> bool {
    let algorithms = || {
        let (_, certificate) = Any::from_der(certificate).ok()?;
        let (signed, rest) = element(certificate.data)?;
        let (outer, rest) = element(rest)?;
        let (signature, rest) = element(rest)?;
        let (_, signed) = Any::from_der(signed).ok()?;
        let (_version, signed) = element(signed.data)?;
        let (_serial, signed) = element(signed)?;
        let (inner, _) = element(signed)?;
        let (_, signature) = Any::from_der(signature).ok()?;
        let whole = rest.is_empty() && signature.data.first() == Some(&0);
        whole.then_some((inner, outer))
    };
    algorithms().is_some_and(|(inner, outer)| inner == outer)
}

/// The first element, tag and length included, and what is behind it.
fn element(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (rest, _) = Any::from_der(der).ok()?;
    der.split_at_checked(der.len().checked_sub(rest.len())?)
}

fn is_pss_sha384(algorithm: &AlgorithmIdentifier<'_>) -> bool {
    let Some(parameters) = algorithm.parameters() else {
        return false;
    };
    let Ok(pss) = RsaSsaPssParams::try_from(parameters) else {
        return false;
    };
    let mask = pss.mask_gen_algorithm();
    algorithm.algorithm == OID_PKCS1_RSASSAPSS
        && pss.hash_algorithm_oid().as_bytes() == SHA384
        && mask.is_ok_and(|mask| mask.mgf.as_bytes() == MGF1 && mask.hash.as_bytes() == SHA384)
        && pss.salt_length() == 48
        && pss.trailer_field() == 1
}

fn current(
    certificates: &[(&str, &X509Certificate<'_>)],
    now: Duration,
    card: &mut Scorecard,
) -> Result<(), Failed> {
    let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let (mut from, mut to) = (i64::MIN, i64::MAX);
    for (name, certificate) in certificates {
        let validity = certificate.validity();
        let [start, end] = [validity.not_before, validity.not_after].map(|time| time.timestamp());
        (from, to) = (from.max(start), to.min(end));
        card.require(
            CheckName::EndorsementsCurrent,
            (start..=end).contains(&seconds),
            format!("{name} valid from {start} to {end}"),
            format!("now {seconds}"),
        )?;
    }
    card.record(
        CheckName::EndorsementsCurrent,
        true,
        format!("all valid from {from} to {to}"),
        format!("now {seconds}"),
    );
    Ok(())
}

/// The public key of a VEK: a point of P-384, uncompressed.
pub(super) fn p384_key(certificate: &X509Certificate<'_>) -> Option<[u8; 97]> {
    let key = certificate.public_key();
    let curve = key.algorithm.parameters()?.as_oid().ok()?;
    if key.algorithm.algorithm != OID_KEY_TYPE_EC_PUBLIC_KEY || curve.as_bytes() != P384 {
        return None;
    }
    key.subject_public_key.data.as_ref().try_into().ok()
}
