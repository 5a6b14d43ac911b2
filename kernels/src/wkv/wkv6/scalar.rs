//! The specification.

use super::Inputs;
use crate::RowsMut;
use crate::lanes;

pub(crate) fn wkv6(x: Inputs<'_>, state: &mut [f32], mut out: RowsMut<'_>) {
    let n = x.width;
    for t in 0..x.tokens {
        let [r, k, v, w] = [x.r, x.k, x.v, x.decay].map(|rows| rows.row(t, n));
        let out = out.row(t, n);
        out.fill(0.0);
        for (i, row) in state.chunks_exact_mut(n).enumerate() {
            for j in 0..n {
                out[j] = r[i].mul_add(row[j], out[j]);
                row[j] = w[i].mul_add(row[j], k[i] * v[j]);
            }
        }
        let bonus = lanes::dot(r.iter().zip(x.bonus).map(|(r, u)| r * u), k.iter().copied());
        for (out, v) in out.iter_mut().zip(v) {
            *out = bonus.mul_add(*v, *out);
        }
    }
}

/// One value j of one token, for the tails of other variants: keys in ascending order, rows of the state from j on.
#[inline]
#[cfg(target_arch = "x86_64")]
pub(crate) fn value([r, k, w]: [&[f32]; 3], bonus: f32, v: f32, state: &mut [f32]) -> f32 {
    let mut out = 0.0f32;
    for (row, ((r, k), w)) in state.chunks_mut(r.len()).zip(r.iter().zip(k).zip(w)) {
        out = r.mul_add(row[0], out);
        row[0] = w.mul_add(row[0], k * v);
    }
    bonus.mul_add(v, out)
}
