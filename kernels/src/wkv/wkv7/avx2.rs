//! Vectors of eight values past all keys, twice; the tail one by one.

use super::scalar::value;
use super::{Inputs, Keys};
use crate::RowsMut;
use crate::lanes::x86::{load8, store8};
use std::arch::x86_64::*;

/// What VECS vectors of values from `at` on lose: the removal key, the state, the result.
#[inline(never)]
#[target_feature(enable = "avx2,fma")]
fn removals<const VECS: usize>(removal: &[f32], state: &[f32], at: usize, out: &mut [f32]) {
    let mut sums = [_mm256_setzero_ps(); VECS];
    let n = removal.len();
    for (j, row) in state[..n * n].chunks_exact(n).enumerate() {
        let (row, kk) = (&row[at..][..8 * VECS], _mm256_set1_ps(removal[j]));
        for b in 0..VECS {
            sums[b] = _mm256_fmadd_ps(load8(&row[8 * b..]), kk, sums[b]);
        }
    }
    for b in 0..VECS {
        store8(&mut out[at + 8 * b..], sums[b]);
    }
}

/// VECS vectors of values from `at` on: the new state, and the result in place of what they lose.
// Not inlined, or there are too few general registers for the seven pointers of its loop.
#[inline(never)]
#[target_feature(enable = "avx2,fma")]
fn values<const VECS: usize>(x: Keys<'_>, v: &[f32], state: &mut [f32], at: usize, out: &mut [f32]) {
    let n = v.len();
    let [r, w, k, kk, rate] = x.rows(n);
    let mut sums = [_mm256_setzero_ps(); VECS];
    let (mut lost, mut v8) = (sums, sums);
    for b in 0..VECS {
        (lost[b], v8[b]) = (load8(&out[at + 8 * b..]), load8(&v[at + 8 * b..]));
    }
    for (j, row) in state[..n * n].chunks_exact_mut(n).enumerate() {
        let row = &mut row[at..][..8 * VECS];
        let (r, w, k, kk) =
            (_mm256_set1_ps(r[j]), _mm256_set1_ps(w[j]), _mm256_set1_ps(k[j]), _mm256_set1_ps(kk[j] * rate[j]));
        for b in 0..VECS {
            let change = _mm256_fnmadd_ps(lost[b], kk, _mm256_mul_ps(v8[b], k));
            let s = _mm256_fmadd_ps(w, load8(&row[8 * b..]), change);
            store8(&mut row[8 * b..], s);
            sums[b] = _mm256_fmadd_ps(r, s, sums[b]);
        }
    }
    for b in 0..VECS {
        store8(&mut out[at + 8 * b..], sums[b]);
    }
}

#[target_feature(enable = "avx2,fma")]
pub(crate) fn wkv7(x: Inputs<'_>, state: &mut [f32], mut out: RowsMut<'_>) {
    let n = x.width;
    for t in 0..x.tokens {
        let (v, out) = (x.v.row(t, n), out.row(t, n));
        let keys = x.keys(t);
        let mut i = 0;
        while i + 64 <= n {
            removals::<8>(keys.removal, state, i, out);
            i += 64;
        }
        while i + 8 <= n {
            removals::<1>(keys.removal, state, i, out);
            i += 8;
        }
        let mut i = 0;
        while i + 32 <= n {
            values::<4>(keys, v, state, i, out);
            i += 32;
        }
        while i + 8 <= n {
            values::<1>(keys, v, state, i, out);
            i += 8;
        }
        for i in i..n {
            out[i] = value(&x, t, v[i], &mut state[i..]);
        }
    }
}
