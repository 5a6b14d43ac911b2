//! The specification.

use crate::lanes::{LANES, fold};

pub(crate) fn layer_norm(x: &[f32], gain: &[f32], bias: &[f32], eps: f32, out: &mut [f32]) {
    let width = x.len() as f32;
    let mut lanes = [0.0f32; LANES];
    for (i, x) in x.iter().enumerate() {
        lanes[i % LANES] += x;
    }
    let mean = fold(lanes) / width;
    let mut lanes = [0.0f32; LANES];
    for (i, x) in x.iter().enumerate() {
        lanes[i % LANES] = (x - mean).mul_add(x - mean, lanes[i % LANES]);
    }
    let scale = 1.0 / (fold(lanes) / width + eps).sqrt();
    for (((out, x), gain), bias) in out.iter_mut().zip(x).zip(gain).zip(bias) {
        *out = ((x - mean) * scale).mul_add(*gain, *bias);
    }
}
