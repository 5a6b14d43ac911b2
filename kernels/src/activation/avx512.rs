//! Sixteen at a time.

use super::scalar::{CUBIC, FASTEST, FLOOR, TWO_SQRT_TWO_OVER_PI};
use crate::lanes::x86::{map_avx512, zip_avx512};
use crate::math::avx512::{self as math, normal_cdf, sigmoid as logistic};
use std::arch::x86_64::*;

#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
fn gated(x: __m512, gate: __m512) -> __m512 {
    _mm512_mul_ps(_mm512_max_ps(_mm512_set1_ps(FLOOR), x), gate)
}

#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
pub(crate) fn silu16(x: __m512) -> __m512 {
    gated(x, logistic(x))
}

#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
fn gelu_tanh16(x: __m512) -> __m512 {
    let square = _mm512_fmadd_ps(_mm512_mul_ps(x, x), _mm512_set1_ps(CUBIC), _mm512_set1_ps(1.0));
    gated(x, logistic(_mm512_mul_ps(_mm512_set1_ps(TWO_SQRT_TWO_OVER_PI), _mm512_mul_ps(square, x))))
}

#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
fn squared_relu16(x: __m512) -> __m512 {
    let positive = _mm512_max_ps(_mm512_setzero_ps(), x);
    _mm512_mul_ps(positive, positive)
}

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
pub(crate) fn sigmoid(x: &mut [f32]) {
    map_avx512(x, |x| logistic(x));
}

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
pub(crate) fn silu(x: &mut [f32]) {
    map_avx512(x, |x| silu16(x));
}

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
pub(crate) fn gelu_tanh(x: &mut [f32]) {
    map_avx512(x, |x| gelu_tanh16(x));
}

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
pub(crate) fn gelu_erf(x: &mut [f32]) {
    map_avx512(x, |x| gated(x, normal_cdf(x)));
}

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
pub(crate) fn squared_relu(x: &mut [f32]) {
    map_avx512(x, |x| squared_relu16(x));
}

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
pub(crate) fn exp(x: &mut [f32]) {
    map_avx512(x, |x| math::exp(x));
}

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
pub(crate) fn tanh(x: &mut [f32]) {
    map_avx512(x, |x| math::tanh(x));
}

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
pub(crate) fn softplus(x: &mut [f32]) {
    map_avx512(x, |x| math::softplus(x));
}

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
pub(crate) fn exp_decay(x: &mut [f32]) {
    map_avx512(x, |x| math::exp(_mm512_xor_ps(math::exp(x), _mm512_set1_ps(-0.0))));
}

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
pub(crate) fn sigmoid_decay(x: &mut [f32]) {
    map_avx512(x, |x| math::exp(_mm512_mul_ps(logistic(x), _mm512_set1_ps(-FASTEST))));
}

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
pub(crate) fn swiglu(gate: &mut [f32], up: &[f32]) {
    zip_avx512(gate, up, |gate, up| _mm512_mul_ps(silu16(gate), up));
}

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
pub(crate) fn squared_relu_glu(gate: &mut [f32], up: &[f32]) {
    zip_avx512(gate, up, |gate, up| _mm512_mul_ps(squared_relu16(gate), up));
}
