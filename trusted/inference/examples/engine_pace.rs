//! One engine as a contender of `models/pace.py`: packs a model, then runs it as often as each line of
//! standard input says, and prints how long every run took.
//!
//! ```text
//! engine_pace conv|rten THREADS FOLDER [avx512|avx2|portable]
//! ```

#![expect(
    clippy::print_stdout,
    reason = "its answers are lines on standard output"
)]
#![expect(
    clippy::disallowed_methods,
    reason = "it measures, and needs the real clock"
)]

use std::error::Error;
use std::io::{BufRead, stdin};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Instant;
use std::{fs, io::Write};

use inference::Blob;
use inference::engine::{Engine, LoadLimits};
use inference::engines::conv::ConvEngine;
use inference::engines::rten::RtenEngine;
use inference::example::{inputs_from_json, outputs_from_json};
use inference::pack::{Check, largest_difference, pack_for};
use protocol::package::EngineName;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let engine = arguments.next().ok_or("no engine")?;
    let threads: NonZeroUsize = arguments.next().ok_or("no threads")?.parse()?;
    let folder = PathBuf::from(arguments.next().ok_or("no folder")?);
    let onnx = fs::read(folder.join("model.onnx"))?;
    let inputs = inputs_from_json(&fs::read(folder.join("inputs.json"))?)?;
    let expected = outputs_from_json(&fs::read(folder.join("expected.json"))?)?;
    let (name, engine): (_, Box<dyn Engine>) = match engine.as_str() {
        "conv" => {
            let mut conv = ConvEngine::per_session(threads);
            if let Some(isa) = arguments.next() {
                let mut known = kernels::Isa::available().into_iter();
                let isa = known.find(|known| known.name() == isa);
                conv = conv.with_isa(isa.ok_or("this CPU does not have these instructions")?);
            }
            (EngineName::Conv, Box::new(conv))
        }
        "rten" => (EngineName::Rten, Box::new(RtenEngine::per_session(threads))),
        other => return Err(format!("no engine '{other}'").into()),
    };
    let package = pack_for(&onnx, name, Check::AllowUnchecked)?;
    let (manifest, limits) = (package.manifest, LoadLimits::default());
    // As a package's assembler does it.
    let mut weights = Blob::aligned(package.weights.len())?;
    weights.extend(&package.weights);
    let start = Instant::now();
    let model = engine.load(&manifest, package.graph, weights, &limits)?;
    let mut session = model.session()?;
    let load = start.elapsed();
    let got = session.run(&inputs)?;
    let first = start.elapsed();
    let pairs = got.iter().zip(&expected);
    let difference = pairs.map(|(got, want)| largest_difference(want, got).0);
    let mut out = std::io::stdout();
    writeln!(
        out,
        "ready {:e} {} {}",
        difference.fold(0.0, f64::max),
        load.as_secs_f64() * 1e3,
        first.as_secs_f64() * 1e3
    )?;
    for line in stdin().lock().lines() {
        let mut times = Vec::new();
        for _ in 0..line?.trim().parse::<usize>()? {
            let start = Instant::now();
            session.run(&inputs)?;
            times.push((start.elapsed().as_secs_f64() * 1e3).to_string());
        }
        println!("{}", times.join(" "));
    }
    Ok(())
}
