//! Sixteen numbers at a time, the tail masked.

use crate::lanes::LANES;
use crate::lanes::x86::{load_tail, load16, store_tail, store16};
use std::arch::x86_64::*;

#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
fn mixed(h: __m512, p: __m512, m: __m512) -> __m512 {
    _mm512_fmadd_ps(_mm512_sub_ps(p, h), m, h)
}

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
pub(crate) fn shift(h: &[f32], p: &[f32], m: &[f32], out: &mut [f32]) {
    let whole = out.len() / LANES * LANES;
    for i in (0..whole).step_by(LANES) {
        store16(&mut out[i..], mixed(load16(&h[i..]), load16(&p[i..]), load16(&m[i..])));
    }
    if whole < out.len() {
        let mixed = mixed(load_tail(&h[whole..]), load_tail(&p[whole..]), load_tail(&m[whole..]));
        store_tail(&mut out[whole..], mixed);
    }
}

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
pub(crate) fn shift_own(h: &[f32], p: &[f32], base: &[f32], own: &[f32], out: &mut [f32]) {
    let whole = out.len() / LANES * LANES;
    for i in (0..whole).step_by(LANES) {
        let m = _mm512_add_ps(load16(&base[i..]), load16(&own[i..]));
        store16(&mut out[i..], mixed(load16(&h[i..]), load16(&p[i..]), m));
    }
    if whole < out.len() {
        let m = _mm512_add_ps(load_tail(&base[whole..]), load_tail(&own[whole..]));
        store_tail(&mut out[whole..], mixed(load_tail(&h[whole..]), load_tail(&p[whole..]), m));
    }
}
