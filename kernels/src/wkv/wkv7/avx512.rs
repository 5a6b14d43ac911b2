//! Vectors of sixteen values past all keys, twice; the tail masked.

use super::Inputs;
use crate::lanes::LANES;
use crate::lanes::x86::{load_tail, load16, store_tail, store16};
use crate::wkv::RowsMut;
use std::arch::x86_64::*;

/// What one token brings to all keys of a head.
#[derive(Clone, Copy)]
struct Keys<'a> {
    r: &'a [f32],
    decay: &'a [f32],
    k: &'a [f32],
    removal: &'a [f32],
    rate: &'a [f32],
}

/// Four numbers of a key in all lanes: r, w, k, kk rate.
type Key = [__m512; 4];

/// The keys one after the other, each with its row of the state.
macro_rules! keys {
    ($x:expr, $state:expr) => {
        $state
            .chunks_mut($x.r.len())
            .zip($x.r.iter().zip($x.decay).zip($x.k).zip($x.removal.iter().zip($x.rate)))
            .map(|(row, (((r, w), k), (kk, rate)))| (row, [*r, *w, *k, kk * rate].map(|x| _mm512_set1_ps(x))))
    };
}

/// The new numbers of the state, where values v lose what is `lost`.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
fn step([_, w, k, kk]: Key, v: __m512, lost: __m512, s: __m512) -> __m512 {
    _mm512_fmadd_ps(w, s, _mm512_fnmadd_ps(lost, kk, _mm512_mul_ps(v, k)))
}

/// VECS vectors of values: rows of the state from the first of them on, the result.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
fn values<const VECS: usize>(x: Keys<'_>, v: &[f32], state: &mut [f32], out: &mut [f32]) {
    let mut lost = [_mm512_setzero_ps(); VECS];
    for (row, kk) in state.chunks(x.removal.len()).zip(x.removal) {
        let (row, kk) = (&row[..LANES * VECS], _mm512_set1_ps(*kk));
        for b in 0..VECS {
            lost[b] = _mm512_fmadd_ps(load16(&row[LANES * b..]), kk, lost[b]);
        }
    }
    let mut sums = [_mm512_setzero_ps(); VECS];
    let mut v16 = sums;
    for (b, v16) in v16.iter_mut().enumerate() {
        *v16 = load16(&v[LANES * b..]);
    }
    for (row, key) in keys!(x, state) {
        let row = &mut row[..LANES * VECS];
        for b in 0..VECS {
            let s = step(key, v16[b], lost[b], load16(&row[LANES * b..]));
            store16(&mut row[LANES * b..], s);
            sums[b] = _mm512_fmadd_ps(key[0], s, sums[b]);
        }
    }
    for b in 0..VECS {
        store16(&mut out[LANES * b..], sums[b]);
    }
}

/// The last fewer than sixteen values.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
fn last(x: Keys<'_>, v: &[f32], state: &mut [f32], out: &mut [f32]) {
    let (len, mut lost) = (v.len(), _mm512_setzero_ps());
    for (row, kk) in state.chunks(x.removal.len()).zip(x.removal) {
        lost = _mm512_fmadd_ps(load_tail(&row[..len]), _mm512_set1_ps(*kk), lost);
    }
    let (mut sum, v) = (_mm512_setzero_ps(), load_tail(v));
    for (row, key) in keys!(x, state) {
        let s = step(key, v, lost, load_tail(&row[..len]));
        store_tail(&mut row[..len], s);
        sum = _mm512_fmadd_ps(key[0], s, sum);
    }
    store_tail(out, sum);
}

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
pub(crate) fn wkv7(x: Inputs<'_>, state: &mut [f32], mut out: RowsMut<'_>) {
    let n = x.width;
    for t in 0..x.tokens {
        let (v, out) = (x.v.row(t, n), out.row(t, n));
        let [r, decay, k, removal, rate] = [x.r, x.decay, x.k, x.removal, x.rate].map(|rows| rows.row(t, n));
        let keys = Keys { r, decay, k, removal, rate };
        let mut i = 0;
        while i + 4 * LANES <= n {
            values::<4>(keys, &v[i..], &mut state[i..], &mut out[i..]);
            i += 4 * LANES;
        }
        while i + LANES <= n {
            values::<1>(keys, &v[i..], &mut state[i..], &mut out[i..]);
            i += LANES;
        }
        if i < n {
            last(keys, &v[i..], &mut state[i..], &mut out[i..]);
        }
    }
}
