//! Sixteen channels at a time, the tail masked.

use super::{State, Token};
use crate::lanes::LANES;
use crate::lanes::x86::{load_tail, load16, store_tail, store16};
use crate::math::avx512::exp;
use std::arch::x86_64::*;

/// The weights of the past and of now, and where the past is the larger.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
fn weights(difference: __m512) -> (__m512, __m512, __mmask16) {
    let e = exp(_mm512_or_ps(difference, _mm512_set1_ps(-0.0)));
    let larger = _mm512_cmp_ps_mask::<_CMP_GE_OQ>(difference, _mm512_setzero_ps());
    let one = _mm512_set1_ps(1.0);
    (_mm512_mask_blend_ps(larger, e, one), _mm512_mask_blend_ps(larger, one, e), larger)
}

/// k, v, decay and bonus; aa, bb and pp. The result and the new state.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
fn step([k, v, decay, bonus]: [__m512; 4], [aa, bb, pp]: [__m512; 3]) -> (__m512, [__m512; 3]) {
    let (past, now, _) = weights(_mm512_sub_ps(pp, _mm512_add_ps(bonus, k)));
    let above = _mm512_fmadd_ps(now, v, _mm512_mul_ps(past, aa));
    let out = _mm512_div_ps(above, _mm512_fmadd_ps(past, bb, now));
    let decayed = _mm512_add_ps(pp, decay);
    let (past, now, larger) = weights(_mm512_sub_ps(decayed, k));
    let aa = _mm512_fmadd_ps(now, v, _mm512_mul_ps(past, aa));
    (out, [aa, _mm512_fmadd_ps(past, bb, now), _mm512_mask_blend_ps(larger, k, decayed)])
}

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
pub(crate) fn wkv4(token: Token<'_>, state: State<'_>, out: &mut [f32]) {
    let Token { k, v, decay, bonus } = token;
    let State { aa, bb, pp } = state;
    let whole = out.len() / LANES * LANES;
    for i in (0..whole).step_by(LANES) {
        let inputs = [load16(&k[i..]), load16(&v[i..]), load16(&decay[i..]), load16(&bonus[i..])];
        let (result, state) = step(inputs, [load16(&aa[i..]), load16(&bb[i..]), load16(&pp[i..])]);
        store16(&mut out[i..], result);
        store16(&mut aa[i..], state[0]);
        store16(&mut bb[i..], state[1]);
        store16(&mut pp[i..], state[2]);
    }
    if whole < out.len() {
        let inputs =
            [load_tail(&k[whole..]), load_tail(&v[whole..]), load_tail(&decay[whole..]), load_tail(&bonus[whole..])];
        let (result, state) = step(inputs, [load_tail(&aa[whole..]), load_tail(&bb[whole..]), load_tail(&pp[whole..])]);
        store_tail(&mut out[whole..], result);
        store_tail(&mut aa[whole..], state[0]);
        store_tail(&mut bb[whole..], state[1]);
        store_tail(&mut pp[whole..], state[2]);
    }
}
