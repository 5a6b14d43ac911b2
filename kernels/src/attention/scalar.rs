//! The specification.

use super::Heads;
use super::int8::RowScales;
use crate::{CacheElement, lanes, softmax};

pub(crate) fn attention<E: CacheElement>(heads: Heads<'_, E>, scores: &mut [f32], out: &mut [f32]) {
    let width = heads.width;
    let cached = heads.keys.len() / width;
    for (g, q) in heads.queries.chunks_exact(width).enumerate() {
        let scores = &mut scores[g * cached..][..cached];
        for (s, k) in scores.iter_mut().zip(heads.keys.chunks_exact(width)) {
            *s = lanes::dot(q.iter().copied(), k.iter().map(|k| k.widen())) * heads.scale;
        }
        softmax::scalar::softmax(scores);
        let out = &mut out[g * width..][..width];
        out.fill(0.0);
        for (p, v) in scores.iter().zip(heads.values.chunks_exact(width)) {
            for (out, v) in out.iter_mut().zip(v) {
                *out = p.mul_add(v.widen(), *out);
            }
        }
    }
}

pub(crate) fn int8(heads: Heads<'_, i8>, scales: RowScales<'_>, scores: &mut [f32], out: &mut [f32]) {
    let width = heads.width;
    let cached = heads.keys.len() / width;
    for (g, q) in heads.queries.chunks_exact(width).enumerate() {
        let scores = &mut scores[g * cached..][..cached];
        for ((s, k), scale) in scores.iter_mut().zip(heads.keys.chunks_exact(width)).zip(scales.keys) {
            *s = lanes::dot(q.iter().copied(), k.iter().map(|k| f32::from(*k))) * heads.scale * scale;
        }
        softmax::scalar::softmax(scores);
        for (p, scale) in scores.iter_mut().zip(scales.values) {
            *p *= scale;
        }
        let out = &mut out[g * width..][..width];
        out.fill(0.0);
        for (w, v) in scores.iter().zip(heads.values.chunks_exact(width)) {
            for (out, v) in out.iter_mut().zip(v) {
                *out = w.mul_add(f32::from(*v), *out);
            }
        }
    }
}
