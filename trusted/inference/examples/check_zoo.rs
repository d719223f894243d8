//! Packs and runs every model under `models/` and `models/zoo/`, and prints how each fared.
//!
//! ```text
//! cargo run -p sesemi-inference --example check_zoo [FOLDER…]
//! ```

#![expect(
    clippy::print_stdout,
    reason = "a table for people is what this program is for"
)]
#![expect(
    clippy::disallowed_methods,
    reason = "it measures, and needs the real clock"
)]

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use inference::engine::{Engines, Session};
use inference::example::{inputs_from_json, outputs_from_json};
use inference::pack::{Check, largest_difference, pack};
use protocol::Tensor;
use protocol::package::EngineName;

/// Largest relative difference that still counts as the same answer.
const TOLERANCE: f32 = 1e-3;
const RUNS: usize = 5;

struct Row {
    packed: String,
    difference: f64,
    load_ms: f64,
    first_ms: f64,
    run_ms: f64,
    megabytes: f64,
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

/// The whole chain of errors, on one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text = format!("{text}: {source}");
        next = source.source();
    }
    text
}

fn median_ms(session: &mut dyn Session, inputs: &[Tensor]) -> Result<f64, Box<dyn Error>> {
    let mut times = Vec::new();
    for _ in 0..RUNS {
        let start = Instant::now();
        session.run(inputs)?;
        times.push(milliseconds(start));
    }
    times.sort_by(f64::total_cmp);
    Ok(times[RUNS / 2])
}

fn check(folder: &Path) -> Result<Row, Box<dyn Error>> {
    let onnx = fs::read(folder.join("model.onnx"))?;
    let inputs = inputs_from_json(&fs::read(folder.join("inputs.json"))?)?;
    let expected = outputs_from_json(&fs::read(folder.join("expected.json"))?)?;
    let example = Check::Example {
        inputs: &inputs,
        expected: &expected,
        tolerance: TOLERANCE,
    };
    let (package, packed) = match pack(&onnx, example) {
        Ok(package) => {
            let engine = format!("for {:?}", package.manifest.engine);
            (package, engine)
        }
        // The numbers of a model that gives other answers are worth seeing too.
        Err(refused) => match pack(&onnx, Check::AllowUnchecked) {
            Ok(package) => (package, format!("NO: {}", chain(&refused))),
            Err(_) => return Err(chain(&refused).into()),
        },
    };
    let engines = Engines::standard(&[EngineName::Rten, EngineName::Conv]);
    let (graph, weights) = (package.graph.clone(), package.weights.clone());
    let megabytes = (graph.len() + weights.len()) as f64 / 1e6;
    let start = Instant::now();
    let model = engines.load_package(&package.manifest, graph, weights)?;
    let mut session = model.session()?;
    let load_ms = milliseconds(start);
    let start = Instant::now();
    let got = session.run(&inputs)?;
    let first_ms = milliseconds(start);
    let difference = got
        .iter()
        .filter_map(|g| {
            expected
                .iter()
                .find(|e| e.name() == g.name())
                .map(|e| largest_difference(e, g).0)
        })
        .fold(0.0, f64::max);
    let run_ms = median_ms(session.as_mut(), &inputs)?;
    Ok(Row {
        packed,
        difference,
        load_ms,
        first_ms,
        run_ms,
        megabytes,
    })
}

/// Folders with a `model.onnx`, directly under `root`.
fn models_in(root: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(root) else {
        return Vec::new();
    };
    let mut found: Vec<_> = entries
        .filter_map(|e| Some(e.ok()?.path()))
        .filter(|p| p.join("model.onnx").is_file())
        .collect();
    found.sort();
    found
}

fn main() {
    let mut folders: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    if folders.is_empty() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models");
        folders = models_in(&root);
        folders.extend(models_in(&root.join("zoo")));
    }
    println!(
        "{:20} {:>8} {:>12} {:>9} {:>9} {:>9}  packed",
        "model", "MB", "rel. error", "load ms", "first ms", "run ms"
    );
    for folder in folders {
        let name = folder
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        match check(&folder) {
            Ok(Row {
                packed,
                difference,
                load_ms,
                first_ms,
                run_ms,
                megabytes,
            }) => println!(
                "{name:20} {megabytes:8.2} {difference:12.2e} {load_ms:9.2} {first_ms:9.2} \
                 {run_ms:9.2}  {packed}"
            ),
            Err(error) => println!("{name:20} cannot be used: {}", chain(error.as_ref())),
        }
    }
}
