//! Sixteen channels at a time, of four tokens or one; the last channels masked.

use super::Convolution;
use crate::RowsMut;
use crate::activation::avx512::silu16;
use crate::transpose::avx512::first as first_lanes;
use std::arch::x86_64::*;

const WIDTH: usize = 16;
/// Tokens that share the load of a weight.
const TOKENS: usize = 4;
/// Weights between two visits of y, which more of them pass through as a partial sum.
const TAPS: usize = 4;

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
pub(crate) fn causal_conv(conv: &Convolution<'_>, state: &[f32], mut y: RowsMut<'_>) {
    let fours = conv.tokens - conv.tokens % TOKENS;
    for t in (0..fours).step_by(TOKENS) {
        tokens::<TOKENS>(conv, state, t, &mut y);
    }
    for t in fours..conv.tokens {
        tokens::<1>(conv, state, t, &mut y);
    }
}

/// Tokens `t .. t + N`.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
fn tokens<const N: usize>(conv: &Convolution<'_>, state: &[f32], t: usize, y: &mut RowsMut<'_>) {
    let (width, taps, stride) = (conv.width, conv.taps(), y.stride);
    let y = &mut y.data[t * stride..][..(N - 1) * stride + width];
    for first in (0..taps).step_by(TAPS) {
        let count = TAPS.min(taps - first);
        let weights = &conv.weights[first * width..][..count * width];
        // Input i + j is that of token t + i under weight first + j.
        let mut inputs = [weights; TOKENS + TAPS - 1];
        for (m, input) in inputs.iter_mut().enumerate().take(N + count - 1) {
            *input = conv.input(state, t, first + m);
        }
        let silu = conv.silu && first + count == taps;
        for c in (0..width).step_by(WIDTH) {
            let len = WIDTH.min(width - c);
            let lanes = first_lanes(len);
            // SAFETY: every row here is `width` long, and the mask admits none of its elements from there on.
            let load = |row: *const f32| unsafe { _mm512_maskz_loadu_ps(lanes, row.add(c)) };
            let mut sums = [_mm512_setzero_ps(); N];
            for (i, sum) in sums.iter_mut().enumerate() {
                if first > 0 {
                    *sum = load(y[i * stride..].as_ptr());
                } else if let Some(bias) = conv.bias {
                    *sum = load(bias.as_ptr());
                }
            }
            for j in 0..count {
                let weight = load(weights[j * width..].as_ptr());
                for (i, sum) in sums.iter_mut().enumerate() {
                    *sum = _mm512_fmadd_ps(weight, load(inputs[i + j].as_ptr()), *sum);
                }
            }
            for (i, sum) in sums.into_iter().enumerate() {
                let value = if silu { silu16(sum) } else { sum };
                let y = &mut y[i * stride + c..][..len];
                // SAFETY: the mask covers the elements of `y` alone.
                unsafe { _mm512_mask_storeu_ps(y.as_mut_ptr(), lanes, value) };
            }
        }
    }
}
