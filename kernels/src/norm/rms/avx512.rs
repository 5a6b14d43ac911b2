//! Sixteen lanes in one register.

use super::scalar::overflowing;
use crate::lanes::x86::{fold_avx512, load16, tail_mask};
use std::arch::x86_64::*;

/// The sum of squares, by the sixteen lanes.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
pub(crate) fn squares(x: &[f32]) -> f32 {
    let mut lanes = _mm512_setzero_ps();
    let whole = x.chunks_exact(16);
    let tail = whole.remainder();
    for x in whole {
        let x = load16(x);
        lanes = _mm512_fmadd_ps(x, x, lanes);
    }
    if !tail.is_empty() {
        let mask = tail_mask(tail.len());
        // SAFETY: the mask covers the elements of `tail` alone.
        let x = unsafe { _mm512_maskz_loadu_ps(mask, tail.as_ptr()) };
        lanes = _mm512_mask3_fmadd_ps(x, x, lanes, mask);
    }
    fold_avx512(lanes)
}

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
pub(crate) fn rms_norm(x: &[f32], gain: &[f32], eps: f32, out: &mut [f32]) {
    let squares = squares(x);
    if squares == f32::INFINITY {
        return overflowing(x, gain, eps, out);
    }
    let scale = 1.0 / (squares / x.len() as f32 + eps).sqrt();
    // Compiled with AVX-512, this loop becomes wide products; there is nothing to reorder.
    for ((out, x), gain) in out.iter_mut().zip(x).zip(gain) {
        *out = (x * scale) * gain;
    }
}
