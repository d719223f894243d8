//! What a VEK says about the chip and the firmware that its key stands for (AMD 57230, table 8).

use std::collections::BTreeMap;

use x509_parser::certificate::X509Certificate;

use super::chain::p384_key;
use super::product::{chip_id_len, has_name, has_processor, line, tcb, tcb_layout};
use super::report::Report;
use crate::facts::{SnpProduct, SnpSigningKey};
use crate::policy::Hex;

/// 1.3.6.1.4.1.3704.1, of which all extensions of a VEK are children.
const AMD: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0x9c, 0x78, 0x01];
const STRUCT_VERSION: &[u8] = &[1];
const PRODUCT_NAME: &[u8] = &[2];
const SECURITY_VERSIONS: u8 = 3;
const HARDWARE_ID: &[u8] = &[4];
const PROVIDER_ID: &[u8] = &[5];

/// A verified VEK.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Vek {
    pub(super) product: SnpProduct,
    pub(super) key: [u8; 97],
    /// The firmware that the key is derived for, in the layout of the report.
    pub(super) tcb: [u8; 8],
    pub(super) whose: Whose,
}

/// What a VEK's key is derived from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Whose {
    /// VCEK: one chip, in the layout of the report.
    Chip([u8; 64]),
    /// VLEK: a cloud provider, by the name that AMD gave it.
    Provider(String),
}

impl Vek {
    /// # Errors
    /// Says in plain words which extension is missing or not what the specification has.
    pub(super) fn read(
        certificate: &X509Certificate<'_>,
        product: SnpProduct,
        kind: SnpSigningKey,
    ) -> Result<Self, String> {
        let extensions: BTreeMap<&[u8], &[u8]> = certificate
            .extensions()
            .iter()
            .filter_map(|extension| {
                let arcs = extension.oid.as_bytes().strip_prefix(AMD)?;
                Some((arcs, extension.value))
            })
            .collect();
        let extension = |arcs: &[u8]| {
            let missing = || format!("no extension 1.3.6.1.4.1.3704.1.{}", dotted(arcs));
            extensions.get(arcs).copied().ok_or_else(missing)
        };

        let key = p384_key(certificate).ok_or("a key that is not of P-384")?;
        match number(extension(STRUCT_VERSION)?) {
            Some(0 | 1) => {}
            _ => return Err("a structure version that is neither 0 nor 1".into()),
        }
        let name = text(extension(PRODUCT_NAME)?).ok_or("a product name that is no text")?;
        if !has_name(product, name) {
            return Err(format!(
                "product name {} under the root of {}",
                String::from_utf8_lossy(name),
                line(product)
            ));
        }
        let mut tcb = [0; 8];
        for (place, arc) in tcb.iter_mut().zip(tcb_layout(product)) {
            let arcs = [SECURITY_VERSIONS, arc];
            // 4 to 7 are reserved, and are zero where AMD writes them at all.
            if matches!(arc, 4..=7) && !extensions.contains_key(&arcs[..]) {
                continue;
            }
            let value = number(extension(&arcs)?);
            *place = value.ok_or("a security version that is no number of one byte")?;
        }
        let [chip, provider] = [HARDWARE_ID, PROVIDER_ID].map(|arcs| extensions.get(arcs).copied());
        let whose = match (kind, chip, provider) {
            (SnpSigningKey::Vcek, Some(id), None) => {
                Whose::Chip(chip_id(product, id).ok_or("a hardware id of a wrong length")?)
            }
            (SnpSigningKey::Vlek, None, Some(id)) => {
                let id = text(id).ok_or("a provider id that is no text")?;
                Whose::Provider(String::from_utf8_lossy(id).into_owned())
            }
            (SnpSigningKey::Vcek, ..) => return Err("a VCEK names its chip, and only that".into()),
            (SnpSigningKey::Vlek, ..) => {
                return Err("a VLEK names its provider, and only that".into());
            }
        };
        Ok(Self {
            product,
            key,
            tcb,
            whose,
        })
    }

    pub(super) const fn kind(&self) -> SnpSigningKey {
        match self.whose {
            Whose::Chip(_) => SnpSigningKey::Vcek,
            Whose::Provider(_) => SnpSigningKey::Vlek,
        }
    }

    /// Whether the report is of the chip and the firmware that the key stands for. The key's
    /// signature says so already if AMD's derivation is right; a difference says that it is not.
    ///
    /// # Errors
    /// Says in plain words what differs.
    pub(super) fn matches(&self, report: &Report) -> Result<(), String> {
        if self.tcb != report.reported_tcb {
            return Err(format!(
                "key for firmware {}, report of {}",
                tcb(self.product, self.tcb),
                tcb(self.product, report.reported_tcb)
            ));
        }
        if let Some((family, model)) = report.cpuid
            && !has_processor(self.product, family, model)
        {
            return Err(format!(
                "root of {}, report of CPUID family {family:#04x} model {model:#04x}",
                line(self.product)
            ));
        }
        match &self.whose {
            Whose::Chip(id) if !report.chip_masked() && *id != report.chip_id => Err(format!(
                "key of chip {}, report of {}",
                Hex(*id),
                Hex(report.chip_id)
            )),
            Whose::Chip(_) | Whose::Provider(_) => Ok(()),
        }
    }
}

fn dotted(arcs: &[u8]) -> String {
    let arcs: Vec<_> = arcs.iter().map(ToString::to_string).collect();
    arcs.join(".")
}

/// A DER INTEGER from 0 to 255.
const fn number(der: &[u8]) -> Option<u8> {
    match der {
        [0x02, 0x01, value @ 0..=0x7f] | [0x02, 0x02, 0x00, value @ 0x80..=0xff] => Some(*value),
        _ => None,
    }
}

/// A DER `IA5String` of up to 127 characters.
fn text(der: &[u8]) -> Option<&[u8]> {
    match der {
        [0x16, length, text @ ..]
            if *length < 0x80
                && usize::from(*length) == text.len()
                && !text.is_empty()
                && text.iter().all(|byte| matches!(byte, 0x20..=0x7e)) =>
        {
            Some(text)
        }
        _ => None,
    }
}

/// The id itself, or in an OCTET STRING: AMD's key server has served both.
fn chip_id(product: SnpProduct, value: &[u8]) -> Option<[u8; 64]> {
    let length = chip_id_len(product);
    let id = match value {
        [0x04, octets, id @ ..] if usize::from(*octets) == length && id.len() == length => id,
        id if id.len() == length => id,
        _ => return None,
    };
    let mut padded = [0; 64];
    for (place, byte) in padded.iter_mut().zip(id) {
        *place = *byte;
    }
    Some(padded)
}
