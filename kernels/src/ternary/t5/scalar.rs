//! The specification: one byte at a time.

use super::{Activations, COLUMNS, LINES, TILE_ROWS, Weights, trits};

pub(crate) fn matmul(weights: Weights<'_>, x: Activations<'_>, out: &mut [f32]) {
    let tokens = x.scales.len();
    for r in 0..weights.rows {
        let (_, groups) = weights.t5_tile(r / TILE_ROWS);
        for t in 0..tokens {
            // Columns beyond the stride hold weight 0.
            let code = |c: usize| if c < x.stride { i32::from(x.codes[t * x.stride + c]) } else { 0 };
            let mut sum = 0i32;
            for (l, line) in groups.as_flattened().iter().enumerate() {
                for (i, trit) in trits(line.0[r % TILE_ROWS]).into_iter().enumerate() {
                    sum += i32::from(trit) * code(l / LINES * COLUMNS + LINES * i + l % LINES);
                }
            }
            out[r * tokens + t] = sum as f32 * x.scales[t];
        }
    }
}
