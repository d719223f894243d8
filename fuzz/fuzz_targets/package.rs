//! Model packages: assembled from pieces of any size, and loaded by the engine that they name.
#![no_main]

use std::panic;
use std::sync::Once;

use inference::assemble::PackageAssembler;
use inference::{Engines, LoadLimits};
use libfuzzer_sys::fuzz_target;
use protocol::package::EngineName;

const MAX: u64 = 1 << 20;

/// The engine's own panics are caught where it is called; the fuzzer's hook would end the process at
/// them. One that is not caught still ends it.
static QUIET: Once = Once::new();

fuzz_target!(|bytes: &[u8]| {
    QUIET.call_once(|| panic::set_hook(Box::new(|_| {})));
    let Some((piece, package)) = bytes.split_first() else {
        return;
    };
    let Ok(mut assembler) = PackageAssembler::new(package.len() as u64, MAX) else {
        return;
    };
    for chunk in package.chunks(1 + usize::from(*piece)) {
        if assembler.push(chunk).is_err() {
            return;
        }
    }
    let Ok((manifest, graph, weights)) = assembler.finish() else {
        return;
    };
    let engines =
        Engines::standard(&[EngineName::Rten, EngineName::Conv]).with_limits(LoadLimits::default());
    let _ = engines.load_package(&manifest, graph, weights);
});
