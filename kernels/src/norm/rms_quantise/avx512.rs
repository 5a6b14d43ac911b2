//! Sixteen numbers at a time, the tail masked.

use super::scalar::overflowing;
use crate::norm::rms::avx512::squares;
use crate::quantise::{Quantised, scale_for};
use crate::transpose::avx512::first;
use std::arch::x86_64::*;

const WIDTH: usize = 16;

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
pub(crate) fn rms_quantise(x: &[f32], gain: &[f32], eps: f32, codes: &mut [i8]) -> Quantised {
    let squares = squares(x);
    if squares == f32::INFINITY {
        return overflowing(x, gain, eps, codes);
    }
    let (codes, padding) = codes.split_at_mut(x.len());
    padding.fill(0);
    let norm = _mm512_set1_ps(1.0 / (squares / x.len() as f32 + eps).sqrt());
    let normed = |x: &[f32], gain: &[f32]| {
        let mask = first(x.len().min(gain.len()));
        // SAFETY: the mask admits the elements of both alone.
        let (x, gain) =
            unsafe { (_mm512_maskz_loadu_ps(mask, x.as_ptr()), _mm512_maskz_loadu_ps(mask, gain.as_ptr())) };
        _mm512_mul_ps(_mm512_mul_ps(x, norm), gain)
    };

    // Four maxima hide the latency; `max(y, m)` is m where y is a NaN.
    let mut maxima = [_mm512_setzero_ps(); 4];
    for (x, gain) in x.chunks(4 * WIDTH).zip(gain.chunks(4 * WIDTH)) {
        for ((x, gain), max) in x.chunks(WIDTH).zip(gain.chunks(WIDTH)).zip(&mut maxima) {
            *max = _mm512_max_ps(_mm512_abs_ps(normed(x, gain)), *max);
        }
    }
    let [a, b, c, d] = maxima;
    let scale = scale_for(_mm512_reduce_max_ps(_mm512_max_ps(_mm512_max_ps(a, b), _mm512_max_ps(c, d))));

    let mut sums = _mm512_setzero_si512();
    for ((x, gain), codes) in x.chunks(WIDTH).zip(gain.chunks(WIDTH)).zip(codes.chunks_mut(WIDTH)) {
        let v = _mm512_mul_ps(normed(x, gain), _mm512_set1_ps(scale));
        // To the nearest, ties to even; a NaN becomes 0. No product is above 127 and a rounding error: nothing to clamp.
        let q = _mm512_maskz_cvtps_epi32(_mm512_cmp_ps_mask::<_CMP_ORD_Q>(v, v), v);
        sums = _mm512_add_epi32(sums, q);
        // SAFETY: the mask admits as many codes as `codes` has.
        unsafe { _mm_mask_storeu_epi8(codes.as_mut_ptr(), first(codes.len()), _mm512_cvtsepi32_epi8(q)) };
    }
    Quantised { scale, sum: _mm512_reduce_add_epi32(sums) }
}
