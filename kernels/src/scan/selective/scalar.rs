//! The specification.

use super::{Selective, place};
use crate::RowsMut;
use crate::activation::scalar::silu_one;
use crate::math::scalar::exp2;

pub(crate) fn selective_scan(scan: &Selective<'_>, state: &mut [f32], mut y: RowsMut<'_>) {
    let (width, states) = (scan.skip.len(), scan.states);
    for t in 0..scan.tokens {
        let (dt, x) = (scan.dt.row(t, width), scan.x.row(t, width));
        let (b, c) = (scan.b.row(t, states), scan.c.row(t, states));
        let y = y.row(t, width);
        for w in 0..width {
            let input = dt[w] * x[w];
            let mut sum = 0.0f32;
            for n in 0..states {
                let i = place(w, n, states);
                state[i] = exp2(dt[w] * scan.decays[i]).mul_add(state[i], input * b[n]);
                sum = state[i].mul_add(c[n], sum);
            }
            y[w] = scan.skip[w].mul_add(x[w], sum);
            if let Some(gate) = scan.gate {
                y[w] *= silu_one(gate.row(t, width)[w]);
            }
        }
    }
}
