//! Normalisation over the model width, or over each head.

pub mod gated;
pub mod layer;
pub mod rms;
pub mod rms_quantise;
pub mod unit;

/// Where a sum of squares overflows, inputs are first multiplied by this: (2^128 · 2^-80)^2 leaves room for 2^32 terms.
const DOWN: f32 = f32::from_bits((127 - 80) << 23);
