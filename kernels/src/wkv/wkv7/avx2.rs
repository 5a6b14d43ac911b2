//! Vectors of eight values past all keys, twice; the tail one by one.

use super::Inputs;
use super::scalar::value;
use crate::lanes::x86::{load8, store8};
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

/// What VECS vectors of values lose: rows of the state from the first of them on, the result.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn removals<const VECS: usize>(x: Keys<'_>, state: &[f32], out: &mut [f32]) {
    let mut sums = [_mm256_setzero_ps(); VECS];
    for (row, kk) in state.chunks(x.removal.len()).zip(x.removal) {
        let (row, kk) = (&row[..8 * VECS], _mm256_set1_ps(*kk));
        for b in 0..VECS {
            sums[b] = _mm256_fmadd_ps(load8(&row[8 * b..]), kk, sums[b]);
        }
    }
    for b in 0..VECS {
        store8(&mut out[8 * b..], sums[b]);
    }
}

/// VECS vectors of values: the new state, and the result in place of what they lose.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn values<const VECS: usize>(x: Keys<'_>, v: &[f32], state: &mut [f32], out: &mut [f32]) {
    let mut sums = [_mm256_setzero_ps(); VECS];
    let (mut lost, mut v8) = (sums, sums);
    for b in 0..VECS {
        (lost[b], v8[b]) = (load8(&out[8 * b..]), load8(&v[8 * b..]));
    }
    let keys = x.r.iter().zip(x.decay).zip(x.k).zip(x.removal.iter().zip(x.rate));
    for (row, (((r, w), k), (kk, rate))) in state.chunks_mut(x.r.len()).zip(keys) {
        let row = &mut row[..8 * VECS];
        let (r, w, k, kk) = (_mm256_set1_ps(*r), _mm256_set1_ps(*w), _mm256_set1_ps(*k), _mm256_set1_ps(kk * rate));
        for b in 0..VECS {
            let change = _mm256_fnmadd_ps(lost[b], kk, _mm256_mul_ps(v8[b], k));
            let s = _mm256_fmadd_ps(w, load8(&row[8 * b..]), change);
            store8(&mut row[8 * b..], s);
            sums[b] = _mm256_fmadd_ps(r, s, sums[b]);
        }
    }
    for b in 0..VECS {
        store8(&mut out[8 * b..], sums[b]);
    }
}

#[target_feature(enable = "avx2,fma")]
pub(crate) fn wkv7(x: Inputs<'_>, state: &mut [f32], mut out: RowsMut<'_>) {
    let n = x.width;
    for t in 0..x.tokens {
        let (v, out) = (x.v.row(t, n), out.row(t, n));
        let [r, decay, k, removal, rate] = [x.r, x.decay, x.k, x.removal, x.rate].map(|rows| rows.row(t, n));
        let keys = Keys { r, decay, k, removal, rate };
        let mut i = 0;
        while i + 64 <= n {
            removals::<8>(keys, &state[i..], &mut out[i..]);
            i += 64;
        }
        while i + 8 <= n {
            removals::<1>(keys, &state[i..], &mut out[i..]);
            i += 8;
        }
        let mut i = 0;
        while i + 32 <= n {
            values::<4>(keys, &v[i..], &mut state[i..], &mut out[i..]);
            i += 32;
        }
        while i + 8 <= n {
            values::<1>(keys, &v[i..], &mut state[i..], &mut out[i..]);
            i += 8;
        }
        for i in i..n {
            out[i] = value(&x, t, v[i], &mut state[i..]);
        }
    }
}
