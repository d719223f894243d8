//! The few canonical CBOR items (RFC 8949 section 4.2.1) that the fixed layouts here are made of.
//!
//! The envelope has exactly one accepted encoding, so it is matched against a template and not
//! parsed: a general decoder would only add ways to read the same bytes differently.

const UNSIGNED: u8 = 0;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;

/// Appends canonical items to a byte string.
#[derive(Default)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    /// An array of `len` items, which must follow.
    pub(crate) fn array(len: u8) -> Self {
        Self::default().nested(len)
    }

    pub(crate) fn nested(mut self, len: u8) -> Self {
        push_head(&mut self.0, ARRAY, u64::from(len));
        self
    }

    pub(crate) fn text(mut self, text: &str) -> Self {
        push_head(&mut self.0, TEXT, text.len() as u64);
        self.0.extend_from_slice(text.as_bytes());
        self
    }

    pub(crate) fn bytes(mut self, bytes: &[u8]) -> Self {
        push_head(&mut self.0, BYTES, bytes.len() as u64);
        self.0.extend_from_slice(bytes);
        self
    }

    pub(crate) fn unsigned(mut self, value: u64) -> Self {
        push_head(&mut self.0, UNSIGNED, value);
        self
    }

    pub(crate) fn null(mut self) -> Self {
        self.0.push(0xf6);
        self
    }

    pub(crate) fn done(self) -> Vec<u8> {
        self.0
    }
}

/// Appends the head of a byte string of `len` bytes.
pub(crate) fn push_bytes_head(out: &mut Vec<u8>, len: usize) {
    push_head(out, BYTES, len as u64);
}

/// Splits the content off a byte string with a canonical head: `(content, rest)`.
pub(crate) fn split_bytes(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&first, rest) = input.split_first()?;
    let (len, rest) = match first.checked_sub(BYTES << 5)? {
        short @ 0..24 => (u64::from(short), rest),
        24 => be::<1>(rest)?,
        25 => be::<2>(rest)?,
        26 => be::<4>(rest)?,
        27 => be::<8>(rest)?,
        _ => return None,
    };
    let len = usize::try_from(len).ok()?;
    let mut canonical = Vec::with_capacity(9);
    push_bytes_head(&mut canonical, len);
    if !input.starts_with(&canonical) {
        return None;
    }
    rest.split_at_checked(len)
}

fn be<const N: usize>(input: &[u8]) -> Option<(u64, &[u8])> {
    let (bytes, rest) = input.split_first_chunk::<N>()?;
    Some((
        bytes.iter().fold(0, |value, &b| value << 8 | u64::from(b)),
        rest,
    ))
}

fn push_head(out: &mut Vec<u8>, major: u8, value: u64) {
    let major = major << 5;
    if let Ok(v @ 0..24) = u8::try_from(value) {
        out.push(major | v);
    } else if let Ok(v) = u8::try_from(value) {
        out.extend_from_slice(&[major | 24, v]);
    } else if let Ok(v) = u16::try_from(value) {
        out.push(major | 25);
        out.extend_from_slice(&v.to_be_bytes());
    } else if let Ok(v) = u32::try_from(value) {
        out.push(major | 26);
        out.extend_from_slice(&v.to_be_bytes());
    } else {
        out.push(major | 27);
        out.extend_from_slice(&value.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_those_of_rfc_8949_appendix_a() {
        for (value, hex) in [
            (0, "00"),
            (23, "17"),
            (24, "1818"),
            (100, "1864"),
            (1000, "1903e8"),
            (1_000_000, "1a000f4240"),
            (1_000_000_000_000, "1b000000e8d4a51000"),
        ] {
            assert_eq!(hex::encode(Writer::default().unsigned(value).done()), hex);
        }
        let array = Writer::array(4)
            .text("IETF")
            .bytes(&[1, 2])
            .null()
            .nested(0)
            .done();
        assert_eq!(
            hex::encode(array),
            "84644945544642 0102f680".replace(' ', "")
        );
    }

    #[test]
    fn only_the_shortest_head_is_accepted() {
        assert_eq!(split_bytes(&[0x42, 1, 2, 3]), Some((&[1, 2][..], &[3][..])));
        for bad in [
            "",
            "5801aa",
            "590001aa",
            "5a00000001aa",
            "5b0000000000000001aa",
            "5f",
            "42aa",
        ] {
            assert_eq!(split_bytes(&hex::decode(bad).unwrap()), None, "{bad}");
        }
        for (other_type, byte) in (0..=255u8).filter(|b| b >> 5 != 2).enumerate() {
            assert_eq!(
                split_bytes(&[byte, 0, 0, 0, 0, 0, 0, 0, 0]),
                None,
                "{other_type}"
            );
        }
        for len in [0, 23, 24, 255, 256, 65535, 65536] {
            let mut bytes = Vec::new();
            push_bytes_head(&mut bytes, len);
            bytes.resize(bytes.len() + len, 7);
            assert_eq!(
                split_bytes(&bytes).map(|(c, r)| (c.len(), r.len())),
                Some((len, 0))
            );
            bytes.pop();
            if len > 0 {
                assert_eq!(split_bytes(&bytes), None);
            }
        }
    }
}
