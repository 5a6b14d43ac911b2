//! Sixteen activations at a time.

use super::{Quantised, row, scale_for};
use crate::transpose::avx512::first;
use std::arch::x86_64::*;

const WIDTH: usize = 16;

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
pub(crate) fn quantise(x: &[f32], codes: &mut [i8]) -> Quantised {
    let (codes, padding) = codes.split_at_mut(x.len());
    padding.fill(0);
    let scale = scale_for(largest(x));
    Quantised { scale, sum: round(x, scale, codes) }
}

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
pub(crate) fn quantise_row(x: &[f32], codes: &mut [i8]) -> f32 {
    let (scale, inverse) = row::scale_for(largest(x));
    round(x, inverse, codes);
    scale
}

/// The largest magnitude; a NaN counts for nothing.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
fn largest(x: &[f32]) -> f32 {
    // Four maxima hide the latency; `max(v, m)` is m where v is a NaN.
    let mut maxima = [_mm512_setzero_ps(); 4];
    for (i, x) in x.chunks(WIDTH).enumerate() {
        // SAFETY: the mask admits the elements of `x` alone.
        let v = unsafe { _mm512_maskz_loadu_ps(first(x.len()), x.as_ptr()) };
        maxima[i % 4] = _mm512_max_ps(_mm512_abs_ps(v), maxima[i % 4]);
    }
    let [a, b, c, d] = maxima;
    _mm512_reduce_max_ps(_mm512_max_ps(_mm512_max_ps(a, b), _mm512_max_ps(c, d)))
}

/// The codes of x times `factor`, and their sum.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
fn round(x: &[f32], factor: f32, codes: &mut [i8]) -> i32 {
    let mut sums = _mm512_setzero_si512();
    for (x, codes) in x.chunks(WIDTH).zip(codes.chunks_mut(WIDTH)) {
        let mask = first(x.len());
        // SAFETY: the mask admits the elements of `x` alone.
        let v = _mm512_mul_ps(unsafe { _mm512_maskz_loadu_ps(mask, x.as_ptr()) }, _mm512_set1_ps(factor));
        // To the nearest, ties to even; a NaN becomes 0. No product is above 127 and a rounding error: nothing to clamp.
        let q = _mm512_maskz_cvtps_epi32(_mm512_cmp_ps_mask::<_CMP_ORD_Q>(v, v), v);
        sums = _mm512_add_epi32(sums, q);
        // SAFETY: the mask admits as many codes as `codes` has.
        unsafe { _mm_mask_storeu_epi8(codes.as_mut_ptr(), mask, _mm512_cvtsepi32_epi8(q)) };
    }
    _mm512_reduce_add_epi32(sums)
}
