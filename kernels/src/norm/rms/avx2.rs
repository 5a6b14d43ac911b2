//! Eight lanes twice.

use super::scalar::overflowing;
use crate::lanes::{LANES, fold, x86::load8};
use std::arch::x86_64::*;

/// The sum of squares, by the sixteen lanes.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(crate) fn squares(x: &[f32]) -> f32 {
    let (mut low, mut high) = (_mm256_setzero_ps(), _mm256_setzero_ps());
    let whole = x.chunks_exact(LANES);
    let tail = whole.remainder();
    for x in whole {
        let (a, b) = (load8(&x[..8]), load8(&x[8..]));
        low = _mm256_fmadd_ps(a, a, low);
        high = _mm256_fmadd_ps(b, b, high);
    }
    let mut lanes = crate::lanes::x86::array(low, high);
    for (lane, x) in lanes.iter_mut().zip(tail) {
        *lane = x.mul_add(*x, *lane);
    }
    fold(lanes)
}

#[target_feature(enable = "avx2,fma")]
pub(crate) fn rms_norm(x: &[f32], gain: &[f32], eps: f32, out: &mut [f32]) {
    let squares = squares(x);
    if squares == f32::INFINITY {
        return overflowing(x, gain, eps, out);
    }
    let scale = 1.0 / (squares / x.len() as f32 + eps).sqrt();
    // Compiled with AVX2, this loop becomes eight-wide products; there is nothing to reorder.
    for ((out, x), gain) in out.iter_mut().zip(x).zip(gain) {
        *out = (x * scale) * gain;
    }
}
