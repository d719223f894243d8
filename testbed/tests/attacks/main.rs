//! Every attack of docs/threat-model.md, once against a check that was weakened on purpose, where it
//! succeeds, and once against ours, where the same bytes fail by a named check or error code.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod bombs;
mod handshake;
mod isolation;
mod lab;
mod names;
mod network;
mod oracles;
mod release;
mod sealed;
mod state;
mod unauthenticated;
mod vendors;
mod world;

use std::path::Path;

/// Cells of the rows of docs/threat-model.md that begin with a number.
fn table() -> Vec<Vec<String>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/threat-model.md");
    let text = std::fs::read_to_string(path).unwrap();
    text.lines()
        .filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"))
        .map(|row| row.split(" | ").map(str::to_owned).collect::<Vec<_>>())
        .filter(|cells| cells[0].parse::<u8>().is_ok())
        .collect()
}

/// Names of the attacks' tests in this folder's files.
fn tests() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/attacks");
    let mut names = Vec::new();
    for file in std::fs::read_dir(folder).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        let lines: Vec<_> = text.lines().map(str::trim).collect();
        for pair in lines.windows(2) {
            let name = pair[1]
                .trim_start_matches("async ")
                .strip_prefix("fn attack_");
            if let Some(name) = name {
                assert!(pair[0].contains("test]"), "attack_{name} does not run");
                names.push(format!("attack_{}", name.split('(').next().unwrap()));
            }
        }
    }
    names.sort();
    names
}

#[test]
fn the_table_and_the_tests_are_the_same() {
    let rows = table();
    let numbers: Vec<_> = rows.iter().map(|cells| cells[0].clone()).collect();
    let expected: Vec<_> = (1..=27).map(|n| n.to_string()).collect();
    assert_eq!(numbers, expected, "every attack once, in order");
    let in_scope = &rows[..25];
    let named: Vec<_> = in_scope
        .iter()
        .map(|cells| cells.last().unwrap().trim_matches('`').to_owned())
        .collect();
    assert_eq!(named, tests(), "one test for each attack in scope");
    for (cells, name) in in_scope.iter().zip(&named) {
        let number: u8 = cells[0].parse().unwrap();
        assert!(name.starts_with(&format!("attack_{number:02}_")), "{name}");
    }
}

#[test]
fn the_table_points_at_files_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for cells in &table()[..25] {
        let mut folder = String::new();
        for place in cells[4].split(", ").map(|place| place.trim_matches('`')) {
            let parts: Vec<_> = place.splitn(3, '/').collect();
            // A place without a crate is in the crate of the one before.
            let place = match parts[..] {
                [top @ ("shared" | "trusted" | "client" | "host"), name, file] => {
                    folder = format!("{top}/{name}");
                    file
                }
                _ => place,
            };
            let file = root.join(&folder).join("src").join(place);
            assert!(file.is_file(), "{}: {}", cells[0], file.display());
        }
    }
}
