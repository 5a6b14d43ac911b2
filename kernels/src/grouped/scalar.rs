//! The specification of every layout: one weight at a time.

use super::format::{Format, GROUP};
use super::{Activations, Weights, q4, q8};

pub(crate) fn q8(weights: Weights<'_>, x: Activations<'_>, out: &mut [f32]) {
    matmul(&q8::FORMAT, weights, x, out);
}

pub(crate) fn q4(weights: Weights<'_>, x: Activations<'_>, out: &mut [f32]) {
    matmul(&q4::FORMAT, weights, x, out);
}

fn matmul(format: &Format, weights: Weights<'_>, x: Activations<'_>, out: &mut [f32]) {
    let (tokens, groups) = (x.tokens(), x.groups());
    for r in 0..weights.rows {
        for t in 0..tokens {
            let codes = &x.codes[t * x.stride..][..x.stride];
            let mut sum = 0.0f32;
            for g in 0..groups {
                let (dot, scale) = dot(format, weights, r, g, codes);
                sum = (dot as f32).mul_add(scale * x.scales[t * groups + g], sum);
            }
            out[r * tokens + t] = sum;
        }
    }
}

/// The inner product of group g of row r and of a token, and the row's scale there.
pub(crate) fn dot(format: &Format, weights: Weights<'_>, r: usize, g: usize, codes: &[i8]) -> (i32, f32) {
    let mut sum = 0;
    for (c, q) in (g * GROUP..).zip(&codes[g * GROUP..][..GROUP]) {
        sum += i32::from(weights.element(format, r, c).0) * i32::from(*q);
    }
    (sum, weights.element(format, r, g * GROUP).1.to_f32())
}
