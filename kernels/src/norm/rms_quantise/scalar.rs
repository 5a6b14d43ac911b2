//! The specification.

use crate::norm::rms::scalar::factors;
use crate::quantise::{Quantised, scale_for};

pub(crate) fn rms_quantise(x: &[f32], gain: &[f32], eps: f32, codes: &mut [i8]) -> Quantised {
    let [down, scale] = factors(x, eps);
    let normed = || x.iter().zip(gain).map(|(x, gain)| (x * down * scale) * gain);
    let mut max = 0.0f32;
    for y in normed() {
        if y.abs() > max {
            max = y.abs();
        }
    }
    let scale = scale_for(max);
    let mut sum = 0;
    for (code, y) in codes.iter_mut().zip(normed()) {
        // A NaN becomes 0 in the cast.
        *code = (y * scale).round_ties_even().clamp(-128.0, 127.0) as i8;
        sum += i32::from(*code);
    }
    codes[x.len()..].fill(0);
    Quantised { scale, sum }
}

/// What the other variants do where the sum of squares overflows.
#[cold]
pub(crate) fn overflowing(x: &[f32], gain: &[f32], eps: f32, codes: &mut [i8]) -> Quantised {
    rms_quantise(x, gain, eps, codes)
}
