//! Sixteen lanes in one register.

use crate::lanes::LANES;
use crate::lanes::x86::{fold_avx512, load_tail, load16, map_avx512, store_tail, store16, tail_mask};
use crate::math::avx512::exp;
use std::arch::x86_64::*;

/// The largest element; NaN counts for nothing. Which of several equal ones is found makes no difference.
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
fn largest(x: &[f32]) -> f32 {
    let mut best = [_mm512_set1_ps(f32::NEG_INFINITY); 4];
    let blocks = x.chunks_exact(4 * LANES);
    let tail = blocks.remainder();
    for block in blocks {
        for (best, x) in best.iter_mut().zip(block.chunks_exact(LANES)) {
            // The second operand is the result where one is NaN.
            *best = _mm512_max_ps(load16(x), *best);
        }
    }
    let tail = tail.chunks_exact(LANES);
    let rest = tail.remainder();
    for (best, x) in best.iter_mut().zip(tail) {
        *best = _mm512_max_ps(load16(x), *best);
    }
    if !rest.is_empty() {
        best[3] = _mm512_mask_max_ps(best[3], tail_mask(rest.len()), load_tail(rest), best[3]);
    }
    _mm512_reduce_max_ps(_mm512_max_ps(_mm512_max_ps(best[0], best[1]), _mm512_max_ps(best[2], best[3])))
}

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
pub(crate) fn softmax(x: &mut [f32]) {
    let max = _mm512_set1_ps(largest(x));
    let mut lanes = _mm512_setzero_ps();
    let mut whole = x.chunks_exact_mut(LANES);
    for x in &mut whole {
        let e = exp(_mm512_sub_ps(load16(x), max));
        store16(x, e);
        lanes = _mm512_add_ps(lanes, e);
    }
    let tail = whole.into_remainder();
    if !tail.is_empty() {
        let e = exp(_mm512_sub_ps(load_tail(tail), max));
        store_tail(tail, e);
        lanes = _mm512_mask_add_ps(lanes, tail_mask(tail.len()), lanes, e);
    }
    let scale = _mm512_set1_ps(1.0 / fold_avx512(lanes));
    map_avx512(x, |x| _mm512_mul_ps(x, scale));
}
