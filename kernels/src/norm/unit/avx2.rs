//! Eight lanes twice.

use super::scalar::{overflowing, scale};
use crate::lanes::x86::{array, load8, map_avx2};
use crate::lanes::{LANES, fold};
use std::arch::x86_64::*;

#[target_feature(enable = "avx2,fma")]
pub(crate) fn unit_norm(x: &mut [f32]) {
    let whole = x.chunks_exact(LANES);
    let tail = whole.remainder();
    let (mut low, mut high) = (_mm256_setzero_ps(), _mm256_setzero_ps());
    for x in whole {
        let (a, b) = (load8(&x[..8]), load8(&x[8..]));
        low = _mm256_fmadd_ps(a, a, low);
        high = _mm256_fmadd_ps(b, b, high);
    }
    let mut lanes = array(low, high);
    for (lane, x) in lanes.iter_mut().zip(tail) {
        *lane = x.mul_add(*x, *lane);
    }
    let squares = fold(lanes);
    if squares == f32::INFINITY {
        return overflowing(x);
    }
    let scale = _mm256_set1_ps(scale(squares));
    map_avx2(x, |x| _mm256_mul_ps(x, scale));
}
