//! Sixteen lanes in one register.

use super::scalar::{overflowing, scale};
use crate::lanes::LANES;
use crate::lanes::x86::{fold_avx512, load_tail, load16, map_avx512, tail_mask};
use std::arch::x86_64::*;

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
pub(crate) fn unit_norm(x: &mut [f32]) {
    let whole = x.chunks_exact(LANES);
    let tail = whole.remainder();
    let mut lanes = _mm512_setzero_ps();
    for x in whole {
        let x = load16(x);
        lanes = _mm512_fmadd_ps(x, x, lanes);
    }
    let last = load_tail(tail);
    let squares = fold_avx512(_mm512_mask3_fmadd_ps(last, last, lanes, tail_mask(tail.len())));
    if squares == f32::INFINITY {
        return overflowing(x);
    }
    let scale = _mm512_set1_ps(scale(squares));
    map_avx512(x, |x| _mm512_mul_ps(x, scale));
}
