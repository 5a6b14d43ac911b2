//! Eight channels at a time, of four tokens or one; the last channels through a padded array.

use super::Convolution;
use crate::RowsMut;
use crate::activation::avx2::silu8;
use crate::lanes::x86::{Widen, store8};
use std::arch::x86_64::*;

const WIDTH: usize = 8;
/// Tokens that share the load of a weight.
const TOKENS: usize = 4;
/// Weights between two visits of y, which more of them pass through as a partial sum.
const TAPS: usize = 4;

#[target_feature(enable = "avx2,fma")]
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
#[target_feature(enable = "avx2,fma")]
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
            let load = |row: *const f32| {
                // SAFETY: every row here is `width` long, and c + len is at most that.
                unsafe { if len == WIDTH { f32::widen8(row.add(c)) } else { f32::widen_few(row.add(c), len) } }
            };
            let mut sums = [_mm256_setzero_ps(); N];
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
                    *sum = _mm256_fmadd_ps(weight, load(inputs[i + j].as_ptr()), *sum);
                }
            }
            for (i, sum) in sums.into_iter().enumerate() {
                let value = if silu { silu8(sum) } else { sum };
                let y = &mut y[i * stride + c..][..len];
                if len == WIDTH {
                    store8(y, value);
                } else {
                    let mut padded = [0.0; WIDTH];
                    store8(&mut padded, value);
                    y.copy_from_slice(&padded[..len]);
                }
            }
        }
    }
}
