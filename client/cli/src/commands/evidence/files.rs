//! What `sesemi evidence` reads: every file has a largest size, and is not read beyond it.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use attestation::evidence::{ENDORSEMENTS_MAX, EVIDENCE_MAX};
use attestation::{Allowed, AppraisalPolicy, ConfigHash, MeasuredConfig, Tee};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use protocol::measured::SemirtMeasured;
use serde::Deserialize;

/// Largest policy or measured configuration, in bytes.
const TOML_MAX: usize = 1024 * 1024;
/// Room for evidence as text: two digits a byte, and white space.
const EVIDENCE_FILE_MAX: usize = 3 * EVIDENCE_MAX;
/// Room for certificates as PEM.
const ENDORSEMENTS_FILE_MAX: usize = 2 * ENDORSEMENTS_MAX;
/// The name that stands for stdin.
const STDIN: &str = "-";

const PEM_BEGIN: &str = "-----BEGIN ";
const PEM_CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----";
const PEM_END: &str = "-----END CERTIFICATE-----";

/// Why a file on the command line is not what its option says.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path} is larger than {max} bytes")]
    TooLarge { path: PathBuf, max: usize },
    #[error("{path} is PEM, but not of certificates")]
    Pem { path: PathBuf },
    #[error("{path} is not TOML of {what}")]
    Toml {
        path: PathBuf,
        what: &'static str,
        source: Box<toml::de::Error>,
    },
    #[error("{path} is not text")]
    Text { path: PathBuf },
    #[error("{path} has no canonical form")]
    Config {
        path: PathBuf,
        source: attestation::cbor::CborError,
    },
    #[error("--report-data is {got} bytes, the field has {max}")]
    ReportData { got: usize, max: usize },
}

impl FileError {
    pub(super) fn advice(&self) -> String {
        match self {
            Self::Read { .. } => "check the file's name and that you may read it",
            Self::TooLarge { .. } => "no evidence and no endorsement is that large: check the file",
            Self::Pem { .. } => {
                "give certificates as DER, or as PEM between BEGIN and END CERTIFICATE"
            }
            Self::Toml { .. } | Self::Text { .. } | Self::Config { .. } => {
                "correct the file; docs/cli.md shows the form"
            }
            Self::ReportData { .. } => "give at most as many bytes as the field has",
        }
        .to_owned()
    }
}

fn read(path: &Path, max: usize) -> Result<Vec<u8>, FileError> {
    if path == Path::new(STDIN) {
        return read_from(io::stdin().lock(), path, max);
    }
    let file = File::open(path).map_err(|source| FileError::Read {
        path: path.into(),
        source,
    })?;
    read_from(file, path, max)
}

fn read_from(from: impl Read, path: &Path, max: usize) -> Result<Vec<u8>, FileError> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1);
    from.take(limit)
        .read_to_end(&mut bytes)
        .map_err(|source| FileError::Read {
            path: path.into(),
            source,
        })?;
    if bytes.len() > max {
        let path = path.into();
        return Err(FileError::TooLarge { path, max });
    }
    Ok(bytes)
}

/// Evidence, binary or as hexadecimal text.
pub(super) fn evidence(path: &Path) -> Result<Vec<u8>, FileError> {
    let bytes = read(path, EVIDENCE_FILE_MAX)?;
    let bytes = from_hex(&bytes).unwrap_or(bytes);
    if bytes.len() > EVIDENCE_MAX {
        let (path, max) = (path.into(), EVIDENCE_MAX);
        return Err(FileError::TooLarge { path, max });
    }
    Ok(bytes)
}

/// The bytes of a text of nothing but hexadecimal digits and white space. No binary evidence is
/// such a text: each kind begins with a byte that is no digit.
fn from_hex(text: &[u8]) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text
        .iter()
        .copied()
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect();
    (!digits.is_empty()).then(|| hex::decode(&digits).ok())?
}

/// One certificate as DER. What has several is passed on as it is, to be refused.
pub(super) fn certificate(path: &Path) -> Result<Vec<u8>, FileError> {
    let bytes = read(path, ENDORSEMENTS_FILE_MAX)?;
    let mut found = certificates_of(bytes.clone(), path)?;
    match (found.pop(), found.is_empty()) {
        (Some(only), true) => Ok(only),
        _ => Ok(bytes),
    }
}

/// Certificates, one after the other, as DER.
pub(super) fn certificates(path: &Path) -> Result<Vec<Vec<u8>>, FileError> {
    certificates_of(read(path, ENDORSEMENTS_FILE_MAX)?, path)
}

/// What is not PEM is one DER certificate, or what a verifier has to refuse.
fn certificates_of(bytes: Vec<u8>, path: &Path) -> Result<Vec<Vec<u8>>, FileError> {
    let text = match std::str::from_utf8(&bytes) {
        Ok(text) if text.contains(PEM_BEGIN) => text,
        _ => return Ok(vec![bytes]),
    };
    let not_pem = || FileError::Pem { path: path.into() };
    let found: Option<Vec<_>> = text.split(PEM_CERTIFICATE).skip(1).map(from_pem).collect();
    found.filter(|found| !found.is_empty()).ok_or_else(not_pem)
}

/// The DER of what follows a line `BEGIN CERTIFICATE`.
fn from_pem(after_begin: &str) -> Option<Vec<u8>> {
    let (body, _) = after_begin.split_once(PEM_END)?;
    let body: String = body.split_ascii_whitespace().collect();
    BASE64.decode(body).ok()
}

/// Endorsements as they are.
pub(super) fn endorsement(path: &Path) -> Result<Vec<u8>, FileError> {
    read(path, ENDORSEMENTS_MAX)
}

fn toml_file<T: serde::de::DeserializeOwned>(
    path: &Path,
    what: &'static str,
) -> Result<T, FileError> {
    let text = String::from_utf8(read(path, TOML_MAX)?)
        .map_err(|_| FileError::Text { path: path.into() })?;
    toml::from_str(&text).map_err(|source| FileError::Toml {
        path: path.into(),
        what,
        source: Box::new(source),
    })
}

pub(super) fn policy(path: &Path) -> Result<AppraisalPolicy, FileError> {
    toml_file(path, "an appraisal policy")
}

/// SeMIRT's configuration file; what is in `[host]` and `[endorsements]` is not measured.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SemirtFile {
    measured: SemirtMeasured,
    policy: Option<AppraisalPolicy>,
    #[serde(rename = "host")]
    _host: Option<toml::Table>,
    #[serde(rename = "endorsements")]
    _endorsements: Option<toml::Table>,
}

/// What SeMIRT appraises its KeyService with where its file says nothing.
fn semirt_policy() -> AppraisalPolicy {
    AppraisalPolicy::strict(Tee::ALL.to_vec(), Allowed::Any)
}

/// The hash of SeMIRT's measured configuration, as E_S has it: of SeMIRT's configuration file, or
/// of the settings of its table `[measured]` alone.
pub(super) fn measured_config(path: &Path) -> Result<ConfigHash, FileError> {
    const WHAT: &str = "a configuration of SeMIRT";
    let table: toml::Table = toml_file(path, WHAT)?;
    let file = if table.contains_key("measured") {
        table.try_into()
    } else {
        table.try_into().map(|measured| SemirtFile {
            measured,
            policy: None,
            _host: None,
            _endorsements: None,
        })
    };
    let file: SemirtFile = file.map_err(|source| FileError::Toml {
        path: path.into(),
        what: WHAT,
        source: Box::new(source),
    })?;
    let policy = AppraisalPolicy {
        enclaves: Allowed::These(vec![file.measured.keyservice]),
        ..file.policy.unwrap_or_else(semirt_policy)
    };
    let config =
        MeasuredConfig::semirt(&file.measured, &policy).map_err(|source| FileError::Config {
            path: path.into(),
            source,
        })?;
    Ok(config.hash())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(bytes: &[u8]) -> (tempfile::NamedTempFile, PathBuf) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        let path = file.path().to_path_buf();
        (file, path)
    }

    #[test]
    fn every_table_of_semirts_file_is_known_and_only_the_measured_ones_count() {
        let shipped = include_str!("../../../../../config/semirt.toml");
        let more = shipped
            .replace("# [endorsements]", "[endorsements]")
            .replace("# folder =", "folder =");
        assert_ne!(more, shipped);
        let ((_kept, plain), (_too, more)) = (at(shipped.as_bytes()), at(more.as_bytes()));
        assert_eq!(
            measured_config(&more).unwrap(),
            measured_config(&plain).unwrap()
        );
        let (_kept, wrong) = at(format!("{shipped}\n[endorsement]\n").as_bytes());
        assert!(measured_config(&wrong).is_err());
    }

    #[test]
    fn evidence_is_binary_or_hexadecimal() {
        for (bytes, want) in [
            (&b"\x03\x00\x02"[..], &b"\x03\x00\x02"[..]),
            (b"0300 02\n", b"\x03\x00\x02"),
            (b"0300\r\nfF", b"\x03\x00\xff"),
            // An odd digit, or anything else: not a text of bytes.
            (b"030", b"030"),
            (b"0x0300", b"0x0300"),
            (b"", b""),
            (b"\n", b"\n"),
        ] {
            let (_kept, path) = at(bytes);
            assert_eq!(evidence(&path).unwrap(), want, "{bytes:?}");
        }
    }

    #[test]
    fn what_is_too_large_is_not_read_to_its_end() {
        let endless = io::repeat(7);
        let error = read_from(endless, Path::new("x"), 100).unwrap_err();
        assert!(matches!(error, FileError::TooLarge { max: 100, .. }));
        let (_kept, path) = at(&vec![7; EVIDENCE_MAX]);
        assert!(evidence(&path).is_ok());
        let (_kept, path) = at(&vec![7; EVIDENCE_MAX + 1]);
        assert!(evidence(&path).is_err());
        let (_kept, path) = at("00".repeat(EVIDENCE_MAX + 1).as_bytes());
        assert!(evidence(&path).is_err());
    }

    #[test]
    fn the_measured_configuration_is_semirts_file_or_one_table_of_it() {
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/semirt.toml");
        let whole = measured_config(&shipped).unwrap();
        let table: toml::Table = std::fs::read_to_string(&shipped).unwrap().parse().unwrap();
        let measured = toml::to_string(&table["measured"]).unwrap();
        let (_kept, path) = at(measured.as_bytes());
        assert_eq!(measured_config(&path).unwrap(), whole);
        let (_kept, path) = at(measured.replace("300", "301").as_bytes());
        assert_ne!(measured_config(&path).unwrap(), whole);
        let (_kept, path) = at((measured + "ttl = 1\n").as_bytes());
        let error = measured_config(&path).unwrap_err();
        assert!(matches!(error, FileError::Toml { .. }), "{error}");
    }

    #[test]
    fn certificates_are_der_or_pem() {
        let pem = |body: &str| {
            format!("text\n-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")
        };
        let (_kept, path) = at(b"\x30\x03abc");
        assert_eq!(certificates(&path).unwrap(), [b"\x30\x03abc".to_vec()]);
        let two = pem("MAA=") + &pem("MAEA");
        let (_kept, path) = at(two.as_bytes());
        let want = [vec![0x30, 0], vec![0x30, 1, 0]];
        assert_eq!(certificates(&path).unwrap(), want);
        assert_eq!(certificate(&path).unwrap(), two.as_bytes());
        let (_kept, path) = at(pem("MAA=").as_bytes());
        assert_eq!(certificate(&path).unwrap(), want[0]);
        for bad in [
            pem("M"),
            "-----BEGIN CERTIFICATE-----\nMAA=\n".to_owned(),
            "-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n".to_owned(),
        ] {
            let (_kept, path) = at(bad.as_bytes());
            assert!(matches!(certificates(&path), Err(FileError::Pem { .. })));
        }
    }
}
