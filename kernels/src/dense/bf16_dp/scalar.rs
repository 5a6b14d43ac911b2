//! The specification: `vdpbf16ps` as the manual states it.

use crate::lanes::{LANES, fold};
use half::bf16;

pub(crate) fn matmul(weights: &[bf16], x: &[bf16], cols: usize, out: &mut [f32]) {
    let tokens = x.len() / cols;
    for (w, out) in weights.chunks_exact(cols).zip(out.chunks_exact_mut(tokens)) {
        for (x, out) in x.chunks_exact(cols).zip(out) {
            let mut lanes = [0.0; LANES];
            for c in (0..cols).step_by(2 * LANES) {
                for (i, lane) in lanes.iter_mut().enumerate() {
                    // The odd one of a pair first; beyond the last column are zeros.
                    for at in [c + 2 * i + 1, c + 2 * i] {
                        let number = |row: &[bf16]| row.get(at).map_or(0.0, |number| flushed(number.to_f32()));
                        *lane = flushed(number(w).mul_add(number(x), *lane));
                    }
                }
            }
            *out = fold(lanes);
        }
    }
}

/// Zero of the same sign for a subnormal number.
fn flushed(number: f32) -> f32 {
    if number.is_subnormal() { 0.0f32.copysign(number) } else { number }
}
