//! What a command answers: text for people, JSON for programs, and the exit code.

use comfy_table::{CellAlignment, ContentArrangement, Table};
use protocol::tensor::TensorSpec;
use protocol::{Datatype, Tensor};
use serde_json::{Value, json};

use crate::failure::Exit;

/// Most elements of a tensor that are shown to people.
const SHOWN_MAX: usize = 16;

/// The answer of a command.
#[derive(Debug)]
pub struct Report {
    pub text: String,
    pub json: Value,
    /// Other than [`Exit::Ok`] where the answer itself is the bad news.
    pub exit: Exit,
}

impl Report {
    #[must_use]
    pub fn ok(text: impl Into<String>, json: Value) -> Self {
        Self {
            text: text.into(),
            json,
            exit: Exit::Ok,
        }
    }
}

/// A table without lines, two spaces between columns; columns named in `right` are numbers.
pub fn table<const N: usize>(
    header: [&str; N],
    right: &[&str],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let mut table = Table::new();
    table
        .load_style(comfy_table::presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .force_no_tty()
        .set_header(header);
    for row in rows {
        table.add_row(row);
    }
    for (index, name) in header.iter().enumerate() {
        if let Some(column) = table.column_mut(index) {
            column.set_padding((0, 2));
            if right.contains(name) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
    }
    let mut text = table.trim_fmt();
    text.push('\n');
    text
}

/// Lines of `label: value`, the values below each other.
pub fn fields<'a>(fields: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let fields: Vec<_> = fields.into_iter().collect();
    let width = fields
        .iter()
        .map(|(label, _)| label.chars().count() + 1)
        .max()
        .unwrap_or(0);
    fields
        .iter()
        .map(|(label, value)| format!("{:width$}  {value}\n", format!("{label}:")))
        .collect()
}

/// `1536` as `1.5 KiB`.
#[must_use]
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    let mut whole = count;
    let mut rest = 0;
    while whole >= 1024 && unit + 1 < UNITS.len() {
        rest = whole % 1024;
        whole /= 1024;
        unit += 1;
    }
    match unit {
        0 => format!("{count} B"),
        _ => format!("{whole}.{} {}", rest * 10 / 1024, UNITS[unit]),
    }
}

/// Microseconds as milliseconds, as `12.3`.
#[must_use]
pub fn ms(micros: u64) -> String {
    format!("{}.{}", micros / 1000, micros % 1000 / 100)
}

/// Seconds since 1970 as `2026-11-23 18:05:09` (proleptic Gregorian calendar, UTC).
#[must_use]
pub fn utc(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Years are counted from March, so that the leap day is the last day of the year (Howard
    // Hinnant, "chrono-Compatible Low-Level Date Algorithms", civil_from_days).
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

/// `x FP32[any, 30]`, one below the other.
pub fn specs(specs: &[TensorSpec]) -> String {
    specs
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}

/// One element as a number: `None` for half floats, which nothing here can convert.
fn element(datatype: Datatype, bytes: &[u8]) -> Option<Value> {
    macro_rules! read {
        ($ty:ty) => {
            Some(json!(<$ty>::from_le_bytes(bytes.try_into().ok()?)))
        };
    }
    match datatype {
        Datatype::Bool => Some(json!(bytes.first()? != &0)),
        Datatype::Uint8 => read!(u8),
        Datatype::Uint16 => read!(u16),
        Datatype::Uint32 => read!(u32),
        Datatype::Uint64 => read!(u64),
        Datatype::Int8 => read!(i8),
        Datatype::Int16 => read!(i16),
        Datatype::Int32 => read!(i32),
        Datatype::Int64 => read!(i64),
        Datatype::Fp16 => None,
        Datatype::Fp32 => read!(f32),
        Datatype::Fp64 => read!(f64),
    }
}

fn elements(tensor: &Tensor) -> impl Iterator<Item = Value> + '_ {
    let size = tensor.datatype().size();
    tensor
        .data()
        .chunks_exact(size)
        .map(move |chunk| element(tensor.datatype(), chunk).unwrap_or(Value::Null))
}

/// A tensor in the protocol's JSON form. Values that JSON cannot write (NaN) are null.
#[must_use]
pub fn tensor_json(tensor: &Tensor) -> Value {
    json!({
        "name": tensor.name(),
        "datatype": tensor.datatype(),
        "shape": tensor.shape(),
        "data": elements(tensor).collect::<Vec<_>>(),
    })
}

/// A tensor for people: the largest `top` values with their labels where it is one row of scores,
/// else its first values.
#[must_use]
pub fn tensor_text(tensor: &Tensor, top: usize, labels: &[String]) -> String {
    let shape: Vec<_> = tensor.shape().iter().map(ToString::to_string).collect();
    let head = format!(
        "{} {}[{}]",
        tensor.name(),
        tensor.datatype(),
        shape.join(", ")
    );
    let label = |class: usize| labels.get(class).cloned().unwrap_or_default();
    if let Some(scores) = scores(tensor) {
        let ranked = top_k(&scores, top).into_iter();
        let ranked =
            ranked.map(|(class, score)| [label(class), score_text(score), class.to_string()]);
        format!(
            "{head}, largest first\n{}",
            indent(&scores_table("class", labels, ranked))
        )
    } else if let Some(best) = best_of_rows(tensor) {
        let rows = best.into_iter().enumerate().map(|(row, (class, score))| {
            [label(class), score_text(score), format!("{row}: {class}")]
        });
        format!(
            "{head}, largest of each row\n{}",
            indent(&scores_table("row: class", labels, rows))
        )
    } else {
        let values: Vec<_> = elements(tensor)
            .take(SHOWN_MAX)
            .map(|v| v.to_string())
            .collect();
        let count = tensor.data().len() / tensor.datatype().size();
        let more = if count > SHOWN_MAX {
            format!(" … ({count} values; --json or --save shows all)")
        } else {
            String::new()
        };
        format!("{head}\n  {}{more}\n", values.join(" "))
    }
}

fn score_text(score: f32) -> String {
    format!("{score:.6}")
}

/// Rows of label, score and class; without labels there is no column of them.
fn scores_table(class: &str, labels: &[String], rows: impl Iterator<Item = [String; 3]>) -> String {
    let right = [class, "score"];
    if labels.is_empty() {
        table(
            [class, "score"],
            &right,
            rows.map(|[_, score, class]| [class, score]),
        )
    } else {
        let rows = rows.map(|[label, score, class]| [class, score, label]);
        table([class, "score", "label"], &right, rows)
    }
}

/// One row of at least three FP32 values: scores of classes.
fn scores(tensor: &Tensor) -> Option<Vec<f32>> {
    let values = tensor.to_f32()?;
    let (last, leading) = tensor.shape().split_last()?;
    (*last >= 3 && leading.iter().all(|d| *d == 1)).then_some(values)
}

/// The largest of each of 2 to 16 rows of at least three FP32 scores.
fn best_of_rows(tensor: &Tensor) -> Option<Vec<(usize, f32)>> {
    let values = tensor.to_f32()?;
    let [rows, classes] = *tensor.shape() else {
        return None;
    };
    let classes = usize::try_from(classes).ok().filter(|n| *n >= 3)?;
    (2..=16)
        .contains(&rows)
        .then(|| values.chunks(classes).flat_map(|r| top_k(r, 1)).collect())
}

/// The `k` largest, with their indices; NaN is below every number, equal scores by index.
#[must_use]
pub fn top_k(scores: &[f32], k: usize) -> Vec<(usize, f32)> {
    let rank = |score: f32| {
        if score.is_nan() {
            f32::NEG_INFINITY
        } else {
            score
        }
    };
    let mut ranked: Vec<_> = scores.iter().copied().enumerate().collect();
    ranked.sort_by(|a, b| rank(b.1).total_cmp(&rank(a.1)).then(a.0.cmp(&b.0)));
    ranked.truncate(k);
    ranked
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_line_up_and_end_without_spaces() {
        let text = table(
            ["model", "bytes"],
            &["bytes"],
            [
                ["a".to_owned(), "5".to_owned()],
                ["breast".to_owned(), "12345".to_owned()],
            ],
        );
        assert_eq!(text, "model   bytes\na           5\nbreast  12345\n");
        assert_eq!(table(["none"], &[], []), "none\n");
        assert_eq!(
            fields([("a", "1".into()), ("long", "2".into())]),
            "a:     1\nlong:  2\n"
        );
    }

    #[test]
    fn sizes_and_times_are_for_people() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(u64::MAX), "16777215.9 TiB");
        assert_eq!(ms(0), "0.0");
        assert_eq!(ms(12_345), "12.3");
    }

    #[test]
    fn the_largest_scores_come_first_and_nan_last() {
        let scores = [0.1, f32::NAN, 0.7, 0.7, -1.0];
        let indices: Vec<_> = top_k(&scores, 9).into_iter().map(|(i, _)| i).collect();
        assert_eq!(indices, [2, 3, 0, 4, 1]);
        assert_eq!(top_k(&scores, 1).len(), 1);
        assert!(top_k(&[], 3).is_empty());
    }

    #[test]
    fn scores_get_labels_and_other_tensors_their_values() {
        let scores = Tensor::from_f32("p", vec![1, 3], &[0.25, 0.5, 0.125]).unwrap();
        let labels = ["cat".to_owned(), "dog".to_owned(), "owl".to_owned()];
        assert_eq!(
            tensor_text(&scores, 2, &labels),
            "p FP32[1, 3], largest first\n  class     score  label\n      1  0.500000  dog\n      0  0.250000  cat\n"
        );
        assert!(!tensor_text(&scores, 2, &[]).contains("label"));
        let single = Tensor::from_f32("p", vec![2, 1], &[0.5, 1.0]).unwrap();
        assert_eq!(tensor_text(&single, 5, &[]), "p FP32[2, 1]\n  0.5 1.0\n");
        let ids = Tensor::new("i", Datatype::Int64, vec![20], vec![0; 160]).unwrap();
        assert!(tensor_text(&ids, 5, &[]).contains("20 values"));
    }

    #[test]
    fn of_several_rows_the_best_of_each_is_shown() {
        let rows = Tensor::from_f32("p", vec![2, 3], &[0.5, 0.25, 0.25, 0.0, 0.0, 1.0]).unwrap();
        let labels = ["a".to_owned(), "b".to_owned(), "c".to_owned()];
        assert_eq!(
            tensor_text(&rows, 5, &labels),
            "p FP32[2, 3], largest of each row\n  row: class     score  label\n        0: 0  0.500000  a\n        1: 2  1.000000  c\n"
        );
    }

    #[test]
    fn json_has_every_value_and_null_for_nan() {
        let t = Tensor::from_f32("x", vec![2], &[f32::NAN, 2.0]).unwrap();
        assert_eq!(
            tensor_json(&t),
            json!({"name": "x", "datatype": "FP32", "shape": [2], "data": [null, 2.0]})
        );
        let b = Tensor::new("b", Datatype::Bool, vec![1], vec![1]).unwrap();
        assert_eq!(tensor_json(&b)["data"], json!([true]));
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00"),
            (951_782_399, "2000-02-28 23:59:59"),
            (951_782_400, "2000-02-29 00:00:00"),
            (951_868_800, "2000-03-01 00:00:00"),
            (1_700_000_000, "2023-11-14 22:13:20"),
            (4_102_444_799, "2099-12-31 23:59:59"),
        ] {
            assert_eq!(utc(seconds), text);
        }
    }

    #[test]
    fn no_time_is_too_late_to_be_written() {
        assert!(!utc(u64::MAX).is_empty());
    }
}
