//! Protobuf's wire format: fields out of a slice, and into a `Vec`. Reading allocates nothing.
//!
//! Source: <https://protobuf.dev/programming-guides/encoding/>. Groups are refused.

/// Why bytes are not protobuf fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    #[error("a field is longer than the message that holds it")]
    Truncated,
    #[error("an integer takes more than 64 bits")]
    Varint,
    #[error("field number {0} is out of range")]
    FieldNumber(u64),
    #[error("field {field} has wire type {wire_type}, which is not one that ONNX uses")]
    WireType { field: u32, wire_type: u8 },
}

/// One field's value, as the wire has it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    Varint(u64),
    Fixed64([u8; 8]),
    Bytes(&'a [u8]),
    Fixed32([u8; 4]),
}

/// The fields of a message, in order.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

/// Largest field number of protobuf.
const FIELD_MAX: u64 = (1 << 29) - 1;

impl<'a> Fields<'a> {
    #[must_use]
    pub const fn new(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    /// The next field's number and value, or `None` at the end.
    #[expect(
        clippy::should_implement_trait,
        reason = "`?` on a Result<Option> reads better here"
    )]
    pub fn next(&mut self) -> Result<Option<(u32, Value<'a>)>, WireError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let number = tag >> 3;
        if number == 0 || number > FIELD_MAX {
            return Err(WireError::FieldNumber(number));
        }
        let field = u32::try_from(number).map_err(|_| WireError::FieldNumber(number))?;
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed64(self.fixed()?),
            2 => {
                let len = usize::try_from(self.varint()?).map_err(|_| WireError::Truncated)?;
                let (bytes, rest) = self
                    .rest
                    .split_at_checked(len)
                    .ok_or(WireError::Truncated)?;
                self.rest = rest;
                Value::Bytes(bytes)
            }
            5 => Value::Fixed32(self.fixed()?),
            other => {
                let wire_type = u8::try_from(other).unwrap_or(u8::MAX);
                return Err(WireError::WireType { field, wire_type });
            }
        };
        Ok(Some((field, value)))
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or(WireError::Truncated)?;
        self.rest = rest;
        Ok(*bytes)
    }

    fn varint(&mut self) -> Result<u64, WireError> {
        let (value, rest) = varint(self.rest)?;
        self.rest = rest;
        Ok(value)
    }
}

/// Splits one varint off the front.
pub fn varint(bytes: &[u8]) -> Result<(u64, &[u8]), WireError> {
    let mut value = 0_u64;
    for (i, byte) in bytes.iter().enumerate().take(10) {
        let low = u64::from(byte & 0x7f);
        // The tenth byte holds the 64th bit and nothing else.
        if i == 9 && low > 1 {
            return Err(WireError::Varint);
        }
        value |= low << (7 * i);
        if byte & 0x80 == 0 {
            return Ok((value, &bytes[i + 1..]));
        }
    }
    Err(if bytes.len() < 10 {
        WireError::Truncated
    } else {
        WireError::Varint
    })
}

/// Appends a varint.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(0x80 | value.to_le_bytes()[0] & 0x7f);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

/// Appends a field with an integer (int32, int64, enum).
pub fn put_int(out: &mut Vec<u8>, field: u32, value: i64) {
    put_varint(out, u64::from(field) << 3);
    put_varint(out, u64::from_ne_bytes(value.to_ne_bytes()));
}

/// Appends a field with a float.
pub fn put_float(out: &mut Vec<u8>, field: u32, value: f32) {
    put_varint(out, (u64::from(field) << 3) | 5);
    out.extend_from_slice(&value.to_le_bytes());
}

/// Appends a field with bytes, a string or a message.
pub fn put_bytes(out: &mut Vec<u8>, field: u32, bytes: &[u8]) {
    put_varint(out, (u64::from(field) << 3) | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_put_is_read(n in 1..1_u32 << 29, v: i64, b: Vec<u8>, f: f32) {
            let mut out = Vec::new();
            put_int(&mut out, n, v);
            put_bytes(&mut out, n, &b);
            put_float(&mut out, n, f);
            let mut fields = Fields::new(&out);
            let int = u64::from_ne_bytes(v.to_ne_bytes());
            prop_assert_eq!(fields.next(), Ok(Some((n, Value::Varint(int)))));
            prop_assert_eq!(fields.next(), Ok(Some((n, Value::Bytes(&b)))));
            prop_assert_eq!(fields.next(), Ok(Some((n, Value::Fixed32(f.to_le_bytes())))));
            prop_assert_eq!(fields.next(), Ok(None));
        }

        #[test]
        fn any_bytes_end_in_an_answer(bytes: Vec<u8>) {
            let mut fields = Fields::new(&bytes);
            while let Ok(Some(_)) = fields.next() {}
        }
    }

    #[test]
    fn lengths_and_integers_beyond_the_message_are_refused() {
        // A string of 2^63 bytes.
        let huge = [0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
        assert_eq!(Fields::new(&huge).next(), Err(WireError::Truncated));
        let eleven = [
            0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f,
        ];
        assert_eq!(Fields::new(&eleven).next(), Err(WireError::Varint));
        assert_eq!(Fields::new(&[0x08]).next(), Err(WireError::Truncated));
        assert_eq!(
            Fields::new(&[0x00, 0]).next(),
            Err(WireError::FieldNumber(0))
        );
        let group = WireError::WireType {
            field: 1,
            wire_type: 3,
        };
        assert_eq!(Fields::new(&[0x0b]).next(), Err(group));
    }
}
