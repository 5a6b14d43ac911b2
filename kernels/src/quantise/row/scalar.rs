//! The specification.

use super::scale_for;

pub(crate) fn quantise(x: &[f32], codes: &mut [i8]) -> f32 {
    let mut max = 0.0f32;
    for v in x {
        if v.abs() > max {
            max = v.abs();
        }
    }
    let (scale, inverse) = scale_for(max);
    for (code, v) in codes.iter_mut().zip(x) {
        // A NaN becomes 0 in the cast.
        *code = (v * inverse).round_ties_even().clamp(-128.0, 127.0) as i8;
    }
    scale
}
