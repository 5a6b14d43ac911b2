//! Four registers of eight channels, then one, then what is left of one.

use super::Ssd;
use crate::RowsMut;
use crate::lanes::x86::tail_mask8;
use crate::math::scalar::exp;
use std::arch::x86_64::*;

const WIDTH: usize = 8;
/// Registers of a block: as many for dt u and for the sum of y.
const BLOCK: usize = 4;

#[target_feature(enable = "avx2,fma")]
pub(crate) fn ssd_scan(scan: &Ssd<'_>, state: &mut [f32], mut y: RowsMut<'_>) {
    for (head, state) in state.chunks_exact_mut(scan.states * scan.width).enumerate() {
        let mut p = 0;
        while p < scan.width {
            let left = scan.width - p;
            if left >= BLOCK * WIDTH {
                columns::<BLOCK>(scan, head, p, BLOCK * WIDTH, state, &mut y);
                p += BLOCK * WIDTH;
            } else {
                columns::<1>(scan, head, p, left.min(WIDTH), state, &mut y);
                p += WIDTH;
            }
        }
    }
}

/// All tokens of channels `p .. p + len` of a head: whole registers, or part of one.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn columns<const N: usize>(scan: &Ssd<'_>, head: usize, p: usize, len: usize, state: &mut [f32], y: &mut RowsMut<'_>) {
    let (states, width, heads) = (scan.states, scan.width, scan.a.len());
    let (whole, lanes) = (len == N * WIDTH, tail_mask8(len));
    // SAFETY: as the callers below promise, `len` floats can be read there; lanes outside the mask are not.
    let load =
        |from: *const f32| unsafe { if whole { _mm256_loadu_ps(from) } else { _mm256_maskload_ps(from, lanes) } };
    let store = |to: *mut f32, value: __m256| {
        // SAFETY: as the callers below promise, `len` floats can be written there; lanes outside the mask are not.
        unsafe { if whole { _mm256_storeu_ps(to, value) } else { _mm256_maskstore_ps(to, lanes, value) } }
    };
    // All rows of the state that this block touches, cut to its channels.
    let state = &mut state[p..][..(states - 1) * width + len];
    for t in 0..scan.tokens {
        let dt = scan.dt.row(t, heads)[head];
        let decay = _mm256_set1_ps(exp(dt * scan.a[head]));
        let x = &scan.head(t, head)[p..][..len];
        let mut inputs = [_mm256_setzero_ps(); N];
        let mut sums = inputs;
        for (i, input) in inputs.iter_mut().enumerate() {
            // `x` has the `len` floats of N registers.
            *input = _mm256_mul_ps(_mm256_set1_ps(dt), load(x[i * WIDTH..].as_ptr()));
        }
        let mut row = state.as_mut_ptr();
        for (b, c) in scan.b.row(t, states).iter().zip(scan.c.row(t, states)) {
            let (b, c) = (_mm256_set1_ps(*b), _mm256_set1_ps(*c));
            for i in 0..N {
                let at = row.wrapping_add(i * WIDTH);
                // Row n of the state holds `len` floats from `row` on, as n < N.
                let new = _mm256_fmadd_ps(decay, load(at), _mm256_mul_ps(inputs[i], b));
                sums[i] = _mm256_fmadd_ps(new, c, sums[i]);
                store(at, new);
            }
            row = row.wrapping_add(width);
        }
        let y = &mut y.row(t, heads * width)[head * width + p..][..len];
        let skip = _mm256_set1_ps(scan.skip[head]);
        for (i, sum) in sums.into_iter().enumerate() {
            // `x` and `y` have the `len` floats of N registers.
            let value = _mm256_fmadd_ps(skip, load(x[i * WIDTH..].as_ptr()), sum);
            store(y[i * WIDTH..].as_mut_ptr(), value);
        }
    }
}
