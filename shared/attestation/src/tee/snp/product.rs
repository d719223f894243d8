//! AMD's product lines: names, roots, CPUID models and how each lays out `TCB_VERSION`.

use crate::facts::{SnpProduct, SnpTcb};

/// A root that is trusted for one product line: SHA-256 of the ARK certificate (DER).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AmdRoot {
    pub product: SnpProduct,
    pub sha256: [u8; 32],
}

/// AMD's roots, as its key server has them (`kdsintf.amd.com/vcek/v1/Milan/cert_chain`, and so on).
/// The same three are built into google/go-sev-guest (`verify/trust`) and virtee/sev
/// (`src/certs/snp/builtin`); compared 2026-11-23. The VLEK chains start at the same roots.
pub(super) const AMD_ROOTS: [AmdRoot; 3] = [
    AmdRoot {
        product: SnpProduct::Milan,
        sha256: [
            0x69, 0xd0, 0x63, 0xb4, 0x53, 0x44, 0xd2, 0x6a, 0x2e, 0x94, 0xe1, 0xf4, 0x21, 0x0d,
            0xe4, 0x9e, 0xf5, 0x55, 0x30, 0x82, 0x87, 0xd4, 0xc1, 0x74, 0x44, 0x5c, 0x95, 0x63,
            0x9a, 0x54, 0x0b, 0xcd,
        ],
    },
    AmdRoot {
        product: SnpProduct::Genoa,
        sha256: [
            0x4c, 0x65, 0x98, 0xd1, 0x9c, 0x18, 0x71, 0x9c, 0x5d, 0xfd, 0x4a, 0x7d, 0x33, 0x5f,
            0x67, 0x4e, 0x5b, 0xfe, 0x1d, 0x8f, 0x80, 0x0c, 0xea, 0x2c, 0xf2, 0x70, 0xc1, 0x0d,
            0x10, 0x3d, 0xb2, 0xf1,
        ],
    },
    AmdRoot {
        product: SnpProduct::Turin,
        sha256: [
            0x1f, 0x08, 0x41, 0x61, 0xa4, 0x4b, 0xb6, 0xd9, 0x37, 0x78, 0xa9, 0x04, 0x87, 0x7d,
            0x48, 0x19, 0xca, 0xfa, 0x5d, 0x05, 0xef, 0x41, 0x93, 0xb2, 0xde, 0xd9, 0xdd, 0x9c,
            0x73, 0xdd, 0x3f, 0x6a,
        ],
    },
];

/// The name in AMD's certificates.
pub(super) const fn line(product: SnpProduct) -> &'static str {
    match product {
        SnpProduct::Milan => "Milan",
        SnpProduct::Genoa => "Genoa",
        SnpProduct::Turin => "Turin",
    }
}

/// Whether a processor of this CPUID family and model is of the product line. Genoa's line
/// has Bergamo and Siena (models a0h to afh) too: AMD signs for them under the same root.
pub(super) const fn has_processor(product: SnpProduct, family: u8, model: u8) -> bool {
    match product {
        SnpProduct::Milan => family == 0x19 && matches!(model, 0x00..=0x0f),
        SnpProduct::Genoa => family == 0x19 && matches!(model, 0x10..=0x1f | 0xa0..=0xaf),
        SnpProduct::Turin => family == 0x1a && matches!(model, 0x00..=0x1f),
    }
}

/// The product line of a processor, by CPUID family and model.
pub(super) fn processor(family: u8, model: u8) -> Option<SnpProduct> {
    [SnpProduct::Milan, SnpProduct::Genoa, SnpProduct::Turin]
        .into_iter()
        .find(|product| has_processor(*product, family, model))
}

/// Whether the `productName` of a VEK is of the product line: `Milan`, or `Milan-B0`.
pub(super) fn has_name(product: SnpProduct, name: &[u8]) -> bool {
    match name.strip_prefix(line(product).as_bytes()) {
        None => false,
        Some([]) => true,
        Some([dash, stepping @ ..]) => {
            *dash == b'-' && !stepping.is_empty() && stepping.iter().all(u8::is_ascii_alphanumeric)
        }
    }
}

/// Last number of the object ids 1.3.6.1.4.1.3704.1.3.x under which a VEK states the bytes of
/// `TCB_VERSION`, in their order (AMD 57230, table 8; AMD 56860, tables 3 and 4).
pub(super) const fn tcb_layout(product: SnpProduct) -> [u8; 8] {
    match product {
        SnpProduct::Milan | SnpProduct::Genoa => [1, 2, 4, 5, 6, 7, 3, 8],
        SnpProduct::Turin => [9, 1, 2, 3, 5, 6, 7, 8],
    }
}

/// How many bytes of the chip id the product has; a report fills up with zeros.
pub(super) const fn chip_id_len(product: SnpProduct) -> usize {
    match product {
        SnpProduct::Milan | SnpProduct::Genoa => 64,
        SnpProduct::Turin => 8,
    }
}

/// The parts of a `TCB_VERSION`. Reserved bytes are left out: nothing compares them but the
/// VEK's extensions, which are compared with all eight.
pub(super) const fn tcb(product: SnpProduct, bytes: [u8; 8]) -> SnpTcb {
    match product {
        SnpProduct::Milan | SnpProduct::Genoa => {
            let [boot_loader, tee, _, _, _, _, snp, microcode] = bytes;
            SnpTcb {
                fmc: 0,
                boot_loader,
                tee,
                snp,
                microcode,
            }
        }
        SnpProduct::Turin => {
            let [fmc, boot_loader, tee, snp, _, _, _, microcode] = bytes;
            SnpTcb {
                fmc,
                boot_loader,
                tee,
                snp,
                microcode,
            }
        }
    }
}
