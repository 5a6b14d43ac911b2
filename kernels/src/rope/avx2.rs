//! Eight components at a time.

use super::scalar::rotate;
use crate::lanes::x86::{load8, store8};
use std::arch::x86_64::*;

#[target_feature(enable = "avx2,fma")]
pub(crate) fn half_split(x: &mut [f32], cos: &[f32], sin: &[f32]) {
    let half = cos.len();
    let whole = half / 8 * 8;
    for head in x.chunks_exact_mut(2 * half) {
        let (first, second) = head.split_at_mut(half);
        let blocks = first.chunks_exact_mut(8).zip(second.chunks_exact_mut(8));
        for ((first, second), (cos, sin)) in blocks.zip(cos.chunks_exact(8).zip(sin.chunks_exact(8))) {
            let (a, b, c, s) = (load8(first), load8(second), load8(cos), load8(sin));
            store8(first, _mm256_fmsub_ps(a, c, _mm256_mul_ps(b, s)));
            store8(second, _mm256_fmadd_ps(b, c, _mm256_mul_ps(a, s)));
        }
        for i in whole..half {
            (first[i], second[i]) = rotate(first[i], second[i], cos[i], sin[i]);
        }
    }
}

#[target_feature(enable = "avx2,fma")]
pub(crate) fn interleaved(x: &mut [f32], cos: &[f32], sin: &[f32]) {
    let whole = cos.len() / 4 * 4;
    let twice = _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3);
    let spread = |x: &[f32; 4]| {
        // SAFETY: the array holds four floats; the load needs no alignment.
        let four = unsafe { _mm_loadu_ps(x.as_ptr()) };
        _mm256_permutevar8x32_ps(_mm256_castps128_ps256(four), twice)
    };
    for head in x.chunks_exact_mut(2 * cos.len()) {
        let (blocks, rest) = head.split_at_mut(2 * whole);
        let angles = cos.as_chunks::<4>().0.iter().zip(sin.as_chunks::<4>().0);
        for (x, (cos, sin)) in blocks.chunks_exact_mut(8).zip(angles) {
            let ab = load8(x);
            let ba = _mm256_permute_ps::<0b10_11_00_01>(ab);
            // Even lanes a cos - (b sin), odd lanes b cos + (a sin).
            let turned = _mm256_fmaddsub_ps(ab, spread(cos), _mm256_mul_ps(ba, spread(sin)));
            store8(x, turned);
        }
        for (pair, i) in rest.chunks_exact_mut(2).zip(whole..) {
            (pair[0], pair[1]) = rotate(pair[0], pair[1], cos[i], sin[i]);
        }
    }
}
