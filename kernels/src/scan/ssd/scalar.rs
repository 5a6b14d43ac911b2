//! The specification.

use super::Ssd;
use crate::RowsMut;
use crate::math::scalar::exp;

pub(crate) fn ssd_scan(scan: &Ssd<'_>, state: &mut [f32], mut y: RowsMut<'_>) {
    let (states, width) = (scan.states, scan.width);
    for (head, state) in state.chunks_exact_mut(states * width).enumerate() {
        for t in 0..scan.tokens {
            let dt = scan.dt.row(t, scan.a.len())[head];
            let decay = exp(dt * scan.a[head]);
            let x = scan.head(t, head);
            let (b, c) = (scan.b.row(t, states), scan.c.row(t, states));
            let y = &mut y.row(t, scan.a.len() * width)[head * width..][..width];
            y.fill(0.0);
            for (n, state) in state.chunks_exact_mut(width).enumerate() {
                for ((state, y), x) in state.iter_mut().zip(&mut *y).zip(x) {
                    *state = decay.mul_add(*state, (dt * x) * b[n]);
                    *y = state.mul_add(c[n], *y);
                }
            }
            for (y, x) in y.iter_mut().zip(x) {
                *y = scan.skip[head].mul_add(*x, *y);
            }
        }
    }
}
