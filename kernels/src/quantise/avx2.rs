//! Eight activations at a time.

use super::{Quantised, row, scale_for};
use crate::lanes::x86::load8;
use std::arch::x86_64::*;

const WIDTH: usize = 8;

#[target_feature(enable = "avx2,fma")]
pub(crate) fn quantise(x: &[f32], codes: &mut [i8]) -> Quantised {
    let (codes, padding) = codes.split_at_mut(x.len());
    padding.fill(0);
    let scale = scale_for(largest(x));
    Quantised { scale, sum: round(x, scale, codes) }
}

#[target_feature(enable = "avx2,fma")]
pub(crate) fn quantise_row(x: &[f32], codes: &mut [i8]) -> f32 {
    let (scale, inverse) = row::scale_for(largest(x));
    round(x, inverse, codes);
    scale
}

/// The largest magnitude; a NaN counts for nothing.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn largest(x: &[f32]) -> f32 {
    let whole = x.chunks_exact(WIDTH);
    let tail = whole.remainder();
    let magnitude = _mm256_castsi256_ps(_mm256_set1_epi32(i32::MAX));
    // Four maxima hide the latency; `max(v, m)` is m where v is a NaN.
    let mut maxima = [_mm256_setzero_ps(); 4];
    for (i, x) in whole.enumerate() {
        maxima[i % 4] = _mm256_max_ps(_mm256_and_ps(load8(x), magnitude), maxima[i % 4]);
    }
    let [a, b, c, d] = maxima;
    let eight = _mm256_max_ps(_mm256_max_ps(a, b), _mm256_max_ps(c, d));
    let max = crate::lanes::x86::array(eight, eight).into_iter().chain(tail.iter().map(|v| v.abs()));
    max.fold(0.0f32, |max, v| if v > max { v } else { max })
}

/// The codes of x times `factor`, and their sum.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn round(x: &[f32], factor: f32, codes: &mut [i8]) -> i32 {
    let whole = x.chunks_exact(WIDTH);
    let tail = whole.remainder();
    let mut sums = _mm256_setzero_si256();
    let mut code_chunks = codes.chunks_exact_mut(WIDTH);
    for (x, codes) in whole.zip(&mut code_chunks) {
        let v = _mm256_mul_ps(load8(x), _mm256_set1_ps(factor));
        // To the nearest, ties to even; a NaN becomes 0. No product is above 127 and a rounding error: nothing to clamp.
        let ordered = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_ORD_Q>(v, v));
        let q = _mm256_and_si256(_mm256_cvtps_epi32(v), ordered);
        sums = _mm256_add_epi32(sums, q);
        let words = _mm_packs_epi32(_mm256_castsi256_si128(q), _mm256_extracti128_si256::<1>(q));
        // SAFETY: the chunk holds eight codes, the low half of the register.
        unsafe { _mm_storel_epi64(codes.as_mut_ptr().cast(), _mm_packs_epi16(words, words)) };
    }
    let mut eight = [0i32; WIDTH];
    // SAFETY: the array holds one register.
    unsafe { _mm256_storeu_si256(eight.as_mut_ptr().cast(), sums) };
    let mut sum = eight.into_iter().sum();
    for (code, v) in code_chunks.into_remainder().iter_mut().zip(tail) {
        *code = (v * factor).round_ties_even().clamp(-128.0, 127.0) as i8;
        sum += i32::from(*code);
    }
    sum
}
