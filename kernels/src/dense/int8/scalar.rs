//! The specification: one weight at a time.

use super::{Activations, Weights, row};

/// Compiled with the features of whoever calls it: [`crate::comparator::naive`] calls it from every level.
#[inline(always)]
pub(crate) fn matmul(weights: Weights<'_>, x: Activations<'_>, out: &mut [f32]) {
    let tokens = x.scales.len();
    for r in 0..weights.rows {
        for t in 0..tokens {
            let codes = &x.codes[t * x.stride..][..x.stride];
            let products = row(weights, r).iter().zip(codes).map(|(w, q)| i32::from(*w) * i32::from(*q));
            out[r * tokens + t] = products.sum::<i32>() as f32 * x.scales[t];
        }
    }
}
