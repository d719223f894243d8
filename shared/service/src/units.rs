//! Durations and sizes as people write them in configuration files: `"500ms"`, `"2GiB"`.

/// Splits `"500ms"` into number and unit, and multiplies.
fn parse(text: &str, units: &[(&str, u64)], what: &str) -> Result<u64, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let factor = units
        .iter()
        .find(|(name, _)| *name == unit.trim())
        .map(|(_, factor)| *factor);
    let value = factor.and_then(|f| number.parse::<u64>().ok()?.checked_mul(f));
    value.ok_or_else(|| {
        let names: Vec<_> = units.iter().map(|(name, _)| *name).collect();
        format!(
            "'{text}' is not a {what}: a whole number and one of {}",
            names.join(", ")
        )
    })
}

/// The largest unit that divides `value`.
fn print(value: u64, units: &[(&str, u64)]) -> String {
    let (name, factor) = units
        .iter()
        .copied()
        .filter(|(_, factor)| value.is_multiple_of(*factor))
        .max_by_key(|(_, factor)| *factor)
        .unwrap_or(("", 1));
    format!("{}{name}", value / factor)
}

/// `serde` form of a [`std::time::Duration`]: `"250ms"`, `"10s"`, `"5min"`, `"2h"`.
pub mod duration {
    use std::time::Duration;

    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    const UNITS: &[(&str, u64)] = &[("ms", 1), ("s", 1000), ("min", 60_000), ("h", 3_600_000)];

    /// Reads one duration.
    pub fn parse(text: &str) -> Result<Duration, String> {
        super::parse(text, UNITS, "duration").map(Duration::from_millis)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
        parse(&String::deserialize(d)?).map_err(D::Error::custom)
    }

    pub fn serialize<S: Serializer>(value: &Duration, s: S) -> Result<S::Ok, S::Error> {
        let ms = u64::try_from(value.as_millis()).unwrap_or(u64::MAX);
        s.serialize_str(&super::print(ms, UNITS))
    }
}

/// `serde` form of a size in bytes: `"512MiB"`, `"2GiB"`, `"100B"`.
pub mod bytes {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    const UNITS: &[(&str, u64)] = &[
        ("B", 1),
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("TiB", 1 << 40),
    ];

    /// Reads one size.
    pub fn parse(text: &str) -> Result<u64, String> {
        super::parse(text, UNITS, "size")
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<u64, D::Error> {
        parse(&String::deserialize(d)?).map_err(D::Error::custom)
    }

    pub fn serialize<S: Serializer>(value: &u64, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&super::print(*value, UNITS))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    #[test]
    fn units_round_trip() {
        for text in ["250ms", "10s", "5min", "2h", "61s"] {
            let value = super::duration::parse(text).unwrap();
            assert_eq!(
                super::print(
                    u64::try_from(value.as_millis()).unwrap(),
                    &[("ms", 1), ("s", 1000), ("min", 60_000), ("h", 3_600_000)]
                ),
                text
            );
        }
        assert_eq!(super::duration::parse("90 s"), Ok(Duration::from_secs(90)));
        assert_eq!(super::bytes::parse("3KiB"), Ok(3072));
    }

    #[test]
    fn what_is_not_a_unit_is_refused() {
        for bad in [
            "",
            "5",
            "s",
            "-1s",
            "1.5s",
            "1 fortnight",
            "99999999999999999999s",
            "18446744073709551615h",
        ] {
            assert!(super::duration::parse(bad).is_err(), "{bad}");
        }
        assert!(super::bytes::parse("1GB").unwrap_err().contains("GiB"));
    }
}
