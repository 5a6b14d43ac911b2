//! Eight at a time.

use super::scalar::{CUBIC, FASTEST, FLOOR, TWO_SQRT_TWO_OVER_PI};
use crate::lanes::x86::{map_avx2, zip_avx2};
use crate::math::avx2::{self as math, normal_cdf, sigmoid as logistic};
use std::arch::x86_64::*;

#[inline]
#[target_feature(enable = "avx2,fma")]
fn gated(x: __m256, gate: __m256) -> __m256 {
    _mm256_mul_ps(_mm256_max_ps(_mm256_set1_ps(FLOOR), x), gate)
}

#[inline]
#[target_feature(enable = "avx2,fma")]
pub(crate) fn silu8(x: __m256) -> __m256 {
    gated(x, logistic(x))
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn gelu_tanh8(x: __m256) -> __m256 {
    let square = _mm256_fmadd_ps(_mm256_mul_ps(x, x), _mm256_set1_ps(CUBIC), _mm256_set1_ps(1.0));
    gated(x, logistic(_mm256_mul_ps(_mm256_set1_ps(TWO_SQRT_TWO_OVER_PI), _mm256_mul_ps(square, x))))
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn squared_relu8(x: __m256) -> __m256 {
    let positive = _mm256_max_ps(_mm256_setzero_ps(), x);
    _mm256_mul_ps(positive, positive)
}

#[target_feature(enable = "avx2,fma")]
pub(crate) fn sigmoid(x: &mut [f32]) {
    map_avx2(x, |x| logistic(x));
}

#[target_feature(enable = "avx2,fma")]
pub(crate) fn silu(x: &mut [f32]) {
    map_avx2(x, |x| silu8(x));
}

#[target_feature(enable = "avx2,fma")]
pub(crate) fn gelu_tanh(x: &mut [f32]) {
    map_avx2(x, |x| gelu_tanh8(x));
}

#[target_feature(enable = "avx2,fma")]
pub(crate) fn gelu_erf(x: &mut [f32]) {
    map_avx2(x, |x| gated(x, normal_cdf(x)));
}

#[target_feature(enable = "avx2,fma")]
pub(crate) fn squared_relu(x: &mut [f32]) {
    map_avx2(x, |x| squared_relu8(x));
}

#[target_feature(enable = "avx2,fma")]
pub(crate) fn exp(x: &mut [f32]) {
    map_avx2(x, |x| math::exp(x));
}

#[target_feature(enable = "avx2,fma")]
pub(crate) fn tanh(x: &mut [f32]) {
    map_avx2(x, |x| math::tanh(x));
}

#[target_feature(enable = "avx2,fma")]
pub(crate) fn softplus(x: &mut [f32]) {
    map_avx2(x, |x| math::softplus(x));
}

#[target_feature(enable = "avx2,fma")]
pub(crate) fn exp_decay(x: &mut [f32]) {
    map_avx2(x, |x| math::exp(_mm256_xor_ps(math::exp(x), _mm256_set1_ps(-0.0))));
}

#[target_feature(enable = "avx2,fma")]
pub(crate) fn sigmoid_decay(x: &mut [f32]) {
    map_avx2(x, |x| math::exp(_mm256_mul_ps(logistic(x), _mm256_set1_ps(-FASTEST))));
}

#[target_feature(enable = "avx2,fma")]
pub(crate) fn swiglu(gate: &mut [f32], up: &[f32]) {
    zip_avx2(gate, up, |gate, up| _mm256_mul_ps(silu8(gate), up));
}

#[target_feature(enable = "avx2,fma")]
pub(crate) fn squared_relu_glu(gate: &mut [f32], up: &[f32]) {
    zip_avx2(gate, up, |gate, up| _mm256_mul_ps(squared_relu8(gate), up));
}
