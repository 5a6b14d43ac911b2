//! The specification.

use crate::lanes;

pub(crate) fn rms_norm(x: &[f32], gain: &[f32], eps: f32, out: &mut [f32]) {
    let squares = lanes::dot(x.iter().copied(), x.iter().copied());
    let scale = 1.0 / (squares / x.len() as f32 + eps).sqrt();
    for ((out, x), gain) in out.iter_mut().zip(x).zip(gain) {
        *out = (x * scale) * gain;
    }
}
