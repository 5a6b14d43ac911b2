//! The specification.

use crate::lanes;
use crate::norm::DOWN;

/// Normalises x times `down`, a power of two, which leaves the result as it is but for what it does to `eps`.
fn scaled(x: &[f32], gain: &[f32], eps: f32, out: &mut [f32], down: f32) -> f32 {
    let squares = lanes::dot(x.iter().map(|x| x * down), x.iter().map(|x| x * down));
    let scale = 1.0 / (squares / x.len() as f32 + eps * down * down).sqrt();
    for ((out, x), gain) in out.iter_mut().zip(x).zip(gain) {
        *out = (x * down * scale) * gain;
    }
    squares
}

/// What is done where the sum of squares overflows.
#[cold]
pub(crate) fn overflowing(x: &[f32], gain: &[f32], eps: f32, out: &mut [f32]) {
    scaled(x, gain, eps, out, DOWN);
}

pub(crate) fn rms_norm(x: &[f32], gain: &[f32], eps: f32, out: &mut [f32]) {
    if scaled(x, gain, eps, out, 1.0) == f32::INFINITY {
        overflowing(x, gain, eps, out);
    }
}
