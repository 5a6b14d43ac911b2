//! The specification.

use crate::grouped::format::Format;
use crate::grouped::{Activations, Weights, q4, q8, scalar};

pub(crate) fn q8(weights: Weights<'_>, x: Activations<'_>, norms: &[f32], out: &mut [f32]) {
    scores(&q8::FORMAT, weights, x, norms, out);
}

pub(crate) fn q4(weights: Weights<'_>, x: Activations<'_>, norms: &[f32], out: &mut [f32]) {
    scores(&q4::FORMAT, weights, x, norms, out);
}

fn scores(format: &Format, weights: Weights<'_>, x: Activations<'_>, norms: &[f32], out: &mut [f32]) {
    let (scores, reaches) = out.split_at_mut(weights.rows);
    for (r, (score, reach)) in scores.iter_mut().zip(reaches).enumerate() {
        (*score, *reach) = (0.0, 0.0);
        for (g, norm) in norms.iter().enumerate() {
            let (dot, scale) = scalar::dot(format, weights, r, g, x.codes);
            *score = (dot as f32).mul_add(scale * x.scales[g], *score);
            *reach = scale.abs().mul_add(*norm, *reach);
        }
    }
}
