//! The specification.

use crate::activation::scalar::silu_one;
use crate::norm::rms::scalar::factors;

pub(crate) fn gated_rms_norm(x: &mut [f32], gate: &[f32], gain: &[f32], eps: f32) {
    for (x, gate) in x.iter_mut().zip(gate) {
        *x *= silu_one(*gate);
    }
    normalise(x, gain, eps);
}

/// RMSNorm in place: also what the other variants do with gated values whose sum of squares overflows.
#[cold]
pub(crate) fn normalise(x: &mut [f32], gain: &[f32], eps: f32) {
    let [down, scale] = factors(x, eps);
    for (x, gain) in x.iter_mut().zip(gain) {
        *x = (*x * down * scale) * gain;
    }
}
