//! The specification: one weight at a time.

use super::{Activations, COLUMNS, TILE_ROWS, Weights};

pub(crate) fn matmul(weights: Weights<'_>, x: Activations<'_>, out: &mut [f32]) {
    let tokens = x.scales.len();
    for r in 0..weights.rows {
        let tile = &weights.lines[r / TILE_ROWS * weights.groups..][..weights.groups];
        for t in 0..tokens {
            let codes = &x.codes[t * x.stride..][..x.stride];
            let mut sum = 0i32;
            for (g, line) in tile.iter().enumerate() {
                let (plus, minus) = (line.0[r % TILE_ROWS * 2], line.0[r % TILE_ROWS * 2 + 1]);
                for c in 0..COLUMNS {
                    let weight = i32::from(plus >> c & 1) - i32::from(minus >> c & 1);
                    sum += weight * i32::from(codes[g * COLUMNS + c]);
                }
            }
            out[r * tokens + t] = sum as f32 * x.scales[t];
        }
    }
}
