//! Sixteen elements at a time, the tail masked.

use super::scalar::normalise;
use crate::activation::avx512::silu16;
use crate::lanes::x86::zip_avx512;
use crate::norm::rms::avx512::squares;
use std::arch::x86_64::*;

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
pub(crate) fn gated_rms_norm(x: &mut [f32], gate: &[f32], gain: &[f32], eps: f32) {
    zip_avx512(x, gate, |x, gate| _mm512_mul_ps(x, silu16(gate)));
    let squares = squares(x);
    if squares == f32::INFINITY {
        return normalise(x, gain, eps);
    }
    let scale = _mm512_set1_ps(1.0 / (squares / x.len() as f32 + eps).sqrt());
    zip_avx512(x, gain, |x, gain| _mm512_mul_ps(_mm512_mul_ps(x, scale), gain));
}
