//! The specification.

use crate::lanes::{LANES, fold};
use crate::math::scalar::exp;

pub(crate) fn softmax(x: &mut [f32]) {
    let mut max = f32::NEG_INFINITY;
    for v in x.iter() {
        if *v > max {
            max = *v;
        }
    }
    let mut lanes = [0.0f32; LANES];
    for (i, v) in x.iter_mut().enumerate() {
        *v = exp(*v - max);
        lanes[i % LANES] += *v;
    }
    let scale = 1.0 / fold(lanes);
    for v in x {
        *v *= scale;
    }
}
