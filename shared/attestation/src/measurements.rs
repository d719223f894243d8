//! What each kind of TEE measures, typed; these fields, and only these, go into E_S and E_K.
//!
//! Patch levels (security versions, TCB status) are policy, not identity: see
//! [`crate::policy::AppraisalPolicy`].

use std::collections::BTreeMap;

use crate::cbor::Writer;
use crate::evidence::Tee;

/// Intel SGX: report body of a quote (Intel SDM vol. 3D, 38.16).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SgxMeasurements {
    pub mrenclave: [u8; 32],
    pub mrsigner: [u8; 32],
    pub isv_prod_id: u16,
    /// ATTRIBUTES.FLAGS: bit 1 DEBUG, bit 2 MODE64BIT, bit 7 KSS.
    pub attributes: u64,
    pub xfrm: u64,
    pub misc_select: u32,
}

/// Intel TDX: TD report body. RTMR3 grows at run time and is left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TdxMeasurements {
    pub mrtd: [u8; 48],
    /// RTMR0 to RTMR2: firmware, kernel, command line and initrd.
    pub rtmr: [[u8; 48]; 3],
    pub mr_config_id: [u8; 48],
    pub mr_owner: [u8; 48],
    pub mr_owner_config: [u8; 48],
    /// Bits 0 to 7 are the TUD group: any of them set means debug or profiling.
    pub td_attributes: u64,
    pub xfam: u64,
}

/// AMD SEV-SNP: attestation report (AMD 56860, table 23).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnpMeasurements {
    pub measurement: [u8; 48],
    pub host_data: [u8; 32],
    pub id_key_digest: [u8; 48],
    /// Guest policy: bit 18 MIGRATE_MA, bit 19 DEBUG.
    pub policy: u64,
    pub vmpl: u32,
    pub family_id: [u8; 16],
    pub image_id: [u8; 16],
}

/// AWS Nitro Enclaves: platform configuration registers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NitroMeasurements {
    /// PCR0 to PCR2: image, kernel and boot, application. PCR0 is all zero in debug mode.
    pub pcr: [[u8; 48]; 3],
    /// Hash of the parent's IAM role.
    pub pcr3: Option<[u8; 48]>,
    /// Hash of the parent's instance id.
    pub pcr4: Option<[u8; 48]>,
    /// Hash of the image signer's certificate.
    pub pcr8: Option<[u8; 48]>,
}

/// Azure: the hardware's measurement, and what the vTPM bound to it measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AzureMeasurements<T> {
    pub hardware: T,
    /// SHA-256 PCRs of the vTPM, by index.
    pub pcrs: BTreeMap<u8, [u8; 32]>,
    pub secure_boot: bool,
}

/// The simulated TEE of the testbed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SimulatedMeasurements {
    /// SHA-384 of the executable.
    pub mr: [u8; 48],
    pub debug: bool,
}

/// The measured identity of an enclave, as its TEE states it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Measurements {
    Sgx(SgxMeasurements),
    Tdx(Box<TdxMeasurements>),
    Snp(Box<SnpMeasurements>),
    Nitro(Box<NitroMeasurements>),
    AzSnp(Box<AzureMeasurements<SnpMeasurements>>),
    AzTdx(Box<AzureMeasurements<TdxMeasurements>>),
    Simulated(SimulatedMeasurements),
}

/// One measured value, for canonical encoding and for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MeasuredValue {
    Bytes(Vec<u8>),
    Uint(u64),
    Bool(bool),
}

impl std::fmt::Display for MeasuredValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bytes(bytes) => bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}")),
            Self::Uint(value) => write!(f, "{value:#x}"),
            Self::Bool(value) => value.fmt(f),
        }
    }
}

type Fields = Vec<(String, MeasuredValue)>;

fn bytes(name: &str, value: &[u8]) -> (String, MeasuredValue) {
    (name.into(), MeasuredValue::Bytes(value.to_vec()))
}

fn uint(name: &str, value: impl Into<u64>) -> (String, MeasuredValue) {
    (name.into(), MeasuredValue::Uint(value.into()))
}

impl SgxMeasurements {
    fn fields(&self) -> Fields {
        vec![
            bytes("mrenclave", &self.mrenclave),
            bytes("mrsigner", &self.mrsigner),
            uint("isv_prod_id", self.isv_prod_id),
            uint("attributes", self.attributes),
            uint("xfrm", self.xfrm),
            uint("misc_select", self.misc_select),
        ]
    }
}

impl TdxMeasurements {
    fn fields(&self) -> Fields {
        let [rtmr0, rtmr1, rtmr2] = &self.rtmr;
        vec![
            bytes("mrtd", &self.mrtd),
            bytes("rtmr0", rtmr0),
            bytes("rtmr1", rtmr1),
            bytes("rtmr2", rtmr2),
            bytes("mr_config_id", &self.mr_config_id),
            bytes("mr_owner", &self.mr_owner),
            bytes("mr_owner_config", &self.mr_owner_config),
            uint("td_attributes", self.td_attributes),
            uint("xfam", self.xfam),
        ]
    }

    const fn debug(&self) -> bool {
        self.td_attributes & 0xff != 0
    }
}

impl SnpMeasurements {
    fn fields(&self) -> Fields {
        vec![
            bytes("measurement", &self.measurement),
            bytes("host_data", &self.host_data),
            bytes("id_key_digest", &self.id_key_digest),
            uint("policy", self.policy),
            uint("vmpl", self.vmpl),
            bytes("family_id", &self.family_id),
            bytes("image_id", &self.image_id),
        ]
    }

    const fn debug(&self) -> bool {
        self.policy & (1 << 19) != 0
    }
}

impl NitroMeasurements {
    fn fields(&self) -> Fields {
        let [pcr0, pcr1, pcr2] = &self.pcr;
        let mut fields = vec![
            bytes("pcr0", pcr0),
            bytes("pcr1", pcr1),
            bytes("pcr2", pcr2),
        ];
        for (name, pcr) in [
            ("pcr3", &self.pcr3),
            ("pcr4", &self.pcr4),
            ("pcr8", &self.pcr8),
        ] {
            fields.extend(pcr.as_ref().map(|pcr| bytes(name, pcr)));
        }
        fields
    }

    fn debug(&self) -> bool {
        let [pcr0, ..] = &self.pcr;
        pcr0 == &[0; 48]
    }
}

fn azure_fields(hardware: Fields, pcrs: &BTreeMap<u8, [u8; 32]>, secure_boot: bool) -> Fields {
    let mut fields = hardware;
    fields.extend(
        pcrs.iter()
            .map(|(index, pcr)| bytes(&format!("vtpm_pcr{index}"), pcr)),
    );
    fields.push(("secure_boot".into(), MeasuredValue::Bool(secure_boot)));
    fields
}

impl Measurements {
    #[must_use]
    pub const fn tee(&self) -> Tee {
        match self {
            Self::Sgx(_) => Tee::Sgx,
            Self::Tdx(_) => Tee::Tdx,
            Self::Snp(_) => Tee::Snp,
            Self::Nitro(_) => Tee::Nitro,
            Self::AzSnp(_) => Tee::AzSnp,
            Self::AzTdx(_) => Tee::AzTdx,
            Self::Simulated(_) => Tee::Simulated,
        }
    }

    /// Whether the host may read the enclave's memory.
    #[must_use]
    pub fn debug(&self) -> bool {
        match self {
            Self::Sgx(sgx) => sgx.attributes & 0b10 != 0,
            Self::Tdx(tdx) => tdx.debug(),
            Self::Snp(snp) => snp.debug(),
            Self::Nitro(nitro) => nitro.debug(),
            Self::AzSnp(azure) => azure.hardware.debug(),
            Self::AzTdx(azure) => azure.hardware.debug(),
            Self::Simulated(simulated) => simulated.debug,
        }
    }

    /// Every field by name, in the order in which they are hashed.
    #[must_use]
    pub fn fields(&self) -> Vec<(String, MeasuredValue)> {
        match self {
            Self::Sgx(sgx) => sgx.fields(),
            Self::Tdx(tdx) => tdx.fields(),
            Self::Snp(snp) => snp.fields(),
            Self::Nitro(nitro) => nitro.fields(),
            Self::AzSnp(azure) => {
                azure_fields(azure.hardware.fields(), &azure.pcrs, azure.secure_boot)
            }
            Self::AzTdx(azure) => {
                azure_fields(azure.hardware.fields(), &azure.pcrs, azure.secure_boot)
            }
            Self::Simulated(simulated) => vec![
                bytes("mr", &simulated.mr),
                ("debug".into(), MeasuredValue::Bool(simulated.debug)),
            ],
        }
    }

    /// Appends the canonical form: an array of `[name, value]`.
    pub(crate) fn write(&self, writer: Writer) -> Writer {
        let fields = self.fields();
        let writer = writer.array(fields.len());
        fields.iter().fold(writer, |writer, (name, value)| {
            let writer = writer.array(2).text(name);
            match value {
                MeasuredValue::Bytes(bytes) => writer.bytes(bytes),
                MeasuredValue::Uint(value) => writer.uint(*value),
                MeasuredValue::Bool(value) => writer.bool(*value),
            }
        })
    }
}
