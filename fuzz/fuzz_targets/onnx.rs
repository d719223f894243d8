//! ONNX files, as an owner packs them: what packs is loaded by the engine, too.
#![no_main]

use std::panic;
use std::sync::Once;

use inference::pack::{Check, pack};
use libfuzzer_sys::fuzz_target;

/// The engine's own panics are caught where it is called; the fuzzer's hook would end the process at
/// them. One that is not caught still ends it.
static QUIET: Once = Once::new();

fuzz_target!(|bytes: &[u8]| {
    QUIET.call_once(|| panic::set_hook(Box::new(|_| {})));
    let _ = pack(bytes, Check::AllowUnchecked);
});
