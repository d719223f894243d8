//! A tensor's data: one array of little-endian bytes, from whichever field the file has it in.

use std::borrow::Cow;

use protocol::Datatype;
use protocol::limits::RANK_MAX;

use super::super::schema::{TensorBytes, TensorFault, TensorProto, datatype_of, tensor_len};
use super::signed;

/// Data of a tensor as the file spreads it over its typed fields.
#[derive(Default)]
pub(super) struct TypedBytes<'a> {
    pub(super) raw: Option<&'a [u8]>,
    /// `float_data` and `double_data` are little-endian bytes when packed.
    pub(super) floats: Cow<'a, [u8]>,
    pub(super) doubles: Cow<'a, [u8]>,
    pub(super) int32s: Vec<u64>,
    pub(super) int64s: Vec<u64>,
    pub(super) uint64s: Vec<u64>,
}

pub(super) fn append<'a>(to: &mut Cow<'a, [u8]>, bytes: &'a [u8]) {
    if to.is_empty() {
        *to = Cow::Borrowed(bytes);
    } else {
        to.to_mut().extend_from_slice(bytes);
    }
}

pub(super) fn finish_tensor<'a>(
    name: &'a str,
    dims: &[u64],
    code: i64,
    typed: TypedBytes<'a>,
    is_external: bool,
    external: &[(&'a str, &'a str)],
) -> Result<TensorProto<'a>, TensorFault> {
    if dims.len() > RANK_MAX {
        return Err(TensorFault::Rank(dims.len()));
    }
    if dims.iter().any(|d| signed(*d) < 0) {
        return Err(TensorFault::NegativeDimension);
    }
    let datatype = datatype_of(code).ok_or(TensorFault::Datatype(code))?;
    let too_large = || TensorFault::TooLarge {
        shape: dims.into(),
        datatype,
        max: u64::MAX,
    };
    let expected = tensor_len(dims, datatype).ok_or_else(too_large)?;
    let bytes = if is_external {
        let key = |wanted| external.iter().find(|(k, _)| *k == wanted).map(|(_, v)| *v);
        let number = |wanted| key(wanted).map(str::parse::<u64>).transpose();
        let number = |wanted| number(wanted).map_err(|_| TensorFault::ExternalKeys);
        TensorBytes::External {
            location: key("location").ok_or(TensorFault::ExternalKeys)?.into(),
            offset: number("offset")?.unwrap_or(0),
            length: number("length")?,
        }
    } else {
        let bytes = typed.into_bytes(datatype)?;
        let got = bytes.len() as u64;
        if got != expected {
            return Err(TensorFault::Length {
                shape: dims.into(),
                datatype,
                expected,
                got,
            });
        }
        TensorBytes::Inline(bytes)
    };
    Ok(TensorProto {
        name,
        dims: dims.into(),
        datatype,
        bytes,
    })
}

impl<'a> TypedBytes<'a> {
    /// The elements as little-endian bytes, from the one field that this datatype belongs in.
    fn into_bytes(self, datatype: Datatype) -> Result<Cow<'a, [u8]>, TensorFault> {
        let Self {
            raw,
            floats,
            doubles,
            int32s,
            int64s,
            uint64s,
        } = self;
        let given = [
            raw.is_some(),
            !floats.is_empty(),
            !doubles.is_empty(),
            !int32s.is_empty(),
            !int64s.is_empty(),
            !uint64s.is_empty(),
        ];
        let right = match (raw, datatype) {
            (Some(_), _) => 0,
            (_, Datatype::Fp32) => 1,
            (_, Datatype::Fp64) => 2,
            (_, Datatype::Int64) => 4,
            (_, Datatype::Uint32 | Datatype::Uint64) => 5,
            _ => 3,
        };
        if given
            .iter()
            .enumerate()
            .any(|(i, given)| *given && i != right)
        {
            return Err(TensorFault::OtherField);
        }
        Ok(match right {
            0 => raw.unwrap_or_default().into(),
            1 => floats,
            2 => doubles,
            3 => narrow(&int32s, datatype)?.into(),
            4 => narrow(&int64s, datatype)?.into(),
            _ => narrow(&uint64s, datatype)?.into(),
        })
    }
}

/// Integers as elements of `datatype`, refusing what does not fit.
fn narrow(values: &[u64], datatype: Datatype) -> Result<Vec<u8>, TensorFault> {
    let mut out = Vec::with_capacity(values.len() * datatype.size());
    for (index, &v) in values.iter().enumerate() {
        macro_rules! put {
            ($ty:ty, $v:expr) => {
                <$ty>::try_from($v)
                    .ok()
                    .map(|v| out.extend_from_slice(&v.to_le_bytes()))
            };
        }
        let i = signed(v);
        match datatype {
            Datatype::Bool => (v <= 1).then(|| out.push(u8::from(v == 1))),
            Datatype::Uint8 => put!(u8, i),
            Datatype::Int8 => put!(i8, i),
            // Half floats are kept as their 16 bits.
            Datatype::Uint16 | Datatype::Fp16 => put!(u16, i),
            Datatype::Int16 => put!(i16, i),
            Datatype::Int32 => put!(i32, i),
            Datatype::Uint32 => put!(u32, v),
            Datatype::Uint64 => put!(u64, v),
            Datatype::Int64 | Datatype::Fp32 | Datatype::Fp64 => put!(i64, i),
        }
        .ok_or(TensorFault::Element { index, datatype })?;
    }
    Ok(out)
}
