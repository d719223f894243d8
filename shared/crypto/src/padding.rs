//! Padmé (Nikitin et al., "Reducing Metadata Leakage from Encrypted Files", PETS 2019, section 4):
//! a length tells O(log log n) bits and costs at most 12 % more bytes.

/// The padded length for `len` bytes: `len` rounded up so that only its leading
/// `floor(log2(floor(log2 len))) + 1` bits after the first may be set.
pub(crate) fn padded_len(len: usize) -> usize {
    let Some(exponent) = len.checked_ilog2() else {
        return 0;
    };
    let Some(free) = exponent.checked_ilog2() else {
        return len;
    };
    let zero_bits = exponent - (free + 1).min(exponent);
    let mask = (1 << zero_bits) - 1;
    (len + mask) & !mask
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_as_published() {
        for (len, padded) in [
            (0, 0),
            (1, 1),
            (2, 2),
            (7, 7),
            (8, 8),
            (9, 10),
            (100, 104),
            (1000, 1024),
            (1025, 1088),
            (65_537, 67_584),
            (1_000_000, 1_015_808),
        ] {
            assert_eq!(padded_len(len), padded, "{len}");
        }
    }

    #[test]
    fn padding_grows_by_at_most_an_eighth_and_is_idempotent() {
        let mut last = 0;
        for len in 1..200_000 {
            let padded = padded_len(len);
            assert!(
                padded >= len && padded >= last && padded - len <= len / 8 + 1,
                "{len}"
            );
            assert_eq!(padded_len(padded), padded);
            last = padded;
        }
    }
}
