//! Eight channels at a time; the tail one by one.

use super::scalar::step;
use super::{State, Token};
use crate::lanes::x86::{load8, store8};
use crate::math::avx2::exp;
use std::arch::x86_64::*;

/// The weights of the past and of now, from the exponential of minus the absolute difference; `larger` where the past
/// is.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn weights(e: __m256, larger: __m256) -> (__m256, __m256) {
    let one = _mm256_set1_ps(1.0);
    (_mm256_blendv_ps(e, one, larger), _mm256_blendv_ps(one, e, larger))
}

/// k, v, decay and bonus; aa, bb and pp. The result and the new state.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn step8([k, v, decay, bonus]: [__m256; 4], [aa, bb, pp]: [__m256; 3]) -> (__m256, [__m256; 3]) {
    let (sign, zero) = (_mm256_set1_ps(-0.0), _mm256_setzero_ps());
    let decayed = _mm256_add_ps(pp, decay);
    let (met, left) = (_mm256_sub_ps(pp, _mm256_add_ps(bonus, k)), _mm256_sub_ps(decayed, k));
    // Both exponentials first: either is a long chain, and neither waits for the other.
    let (met_exp, left_exp) = (exp(_mm256_or_ps(met, sign)), exp(_mm256_or_ps(left, sign)));
    let (past, now) = weights(met_exp, _mm256_cmp_ps::<_CMP_GE_OQ>(met, zero));
    let above = _mm256_fmadd_ps(now, v, _mm256_mul_ps(past, aa));
    let out = _mm256_div_ps(above, _mm256_fmadd_ps(past, bb, now));
    let larger = _mm256_cmp_ps::<_CMP_GE_OQ>(left, zero);
    let (past, now) = weights(left_exp, larger);
    let aa = _mm256_fmadd_ps(now, v, _mm256_mul_ps(past, aa));
    (out, [aa, _mm256_fmadd_ps(past, bb, now), _mm256_blendv_ps(k, decayed, larger)])
}

#[target_feature(enable = "avx2,fma")]
pub(crate) fn wkv4(token: Token<'_>, state: State<'_>, out: &mut [f32]) {
    let n = out.len();
    // Lengths that the compiler knows to be equal need no checks in the loop.
    let (k, v, decay, bonus) = (&token.k[..n], &token.v[..n], &token.decay[..n], &token.bonus[..n]);
    let (aa, bb, pp) = (&mut state.aa[..n], &mut state.bb[..n], &mut state.pp[..n]);
    for i in (0..n / 8).map(|block| 8 * block) {
        let inputs = [load8(&k[i..]), load8(&v[i..]), load8(&decay[i..]), load8(&bonus[i..])];
        let (result, state) = step8(inputs, [load8(&aa[i..]), load8(&bb[i..]), load8(&pp[i..])]);
        store8(&mut out[i..], result);
        store8(&mut aa[i..], state[0]);
        store8(&mut bb[i..], state[1]);
        store8(&mut pp[i..], state[2]);
    }
    for i in n / 8 * 8..n {
        out[i] = step([k[i], v[i], decay[i], bonus[i]], [&mut aa[i], &mut bb[i], &mut pp[i]]);
    }
}
