//! Sixteen lanes in one register.

use super::scalar::overflowing;
use crate::lanes::LANES;
use crate::lanes::x86::{fold_avx512, load_tail, load16, tail_mask};
use std::arch::x86_64::*;

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
pub(crate) fn layer_norm(x: &[f32], gain: &[f32], bias: &[f32], eps: f32, out: &mut [f32]) {
    let width = x.len() as f32;
    let whole = x.chunks_exact(LANES);
    let tail = whole.remainder();
    let (mask, last) = (tail_mask(tail.len()), load_tail(tail));
    let mut lanes = _mm512_setzero_ps();
    for x in whole.clone() {
        lanes = _mm512_add_ps(lanes, load16(x));
    }
    let mean = fold_avx512(_mm512_mask_add_ps(lanes, mask, lanes, last)) / width;
    let means = _mm512_set1_ps(mean);
    let mut lanes = _mm512_setzero_ps();
    for x in whole {
        let d = _mm512_sub_ps(load16(x), means);
        lanes = _mm512_fmadd_ps(d, d, lanes);
    }
    let d = _mm512_sub_ps(last, means);
    let squares = fold_avx512(_mm512_mask3_fmadd_ps(d, d, lanes, mask));
    if !squares.is_finite() {
        return overflowing(x, gain, bias, eps, out);
    }
    let scale = 1.0 / (squares / width + eps).sqrt();
    // Compiled with AVX-512, this loop becomes wide products; there is nothing to reorder.
    for (((out, x), gain), bias) in out.iter_mut().zip(x).zip(gain).zip(bias) {
        *out = ((x - mean) * scale).mul_add(*gain, *bias);
    }
}
