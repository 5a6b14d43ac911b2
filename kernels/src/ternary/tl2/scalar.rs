//! The specification: three weights at a time.

use super::{Activations, COLUMNS, LINES, TILE_ROWS, Weights, triplet};

pub(crate) fn matmul(weights: Weights<'_>, x: Activations<'_>, out: &mut [f32]) {
    let tokens = x.scales.len();
    for r in 0..weights.rows {
        let length = weights.groups * LINES;
        let tile = &weights.lines[r / TILE_ROWS * length..][..length];
        for t in 0..tokens {
            let codes = &x.codes[t * x.stride..][..x.stride];
            let mut sum = 0i32;
            for (lines, codes) in tile.chunks_exact(LINES).zip(codes.chunks(COLUMNS)) {
                for (j, codes) in codes.chunks(3).enumerate() {
                    for (weight, code) in triplet(lines, r % TILE_ROWS, j).into_iter().zip(codes) {
                        sum += i32::from(weight) * i32::from(*code);
                    }
                }
            }
            out[r * tokens + t] = sum as f32 * x.scales[t];
        }
    }
}
