//! The specification, vectorised by the compiler.

use super::scalar;
use crate::ternary::{Activations, Weights};

#[target_feature(enable = "avx2,fma")]
pub(crate) fn matmul(weights: Weights<'_>, x: Activations<'_>, out: &mut [f32]) {
    scalar::matmul(weights, x, out);
}

#[target_feature(enable = "avx2,fma")]
pub(crate) fn crumbs(weights: &[u8], x: Activations<'_>, out: &mut [f32]) {
    scalar::crumbs(weights, x, out);
}
