//! Eight numbers at a time, the tail one by one.

use super::scalar::overflowing;
use crate::lanes::x86::{array, load8};
use crate::norm::rms::avx2::squares;
use crate::quantise::{Quantised, scale_for};
use std::arch::x86_64::*;

const WIDTH: usize = 8;

#[target_feature(enable = "avx2,fma")]
pub(crate) fn rms_quantise(x: &[f32], gain: &[f32], eps: f32, codes: &mut [i8]) -> Quantised {
    let squares = squares(x);
    if squares == f32::INFINITY {
        return overflowing(x, gain, eps, codes);
    }
    let (codes, padding) = codes.split_at_mut(x.len());
    padding.fill(0);
    let norm = 1.0 / (squares / x.len() as f32 + eps).sqrt();
    let ((x, x_tail), (gain, gain_tail)) = (x.as_chunks::<WIDTH>(), gain.as_chunks::<WIDTH>());
    let normed = |x: &[f32; WIDTH], gain: &[f32; WIDTH]| {
        _mm256_mul_ps(_mm256_mul_ps(load8(x), _mm256_set1_ps(norm)), load8(gain))
    };
    let tail = || x_tail.iter().zip(gain_tail).map(|(x, gain)| (x * norm) * gain);

    let magnitude = _mm256_castsi256_ps(_mm256_set1_epi32(i32::MAX));
    // Four maxima hide the latency; `max(y, m)` is m where y is a NaN.
    let mut maxima = [_mm256_setzero_ps(); 4];
    let larger =
        |x: &[f32; WIDTH], gain: &[f32; WIDTH], max| _mm256_max_ps(_mm256_and_ps(normed(x, gain), magnitude), max);
    let ((x_fours, x_rest), (gain_fours, gain_rest)) = (x.as_chunks::<4>(), gain.as_chunks::<4>());
    for (x, gain) in x_fours.iter().zip(gain_fours) {
        for i in 0..4 {
            maxima[i] = larger(&x[i], &gain[i], maxima[i]);
        }
    }
    for (x, gain) in x_rest.iter().zip(gain_rest) {
        maxima[0] = larger(x, gain, maxima[0]);
    }
    let [a, b, c, d] = maxima;
    let eight = _mm256_max_ps(_mm256_max_ps(a, b), _mm256_max_ps(c, d));
    let max = array(eight, eight).into_iter().chain(tail().map(f32::abs));
    let scale = scale_for(max.fold(0.0f32, |max, y| if y > max { y } else { max }));

    let mut sums = _mm256_setzero_si256();
    let (codes, codes_tail) = codes.as_chunks_mut::<WIDTH>();
    for ((x, gain), codes) in x.iter().zip(gain).zip(codes) {
        let v = _mm256_mul_ps(normed(x, gain), _mm256_set1_ps(scale));
        // To the nearest, ties to even; a NaN becomes 0. No product is above 127 and a rounding error: nothing to clamp.
        let ordered = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_ORD_Q>(v, v));
        let q = _mm256_and_si256(_mm256_cvtps_epi32(v), ordered);
        sums = _mm256_add_epi32(sums, q);
        let words = _mm_packs_epi32(_mm256_castsi256_si128(q), _mm256_extracti128_si256::<1>(q));
        // SAFETY: the array holds eight codes, the low half of the register.
        unsafe { _mm_storel_epi64(codes.as_mut_ptr().cast(), _mm_packs_epi16(words, words)) };
    }
    let mut eight = [0i32; WIDTH];
    // SAFETY: the array holds one register.
    unsafe { _mm256_storeu_si256(eight.as_mut_ptr().cast(), sums) };
    let mut sum = eight.into_iter().sum();
    for (code, y) in codes_tail.iter_mut().zip(tail()) {
        *code = (y * scale).round_ties_even().clamp(-128.0, 127.0) as i8;
        sum += i32::from(*code);
    }
    Quantised { scale, sum }
}
