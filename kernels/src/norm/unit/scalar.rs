//! The specification.

use super::LEAST;
use crate::lanes;
use crate::norm::DOWN;

/// What a row is multiplied by.
pub(crate) fn scale(squares: f32) -> f32 {
    let length = squares.sqrt();
    // Not f32::max, which would turn NaN into the bound.
    1.0 / if length < LEAST { LEAST } else { length }
}

/// What is done where the sum of squares overflows.
#[cold]
pub(crate) fn overflowing(x: &mut [f32]) {
    x.iter_mut().for_each(|x| *x *= DOWN);
    let scale = scale(lanes::dot(x.iter().copied(), x.iter().copied()));
    x.iter_mut().for_each(|x| *x *= scale);
}

pub(crate) fn unit_norm(x: &mut [f32]) {
    let squares = lanes::dot(x.iter().copied(), x.iter().copied());
    if squares == f32::INFINITY {
        return overflowing(x);
    }
    let scale = scale(squares);
    x.iter_mut().for_each(|x| *x *= scale);
}
