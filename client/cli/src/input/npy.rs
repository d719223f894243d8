//! NumPy's `.npy` files, versions 1.0 and 2.0, read strictly and written (source: NEP 1).
//!
//! `\x93NUMPY | major | minor | header length (u16 or u32, LE) | header | elements`. The header is
//! a Python dictionary literal with exactly `descr`, `fortran_order` and `shape`.

use protocol::limits::{PAYLOAD_MAX, RANK_MAX};
use protocol::tensor::{TensorError, byte_len};
use protocol::{Datatype, Tensor};

const MAGIC: &[u8; 6] = b"\x93NUMPY";
/// Longest header that is read, in bytes; NumPy's own are 128 for any plain array.
const HEADER_MAX: usize = 64 * 1024;
/// Largest file that is read, in bytes.
pub(crate) const FILE_MAX: usize = PAYLOAD_MAX + HEADER_MAX;

/// Why bytes are not an array that can be sent.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NpyError {
    #[error("not a .npy file: it does not start with \\x93NUMPY")]
    Magic,
    #[error(".npy version {0}.{1} is not one of 1.0 and 2.0")]
    Version(u8, u8),
    #[error(".npy header is longer than {HEADER_MAX} bytes")]
    HeaderTooLong,
    #[error(".npy file ends inside its header")]
    Truncated,
    #[error(".npy header is malformed at byte {0}")]
    Header(usize),
    #[error(".npy header has '{0}' twice")]
    Twice(&'static str),
    #[error(".npy header lacks '{0}'")]
    Lacks(&'static str),
    #[error("array is big-endian ({0}); convert it with .astype('<f4') or the like")]
    BigEndian(String),
    #[error("array has elements of type '{0}', which inference messages cannot carry")]
    Descr(String),
    #[error("array is in Fortran order; save numpy.ascontiguousarray of it")]
    FortranOrder,
    #[error("array does not fit its header")]
    Tensor(#[from] TensorError),
}

/// Reads a whole `.npy` file as the tensor `name`.
pub fn read(name: &str, file: &[u8]) -> Result<Tensor, NpyError> {
    let rest = file.strip_prefix(MAGIC).ok_or(NpyError::Magic)?;
    let (version, rest) = rest.split_first_chunk::<2>().ok_or(NpyError::Truncated)?;
    let (len, rest) = match version {
        [1, 0] => {
            let (len, rest) = rest.split_first_chunk::<2>().ok_or(NpyError::Truncated)?;
            (usize::from(u16::from_le_bytes(*len)), rest)
        }
        [2, 0] => {
            let (len, rest) = rest.split_first_chunk::<4>().ok_or(NpyError::Truncated)?;
            let len = usize::try_from(u32::from_le_bytes(*len)).unwrap_or(usize::MAX);
            (len, rest)
        }
        [major, minor] => return Err(NpyError::Version(*major, *minor)),
    };
    if len > HEADER_MAX {
        return Err(NpyError::HeaderTooLong);
    }
    let (header, elements) = rest.split_at_checked(len).ok_or(NpyError::Truncated)?;
    let header = Header::parse(header)?;
    // The length is checked against shape and type before the elements are copied.
    match byte_len(&header.shape, header.datatype) {
        Some(expected) if expected == elements.len() => {}
        _ => return Err(mismatch(name, header, elements.len()).into()),
    }
    Ok(Tensor::new(
        name,
        header.datatype,
        header.shape,
        elements.to_vec(),
    )?)
}

fn mismatch(name: &str, header: Header, got: usize) -> TensorError {
    let (name, shape, datatype) = (name.to_owned(), header.shape, header.datatype);
    match byte_len(&shape, datatype) {
        Some(expected) => TensorError::Length {
            name,
            shape,
            datatype,
            expected,
            got,
        },
        None => TensorError::TooLarge {
            name,
            shape,
            datatype,
        },
    }
}

/// A tensor as a `.npy` file, version 1.0.
#[must_use]
pub fn write(tensor: &Tensor) -> Vec<u8> {
    let dims: String = tensor.shape().iter().map(|d| format!("{d}, ")).collect();
    let mut header = format!(
        "{{'descr': '{}', 'fortran_order': False, 'shape': ({}), }}",
        descr(tensor.datatype()),
        if tensor.shape().len() == 1 {
            dims.trim_end()
        } else {
            dims.trim_end_matches(", ")
        },
    );
    // Elements start at a multiple of 64; the header ends with a line feed.
    let unpadded = MAGIC.len() + 4 + header.len() + 1;
    header.push_str(&" ".repeat(unpadded.next_multiple_of(64) - unpadded));
    header.push('\n');
    // A tensor has at most RANK_MAX dimensions of at most 20 digits: the header is below 65536.
    let len = u16::try_from(header.len()).unwrap_or(u16::MAX);
    [
        MAGIC,
        &[1, 0][..],
        &len.to_le_bytes(),
        header.as_bytes(),
        tensor.data(),
    ]
    .concat()
}

const DESCRS: [(&str, Datatype); 12] = [
    ("|b1", Datatype::Bool),
    ("|u1", Datatype::Uint8),
    ("<u2", Datatype::Uint16),
    ("<u4", Datatype::Uint32),
    ("<u8", Datatype::Uint64),
    ("|i1", Datatype::Int8),
    ("<i2", Datatype::Int16),
    ("<i4", Datatype::Int32),
    ("<i8", Datatype::Int64),
    ("<f2", Datatype::Fp16),
    ("<f4", Datatype::Fp32),
    ("<f8", Datatype::Fp64),
];

fn descr(datatype: Datatype) -> &'static str {
    DESCRS
        .iter()
        .find(|(_, d)| *d == datatype)
        .map_or("|V1", |(text, _)| text)
}

#[derive(Debug, PartialEq, Eq)]
struct Header {
    datatype: Datatype,
    shape: Vec<u64>,
}

impl Header {
    fn parse(text: &[u8]) -> Result<Self, NpyError> {
        let mut scan = Scan { text, at: 0 };
        let (mut descr, mut fortran, mut shape) = (None, None, None);
        scan.expect(b'{')?;
        while !scan.skip(b'}') {
            let at = scan.at;
            let key = scan.string()?;
            scan.expect(b':')?;
            match key {
                "descr" if descr.is_some() => return Err(NpyError::Twice("descr")),
                "descr" => descr = Some(scan.string()?),
                "fortran_order" if fortran.is_some() => {
                    return Err(NpyError::Twice("fortran_order"));
                }
                "fortran_order" => fortran = Some(scan.boolean()?),
                "shape" if shape.is_some() => return Err(NpyError::Twice("shape")),
                "shape" => shape = Some(scan.tuple()?),
                _ => return Err(NpyError::Header(at)),
            }
            if !scan.skip(b',') {
                scan.expect(b'}')?;
                break;
            }
        }
        scan.end()?;
        let descr = descr.ok_or(NpyError::Lacks("descr"))?;
        let shape = shape.ok_or(NpyError::Lacks("shape"))?;
        if fortran.ok_or(NpyError::Lacks("fortran_order"))? {
            return Err(NpyError::FortranOrder);
        }
        let known = DESCRS
            .iter()
            .find(|(text, _)| *text == descr)
            .map(|(_, datatype)| *datatype);
        let shown = || descr.chars().take(16).collect::<String>();
        match known {
            Some(datatype) => Ok(Self { datatype, shape }),
            None if descr.starts_with('>') => Err(NpyError::BigEndian(shown())),
            None => Err(NpyError::Descr(shown())),
        }
    }
}

/// Reads Python literals from the left; every failure says where.
struct Scan<'t> {
    text: &'t [u8],
    at: usize,
}

impl<'t> Scan<'t> {
    fn peek(&mut self) -> Option<u8> {
        while matches!(self.text.get(self.at), Some(b' ')) {
            self.at += 1;
        }
        self.text.get(self.at).copied()
    }

    fn skip(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, byte: u8) -> Result<(), NpyError> {
        if self.skip(byte) {
            Ok(())
        } else {
            Err(NpyError::Header(self.at))
        }
    }

    /// A string in either quotes, printable ASCII without escapes.
    fn string(&mut self) -> Result<&'t str, NpyError> {
        let quote = self.peek().filter(|q| matches!(q, b'\'' | b'"'));
        let quote = quote.ok_or(NpyError::Header(self.at))?;
        self.at += 1;
        let start = self.at;
        loop {
            match self.text.get(self.at) {
                Some(byte) if *byte == quote => break,
                Some(b' '..=b'[' | b']'..=b'~') => self.at += 1,
                _ => return Err(NpyError::Header(self.at)),
            }
        }
        let inner = &self.text[start..self.at];
        self.at += 1;
        std::str::from_utf8(inner).map_err(|_| NpyError::Header(start))
    }

    fn boolean(&mut self) -> Result<bool, NpyError> {
        self.peek();
        let rest = &self.text[self.at..];
        let (value, len) = match rest {
            [b'T', b'r', b'u', b'e', ..] => (true, 4),
            [b'F', b'a', b'l', b's', b'e', ..] => (false, 5),
            _ => return Err(NpyError::Header(self.at)),
        };
        self.at += len;
        Ok(value)
    }

    /// `()`, `(3,)` or `(3, 4)`; without a comma, `(3)` is not a tuple.
    fn tuple(&mut self) -> Result<Vec<u64>, NpyError> {
        self.expect(b'(')?;
        let mut dims = Vec::new();
        let mut comma = true;
        while !self.skip(b')') {
            if !comma || dims.len() == RANK_MAX {
                return Err(NpyError::Header(self.at));
            }
            dims.push(self.integer()?);
            comma = self.skip(b',');
        }
        if dims.len() == 1 && !comma {
            Err(NpyError::Header(self.at))
        } else {
            Ok(dims)
        }
    }

    fn integer(&mut self) -> Result<u64, NpyError> {
        self.peek();
        let start = self.at;
        while self.text.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
        let digits = &self.text[start..self.at];
        std::str::from_utf8(digits)
            .ok()
            .and_then(|text| text.parse().ok())
            .ok_or(NpyError::Header(start))
    }

    /// Nothing but padding may follow.
    fn end(&mut self) -> Result<(), NpyError> {
        let padding = &self.text[self.at..];
        match padding
            .iter()
            .position(|byte| !matches!(byte, b' ' | b'\n'))
        {
            Some(offset) => Err(NpyError::Header(self.at + offset)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
