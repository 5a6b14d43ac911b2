//! Eight numbers at a time; the tail one by one.

use super::scalar::mixed;
use crate::lanes::x86::{load8, store8};
use std::arch::x86_64::*;

#[inline]
#[target_feature(enable = "avx2,fma")]
fn mixed8(h: __m256, p: __m256, m: __m256) -> __m256 {
    _mm256_fmadd_ps(_mm256_sub_ps(p, h), m, h)
}

#[target_feature(enable = "avx2,fma")]
pub(crate) fn shift(h: &[f32], p: &[f32], m: &[f32], out: &mut [f32]) {
    let whole = out.len() / 8 * 8;
    for i in (0..whole).step_by(8) {
        store8(&mut out[i..], mixed8(load8(&h[i..]), load8(&p[i..]), load8(&m[i..])));
    }
    for i in whole..out.len() {
        out[i] = mixed(h[i], p[i], m[i]);
    }
}

#[target_feature(enable = "avx2,fma")]
pub(crate) fn shift_own(h: &[f32], p: &[f32], base: &[f32], own: &[f32], out: &mut [f32]) {
    let whole = out.len() / 8 * 8;
    for i in (0..whole).step_by(8) {
        let m = _mm256_add_ps(load8(&base[i..]), load8(&own[i..]));
        store8(&mut out[i..], mixed8(load8(&h[i..]), load8(&p[i..]), m));
    }
    for i in whole..out.len() {
        out[i] = mixed(h[i], p[i], base[i] + own[i]);
    }
}
