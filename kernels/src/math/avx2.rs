//! Eight at a time, operation for operation as in the specification.

use super::scalar::{
    EXP_COEFFICIENTS, EXP_MAX, EXP_MIN, EXP2_COEFFICIENTS, EXP2_LEAST, LN2_HIGH, LN2_LOW, LOG_COEFFICIENTS, LOG2_E,
    ROUND, TAIL_COEFFICIENTS, TAIL_END, TAIL_SLOPE, TANH_COEFFICIENTS, TANH_MIDDLE,
};
use std::arch::x86_64::*;

/// [`super::scalar::exp`].
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(crate) fn exp(x: __m256) -> __m256 {
    // The second operand is the result where one is NaN.
    let bounded = _mm256_min_ps(_mm256_set1_ps(EXP_MAX), x);
    let shifted = _mm256_fmadd_ps(bounded, _mm256_set1_ps(LOG2_E), _mm256_set1_ps(ROUND));
    let n = _mm256_sub_ps(shifted, _mm256_set1_ps(ROUND));
    let r = _mm256_fmadd_ps(n, _mm256_set1_ps(-LN2_HIGH), bounded);
    let r = _mm256_fmadd_ps(n, _mm256_set1_ps(-LN2_LOW), r);
    let mut p = _mm256_set1_ps(EXP_COEFFICIENTS[0]);
    for c in &EXP_COEFFICIENTS[1..] {
        p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(*c));
    }
    let y = _mm256_add_ps(_mm256_fmadd_ps(p, _mm256_mul_ps(r, r), r), _mm256_set1_ps(1.0));
    let exponent = _mm256_slli_epi32::<23>(_mm256_castps_si256(shifted));
    let half_scale = _mm256_castsi256_ps(_mm256_add_epi32(exponent, _mm256_set1_epi32(126 << 23)));
    let value = _mm256_mul_ps(_mm256_add_ps(y, y), half_scale);
    _mm256_andnot_ps(_mm256_cmp_ps::<_CMP_LT_OQ>(x, _mm256_set1_ps(EXP_MIN)), value)
}

/// [`super::scalar::exp2`] of N registers side by side: one alone would wait for itself at each of a dozen steps.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(crate) fn exp2<const N: usize>(x: [__m256; N]) -> [__m256; N] {
    let round = _mm256_set1_ps(ROUND);
    let (mut shifted, mut f) = (x, x);
    let mut p = [_mm256_set1_ps(EXP2_COEFFICIENTS[0]); N];
    for i in 0..N {
        shifted[i] = _mm256_add_ps(x[i], round);
        f[i] = _mm256_sub_ps(x[i], _mm256_sub_ps(shifted[i], round));
    }
    for c in &EXP2_COEFFICIENTS[1..] {
        for i in 0..N {
            p[i] = _mm256_fmadd_ps(p[i], f[i], _mm256_set1_ps(*c));
        }
    }
    // As integers, the sums are ordered as x is.
    let least = _mm256_castps_si256(_mm256_set1_ps(ROUND + EXP2_LEAST));
    for i in 0..N {
        let shifted = _mm256_castps_si256(shifted[i]);
        let value = _mm256_add_epi32(_mm256_castps_si256(p[i]), _mm256_slli_epi32::<23>(shifted));
        p[i] = _mm256_castsi256_ps(_mm256_andnot_si256(_mm256_cmpgt_epi32(least, shifted), value));
    }
    p
}

/// [`super::scalar::sigmoid`].
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(crate) fn sigmoid(x: __m256) -> __m256 {
    let one = _mm256_set1_ps(1.0);
    _mm256_div_ps(one, _mm256_add_ps(one, exp(_mm256_xor_ps(x, _mm256_set1_ps(-0.0)))))
}

/// [`super::scalar::tanh`].
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(crate) fn tanh(x: __m256) -> __m256 {
    let (one, sign) = (_mm256_set1_ps(1.0), _mm256_set1_ps(-0.0));
    let a = _mm256_andnot_ps(sign, x);
    let square = _mm256_mul_ps(a, a);
    let mut p = _mm256_set1_ps(TANH_COEFFICIENTS[0]);
    for c in &TANH_COEFFICIENTS[1..] {
        p = _mm256_fmadd_ps(p, square, _mm256_set1_ps(*c));
    }
    let small = _mm256_fmadd_ps(_mm256_mul_ps(a, square), p, a);
    let quotient = _mm256_div_ps(_mm256_set1_ps(2.0), _mm256_add_ps(exp(_mm256_add_ps(a, a)), one));
    let is_small = _mm256_cmp_ps::<_CMP_LT_OQ>(a, _mm256_set1_ps(TANH_MIDDLE));
    let y = _mm256_blendv_ps(_mm256_sub_ps(one, quotient), small, is_small);
    _mm256_or_ps(y, _mm256_and_ps(sign, x))
}

/// [`super::scalar::softplus`].
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(crate) fn softplus(x: __m256) -> __m256 {
    let u = exp(_mm256_or_ps(x, _mm256_set1_ps(-0.0)));
    let mut q = _mm256_set1_ps(LOG_COEFFICIENTS[0]);
    for c in &LOG_COEFFICIENTS[1..] {
        q = _mm256_fmadd_ps(q, u, _mm256_set1_ps(*c));
    }
    let log = _mm256_fmadd_ps(_mm256_mul_ps(u, u), q, u);
    // The second operand is the result where one is NaN.
    _mm256_add_ps(_mm256_max_ps(_mm256_setzero_ps(), x), log)
}

/// [`super::scalar::normal_cdf`].
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(crate) fn normal_cdf(x: __m256) -> __m256 {
    let (one, minus_half) = (_mm256_set1_ps(1.0), _mm256_set1_ps(-0.5));
    let a = _mm256_min_ps(_mm256_set1_ps(TAIL_END), _mm256_andnot_ps(_mm256_set1_ps(-0.0), x));
    let t = _mm256_div_ps(one, _mm256_fmadd_ps(a, _mm256_set1_ps(TAIL_SLOPE), one));
    let mut p = _mm256_set1_ps(TAIL_COEFFICIENTS[0]);
    for c in &TAIL_COEFFICIENTS[1..] {
        p = _mm256_fmadd_ps(p, t, _mm256_set1_ps(*c));
    }
    let square = _mm256_mul_ps(a, a);
    let rest = _mm256_fmsub_ps(a, a, square);
    let e = exp(_mm256_mul_ps(square, minus_half));
    let e = _mm256_fmadd_ps(rest, _mm256_mul_ps(e, minus_half), e);
    let tail = _mm256_mul_ps(e, _mm256_mul_ps(p, t));
    let positive = _mm256_cmp_ps::<_CMP_GT_OQ>(x, _mm256_setzero_ps());
    _mm256_blendv_ps(tail, _mm256_sub_ps(one, tail), positive)
}
