//! The specification: four weights at a time, rounded as the tables are, without tables.

use super::{Activations, COLUMNS, TILE_ROWS, Weights, multiplier, step};

pub(crate) fn matmul(weights: Weights<'_>, x: Activations<'_>, out: &mut [f32]) {
    let tokens = x.scales.len();
    for t in 0..tokens {
        let codes = &x.codes[t * x.stride..][..x.stride];
        let largest = codes.chunks_exact(4).map(|codes| codes.iter().map(|q| i32::from(*q).abs()).sum()).max();
        let multiplier = multiplier(largest.unwrap_or(0));
        for r in 0..weights.rows {
            let tile = &weights.lines[r / TILE_ROWS * weights.groups..][..weights.groups];
            let mut sum = 0i32;
            for (line, codes) in tile.iter().zip(codes.chunks_exact(COLUMNS)) {
                let (plus, minus) = (line.0[r % TILE_ROWS * 2], line.0[r % TILE_ROWS * 2 + 1]);
                sum += entry(&codes[..4], plus & 15, multiplier) - entry(&codes[..4], minus & 15, multiplier);
                sum += entry(&codes[4..], plus >> 4, multiplier) - entry(&codes[4..], minus >> 4, multiplier);
            }
            out[r * tokens + t] = sum as f32 * step(multiplier) * x.scales[t];
        }
    }
}

/// The sum of a subset of four codes, less the least one, in steps.
fn entry(codes: &[i8], subset: u8, multiplier: i32) -> i32 {
    let mut sum = 0;
    for (i, code) in codes.iter().enumerate() {
        let code = i32::from(*code);
        sum += code * i32::from(subset >> i & 1) - code.min(0);
    }
    (sum * multiplier + 512) >> 10
}
