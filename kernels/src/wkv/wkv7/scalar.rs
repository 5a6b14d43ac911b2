//! The specification.

use super::Inputs;
use crate::RowsMut;

/// One value of one token; `state` begins at the value's number of key 0.
#[inline]
pub(crate) fn value(x: &Inputs<'_>, t: usize, v: f32, state: &mut [f32]) -> f32 {
    let n = x.width;
    let [r, w, k, kk, rate] = [x.r, x.decay, x.k, x.removal, x.rate].map(|rows| rows.row(t, n));
    let mut removal = 0.0f32;
    for j in 0..n {
        removal = state[j * n].mul_add(kk[j], removal);
    }
    let mut out = 0.0f32;
    for j in 0..n {
        let s = &mut state[j * n];
        *s = w[j].mul_add(*s, (-removal).mul_add(kk[j] * rate[j], v * k[j]));
        out = r[j].mul_add(*s, out);
    }
    out
}

pub(crate) fn wkv7(x: Inputs<'_>, state: &mut [f32], mut out: RowsMut<'_>) {
    let n = x.width;
    for t in 0..x.tokens {
        let (v, out) = (x.v.row(t, n), out.row(t, n));
        for i in 0..n {
            out[i] = value(&x, t, v[i], &mut state[i..]);
        }
    }
}
