//! Four vectors of sixteen values at a time past all keys, then one; the tail masked.

use super::Inputs;
use crate::RowsMut;
use crate::lanes::LANES;
use crate::lanes::x86::{fold_avx512, load_tail, load16, store_tail, store16, tail_mask};
use std::arch::x86_64::*;

/// The sum over keys of r u k.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
fn bonus(r: &[f32], u: &[f32], k: &[f32]) -> f32 {
    let whole = r.len() / LANES * LANES;
    let mut lanes = _mm512_setzero_ps();
    for i in (0..whole).step_by(LANES) {
        lanes = _mm512_fmadd_ps(_mm512_mul_ps(load16(&r[i..]), load16(&u[i..])), load16(&k[i..]), lanes);
    }
    let product = _mm512_mul_ps(load_tail(&r[whole..]), load_tail(&u[whole..]));
    let mask = tail_mask(r.len() - whole);
    fold_avx512(_mm512_mask3_fmadd_ps(product, load_tail(&k[whole..]), lanes, mask))
}

/// VECS vectors of values: r, k and w of all keys, the values, rows of the state from the first of them on, the result.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
fn values<const VECS: usize>([r, k, w]: [&[f32]; 3], bonus: f32, v: &[f32], state: &mut [f32], out: &mut [f32]) {
    let mut sums = [_mm512_setzero_ps(); VECS];
    let mut v16 = sums;
    for (b, v16) in v16.iter_mut().enumerate() {
        *v16 = load16(&v[LANES * b..]);
    }
    for (row, ((r, k), w)) in state.chunks_mut(r.len()).zip(r.iter().zip(k).zip(w)) {
        let row = &mut row[..LANES * VECS];
        let (r, k, w) = (_mm512_set1_ps(*r), _mm512_set1_ps(*k), _mm512_set1_ps(*w));
        for b in 0..VECS {
            let s = load16(&row[LANES * b..]);
            sums[b] = _mm512_fmadd_ps(r, s, sums[b]);
            store16(&mut row[LANES * b..], _mm512_fmadd_ps(w, s, _mm512_mul_ps(k, v16[b])));
        }
    }
    for b in 0..VECS {
        store16(&mut out[LANES * b..], _mm512_fmadd_ps(_mm512_set1_ps(bonus), v16[b], sums[b]));
    }
}

/// The last fewer than sixteen values.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
fn last([r, k, w]: [&[f32]; 3], bonus: f32, v: &[f32], state: &mut [f32], out: &mut [f32]) {
    let (mut sum, values) = (_mm512_setzero_ps(), load_tail(v));
    for (row, ((r, k), w)) in state.chunks_mut(r.len()).zip(r.iter().zip(k).zip(w)) {
        let row = &mut row[..v.len()];
        let s = load_tail(row);
        sum = _mm512_fmadd_ps(_mm512_set1_ps(*r), s, sum);
        let met = _mm512_mul_ps(_mm512_set1_ps(*k), values);
        store_tail(row, _mm512_fmadd_ps(_mm512_set1_ps(*w), s, met));
    }
    store_tail(out, _mm512_fmadd_ps(_mm512_set1_ps(bonus), values, sum));
}

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
pub(crate) fn wkv6(x: Inputs<'_>, state: &mut [f32], mut out: RowsMut<'_>) {
    let n = x.width;
    for t in 0..x.tokens {
        let (v, out) = (x.v.row(t, n), out.row(t, n));
        let keys = [x.r.row(t, n), x.k.row(t, n), x.decay.row(t, n)];
        let bonus = bonus(keys[0], x.bonus, keys[1]);
        let mut j = 0;
        while j + 4 * LANES <= n {
            values::<4>(keys, bonus, &v[j..], &mut state[j..], &mut out[j..]);
            j += 4 * LANES;
        }
        while j + LANES <= n {
            values::<1>(keys, bonus, &v[j..], &mut state[j..], &mut out[j..]);
            j += LANES;
        }
        if j < n {
            last(keys, bonus, &v[j..], &mut state[j..], &mut out[j..]);
        }
    }
}
