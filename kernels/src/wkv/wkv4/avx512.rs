//! Sixteen channels at a time, the tail masked.

use super::{State, Token};
use crate::lanes::LANES;
use crate::lanes::x86::{load_tail, load16, store_tail, store16};
use crate::math::avx512::exp;
use std::arch::x86_64::*;

/// The weights of the past and of now, from the exponential of minus the absolute difference; `larger` where the past
/// is.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
fn weights(e: __m512, larger: __mmask16) -> (__m512, __m512) {
    let one = _mm512_set1_ps(1.0);
    (_mm512_mask_blend_ps(larger, e, one), _mm512_mask_blend_ps(larger, one, e))
}

/// k, v, decay and bonus; aa, bb and pp. The result and the new state.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
fn step16([k, v, decay, bonus]: [__m512; 4], [aa, bb, pp]: [__m512; 3]) -> (__m512, [__m512; 3]) {
    let (sign, zero) = (_mm512_set1_ps(-0.0), _mm512_setzero_ps());
    let decayed = _mm512_add_ps(pp, decay);
    let (met, left) = (_mm512_sub_ps(pp, _mm512_add_ps(bonus, k)), _mm512_sub_ps(decayed, k));
    // Both exponentials first: either is a long chain, and neither waits for the other.
    let (met_exp, left_exp) = (exp(_mm512_or_ps(met, sign)), exp(_mm512_or_ps(left, sign)));
    let (past, now) = weights(met_exp, _mm512_cmp_ps_mask::<_CMP_GE_OQ>(met, zero));
    let above = _mm512_fmadd_ps(now, v, _mm512_mul_ps(past, aa));
    let out = _mm512_div_ps(above, _mm512_fmadd_ps(past, bb, now));
    let larger = _mm512_cmp_ps_mask::<_CMP_GE_OQ>(left, zero);
    let (past, now) = weights(left_exp, larger);
    let aa = _mm512_fmadd_ps(now, v, _mm512_mul_ps(past, aa));
    (out, [aa, _mm512_fmadd_ps(past, bb, now), _mm512_mask_blend_ps(larger, k, decayed)])
}

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
pub(crate) fn wkv4(token: Token<'_>, state: State<'_>, out: &mut [f32]) {
    let n = out.len();
    // Lengths that the compiler knows to be equal need no checks in the loop.
    let (k, v, decay, bonus) = (&token.k[..n], &token.v[..n], &token.decay[..n], &token.bonus[..n]);
    let (aa, bb, pp) = (&mut state.aa[..n], &mut state.bb[..n], &mut state.pp[..n]);
    for i in (0..n / LANES).map(|block| LANES * block) {
        let inputs = [load16(&k[i..]), load16(&v[i..]), load16(&decay[i..]), load16(&bonus[i..])];
        let (result, state) = step16(inputs, [load16(&aa[i..]), load16(&bb[i..]), load16(&pp[i..])]);
        store16(&mut out[i..], result);
        store16(&mut aa[i..], state[0]);
        store16(&mut bb[i..], state[1]);
        store16(&mut pp[i..], state[2]);
    }
    let i = n / LANES * LANES;
    if i < n {
        let inputs = [load_tail(&k[i..]), load_tail(&v[i..]), load_tail(&decay[i..]), load_tail(&bonus[i..])];
        let (result, state) = step16(inputs, [load_tail(&aa[i..]), load_tail(&bb[i..]), load_tail(&pp[i..])]);
        store_tail(&mut out[i..], result);
        store_tail(&mut aa[i..], state[0]);
        store_tail(&mut bb[i..], state[1]);
        store_tail(&mut pp[i..], state[2]);
    }
}
