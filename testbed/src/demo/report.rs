//! What the demo found, as a table for people and as JSON for programs.

use comfy_table::{Attribute, Cell, CellAlignment, Color, ContentArrangement, Table, presets};
use protocol::invoke::{Phases, StartKind};
use serde::Serialize;
use serde_json::Value;

/// Characters in a line where there is no terminal.
const WIDTH: u16 = 130;

/// Time in each phase of one request, in microseconds, from the platform's start of a sandbox to the
/// opened answer at the client.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct RequestPhases {
    /// The platform starts a sandbox and initialises it.
    pub start: u64,
    #[serde(flatten)]
    pub semirt: Phases,
    /// At the client, from before sealing to after opening.
    pub total: u64,
}

/// One request that was to be answered.
#[derive(Debug, Clone, Serialize)]
pub struct RequestRow {
    pub name: String,
    pub model: String,
    pub path: StartKind,
    pub ok: bool,
    pub instance: String,
    pub phases_us: RequestPhases,
    pub answer: Value,
    /// One line for a person.
    pub said: String,
}

/// One request that was to be refused.
#[derive(Debug, Clone, Serialize)]
pub struct RefusalRow {
    pub name: String,
    pub refused: bool,
    pub code: String,
    pub expected: String,
    pub message: String,
}

/// What the operator could see.
#[derive(Debug, Clone, Default, Serialize)]
pub struct OperatorView {
    pub files: usize,
    pub bytes: u64,
    /// Plaintext windows and numbers that were searched for.
    pub needles: usize,
    /// Forms in which the search finds a plaintext planted beside the record: proof that it can.
    pub controls: Vec<String>,
    pub sample: Option<Value>,
    pub leaks: Vec<String>,
}

/// The whole demo.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    pub ok: bool,
    pub requests: Vec<RequestRow>,
    pub refusals: Vec<RefusalRow>,
    pub leaks_found: usize,
    pub operator_view: OperatorView,
    pub seconds: f64,
}

impl Report {
    /// Whether everything was as it must be: every answer right, every path seen, every refusal
    /// refused with the code that it should have, and nothing leaked.
    #[must_use]
    pub fn complete(&self) -> bool {
        let seen = |path| self.requests.iter().any(|r| r.path == path);
        self.requests.iter().all(|r| r.ok)
            && [StartKind::Cold, StartKind::Warm, StartKind::Hot]
                .into_iter()
                .all(seen)
            && !self.refusals.is_empty()
            && self
                .refusals
                .iter()
                .all(|r| r.refused && r.code == r.expected)
            && self.leaks_found == 0
            && self.operator_view.controls.len() == 4
    }

    /// The table of requests, times in milliseconds.
    #[must_use]
    pub fn requests_table(&self) -> Table {
        let mut table = table();
        let header = [
            "request", "path", "start", "attest", "keys", "fetch", "open", "load", "run", "seal",
            "total", "answer",
        ];
        table.set_header(header.map(|h| Cell::new(h).add_attribute(Attribute::Bold)));
        for row in &self.requests {
            let p = row.phases_us;
            let s = p.semirt;
            let times = [
                p.start, s.attest, s.keys, s.fetch, s.open, s.load, s.run, s.seal, p.total,
            ];
            let mut cells = vec![Cell::new(&row.name), path_cell(row.path)];
            cells.extend(times.map(|us| Cell::new(ms(us)).set_alignment(CellAlignment::Right)));
            cells.push(Cell::new(format!(
                "{} {}",
                if row.ok { "✓" } else { "✗ WRONG:" },
                row.said
            )));
            table.add_row(cells);
        }
        table
    }

    /// The table of refusals.
    #[must_use]
    pub fn refusals_table(&self) -> Table {
        let mut table = table();
        let header = ["attempt", "refused", "code", "what the caller is told"];
        table.set_header(header.map(|h| Cell::new(h).add_attribute(Attribute::Bold)));
        for row in &self.refusals {
            let good = row.refused && row.code == row.expected;
            let verdict = if good { "✓ yes" } else { "✗ NO" };
            table.add_row([&row.name, verdict, &row.code, &row.message]);
        }
        table
    }
}

/// A table with lines between header and rows only, as wide as the terminal, or [`WIDTH`].
fn table() -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic);
    if !table.is_tty() {
        table.set_width(WIDTH);
    }
    table
}

fn path_cell(path: StartKind) -> Cell {
    match path {
        StartKind::Cold => Cell::new("cold").fg(Color::Blue),
        StartKind::Warm => Cell::new("warm").fg(Color::Yellow),
        StartKind::Hot => Cell::new("hot").fg(Color::Red),
    }
}

/// Microseconds as milliseconds; nothing where nothing was to do.
fn ms(us: u64) -> String {
    match us {
        0 => "·".into(),
        1..10_000 => format!("{}.{:02}", us / 1000, us % 1000 / 10),
        _ => format!("{}.{}", us / 1000, us % 1000 / 100),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(path: StartKind) -> RequestRow {
        RequestRow {
            name: "r".into(),
            model: "m".into(),
            path,
            ok: true,
            instance: "i".into(),
            phases_us: RequestPhases::default(),
            answer: Value::Null,
            said: String::new(),
        }
    }

    fn complete() -> Report {
        Report {
            requests: vec![
                row(StartKind::Cold),
                row(StartKind::Warm),
                row(StartKind::Hot),
            ],
            refusals: vec![RefusalRow {
                name: "x".into(),
                refused: true,
                code: "a".into(),
                expected: "a".into(),
                message: String::new(),
            }],
            operator_view: OperatorView {
                controls: vec![String::new(); 4],
                ..OperatorView::default()
            },
            ..Report::default()
        }
    }

    #[test]
    fn nothing_may_be_missing_from_a_complete_report() {
        assert!(complete().complete());
        let spoil: [fn(&mut Report); 7] = [
            |r| r.requests[0].ok = false,
            |r| r.requests.truncate(2),
            |r| r.refusals.clear(),
            |r| r.refusals[0].refused = false,
            |r| r.refusals[0].code = "b".into(),
            |r| r.leaks_found = 1,
            |r| r.operator_view.controls.clear(),
        ];
        for (i, spoil) in spoil.iter().enumerate() {
            let mut report = complete();
            spoil(&mut report);
            assert!(!report.complete(), "spoiled by {i}");
        }
        assert!(!Report::default().complete());
    }

    #[test]
    fn times_read_as_milliseconds() {
        assert_eq!([0, 5, 1_234, 12_345].map(ms), ["·", "0.00", "1.23", "12.3"]);
    }
}
