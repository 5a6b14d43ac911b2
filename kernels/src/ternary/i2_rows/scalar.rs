//! The specification: one weight at a time.

use super::{Activations, COLUMNS, PLANE, Weights};

pub(crate) fn matmul(weights: Weights<'_>, x: Activations<'_>, out: &mut [f32]) {
    let tokens = x.scales.len();
    for r in 0..weights.rows {
        let row = &weights.lines[r * weights.groups..][..weights.groups];
        for t in 0..tokens {
            let codes = &x.codes[t * x.stride..][..x.stride];
            let mut sum = 0i32;
            for (c, q) in codes.iter().enumerate() {
                let code = row[c / COLUMNS].0[c % PLANE] >> (c % COLUMNS / PLANE * 2) & 3;
                sum += (i32::from(code) - 1) * i32::from(*q);
            }
            out[r * tokens + t] = sum as f32 * x.scales[t];
        }
    }
}
