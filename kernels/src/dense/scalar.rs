//! The specification.

use crate::{Element, lanes};

pub(crate) fn matmul<E: Element>(weights: &[E], x: &[f32], cols: usize, out: &mut [f32]) {
    let tokens = x.len() / cols;
    for (w, out) in weights.chunks_exact(cols).zip(out.chunks_exact_mut(tokens)) {
        for (x, out) in x.chunks_exact(cols).zip(out) {
            *out = lanes::dot(w.iter().map(|w| w.widen()), x.iter().copied());
        }
    }
}
