//! FnPacker: packs many models onto few functions and routes invocations; sees ciphertext only.

pub mod packing;
