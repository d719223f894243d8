//! `sesemi evidence …`: arguments.

use std::path::PathBuf;

use attestation::{TcbStatus, Tee};
use clap::{Args, Subcommand, ValueEnum};

use super::help;

/// `sesemi evidence …`
#[derive(Debug, Subcommand)]
pub enum EvidenceCommand {
    /// Appraise a piece of evidence from a file, and print every check by name
    #[command(after_help = help::EVIDENCE_VERIFY)]
    Verify(EvidenceArgs),
    /// The same in plain words: what it is, why it is refused, and what would have to change
    #[command(after_help = help::EVIDENCE_EXPLAIN)]
    Explain(EvidenceArgs),
}

/// What a file of evidence is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum EvidenceKind {
    /// Intel SGX: a DCAP quote
    Sgx,
    /// Intel TDX: a DCAP quote
    Tdx,
    /// AMD SEV-SNP: an attestation report
    Snp,
    /// AWS Nitro Enclaves: an attestation document (COSE)
    Nitro,
    /// SEV-SNP behind Azure's vTPM: JSON of quote, HCL report and VCEK
    AzSnp,
    /// TDX behind Azure's vTPM: JSON of quote, HCL report and TD quote
    AzTdx,
    /// A certificate with evidence in it (interoperable RA-TLS), of SGX or TDX
    Ratls,
    /// NVIDIA GPU: an SPDM measurement report
    Nvidia,
}

impl EvidenceKind {
    /// The name on the command line and in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sgx => "sgx",
            Self::Tdx => "tdx",
            Self::Snp => "snp",
            Self::Nitro => "nitro",
            Self::AzSnp => "az-snp",
            Self::AzTdx => "az-tdx",
            Self::Ratls => "ratls",
            Self::Nvidia => "nvidia",
        }
    }

    /// The kinds of TEE whose evidence it can hold; none for what is no TEE.
    #[must_use]
    pub const fn tees(self) -> &'static [Tee] {
        match self {
            Self::Sgx => &[Tee::Sgx],
            Self::Tdx => &[Tee::Tdx],
            Self::Snp => &[Tee::Snp],
            Self::Nitro => &[Tee::Nitro],
            Self::AzSnp => &[Tee::AzSnp],
            Self::AzTdx => &[Tee::AzTdx],
            Self::Ratls => &[Tee::Sgx, Tee::Tdx],
            Self::Nvidia => &[],
        }
    }
}

/// Which evidence, and what it is held against.
#[derive(Debug, Clone, Args)]
pub struct EvidenceArgs {
    /// What the evidence is
    #[arg(long, value_enum, value_name = "TEE")]
    pub tee: EvidenceKind,
    /// The evidence, binary or in hexadecimal; "-" for stdin
    #[arg(long, value_name = "FILE")]
    pub evidence: PathBuf,
    /// Intel: collateral (QuoteCollateralV3 as JSON): TCB info, QE identity, CRLs, their issuers
    #[arg(long, value_name = "FILE")]
    pub collateral: Option<PathBuf>,
    /// AMD: certificate of the key that signed the report (VCEK or VLEK), DER or PEM
    #[arg(long, value_name = "FILE")]
    pub vek: Option<PathBuf>,
    /// AMD: its issuers, ASK or ASVK, then ARK. NVIDIA: the device's chain, leaf first. PEM or DER
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Verify as of this time, in seconds since 1970; default: now
    #[arg(long, value_name = "UNIX_SECONDS")]
    pub at: Option<u64>,
    /// Appraisal policy (TOML), in place of the default one
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,
    /// What the evidence must be bound to; shorter than the field is padded with zeros (Nitro:
    /// user_data, exactly)
    #[arg(long, value_name = "HEX", value_parser = parse_hex)]
    pub report_data: Option<Hex>,
    /// The nonce that the evidence must answer (Nitro, Azure's vTPM, NVIDIA, RA-TLS claims)
    #[arg(long, value_name = "HEX", value_parser = parse_hex)]
    pub nonce: Option<Hex>,
    /// Also accept a platform in this patch state, in Intel's spelling (OutOfDate) or as in
    /// policies (out-of-date); repeatable
    #[arg(long = "allow-tcb-status", value_name = "NAME", value_parser = parse_tcb)]
    pub allow_tcb_status: Vec<TcbStatus>,
    /// SeMIRT's configuration file (TOML), or its table [measured] alone; with it, accepted
    /// evidence gives E_S
    #[arg(long, value_name = "FILE")]
    pub measured_config: Option<PathBuf>,
}

/// Bytes from hexadecimal text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hex(pub Vec<u8>);

/// Longest of the fields that evidence is compared with: Nitro's, 512 bytes each.
const HEX_MAX: usize = 512;

fn parse_hex(text: &str) -> Result<Hex, String> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    let bytes = hex::decode(digits).map_err(|error| match error {
        hex::FromHexError::OddLength => "hexadecimal digits come in pairs".to_owned(),
        error => format!("not hexadecimal: {error}"),
    })?;
    if bytes.len() > HEX_MAX {
        return Err(format!("at most {HEX_MAX} bytes"));
    }
    Ok(Hex(bytes))
}

/// The states that can be allowed: a revoked platform cannot.
const ALLOWABLE: [TcbStatus; 6] = [
    TcbStatus::UpToDate,
    TcbStatus::SwHardeningNeeded,
    TcbStatus::ConfigurationNeeded,
    TcbStatus::ConfigurationAndSwHardeningNeeded,
    TcbStatus::OutOfDate,
    TcbStatus::OutOfDateConfigurationNeeded,
];

/// Reads `OutOfDate` and `out-of-date`: the same letters in the same order.
fn parse_tcb(text: &str) -> Result<TcbStatus, String> {
    let letters = |name: &str| {
        let kept = name.chars().filter(|c| *c != '-');
        kept.map(|c| c.to_ascii_lowercase()).collect::<String>()
    };
    let wanted = letters(text);
    let found = ALLOWABLE
        .into_iter()
        .find(|status| letters(status.name()) == wanted);
    found.ok_or_else(|| {
        if wanted == letters(TcbStatus::Revoked.name()) {
            return "a revoked platform is never accepted".to_owned();
        }
        format!("one of {}", ALLOWABLE.map(TcbStatus::name).join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patch_states_are_read_in_both_spellings() {
        for (text, status) in [
            ("UpToDate", TcbStatus::UpToDate),
            ("SWHardeningNeeded", TcbStatus::SwHardeningNeeded),
            ("ConfigurationNeeded", TcbStatus::ConfigurationNeeded),
            (
                "ConfigurationAndSWHardeningNeeded",
                TcbStatus::ConfigurationAndSwHardeningNeeded,
            ),
            ("OutOfDate", TcbStatus::OutOfDate),
            (
                "OutOfDateConfigurationNeeded",
                TcbStatus::OutOfDateConfigurationNeeded,
            ),
        ] {
            assert_eq!(parse_tcb(text), Ok(status));
            assert_eq!(parse_tcb(status.name()), Ok(status));
        }
        for bad in ["", "Revoked", "revoked", "not-applicable", "outofdates"] {
            assert!(parse_tcb(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn hexadecimal_is_pairs_of_digits_and_not_too_many() {
        assert_eq!(parse_hex("00fF"), Ok(Hex(vec![0, 255])));
        assert_eq!(parse_hex("0x01"), Ok(Hex(vec![1])));
        assert_eq!(parse_hex(""), Ok(Hex(Vec::new())));
        assert!(parse_hex(&"00".repeat(HEX_MAX)).is_ok());
        for bad in ["0", "0g", "é0", &"00".repeat(HEX_MAX + 1)] {
            assert!(parse_hex(bad).is_err(), "{bad}");
        }
    }
}
