//! The specification.

use super::{State, Token};
use crate::math::scalar::exp;

/// e^(a - max(a, b)), e^(b - max(a, b)) and whether a is the larger, from a - b. One of the two is 1.
#[inline]
fn weights(difference: f32) -> (f32, f32, bool) {
    let e = exp(-difference.abs());
    if difference >= 0.0 { (1.0, e, true) } else { (e, 1.0, false) }
}

/// One channel: k, v, decay and bonus; aa, bb and pp. The result.
#[inline]
pub(crate) fn step([k, v, decay, bonus]: [f32; 4], [aa, bb, pp]: [&mut f32; 3]) -> f32 {
    let (past, now, _) = weights(*pp - (bonus + k));
    let out = now.mul_add(v, past * *aa) / past.mul_add(*bb, now);
    let decayed = *pp + decay;
    let (past, now, larger) = weights(decayed - k);
    *aa = now.mul_add(v, past * *aa);
    *bb = past.mul_add(*bb, now);
    *pp = if larger { decayed } else { k };
    out
}

pub(crate) fn wkv4(token: Token<'_>, state: State<'_>, out: &mut [f32]) {
    let Token { k, v, decay, bonus } = token;
    for (i, out) in out.iter_mut().enumerate() {
        *out = step([k[i], v[i], decay[i], bonus[i]], [&mut state.aa[i], &mut state.bb[i], &mut state.pp[i]]);
    }
}
