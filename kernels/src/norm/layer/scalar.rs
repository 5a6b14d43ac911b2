//! The specification.

use crate::lanes::{LANES, fold};
use crate::norm::DOWN;

/// Normalises x times `down`, a power of two, which leaves the result as it is but for what it does to `eps`.
fn scaled(x: &[f32], gain: &[f32], bias: &[f32], eps: f32, out: &mut [f32], down: f32) -> f32 {
    let width = x.len() as f32;
    let mut lanes = [0.0f32; LANES];
    for (i, x) in x.iter().enumerate() {
        lanes[i % LANES] += x * down;
    }
    let mean = fold(lanes) / width;
    let mut lanes = [0.0f32; LANES];
    for (i, x) in x.iter().enumerate() {
        let d = x * down - mean;
        lanes[i % LANES] = d.mul_add(d, lanes[i % LANES]);
    }
    let squares = fold(lanes);
    let scale = 1.0 / (squares / width + eps * down * down).sqrt();
    for (((out, x), gain), bias) in out.iter_mut().zip(x).zip(gain).zip(bias) {
        *out = ((x * down - mean) * scale).mul_add(*gain, *bias);
    }
    squares
}

/// What is done where a sum overflows.
#[cold]
pub(crate) fn overflowing(x: &[f32], gain: &[f32], bias: &[f32], eps: f32, out: &mut [f32]) {
    scaled(x, gain, bias, eps, out, DOWN);
}

pub(crate) fn layer_norm(x: &[f32], gain: &[f32], bias: &[f32], eps: f32, out: &mut [f32]) {
    if !scaled(x, gain, bias, eps, out, 1.0).is_finite() {
        overflowing(x, gain, bias, eps, out);
    }
}
