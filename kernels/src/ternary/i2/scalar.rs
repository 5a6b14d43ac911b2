//! The specification: one weight at a time.

use super::{Activations, TILE_ROWS, Weights};

pub(crate) fn matmul(weights: Weights<'_>, x: Activations<'_>, out: &mut [f32]) {
    let tokens = x.scales.len();
    for r in 0..weights.rows {
        let tile = &weights.lines[r / TILE_ROWS * weights.groups..][..weights.groups];
        for t in 0..tokens {
            let codes = &x.codes[t * x.stride..][..x.stride];
            let mut sum = 0i32;
            for (g, line) in tile.iter().enumerate() {
                for c in 0..16 {
                    let code = line.0[r % TILE_ROWS * 4 + c % 4] >> (c / 4 * 2) & 3;
                    sum += (i32::from(code) - 1) * i32::from(codes[g * 16 + c]);
                }
            }
            out[r * tokens + t] = sum as f32 * x.scales[t];
        }
    }
}
