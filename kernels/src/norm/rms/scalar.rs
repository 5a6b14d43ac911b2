//! The specification.

use crate::lanes;
use crate::norm::DOWN;

/// A power of two and the scale that x is multiplied by, one after the other, before the gain.
pub(crate) fn factors(x: &[f32], eps: f32) -> [f32; 2] {
    // Of x times `down`, which leaves the result as it is but for what it does to `eps`.
    let of = |down: f32| {
        let squares = lanes::dot(x.iter().map(|x| x * down), x.iter().map(|x| x * down));
        (squares, 1.0 / (squares / x.len() as f32 + eps * down * down).sqrt())
    };
    let (squares, scale) = of(1.0);
    if squares == f32::INFINITY { [DOWN, of(DOWN).1] } else { [1.0, scale] }
}

pub(crate) fn rms_norm(x: &[f32], gain: &[f32], eps: f32, out: &mut [f32]) {
    let [down, scale] = factors(x, eps);
    for ((out, x), gain) in out.iter_mut().zip(x).zip(gain) {
        *out = (x * down * scale) * gain;
    }
}

/// What the other variants do where the sum of squares overflows.
#[cold]
pub(crate) fn overflowing(x: &[f32], gain: &[f32], eps: f32, out: &mut [f32]) {
    rms_norm(x, gain, eps, out);
}
