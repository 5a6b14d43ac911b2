//! Eight elements at a time, the tail through a padded array.

use super::scalar::normalise;
use crate::activation::avx2::silu8;
use crate::lanes::x86::zip_avx2;
use crate::norm::rms::avx2::squares;
use std::arch::x86_64::*;

#[target_feature(enable = "avx2,fma")]
pub(crate) fn gated_rms_norm(x: &mut [f32], gate: &[f32], gain: &[f32], eps: f32) {
    zip_avx2(x, gate, |x, gate| _mm256_mul_ps(x, silu8(gate)));
    let squares = squares(x);
    if squares == f32::INFINITY {
        return normalise(x, gain, eps);
    }
    let scale = _mm256_set1_ps(1.0 / (squares / x.len() as f32 + eps).sqrt());
    zip_avx2(x, gain, |x, gain| _mm256_mul_ps(_mm256_mul_ps(x, scale), gain));
}
