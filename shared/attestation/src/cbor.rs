//! Canonical CBOR (RFC 8949 §4.2.1): writing cannot fail, reading accepts one encoding only.

use minicbor::Decoder;

/// Why bytes are not the CBOR message they were offered as.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CborError {
    #[error("{what} is not well-formed CBOR of the expected shape")]
    Shape { what: &'static str },
    #[error("{what} is encoded in another way than the canonical one, or has trailing bytes")]
    NotCanonical { what: &'static str },
    #[error("{what} has {got} bytes, at most {max} are allowed")]
    TooLong {
        what: &'static str,
        max: usize,
        got: usize,
    },
}

/// Writes definite-length, shortest-form CBOR.
#[derive(Debug, Default)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    fn head(mut self, major: u8, value: u64) -> Self {
        let major = major << 5;
        let be = value.to_be_bytes();
        let [.., b4, b5, b6, b7] = be;
        match value {
            0..=23 => self.0.push(major | b7),
            24..=0xff => self.0.extend([major | 24, b7]),
            0x100..=0xffff => self.0.extend([major | 25, b6, b7]),
            0x1_0000..=0xffff_ffff => self.0.extend([major | 26, b4, b5, b6, b7]),
            _ => {
                self.0.push(major | 27);
                self.0.extend(be);
            }
        }
        self
    }

    pub(crate) fn uint(self, value: u64) -> Self {
        self.head(0, value)
    }

    /// The number `-1 - value`.
    pub(crate) fn negative(self, value: u64) -> Self {
        self.head(1, value)
    }

    pub(crate) fn bytes(self, value: &[u8]) -> Self {
        let mut this = self.head(2, value.len() as u64);
        this.0.extend_from_slice(value);
        this
    }

    pub(crate) fn text(self, value: &str) -> Self {
        let mut this = self.head(3, value.len() as u64);
        this.0.extend_from_slice(value.as_bytes());
        this
    }

    pub(crate) fn array(self, len: usize) -> Self {
        self.head(4, len as u64)
    }

    pub(crate) fn map(self, len: usize) -> Self {
        self.head(5, len as u64)
    }

    pub(crate) fn tag(self, tag: u64) -> Self {
        self.head(6, tag)
    }

    pub(crate) fn bool(mut self, value: bool) -> Self {
        self.0.push(if value { 0xf5 } else { 0xf4 });
        self
    }

    pub(crate) fn done(self) -> Vec<u8> {
        self.0
    }
}

/// Appends a JSON value canonically: map keys by length, then by bytes. `None` if it has a number
/// that is not a whole one, or a null that is not a member of a map (there it is left out).
pub(crate) fn write_value(writer: Writer, value: &serde_json::Value) -> Option<Writer> {
    use serde_json::Value;
    match value {
        Value::Null => None,
        Value::Bool(value) => Some(writer.bool(*value)),
        Value::Number(value) => Some(writer.uint(value.as_u64()?)),
        Value::String(value) => Some(writer.text(value)),
        Value::Array(values) => values
            .iter()
            .try_fold(writer.array(values.len()), write_value),
        Value::Object(members) => {
            let mut members: Vec<_> = members
                .iter()
                .filter(|(_, value)| !value.is_null())
                .collect();
            members.sort_by_key(|(name, _)| (name.len(), name.as_bytes()));
            members
                .iter()
                .try_fold(writer.map(members.len()), |writer, (name, value)| {
                    write_value(writer.text(name), value)
                })
        }
    }
}

/// Reads one message; nothing is allocated from a length that the bytes do not back.
pub(crate) struct Reader<'b> {
    decoder: Decoder<'b>,
    what: &'static str,
}

impl<'b> Reader<'b> {
    pub(crate) fn new(what: &'static str, bytes: &'b [u8]) -> Self {
        Self {
            decoder: Decoder::new(bytes),
            what,
        }
    }

    fn shape<T>(&self, read: Result<T, minicbor::decode::Error>) -> Result<T, CborError> {
        read.map_err(|_| CborError::Shape { what: self.what })
    }

    pub(crate) fn wrong(&self) -> CborError {
        CborError::Shape { what: self.what }
    }

    pub(crate) fn uint(&mut self) -> Result<u64, CborError> {
        let read = self.decoder.u64();
        self.shape(read)
    }

    pub(crate) fn bytes(&mut self) -> Result<&'b [u8], CborError> {
        let read = self.decoder.bytes();
        self.shape(read)
    }

    pub(crate) fn fixed<const N: usize>(&mut self) -> Result<[u8; N], CborError> {
        self.bytes()?.try_into().map_err(|_| self.wrong())
    }

    pub(crate) fn text(&mut self) -> Result<&'b str, CborError> {
        let read = self.decoder.str();
        self.shape(read)
    }

    pub(crate) fn bool(&mut self) -> Result<bool, CborError> {
        let read = self.decoder.bool();
        self.shape(read)
    }

    pub(crate) fn tag(&mut self) -> Result<u64, CborError> {
        let read = self.decoder.tag();
        self.shape(read).map(|tag| tag.as_u64())
    }

    /// A definite array of any length; the caller bounds it.
    pub(crate) fn any_array(&mut self) -> Result<u64, CborError> {
        let read = self.decoder.array();
        self.shape(read)?.ok_or_else(|| self.wrong())
    }

    /// A definite map of any length; the caller bounds it.
    pub(crate) fn any_map(&mut self) -> Result<u64, CborError> {
        let read = self.decoder.map();
        self.shape(read)?.ok_or_else(|| self.wrong())
    }

    pub(crate) fn array(&mut self, len: u64) -> Result<(), CborError> {
        if self.any_array()? == len {
            Ok(())
        } else {
            Err(self.wrong())
        }
    }
}

/// Deepest nesting that [`read_value`] follows.
const DEPTH_MAX: u8 = 8;

/// Reads what [`write_value`] writes, one item and nothing behind it. Re-encode and compare to
/// refuse other encodings of the same.
pub(crate) fn read_value(what: &'static str, bytes: &[u8]) -> Result<serde_json::Value, CborError> {
    let mut reader = Reader::new(what, bytes);
    let value = reader.value(DEPTH_MAX)?;
    if reader.decoder.position() == bytes.len() {
        Ok(value)
    } else {
        Err(CborError::NotCanonical { what })
    }
}

impl Reader<'_> {
    fn value(&mut self, depth: u8) -> Result<serde_json::Value, CborError> {
        use minicbor::data::Type;
        let depth = depth.checked_sub(1).ok_or_else(|| self.wrong())?;
        let kind = self.decoder.datatype();
        match self.shape(kind)? {
            Type::Bool => self.bool().map(Into::into),
            Type::U8 | Type::U16 | Type::U32 | Type::U64 => self.uint().map(Into::into),
            Type::String => self.text().map(Into::into),
            Type::Array => {
                let len = self.any_array()?;
                let items = (0..len).map(|_| self.value(depth));
                items.collect::<Result<Vec<_>, _>>().map(Into::into)
            }
            Type::Map => {
                let len = self.decoder.map();
                let len = self.shape(len)?.ok_or_else(|| self.wrong())?;
                let members = (0..len).map(|_| {
                    let name = self.text()?.to_owned();
                    Ok((name, self.value(depth)?))
                });
                let members = members.collect::<Result<serde_json::Map<_, _>, _>>()?;
                Ok(members.into())
            }
            _ => Err(self.wrong()),
        }
    }
}

/// Compares an offered encoding with the canonical one of what was read from it: refuses
/// trailing bytes, indefinite lengths, long forms and whatever else a lenient reader swallows.
pub(crate) fn require_canonical(
    what: &'static str,
    offered: &[u8],
    canonical: &[u8],
) -> Result<(), CborError> {
    if offered == canonical {
        Ok(())
    } else {
        Err(CborError::NotCanonical { what })
    }
}

pub(crate) fn require_at_most(what: &'static str, got: usize, max: usize) -> Result<(), CborError> {
    if got <= max {
        Ok(())
    } else {
        Err(CborError::TooLong { what, max, got })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_head_is_the_shortest_and_another_library_reads_it() {
        for value in [
            0,
            23,
            24,
            0xff,
            0x100,
            0xffff,
            0x1_0000,
            0xffff_ffff,
            0x1_0000_0000,
            u64::MAX,
        ] {
            let bytes = Writer::new().uint(value).done();
            assert_eq!(minicbor::to_vec(value).unwrap(), bytes, "{value}");
        }
        let bytes = Writer::new()
            .array(3)
            .bytes(&[7; 300])
            .text("ä")
            .bool(true)
            .done();
        let mut reader = Reader::new("test", &bytes);
        reader.array(3).unwrap();
        assert_eq!(reader.bytes().unwrap(), [7; 300]);
        assert_eq!(reader.text().unwrap(), "ä");
        assert!(reader.bool().unwrap());
    }

    #[test]
    fn a_length_without_bytes_behind_it_is_refused() {
        // A byte string that claims 2^63 bytes.
        let bytes = [0x5b, 0x80, 0, 0, 0, 0, 0, 0, 0, 1];
        assert!(Reader::new("test", &bytes).bytes().is_err());
        // An indefinite array.
        assert!(Reader::new("test", &[0x9f, 0xff]).any_array().is_err());
    }
}
