//! Quotes of the fake Intel's quoting enclaves.

use aws_lc_rs::digest;
use rcgen::{KeyPair, PublicKeyData};

use super::{FakePlatform, QE_SIGNER, SEAM_SIGNER, TEE_TCB_SVN, sign};
use crate::evidence::Tee;

/// `INTEL_QE_VENDOR_ID`.
const INTEL: [u8; 16] = [
    0x93, 0x9a, 0x72, 0x33, 0xf7, 0x9c, 0x4c, 0xa9, 0x94, 0x0a, 0x0d, 0xb3, 0x95, 0x7f, 0x06, 0x07,
];
const SEPT_VE_DISABLE: u64 = 1 << 28;

/// An SGX enclave's report. [`FakeSgx::new`] is a production enclave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FakeSgx {
    pub mrenclave: [u8; 32],
    pub mrsigner: [u8; 32],
    pub isv_prod_id: u16,
    pub isv_svn: u16,
    /// INIT and MODE64BIT; bit 1 is DEBUG.
    pub attributes: u64,
    pub xfrm: u64,
    pub misc_select: u32,
    pub config_id: [u8; 64],
}

/// The form of a TD's report and quote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TdBody {
    /// TDX 1.0 in a quote of version 4.
    Td10,
    /// TDX 1.0 in a quote of version 5.
    Td10V5,
    /// TDX 1.5, version 5.
    Td15,
    /// TDX 1.5 with extensions, version 5.
    Td15Ex,
}

/// A TD's report. [`FakeTd::new`] is a production TD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FakeTd {
    pub body: TdBody,
    pub mrtd: [u8; 48],
    pub rtmr: [[u8; 48]; 4],
    pub mr_config_id: [u8; 48],
    pub mr_owner: [u8; 48],
    pub mr_owner_config: [u8; 48],
    /// SEPT_VE_DISABLE; bit 0 is DEBUG, bit 17 SERVTD_EXT, bit 29 MIGRATABLE.
    pub td_attributes: u64,
    pub xfam: u64,
    pub tee_tcb_svn: [u8; 16],
    pub mr_signer_seam: [u8; 48],
    pub seam_attributes: u64,
    /// From TDX 1.5 on.
    pub tee_tcb_svn2: [u8; 16],
    pub mr_service_td: [u8; 48],
    /// TDX 1.5 with extensions.
    pub current_service_td: [u8; 48],
}

/// What a quote is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FakeReport {
    Sgx(FakeSgx),
    Td(Box<FakeTd>),
}

/// A quoting enclave, and how its quotes are certified. [`FakeQe::new`] is Intel's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FakeQe {
    pub mrsigner: [u8; 32],
    /// Bit 1 is DEBUG.
    pub attributes: u64,
    pub isv_prod_id: u16,
    pub isv_svn: u16,
    /// Another key signs the quote than the one that the QE report vouches for.
    pub other_key: bool,
    /// Type of the certification data: 5 is the PCK chain.
    pub certification: u16,
    /// Certification data, if not the chain in PEM and a zero byte.
    pub data: Option<Vec<u8>>,
    /// Type of the certification of the attestation key: 6 is the QE report (versions 4 and 5).
    pub outer: u16,
    pub authentication: Vec<u8>,
}

impl FakeSgx {
    #[must_use]
    pub const fn new(mrenclave: u8) -> Self {
        Self {
            mrenclave: [mrenclave; 32],
            mrsigner: [0x51; 32],
            isv_prod_id: 7,
            isv_svn: 2,
            attributes: 0b101,
            xfrm: 0b11,
            misc_select: 0,
            config_id: [0; 64],
        }
    }
}

impl FakeTd {
    #[must_use]
    pub const fn new(mrtd: u8) -> Self {
        Self {
            body: TdBody::Td15,
            mrtd: [mrtd; 48],
            rtmr: [[0xa0; 48], [0xa1; 48], [0xa2; 48], [0xa3; 48]],
            mr_config_id: [0; 48],
            mr_owner: [0; 48],
            mr_owner_config: [0; 48],
            td_attributes: SEPT_VE_DISABLE,
            xfam: 0x0006_18e7,
            tee_tcb_svn: TEE_TCB_SVN,
            mr_signer_seam: SEAM_SIGNER,
            seam_attributes: 0,
            tee_tcb_svn2: TEE_TCB_SVN,
            mr_service_td: [0; 48],
            current_service_td: [0; 48],
        }
    }
}

impl FakeReport {
    /// A production enclave.
    #[must_use]
    pub const fn sgx(mrenclave: u8) -> Self {
        Self::Sgx(FakeSgx::new(mrenclave))
    }

    /// A production TD.
    #[must_use]
    pub fn td(mrtd: u8) -> Self {
        Self::Td(Box::new(FakeTd::new(mrtd)))
    }

    #[must_use]
    pub const fn tee(&self) -> Tee {
        match self {
            Self::Sgx(_) => Tee::Sgx,
            Self::Td(_) => Tee::Tdx,
        }
    }

    const fn version(&self) -> u16 {
        match self {
            Self::Sgx(_) => 3,
            Self::Td(td) => match td.body {
                TdBody::Td10 => 4,
                TdBody::Td10V5 | TdBody::Td15 | TdBody::Td15Ex => 5,
            },
        }
    }

    /// The body, and its type in quotes of version 5.
    fn body(&self, report_data: &[u8; 64]) -> (u16, Vec<u8>) {
        match self {
            Self::Sgx(sgx) => (1, sgx_body(sgx, report_data)),
            Self::Td(td) => td_body(td, report_data),
        }
    }
}

impl FakeQe {
    #[must_use]
    pub fn new(tee: Tee) -> Self {
        Self {
            mrsigner: QE_SIGNER,
            attributes: 0x11,
            isv_prod_id: qe_product(tee),
            isv_svn: 4,
            other_key: false,
            certification: 5,
            data: None,
            outer: 6,
            authentication: (0..32).collect(),
        }
    }
}

/// Product number of Intel's quoting enclaves.
pub(super) const fn qe_product(tee: Tee) -> u16 {
    match tee {
        Tee::Tdx => 2,
        _ => 1,
    }
}

fn sgx_body(sgx: &FakeSgx, report_data: &[u8; 64]) -> Vec<u8> {
    [
        &[3; 16][..], // CPUSVN
        &sgx.misc_select.to_le_bytes(),
        &[0; 28],
        &sgx.attributes.to_le_bytes(),
        &sgx.xfrm.to_le_bytes(),
        &sgx.mrenclave,
        &[0; 32],
        &sgx.mrsigner,
        &[0; 32],
        &sgx.config_id,
        &sgx.isv_prod_id.to_le_bytes(),
        &sgx.isv_svn.to_le_bytes(),
        &[0; 60],
        report_data,
    ]
    .concat()
}

fn td_body(td: &FakeTd, report_data: &[u8; 64]) -> (u16, Vec<u8>) {
    let [rtmr0, rtmr1, rtmr2, rtmr3] = &td.rtmr;
    let mut body = [
        &td.tee_tcb_svn[..],
        &[0x5e; 48], // MRSEAM
        &td.mr_signer_seam,
        &td.seam_attributes.to_le_bytes(),
        &td.td_attributes.to_le_bytes(),
        &td.xfam.to_le_bytes(),
        &td.mrtd,
        &td.mr_config_id,
        &td.mr_owner,
        &td.mr_owner_config,
        rtmr0,
        rtmr1,
        rtmr2,
        rtmr3,
        report_data,
    ]
    .concat();
    if matches!(td.body, TdBody::Td15 | TdBody::Td15Ex) {
        body.extend(td.tee_tcb_svn2);
        body.extend(td.mr_service_td);
    }
    if td.body == TdBody::Td15Ex {
        // VMID, TD_ID, DEV_INFO; of the service TD at creation: hash, attributes, and TCB.
        body.extend([0; 1 + 32 + 48 + 48 + 8 + 16 + 16 + 12]);
        body.extend(td.current_service_td);
        body.extend([0; 8]);
    }
    let kind = match td.body {
        TdBody::Td10 | TdBody::Td10V5 => 2,
        TdBody::Td15 => 3,
        TdBody::Td15Ex => 4,
    };
    (kind, body)
}

fn counted(bytes: &[u8]) -> Vec<u8> {
    let len = u32::try_from(bytes.len()).unwrap();
    [&len.to_le_bytes()[..], bytes].concat()
}

/// X and Y of a key.
fn point(key: &KeyPair) -> Vec<u8> {
    key.der_bytes()[1..].to_vec()
}

pub(super) fn write(
    platform: &FakePlatform,
    qe: &FakeQe,
    report: &FakeReport,
    report_data: &[u8; 64],
) -> Vec<u8> {
    let version = report.version();
    let tee: u32 = match report.tee() {
        Tee::Tdx => 0x81,
        _ => 0,
    };
    let (kind, body) = report.body(report_data);
    let mut quote = [
        &version.to_le_bytes()[..],
        &2_u16.to_le_bytes(),
        &tee.to_le_bytes(),
        &[0; 4],
        &INTEL,
        &[0; 20],
    ]
    .concat();
    if version == 5 {
        quote.extend(kind.to_le_bytes());
        quote.extend(counted(&body));
    } else {
        quote.extend(body);
    }
    let vouched = point(&platform.attestation_key);
    let other;
    let key = if qe.other_key {
        other = KeyPair::generate().unwrap();
        &other
    } else {
        &platform.attestation_key
    };
    let signature = sign(key, &quote);
    let certification = certification(platform, qe, &vouched);
    let mut signed = [signature, point(key)].concat();
    if version > 3 {
        signed.extend(qe.outer.to_le_bytes());
        signed.extend(counted(&certification));
    } else {
        signed.extend(certification);
    }
    quote.extend(counted(&signed));
    quote
}

/// The QE's report and what certifies it.
fn certification(platform: &FakePlatform, qe: &FakeQe, vouched: &[u8]) -> Vec<u8> {
    let hash = digest::digest(&digest::SHA256, &[vouched, &qe.authentication].concat());
    let mut report_data = [0; 64];
    report_data[..32].copy_from_slice(hash.as_ref());
    let enclave = FakeSgx {
        mrsigner: qe.mrsigner,
        isv_prod_id: qe.isv_prod_id,
        isv_svn: qe.isv_svn,
        attributes: qe.attributes,
        ..FakeSgx::new(0x9e)
    };
    let report = sgx_body(&enclave, &report_data);
    let authentication = u16::try_from(qe.authentication.len()).unwrap();
    let chain = [platform.chain.as_bytes(), &[0]].concat();
    [
        &report[..],
        &platform.pck.sign(&report),
        &authentication.to_le_bytes(),
        &qe.authentication,
        &qe.certification.to_le_bytes(),
        &counted(qe.data.as_ref().unwrap_or(&chain)),
    ]
    .concat()
}
