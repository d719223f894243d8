//! Neural-network kernels on blocked images: pure computation on slices, f32, one image at a time.
//!
//! Images are `[blocks][height][width][16]` with borders ([`Image`]), weights
//! `[out / 16][in / 16][kh][kw][16 in][16 out]`: the same for every instruction set, so that a model is
//! laid out once, when it is sealed. [`Isa::detect`] chooses AVX-512, AVX2 with FMA, or the portable
//! twin at run time.
//!
//! Every function is safe: whatever shapes and slices it is given, it computes, returns a
//! [`ShapeError`] or panics, and never touches memory outside the slices. `unsafe` is in four places:
//! [`lanes`] (SIMD loads behind checks of a whole tile), `out` (threads that write disjoint parts
//! of one slice), [`buffer`] (aligned memory) and [`crew`] (borrowed work on other threads).

#![warn(unsafe_op_in_unsafe_fn)]

pub mod buffer;
pub mod conv;
pub mod crew;
pub mod depthwise;
pub mod image;
pub mod isa;
mod lanes;
pub mod layout;
mod out;
pub mod pointwise;
pub mod pooling;
#[cfg(test)]
mod testing;
mod tile;
pub mod vector;

pub use buffer::Buffer;
pub use conv::{Conv, ConvArgs, Prologue};
pub use crew::{Alone, Crew, Team};
pub use depthwise::{Depthwise, DepthwiseArgs};
pub use image::{Image, LANES, ShapeError, Window};
pub use isa::Isa;
pub use pointwise::Clamp;
