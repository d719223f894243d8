//! The part of ONNX that SeSeMI reads and writes itself: a model is hostile until it has been here.
//!
//! Source: `onnx.proto` of ONNX 1.23 (IR version 13), protobuf wire format.

pub mod check;
pub mod schema;
pub mod wire;

mod encode;
mod parse;

pub use check::{Interface, WeightsRef, check};
pub(crate) use schema::shown;
pub use schema::{Model, OnnxError};
