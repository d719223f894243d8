//! SHA-256 (FIPS 180-4), at once or as bytes pass by.

use std::io::{self, Write};

use aws_lc_rs::digest::{Context, SHA256, digest};
use protocol::Digest;

/// SHA-256 of `bytes`.
#[must_use]
pub fn sha256(bytes: &[u8]) -> Digest {
    fixed(&digest(&SHA256, bytes))
}

/// SHA-256 of everything written to it; writing never fails.
#[derive(Clone)]
pub struct DigestWriter(Context);

impl DigestWriter {
    #[must_use]
    pub fn new() -> Self {
        Self(Context::new(&SHA256))
    }

    /// Takes in `bytes`.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all that was taken in.
    #[must_use]
    pub fn finish(self) -> Digest {
        fixed(&self.0.finish())
    }
}

impl Default for DigestWriter {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for DigestWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DigestWriter")
    }
}

impl Write for DigestWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn fixed(digest: &aws_lc_rs::digest::Digest) -> Digest {
    let mut bytes = [0; Digest::LEN];
    bytes.copy_from_slice(digest.as_ref());
    Digest::new(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_digest_of_abc() {
        let hex = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256(b"abc").to_string(), hex);
        let mut writer = DigestWriter::new();
        writer.write_all(b"a").unwrap();
        writer.update(b"bc");
        assert_eq!(writer.finish().to_string(), hex);
    }
}
