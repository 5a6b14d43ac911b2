//! Eight lanes twice.

use super::scalar::overflowing;
use crate::lanes::x86::{array, load8};
use crate::lanes::{LANES, fold};
use std::arch::x86_64::*;

#[target_feature(enable = "avx2,fma")]
pub(crate) fn layer_norm(x: &[f32], gain: &[f32], bias: &[f32], eps: f32, out: &mut [f32]) {
    let width = x.len() as f32;
    let whole = x.chunks_exact(LANES);
    let tail = whole.remainder();
    let (mut low, mut high) = (_mm256_setzero_ps(), _mm256_setzero_ps());
    for x in whole.clone() {
        low = _mm256_add_ps(low, load8(&x[..8]));
        high = _mm256_add_ps(high, load8(&x[8..]));
    }
    let mut lanes = array(low, high);
    for (lane, x) in lanes.iter_mut().zip(tail) {
        *lane += x;
    }
    let mean = fold(lanes) / width;
    let means = _mm256_set1_ps(mean);
    let (mut low, mut high) = (_mm256_setzero_ps(), _mm256_setzero_ps());
    for x in whole {
        let (a, b) = (_mm256_sub_ps(load8(&x[..8]), means), _mm256_sub_ps(load8(&x[8..]), means));
        low = _mm256_fmadd_ps(a, a, low);
        high = _mm256_fmadd_ps(b, b, high);
    }
    let mut lanes = array(low, high);
    for (lane, x) in lanes.iter_mut().zip(tail) {
        *lane = (x - mean).mul_add(x - mean, *lane);
    }
    let squares = fold(lanes);
    if !squares.is_finite() {
        return overflowing(x, gain, bias, eps, out);
    }
    let scale = 1.0 / (squares / width + eps).sqrt();
    // Compiled with AVX2, this loop becomes eight-wide products; there is nothing to reorder.
    for (((out, x), gain), bias) in out.iter_mut().zip(x).zip(gain).zip(bias) {
        *out = ((x - mean) * scale).mul_add(*gain, *bias);
    }
}
