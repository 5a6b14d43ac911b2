//! Eight lanes twice.

use crate::lanes::x86::{array, load8, map_avx2, store8};
use crate::lanes::{LANES, fold};
use crate::math::avx2::exp;
use std::arch::x86_64::*;

/// The largest element; NaN counts for nothing. Which of several equal ones is found makes no difference.
#[target_feature(enable = "avx2,fma")]
fn largest(x: &[f32]) -> f32 {
    let mut best = [_mm256_set1_ps(f32::NEG_INFINITY); 4];
    let blocks = x.chunks_exact(32);
    let tail = blocks.remainder();
    for block in blocks {
        for (best, x) in best.iter_mut().zip(block.chunks_exact(8)) {
            // The second operand is the result where one is NaN.
            *best = _mm256_max_ps(load8(x), *best);
        }
    }
    let lanes = array(_mm256_max_ps(best[0], best[1]), _mm256_max_ps(best[2], best[3]));
    lanes.iter().chain(tail).fold(f32::NEG_INFINITY, |max, v| if *v > max { *v } else { max })
}

#[target_feature(enable = "avx2,fma")]
pub(crate) fn softmax(x: &mut [f32]) {
    let max = _mm256_set1_ps(largest(x));
    let (mut low, mut high) = (_mm256_setzero_ps(), _mm256_setzero_ps());
    let mut whole = x.chunks_exact_mut(LANES);
    for x in &mut whole {
        let a = exp(_mm256_sub_ps(load8(&x[..8]), max));
        let b = exp(_mm256_sub_ps(load8(&x[8..]), max));
        store8(&mut x[..8], a);
        store8(&mut x[8..], b);
        low = _mm256_add_ps(low, a);
        high = _mm256_add_ps(high, b);
    }
    let mut lanes = array(low, high);
    let tail = whole.into_remainder();
    map_avx2(tail, |x| exp(_mm256_sub_ps(x, max)));
    for (lane, x) in lanes.iter_mut().zip(tail) {
        *lane += *x;
    }
    let scale = _mm256_set1_ps(1.0 / fold(lanes));
    map_avx2(x, |x| _mm256_mul_ps(x, scale));
}
