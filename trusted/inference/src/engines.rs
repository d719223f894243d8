//! One module per inference engine.

pub mod conv;
pub mod rten;
