//! Sixteen at a time, operation for operation as in the specification.

use super::scalar::{
    EXP_COEFFICIENTS, EXP_MAX, EXP_MIN, EXP2_COEFFICIENTS, EXP2_LEAST, LN2_HIGH, LN2_LOW, LOG_COEFFICIENTS, LOG2_E,
    ROUND, TAIL_COEFFICIENTS, TAIL_END, TAIL_SLOPE, TANH_COEFFICIENTS, TANH_MIDDLE,
};
use std::arch::x86_64::*;

/// [`super::scalar::exp`].
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
pub(crate) fn exp(x: __m512) -> __m512 {
    // The second operand is the result where one is NaN.
    let bounded = _mm512_min_ps(_mm512_set1_ps(EXP_MAX), x);
    let shifted = _mm512_fmadd_ps(bounded, _mm512_set1_ps(LOG2_E), _mm512_set1_ps(ROUND));
    let n = _mm512_sub_ps(shifted, _mm512_set1_ps(ROUND));
    let r = _mm512_fmadd_ps(n, _mm512_set1_ps(-LN2_HIGH), bounded);
    let r = _mm512_fmadd_ps(n, _mm512_set1_ps(-LN2_LOW), r);
    let mut p = _mm512_set1_ps(EXP_COEFFICIENTS[0]);
    for c in &EXP_COEFFICIENTS[1..] {
        p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(*c));
    }
    let y = _mm512_add_ps(_mm512_fmadd_ps(p, _mm512_mul_ps(r, r), r), _mm512_set1_ps(1.0));
    let exponent = _mm512_slli_epi32::<23>(_mm512_castps_si512(shifted));
    let half_scale = _mm512_castsi512_ps(_mm512_add_epi32(exponent, _mm512_set1_epi32(126 << 23)));
    // Not less than, so that NaN passes.
    let kept = _mm512_cmp_ps_mask::<_CMP_NLT_UQ>(x, _mm512_set1_ps(EXP_MIN));
    _mm512_maskz_mul_ps(kept, _mm512_add_ps(y, y), half_scale)
}

/// [`super::scalar::exp2`] of N registers side by side: one alone would wait for itself at each of a dozen steps. One
/// instruction rounds, another adds to the exponent.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
pub(crate) fn exp2<const N: usize>(x: [__m512; N]) -> [__m512; N] {
    let (mut n, mut f) = (x, x);
    let mut p = [_mm512_set1_ps(EXP2_COEFFICIENTS[0]); N];
    for i in 0..N {
        n[i] = _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(x[i]);
        f[i] = _mm512_sub_ps(x[i], n[i]);
    }
    for c in &EXP2_COEFFICIENTS[1..] {
        for i in 0..N {
            p[i] = _mm512_fmadd_ps(p[i], f[i], _mm512_set1_ps(*c));
        }
    }
    for i in 0..N {
        // Not less than, so that NaN passes.
        let kept = _mm512_cmp_ps_mask::<_CMP_NLT_UQ>(n[i], _mm512_set1_ps(EXP2_LEAST));
        p[i] = _mm512_maskz_scalef_ps(kept, p[i], n[i]);
    }
    p
}

/// [`super::scalar::sigmoid`].
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
pub(crate) fn sigmoid(x: __m512) -> __m512 {
    let one = _mm512_set1_ps(1.0);
    _mm512_div_ps(one, _mm512_add_ps(one, exp(_mm512_xor_ps(x, _mm512_set1_ps(-0.0)))))
}

/// [`super::scalar::tanh`].
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
pub(crate) fn tanh(x: __m512) -> __m512 {
    let one = _mm512_set1_ps(1.0);
    let a = _mm512_abs_ps(x);
    let square = _mm512_mul_ps(a, a);
    let mut p = _mm512_set1_ps(TANH_COEFFICIENTS[0]);
    for c in &TANH_COEFFICIENTS[1..] {
        p = _mm512_fmadd_ps(p, square, _mm512_set1_ps(*c));
    }
    let quotient = _mm512_div_ps(_mm512_set1_ps(2.0), _mm512_add_ps(exp(_mm512_add_ps(a, a)), one));
    let is_small = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, _mm512_set1_ps(TANH_MIDDLE));
    let large = _mm512_sub_ps(one, quotient);
    let y = _mm512_mask_mov_ps(large, is_small, _mm512_fmadd_ps(_mm512_mul_ps(a, square), p, a));
    _mm512_or_ps(y, _mm512_and_ps(_mm512_set1_ps(-0.0), x))
}

/// [`super::scalar::softplus`].
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
pub(crate) fn softplus(x: __m512) -> __m512 {
    let u = exp(_mm512_or_ps(x, _mm512_set1_ps(-0.0)));
    let mut q = _mm512_set1_ps(LOG_COEFFICIENTS[0]);
    for c in &LOG_COEFFICIENTS[1..] {
        q = _mm512_fmadd_ps(q, u, _mm512_set1_ps(*c));
    }
    let log = _mm512_fmadd_ps(_mm512_mul_ps(u, u), q, u);
    // The second operand is the result where one is NaN.
    _mm512_add_ps(_mm512_max_ps(_mm512_setzero_ps(), x), log)
}

/// [`super::scalar::normal_cdf`].
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
pub(crate) fn normal_cdf(x: __m512) -> __m512 {
    let (one, minus_half) = (_mm512_set1_ps(1.0), _mm512_set1_ps(-0.5));
    let a = _mm512_min_ps(_mm512_set1_ps(TAIL_END), _mm512_abs_ps(x));
    let t = _mm512_div_ps(one, _mm512_fmadd_ps(a, _mm512_set1_ps(TAIL_SLOPE), one));
    let mut p = _mm512_set1_ps(TAIL_COEFFICIENTS[0]);
    for c in &TAIL_COEFFICIENTS[1..] {
        p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(*c));
    }
    let square = _mm512_mul_ps(a, a);
    let rest = _mm512_fmsub_ps(a, a, square);
    let e = exp(_mm512_mul_ps(square, minus_half));
    let e = _mm512_fmadd_ps(rest, _mm512_mul_ps(e, minus_half), e);
    let tail = _mm512_mul_ps(e, _mm512_mul_ps(p, t));
    let positive = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(x, _mm512_setzero_ps());
    _mm512_mask_sub_ps(tail, positive, one, tail)
}
