//! The specification.

use super::scale_for;
use crate::grouped::format::GROUP;

pub(crate) fn quantise(x: &[f32], codes: &mut [i8], scales: &mut [f32], sums: &mut [i32]) {
    codes.fill(0);
    scales.fill(0.0);
    sums.fill(0);
    for (((x, codes), scale), sum) in x.chunks(GROUP).zip(codes.chunks_mut(GROUP)).zip(scales).zip(sums) {
        let mut max = 0.0f32;
        for v in x {
            if v.abs() > max {
                max = v.abs();
            }
        }
        let inverse;
        (*scale, inverse) = scale_for(max);
        for (code, v) in codes.iter_mut().zip(x) {
            // A NaN becomes 0 in the cast.
            *code = (v * inverse).round_ties_even() as i8;
            *sum += i32::from(*code);
        }
    }
}
