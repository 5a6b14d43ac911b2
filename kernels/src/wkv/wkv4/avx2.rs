//! Eight channels at a time; the tail one by one.

use super::scalar::step;
use super::{State, Token};
use crate::lanes::x86::{load8, store8};
use crate::math::avx2::exp;
use std::arch::x86_64::*;

/// The weights of the past and of now, and where the past is the larger.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn weights(difference: __m256) -> (__m256, __m256, __m256) {
    let e = exp(_mm256_or_ps(difference, _mm256_set1_ps(-0.0)));
    let larger = _mm256_cmp_ps::<_CMP_GE_OQ>(difference, _mm256_setzero_ps());
    let one = _mm256_set1_ps(1.0);
    (_mm256_blendv_ps(e, one, larger), _mm256_blendv_ps(one, e, larger), larger)
}

#[target_feature(enable = "avx2,fma")]
pub(crate) fn wkv4(token: Token<'_>, state: State<'_>, out: &mut [f32]) {
    let Token { k, v, decay, bonus } = token;
    let whole = out.len() / 8 * 8;
    for i in (0..whole).step_by(8) {
        let (keys, values) = (load8(&k[i..]), load8(&v[i..]));
        let (aa, bb, pp) = (load8(&state.aa[i..]), load8(&state.bb[i..]), load8(&state.pp[i..]));
        let (past, now, _) = weights(_mm256_sub_ps(pp, _mm256_add_ps(load8(&bonus[i..]), keys)));
        let above = _mm256_fmadd_ps(now, values, _mm256_mul_ps(past, aa));
        store8(&mut out[i..], _mm256_div_ps(above, _mm256_fmadd_ps(past, bb, now)));
        let decayed = _mm256_add_ps(pp, load8(&decay[i..]));
        let (past, now, larger) = weights(_mm256_sub_ps(decayed, keys));
        store8(&mut state.aa[i..], _mm256_fmadd_ps(now, values, _mm256_mul_ps(past, aa)));
        store8(&mut state.bb[i..], _mm256_fmadd_ps(past, bb, now));
        store8(&mut state.pp[i..], _mm256_blendv_ps(keys, decayed, larger));
    }
    for i in whole..out.len() {
        out[i] = step([k[i], v[i], decay[i], bonus[i]], [&mut state.aa[i], &mut state.bb[i], &mut state.pp[i]]);
    }
}
