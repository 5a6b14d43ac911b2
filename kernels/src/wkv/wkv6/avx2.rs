//! Four vectors of eight values at a time past all keys, then one; the tail one by one.

use super::Inputs;
use super::scalar::value;
use crate::RowsMut;
use crate::lanes::x86::{array, load8, store8};
use crate::lanes::{LANES, fold};
use std::arch::x86_64::*;

/// The sum over keys of r u k.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn bonus(r: &[f32], u: &[f32], k: &[f32]) -> f32 {
    let whole = r.len() / LANES * LANES;
    let (mut low, mut high) = (_mm256_setzero_ps(), _mm256_setzero_ps());
    for i in (0..whole).step_by(LANES) {
        let product = |i: usize| _mm256_mul_ps(load8(&r[i..]), load8(&u[i..]));
        low = _mm256_fmadd_ps(product(i), load8(&k[i..]), low);
        high = _mm256_fmadd_ps(product(i + 8), load8(&k[i + 8..]), high);
    }
    let mut lanes = array(low, high);
    for (lane, i) in lanes.iter_mut().zip(whole..r.len()) {
        *lane = (r[i] * u[i]).mul_add(k[i], *lane);
    }
    fold(lanes)
}

/// VECS vectors of values: r, k and w of all keys, the values, rows of the state from the first of them on, the result.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn values<const VECS: usize>([r, k, w]: [&[f32]; 3], bonus: f32, v: &[f32], state: &mut [f32], out: &mut [f32]) {
    let mut sums = [_mm256_setzero_ps(); VECS];
    let mut v8 = sums;
    for (b, v8) in v8.iter_mut().enumerate() {
        *v8 = load8(&v[8 * b..]);
    }
    for (row, ((r, k), w)) in state.chunks_mut(r.len()).zip(r.iter().zip(k).zip(w)) {
        let row = &mut row[..8 * VECS];
        let (r, k, w) = (_mm256_set1_ps(*r), _mm256_set1_ps(*k), _mm256_set1_ps(*w));
        for b in 0..VECS {
            let s = load8(&row[8 * b..]);
            sums[b] = _mm256_fmadd_ps(r, s, sums[b]);
            store8(&mut row[8 * b..], _mm256_fmadd_ps(w, s, _mm256_mul_ps(k, v8[b])));
        }
    }
    for b in 0..VECS {
        store8(&mut out[8 * b..], _mm256_fmadd_ps(_mm256_set1_ps(bonus), v8[b], sums[b]));
    }
}

#[target_feature(enable = "avx2,fma")]
pub(crate) fn wkv6(x: Inputs<'_>, state: &mut [f32], mut out: RowsMut<'_>) {
    let n = x.width;
    for t in 0..x.tokens {
        let (v, out) = (x.v.row(t, n), out.row(t, n));
        let keys = [x.r.row(t, n), x.k.row(t, n), x.decay.row(t, n)];
        let bonus = bonus(keys[0], x.bonus, keys[1]);
        let mut j = 0;
        while j + 32 <= n {
            values::<4>(keys, bonus, &v[j..], &mut state[j..], &mut out[j..]);
            j += 32;
        }
        while j + 8 <= n {
            values::<1>(keys, bonus, &v[j..], &mut state[j..], &mut out[j..]);
            j += 8;
        }
        for j in j..n {
            out[j] = value(keys, bonus, v[j], &mut state[j..]);
        }
    }
}
