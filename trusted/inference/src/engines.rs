//! One module per inference engine.

pub mod rten;
