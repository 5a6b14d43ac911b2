//! The specification.

use super::Convolution;
use crate::RowsMut;
use crate::activation::scalar::silu_one;

pub(crate) fn causal_conv(conv: &Convolution<'_>, state: &[f32], mut y: RowsMut<'_>) {
    for t in 0..conv.tokens {
        let y = y.row(t, conv.width);
        match conv.bias {
            Some(bias) => y.copy_from_slice(bias),
            None => y.fill(0.0),
        }
        for (j, weights) in conv.weights.chunks_exact(conv.width).enumerate() {
            for ((y, x), w) in y.iter_mut().zip(conv.input(state, t, j)).zip(weights) {
                *y = w.mul_add(*x, *y);
            }
        }
        if conv.silu {
            y.iter_mut().for_each(|y| *y = silu_one(*y));
        }
    }
}
