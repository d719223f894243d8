//! Dates as Intel writes them in JSON: RFC 3339, in UTC, without fractions of seconds.

/// Seconds since the UNIX epoch of `YYYY-MM-DDThh:mm:ssZ`; `None` for any other form.
pub(super) fn seconds(text: &str) -> Option<i64> {
    let text = text.strip_suffix('Z')?;
    let (date, time) = text.split_once('T')?;
    let [year, month, day] = fields(date, '-', [4, 2, 2])?;
    let [hour, minute, second] = fields(time, ':', [2, 2, 2])?;
    let ok = (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60;
    if !ok {
        return None;
    }
    days(year, month, day)?
        .checked_mul(24)?
        .checked_add(hour)?
        .checked_mul(60)?
        .checked_add(minute)?
        .checked_mul(60)?
        .checked_add(second)
}

fn fields<const N: usize>(text: &str, separator: char, widths: [usize; N]) -> Option<[i64; N]> {
    let mut parts = text.split(separator);
    let mut fields = [0; N];
    for (field, width) in fields.iter_mut().zip(widths) {
        let part = parts.next()?;
        // `parse` would take a sign.
        if part.len() != width || !part.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        *field = part.parse().ok()?;
    }
    parts.next().is_none().then_some(fields)
}

/// Days since 1970-01-01 (Howard Hinnant, "chrono-compatible low-level date algorithms").
fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    // Years begin in March, so that the leap day is the last.
    let year = if month <= 2 {
        year.checked_sub(1)?
    } else {
        year
    };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month = if month > 2 {
        month.checked_sub(3)?
    } else {
        month.checked_add(9)?
    };
    let day_of_year = month
        .checked_mul(153)?
        .checked_add(2)?
        .div_euclid(5)
        .checked_add(day)?
        .checked_sub(1)?;
    let day_of_era = year_of_era
        .checked_mul(365)?
        .checked_add(year_of_era.div_euclid(4))?
        .checked_sub(year_of_era.div_euclid(100))?
        .checked_add(day_of_year)?;
    era.checked_mul(146_097)?
        .checked_add(day_of_era)?
        .checked_sub(719_468)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_dates() {
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T00:00:00Z", 951_782_400),
            ("2000-03-01T00:00:00Z", 951_868_800),
            ("2025-06-19T10:32:27Z", 1_750_329_147),
            ("2026-11-23T21:31:18Z", 1_795_469_478),
            ("1969-12-31T23:59:59Z", -1),
        ] {
            assert_eq!(seconds(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn other_forms_are_refused() {
        for text in [
            "",
            "2025-06-19T10:32:27",
            "2025-06-19 10:32:27Z",
            "2025-06-19T10:32:27+00:00",
            "2025-06-19T10:32:27.5Z",
            "2025-13-19T10:32:27Z",
            "2025-06-32T10:32:27Z",
            "2025-06-19T24:32:27Z",
            "2025-6-19T10:32:27Z",
            "+025-06-19T10:32:27Z",
            "2025-06-19T10:32:27:00Z",
        ] {
            assert_eq!(seconds(text), None, "{text}");
        }
    }
}
