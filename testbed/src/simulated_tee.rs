//! The simulated TEE: measures the running executable and signs like a vendor would, without any
//! hardware. It protects nothing; it lets every other step be the real one.
//!
//! A folder stands for the hardware: `root.key` is the secret that real hardware would never
//! give out, `root.pem` the vendor's public key. Evidence has the layout of a real quote:
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 20 | `SESEMI-SIMULATED-TEE` |
//! | 20 | 2 | version, little-endian: 1 |
//! | 22 | 2 | signature algorithm, little-endian: 1 is Ed25519 |
//! | 24 | 8 | SHA-256 of the root's public key, first bytes |
//! | 32 | 48 | measurement: SHA-384 of the executable |
//! | 80 | 8 | attributes, little-endian: bit 0 initialised, bit 1 debug, the rest 0 |
//! | 88 | 2 | security version, little-endian |
//! | 90 | 6 | reserved: 0 |
//! | 96 | 64 | report data |
//! | 160 | 64 | Ed25519 signature over everything before |

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use attestation::measurements::SimulatedMeasurements;
use attestation::{
    Attester, Binder, CheckName, Claims, CollectError, Evidence, Facts, Failed, Malformed,
    Measurements, Said, Scorecard, Subject, TcbStatus, Tee, Verifier,
};
use aws_lc_rs::digest::{Context, SHA256, SHA384, digest};
use aws_lc_rs::hkdf;
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crypto::SealingKey;

/// Opens every piece of evidence; a scan of release binaries must not find it.
const MARKER: &[u8; 20] = b"SESEMI-SIMULATED-TEE";
const VERSION: u16 = 1;
const ALG_ED25519: u16 = 1;
const ATTRIBUTE_INIT: u64 = 1;
const ATTRIBUTE_DEBUG: u64 = 1 << 1;
const SIGNED_LEN: usize = 160;
const EVIDENCE_LEN: usize = SIGNED_LEN + 64;

const ROOT_KEY: &str = "root.key";
const ROOT_PEM: &str = "root.pem";
const PEM_BEGIN: &str = "-----BEGIN PUBLIC KEY-----";
const PEM_END: &str = "-----END PUBLIC KEY-----";
/// SubjectPublicKeyInfo of an Ed25519 key (RFC 8410), before the key.
const SPKI_PREFIX: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];
/// Longest `root.pem`, in bytes.
const PEM_MAX: u64 = 1024;

const SIGNING_LABEL: &[u8] = b"sesemi/simulated-tee/signing/1";
const SEALING_LABEL: &[u8] = b"sesemi/simulated-tee/sealing/1";

/// Why there is no simulated hardware, or no measurement.
#[derive(Debug, thiserror::Error)]
pub enum SimulatedTeeError {
    #[error("using {}", path.display())]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is not a root key of the simulated TEE", path.display())]
    RootKey { path: PathBuf },
    #[error("{} is not a PEM file with one Ed25519 public key", path.display())]
    RootPem { path: PathBuf },
    #[error("drawing the root key")]
    Random,
}

fn file_error(path: &Path) -> impl FnOnce(io::Error) -> SimulatedTeeError {
    let path = path.to_owned();
    move |source| SimulatedTeeError::File { path, source }
}

/// The folder that stands for a machine with a TEE.
#[derive(Clone)]
pub struct SimulatedHardware {
    secret: Arc<Secret>,
    folder: PathBuf,
}

struct Secret {
    sealing: hkdf::Prk,
    signing: Ed25519KeyPair,
}

impl fmt::Debug for SimulatedHardware {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimulatedHardware")
            .field("folder", &self.folder)
            .finish_non_exhaustive()
    }
}

impl SimulatedHardware {
    /// Opens the hardware in `folder`, or makes it. Several processes may do so at once.
    ///
    /// # Errors
    /// [`SimulatedTeeError`] if the folder cannot be used or has another kind of key.
    pub fn open(folder: &Path) -> Result<Self, SimulatedTeeError> {
        let mut builder = fs::DirBuilder::new();
        builder
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(file_error(folder))?;
        let path = folder.join(ROOT_KEY);
        let root = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut root = [0; 32];
                aws_lc_rs::rand::fill(&mut root).map_err(|_| SimulatedTeeError::Random)?;
                publish(folder, ROOT_KEY, &root).map_err(file_error(&path))?;
                // Whichever process was first, its key counts.
                fs::read(&path)
            }
            read => read,
        }
        .map_err(file_error(&path))?;
        let wrong = || SimulatedTeeError::RootKey { path: path.clone() };
        let root: [u8; 32] = root.try_into().map_err(|_| wrong())?;
        let secret = Secret::derive(&root).ok_or_else(wrong)?;
        let hardware = Self {
            secret: Arc::new(secret),
            folder: folder.to_owned(),
        };
        let pem = pem(&hardware.public_key());
        let path = hardware.root_file();
        publish(folder, ROOT_PEM, pem.as_bytes()).map_err(file_error(&path))?;
        if SimulatedVerifier::from_root_file(&path)? == hardware.verifier() {
            Ok(hardware)
        } else {
            Err(SimulatedTeeError::RootPem { path })
        }
    }

    /// The vendor's public key, as PEM.
    #[must_use]
    pub fn root_file(&self) -> PathBuf {
        self.folder.join(ROOT_PEM)
    }

    /// Verifies what this hardware signs.
    #[must_use]
    pub fn verifier(&self) -> SimulatedVerifier {
        SimulatedVerifier {
            root: self.public_key(),
        }
    }

    fn public_key(&self) -> [u8; 32] {
        let mut key = [0; 32];
        key.copy_from_slice(self.secret.signing.public_key().as_ref());
        key
    }

    /// Puts this process into a production enclave with security version 1.
    ///
    /// # Errors
    /// [`SimulatedTeeError`] if the executable cannot be read.
    pub fn attester(&self) -> Result<SimulatedAttester, SimulatedTeeError> {
        self.attester_as(Enclave {
            debug: false,
            svn: 1,
        })
    }

    /// Puts this process into an enclave as described.
    ///
    /// # Errors
    /// [`SimulatedTeeError`] if the executable cannot be read.
    pub fn attester_as(&self, enclave: Enclave) -> Result<SimulatedAttester, SimulatedTeeError> {
        let mr = sha384_of(Path::new("/proc/self/exe"))?;
        Ok(SimulatedAttester {
            secret: Arc::clone(&self.secret),
            mr,
            enclave,
        })
    }

    /// What a production enclave that runs `executable` measures as.
    ///
    /// # Errors
    /// [`SimulatedTeeError`] if the executable cannot be read.
    pub fn measure(&self, executable: &Path) -> Result<Measurements, SimulatedTeeError> {
        let mr = sha384_of(executable)?;
        Ok(Measurements::Simulated(SimulatedMeasurements {
            mr,
            debug: false,
        }))
    }
}

struct Key32;

impl hkdf::KeyType for Key32 {
    fn len(&self) -> usize {
        32
    }
}

fn expand(prk: &hkdf::Prk, info: &[&[u8]]) -> Option<[u8; 32]> {
    let mut key = [0; 32];
    prk.expand(info, Key32).ok()?.fill(&mut key).ok()?;
    Some(key)
}

impl Secret {
    fn derive(root: &[u8; 32]) -> Option<Self> {
        let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, MARKER).extract(root);
        let signing = Ed25519KeyPair::from_seed_unchecked(&expand(&prk, &[SIGNING_LABEL])?).ok()?;
        Some(Self {
            sealing: prk,
            signing,
        })
    }
}

/// Makes `folder/name` with this content, whole or not at all, unless it is there already.
fn publish(folder: &Path, name: &str, content: &[u8]) -> io::Result<()> {
    let path = folder.join(name);
    if path.exists() {
        return Ok(());
    }
    let mut suffix = [0; 8];
    aws_lc_rs::rand::fill(&mut suffix).map_err(io::Error::other)?;
    let temporary = folder.join(format!("{name}.{}", hex::encode(suffix)));
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    let linked = fs::hard_link(&temporary, &path);
    fs::remove_file(&temporary)?;
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

fn pem(key: &[u8; 32]) -> String {
    let der = [&SPKI_PREFIX[..], key].concat();
    format!("{PEM_BEGIN}\n{}\n{PEM_END}\n", STANDARD.encode(der))
}

fn read_pem(text: &str) -> Option<[u8; 32]> {
    let body = text.trim().strip_prefix(PEM_BEGIN)?.strip_suffix(PEM_END)?;
    let der = STANDARD.decode(body.trim()).ok()?;
    der.strip_prefix(&SPKI_PREFIX)?.try_into().ok()
}

fn sha384_of(path: &Path) -> Result<[u8; 48], SimulatedTeeError> {
    let hash = || {
        let mut file = File::open(path)?;
        let mut context = Context::new(&SHA384);
        let mut buffer = vec![0; 1 << 20];
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(context.finish()),
                len => context.update(&buffer[..len]),
            }
        }
    };
    let mut measurement = [0; 48];
    measurement.copy_from_slice(hash().map_err(file_error(path))?.as_ref());
    Ok(measurement)
}

/// How an enclave is started; its measurement is that of its executable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Enclave {
    pub debug: bool,
    pub svn: u16,
}

/// Signs evidence for the enclave that this process plays.
#[derive(Clone)]
pub struct SimulatedAttester {
    secret: Arc<Secret>,
    mr: [u8; 48],
    enclave: Enclave,
}

impl fmt::Debug for SimulatedAttester {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimulatedAttester")
            .field("enclave", &self.enclave)
            .finish_non_exhaustive()
    }
}

impl SimulatedAttester {
    /// What this enclave measures as.
    #[must_use]
    pub fn measurements(&self) -> Measurements {
        Measurements::Simulated(SimulatedMeasurements {
            mr: self.mr,
            debug: self.enclave.debug,
        })
    }

    fn attributes(&self) -> u64 {
        ATTRIBUTE_INIT
            | if self.enclave.debug {
                ATTRIBUTE_DEBUG
            } else {
                0
            }
    }
}

impl Attester for SimulatedAttester {
    fn tee(&self) -> Tee {
        Tee::Simulated
    }

    fn collect(&self, binder: &Binder) -> Result<Evidence, CollectError> {
        let mut body = Vec::with_capacity(EVIDENCE_LEN);
        body.extend(MARKER);
        body.extend(VERSION.to_le_bytes());
        body.extend(ALG_ED25519.to_le_bytes());
        body.extend(root_hint(self.secret.signing.public_key().as_ref()));
        body.extend(self.mr);
        body.extend(self.attributes().to_le_bytes());
        body.extend(self.enclave.svn.to_le_bytes());
        body.extend([0; 6]);
        body.extend(binder.report_data());
        let signature = self.secret.signing.sign(&body);
        body.extend(signature.as_ref());
        Ok(Evidence {
            tee: Tee::Simulated,
            body,
        })
    }

    // A debug enclave gets another key, as on real hardware: it must not read production's data.
    fn sealing_key(&self) -> Result<SealingKey, CollectError> {
        let wrong = || CollectError::Unexpected {
            what: "a sealing key",
        };
        let attributes = self.attributes().to_le_bytes();
        let key = expand(
            &self.secret.sealing,
            &[SEALING_LABEL, &self.mr, &attributes],
        )
        .ok_or_else(wrong)?;
        SealingKey::from_slice(&key).map_err(|_| wrong())
    }
}

fn root_hint(public_key: &[u8]) -> [u8; 8] {
    let mut hint = [0; 8];
    hint.copy_from_slice(&digest(&SHA256, public_key).as_ref()[..8]);
    hint
}

/// Accepts evidence that one simulated hardware signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SimulatedVerifier {
    root: [u8; 32],
}

impl SimulatedVerifier {
    /// Trusts the vendor whose public key is in `path` (PEM), as `SimulatedHardware` wrote it.
    ///
    /// # Errors
    /// [`SimulatedTeeError`] if that is not one Ed25519 public key.
    pub fn from_root_file(path: &Path) -> Result<Self, SimulatedTeeError> {
        let mut text = String::new();
        File::open(path)
            .and_then(|file| file.take(PEM_MAX).read_to_string(&mut text))
            .map_err(file_error(path))?;
        let root = read_pem(&text).ok_or_else(|| SimulatedTeeError::RootPem {
            path: path.to_owned(),
        })?;
        Ok(Self { root })
    }
}

/// Takes fields off the front of evidence.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], Malformed> {
        let (head, rest) = self.0.split_first_chunk().ok_or(Malformed { field })?;
        self.0 = rest;
        Ok(*head)
    }

    fn expect<const N: usize>(
        &mut self,
        field: &'static str,
        expected: &[u8; N],
    ) -> Result<(), Malformed> {
        if self.take::<N>(field)? == *expected {
            Ok(())
        } else {
            Err(Malformed { field })
        }
    }
}

/// The fields of evidence, whoever signed it.
struct Parsed {
    root: [u8; 8],
    svn: u16,
    said: Said,
}

fn parse(evidence: &Evidence) -> Result<Parsed, Malformed> {
    let malformed = |field| Err(Malformed { field });
    if evidence.tee != Tee::Simulated {
        return malformed("kind of TEE");
    }
    if evidence.body.len() != EVIDENCE_LEN {
        return malformed("length");
    }
    let mut fields = Fields(&evidence.body);
    fields.expect("marker", MARKER)?;
    fields.expect("version", &VERSION.to_le_bytes())?;
    fields.expect("signature algorithm", &ALG_ED25519.to_le_bytes())?;
    let root = fields.take::<8>("root")?;
    let mr = fields.take("measurement")?;
    let attributes = u64::from_le_bytes(fields.take("attributes")?);
    if attributes & ATTRIBUTE_INIT == 0 || attributes & !(ATTRIBUTE_INIT | ATTRIBUTE_DEBUG) != 0 {
        return malformed("attributes");
    }
    let svn = u16::from_le_bytes(fields.take("security version")?);
    fields.expect("reserved bytes", &[0; 6])?;
    Ok(Parsed {
        root,
        svn,
        said: Said {
            measurements: Measurements::Simulated(SimulatedMeasurements {
                mr,
                debug: attributes & ATTRIBUTE_DEBUG != 0,
            }),
            report_data: fields.take::<64>("report data")?.to_vec(),
            nonce: None,
        },
    })
}

impl Verifier for SimulatedVerifier {
    fn tee(&self) -> Tee {
        Tee::Simulated
    }

    fn read(&self, evidence: &Evidence) -> Result<Said, Malformed> {
        parse(evidence).map(|parsed| parsed.said)
    }

    fn verify(&self, subject: &Subject<'_>, card: &mut Scorecard) -> Result<Claims, Failed> {
        let parsed = parse(subject.evidence).map_err(|error| {
            card.fail(
                CheckName::EvidenceFormat,
                "simulated evidence",
                error.to_string(),
            )
        })?;
        let hint = root_hint(&self.root);
        card.require(
            CheckName::RootPinned,
            parsed.root == hint,
            hex::encode(hint),
            hex::encode(parsed.root),
        )?;
        let (signed, signature) = subject.evidence.body.split_at(SIGNED_LEN);
        let genuine = UnparsedPublicKey::new(&ED25519, &self.root).verify(signed, signature);
        let got = if genuine.is_ok() {
            "it is"
        } else {
            "it is not"
        };
        card.require(
            CheckName::Signature,
            genuine.is_ok(),
            "signed by the root",
            got,
        )?;
        Ok(Claims {
            said: parsed.said,
            svn: parsed.svn.into(),
            tcb: TcbStatus::NotApplicable,
            facts: Facts::None,
        })
    }
}
