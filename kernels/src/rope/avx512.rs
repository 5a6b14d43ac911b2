//! Sixteen components at a time, tails masked.

use crate::lanes::LANES;
use crate::lanes::x86::{load_tail, load16, store_tail, store16};
use std::arch::x86_64::*;

/// Both components of sixteen pairs.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
fn rotate(a: __m512, b: __m512, cos: __m512, sin: __m512) -> (__m512, __m512) {
    (_mm512_fmsub_ps(a, cos, _mm512_mul_ps(b, sin)), _mm512_fmadd_ps(b, cos, _mm512_mul_ps(a, sin)))
}

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
pub(crate) fn half_split(x: &mut [f32], cos: &[f32], sin: &[f32]) {
    for head in x.chunks_exact_mut(2 * cos.len()) {
        let (first, second) = head.split_at_mut(cos.len());
        let (mut first, mut second) = (first.chunks_exact_mut(LANES), second.chunks_exact_mut(LANES));
        let (cos, sin) = (cos.chunks_exact(LANES), sin.chunks_exact(LANES));
        let (last_cos, last_sin) = (cos.remainder(), sin.remainder());
        for ((first, second), (cos, sin)) in (&mut first).zip(&mut second).zip(cos.zip(sin)) {
            let (a, b) = rotate(load16(first), load16(second), load16(cos), load16(sin));
            store16(first, a);
            store16(second, b);
        }
        let (first, second) = (first.into_remainder(), second.into_remainder());
        if !first.is_empty() {
            let (a, b) = rotate(load_tail(first), load_tail(second), load_tail(last_cos), load_tail(last_sin));
            store_tail(first, a);
            store_tail(second, b);
        }
    }
}

/// Eight pairs side by side: even lanes a cos - (b sin), odd lanes b cos + (a sin).
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
fn rotate_pairs(ab: __m512, cos: __m512, sin: __m512) -> __m512 {
    let twice = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
    let ba = _mm512_permute_ps::<0b10_11_00_01>(ab);
    let (cos, sin) = (_mm512_permutexvar_ps(twice, cos), _mm512_permutexvar_ps(twice, sin));
    _mm512_fmaddsub_ps(ab, cos, _mm512_mul_ps(ba, sin))
}

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
pub(crate) fn interleaved(x: &mut [f32], cos: &[f32], sin: &[f32]) {
    for head in x.chunks_exact_mut(2 * cos.len()) {
        let mut pairs = head.chunks_exact_mut(LANES);
        let (cos, sin) = (cos.chunks_exact(LANES / 2), sin.chunks_exact(LANES / 2));
        let (last_cos, last_sin) = (cos.remainder(), sin.remainder());
        for (pairs, (cos, sin)) in (&mut pairs).zip(cos.zip(sin)) {
            let (cos, sin) = (load_tail(cos), load_tail(sin));
            store16(pairs, rotate_pairs(load16(pairs), cos, sin));
        }
        let rest = pairs.into_remainder();
        if !rest.is_empty() {
            let turned = rotate_pairs(load_tail(rest), load_tail(last_cos), load_tail(last_sin));
            store_tail(rest, turned);
        }
    }
}
