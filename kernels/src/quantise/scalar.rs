//! The specification.

use super::{Quantised, scale_for};

pub(crate) fn quantise(x: &[f32], codes: &mut [i8]) -> Quantised {
    let mut max = 0.0f32;
    for v in x {
        if v.abs() > max {
            max = v.abs();
        }
    }
    let scale = scale_for(max);
    let mut sum = 0;
    for (code, v) in codes.iter_mut().zip(x) {
        // A NaN becomes 0 in the cast.
        *code = (v * scale).round_ties_even().clamp(-128.0, 127.0) as i8;
        sum += i32::from(*code);
    }
    codes[x.len()..].fill(0);
    Quantised { scale, sum }
}
