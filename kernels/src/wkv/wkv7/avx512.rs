//! Vectors of sixteen values past all keys, twice; the tail masked.

use super::{Inputs, Keys};
use crate::RowsMut;
use crate::lanes::LANES;
use crate::lanes::x86::{load_tail, load16, store_tail, store16};
use std::arch::x86_64::*;

/// The new numbers of the state: w, k and kk rate of a key, values and what they lose.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
fn step([w, k, kk]: [f32; 3], v: __m512, lost: __m512, s: __m512) -> __m512 {
    let change = _mm512_fnmadd_ps(lost, _mm512_set1_ps(kk), _mm512_mul_ps(v, _mm512_set1_ps(k)));
    _mm512_fmadd_ps(_mm512_set1_ps(w), s, change)
}

/// VECS vectors of values from `at` on: the new state and the result.
// Not inlined, or there are too few general registers for the seven pointers of its loop.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
fn values<const VECS: usize>(x: Keys<'_>, v: &[f32], state: &mut [f32], at: usize, out: &mut [f32]) {
    let n = v.len();
    let [r, w, k, kk, rate] = x.rows(n);
    let state = &mut state[..n * n];
    let mut lost = [_mm512_setzero_ps(); VECS];
    for (j, row) in state.chunks_exact(n).enumerate() {
        let (row, kk) = (&row[at..][..LANES * VECS], _mm512_set1_ps(kk[j]));
        for b in 0..VECS {
            lost[b] = _mm512_fmadd_ps(load16(&row[LANES * b..]), kk, lost[b]);
        }
    }
    let mut sums = [_mm512_setzero_ps(); VECS];
    let mut v16 = sums;
    for (b, v16) in v16.iter_mut().enumerate() {
        *v16 = load16(&v[at + LANES * b..]);
    }
    for (j, row) in state.chunks_exact_mut(n).enumerate() {
        let row = &mut row[at..][..LANES * VECS];
        let key = [w[j], k[j], kk[j] * rate[j]];
        for b in 0..VECS {
            let s = step(key, v16[b], lost[b], load16(&row[LANES * b..]));
            store16(&mut row[LANES * b..], s);
            sums[b] = _mm512_fmadd_ps(_mm512_set1_ps(r[j]), s, sums[b]);
        }
    }
    for b in 0..VECS {
        store16(&mut out[at + LANES * b..], sums[b]);
    }
}

/// The last fewer than sixteen values.
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
fn last(x: Keys<'_>, v: &[f32], state: &mut [f32], at: usize, out: &mut [f32]) {
    let n = v.len();
    let [r, w, k, kk, rate] = x.rows(n);
    let mut lost = _mm512_setzero_ps();
    for (row, kk) in state.chunks_exact(n).zip(kk) {
        lost = _mm512_fmadd_ps(load_tail(&row[at..]), _mm512_set1_ps(*kk), lost);
    }
    let (mut sum, v) = (_mm512_setzero_ps(), load_tail(&v[at..]));
    for (j, row) in state.chunks_exact_mut(n).enumerate() {
        let s = step([w[j], k[j], kk[j] * rate[j]], v, lost, load_tail(&row[at..]));
        store_tail(&mut row[at..], s);
        sum = _mm512_fmadd_ps(_mm512_set1_ps(r[j]), s, sum);
    }
    store_tail(&mut out[at..], sum);
}

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
pub(crate) fn wkv7(x: Inputs<'_>, state: &mut [f32], mut out: RowsMut<'_>) {
    let n = x.width;
    for t in 0..x.tokens {
        let (v, out) = (x.v.row(t, n), out.row(t, n));
        let keys = x.keys(t);
        let mut i = 0;
        while i + 4 * LANES <= n {
            values::<4>(keys, v, state, i, out);
            i += 4 * LANES;
        }
        while i + LANES <= n {
            values::<1>(keys, v, state, i, out);
            i += LANES;
        }
        if i < n {
            last(keys, v, state, i, out);
        }
    }
}
