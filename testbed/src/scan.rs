//! Searches what the host saw for plaintext: feature values, answers and weight bytes, in any of the
//! forms in which bytes travel (raw, base64, hexadecimal, decimal text).

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// Bytes in a window. Shorter ones would turn up in ciphertext by chance: eight do so about once
/// in 2^64 / (windows × bytes searched).
const WINDOW: usize = 8;
/// Values are four bytes or more, so secrets are searched from every fourth byte on.
const STEP: usize = 4;
/// Shortest decimal text of a value that is searched for: `0.5` would be anywhere.
const TEXT_MIN: usize = 5;

/// What must not be found.
#[derive(Debug, Default)]
pub struct Needles {
    windows: HashSet<[u8; WINDOW]>,
    texts: HashSet<String>,
}

/// One occurrence of plaintext in what the host saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leak {
    pub file: PathBuf,
    pub form: &'static str,
}

/// What was searched and what was found.
#[derive(Debug, Default)]
pub struct Findings {
    pub files: usize,
    pub bytes: u64,
    pub leaks: Vec<Leak>,
}

impl Needles {
    /// Adds the windows of `secret`, leaving out those that plain data is full of (zeros, repeats).
    pub fn add_bytes(&mut self, secret: &[u8]) {
        let windows = secret
            .windows(WINDOW)
            .step_by(STEP)
            .filter_map(|w| w.first_chunk());
        self.windows.extend(
            windows
                .filter(|w: &&[u8; WINDOW]| w.iter().collect::<HashSet<_>>().len() >= WINDOW / 2),
        );
    }

    /// Adds the values both as bytes and as decimal text.
    pub fn add_values(&mut self, values: &[f32]) {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.add_bytes(&bytes);
        let texts = values.iter().map(ToString::to_string);
        self.texts
            .extend(texts.filter(|t| t.len() >= TEXT_MIN && t.contains('.')));
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.windows.len() + self.texts.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn in_bytes(&self, bytes: &[u8]) -> bool {
        bytes
            .windows(WINDOW)
            .any(|w| w.first_chunk().is_some_and(|w| self.windows.contains(w)))
    }

    fn in_text(&self, bytes: &[u8]) -> bool {
        let number = |b: &u8| b.is_ascii_digit() || *b == b'.';
        bytes
            .split(|b| !number(b))
            .filter(|run| run.len() >= TEXT_MIN)
            .filter_map(|run| std::str::from_utf8(run).ok())
            .any(|run| self.texts.contains(run))
    }

    /// Every form in which a needle occurs in `bytes`.
    #[must_use]
    pub fn forms(&self, bytes: &[u8]) -> Vec<&'static str> {
        let mut forms = Vec::new();
        if self.in_bytes(bytes) {
            forms.push("raw bytes");
        }
        if self.in_text(bytes) {
            forms.push("decimal text");
        }
        let base64_digit = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/');
        if runs(bytes, base64_digit, 4)
            .any(|(run, phase)| self.in_bytes(&base64_bytes(&run[phase..])))
        {
            forms.push("base64");
        }
        if runs(bytes, |b| b.is_ascii_hexdigit(), 2)
            .any(|(run, phase)| self.in_bytes(&hex_bytes(&run[phase..])))
        {
            forms.push("hexadecimal");
        }
        forms
    }

    /// Searches every file under `folders`.
    pub fn search(&self, folders: &[&Path]) -> std::io::Result<Findings> {
        let mut findings = Findings::default();
        let mut todo: Vec<PathBuf> = folders.iter().map(|p| p.to_path_buf()).collect();
        while let Some(path) = todo.pop() {
            if path.is_dir() {
                for entry in fs::read_dir(&path)? {
                    todo.push(entry?.path());
                }
            } else if path.is_file() {
                let bytes = fs::read(&path)?;
                findings.files += 1;
                findings.bytes += bytes.len() as u64;
                let forms = self.forms(&bytes);
                findings.leaks.extend(forms.into_iter().map(|form| Leak {
                    file: path.clone(),
                    form,
                }));
            }
        }
        Ok(findings)
    }
}

/// Maximal runs of bytes that `digit` accepts, each from its first `phases` positions: data need not
/// start where a run of digits starts.
fn runs(
    bytes: &[u8],
    digit: impl Fn(u8) -> bool + Copy,
    phases: usize,
) -> impl Iterator<Item = (&[u8], usize)> {
    bytes
        .split(move |b| !digit(*b))
        .filter(|run| run.len() >= 2 * WINDOW)
        .flat_map(move |run| (0..phases).map(move |phase| (run, phase)))
}

fn base64_bytes(digits: &[u8]) -> Vec<u8> {
    let config = GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true);
    let whole = digits.len() / 4 * 4;
    GeneralPurpose::new(&STANDARD, config)
        .decode(&digits[..whole])
        .unwrap_or_default()
}

fn hex_bytes(digits: &[u8]) -> Vec<u8> {
    let whole = digits.len() / 2 * 2;
    hex::decode(&digits[..whole]).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUES: [f32; 4] = [17.99, 10.38, 122.8, 1001.5];

    fn needles() -> Needles {
        let mut needles = Needles::default();
        needles.add_values(&VALUES);
        needles
    }

    fn raw() -> Vec<u8> {
        VALUES.iter().flat_map(|v| v.to_le_bytes()).collect()
    }

    #[test]
    fn plaintext_is_found_in_every_form_and_at_every_offset() {
        let needles = needles();
        for lead in 0..9 {
            let shifted = [vec![b'z'; lead], raw()].concat();
            assert_eq!(needles.forms(&shifted), ["raw bytes"], "lead {lead}");
            let base64 = base64::engine::general_purpose::STANDARD.encode(&shifted);
            assert!(
                needles.forms(base64.as_bytes()).contains(&"base64"),
                "lead {lead}"
            );
            let inside = format!("{{\"x\":\"AAA{base64}\"}}");
            assert!(
                needles.forms(inside.as_bytes()).contains(&"base64"),
                "lead {lead}"
            );
            let hex = format!("{}{}", "a".repeat(lead), hex::encode(raw()));
            assert!(
                needles.forms(hex.as_bytes()).contains(&"hexadecimal"),
                "lead {lead}"
            );
        }
        assert_eq!(needles.forms(b"[17.99,10.38]"), ["decimal text"]);
    }

    #[test]
    fn what_is_not_there_is_not_found() {
        let needles = needles();
        assert!(needles.forms(b"").is_empty());
        assert!(needles.forms(&vec![0; 10_000]).is_empty());
        assert!(needles.forms(b"117.99 10.381 2026").is_empty());
        let noise: Vec<u8> = (0..200_000_u32)
            .flat_map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes())
            .collect();
        assert!(needles.forms(&noise).is_empty());
    }
}
