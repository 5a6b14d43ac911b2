//! A tile in a register; with sixteen states they all stay in registers over all tokens.

use super::Selective;
use crate::activation::avx512::silu16;
use crate::lanes::LANES;
use crate::lanes::x86::{load16, store16};
use crate::math::avx512::exp2;
use crate::transpose::avx512::first;
use crate::{Rows, RowsMut};
use std::arch::x86_64::*;

/// States that go through the exponential side by side.
const SIDE: usize = 4;
/// States that stay in registers: half of the thirty-two.
const KEPT: usize = 16;

/// The channels of a tile, zeros for those that do not exist.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
fn load(x: &[f32]) -> __m512 {
    // SAFETY: the mask admits the elements of `x` alone.
    unsafe { _mm512_maskz_loadu_ps(first(x.len()), x.as_ptr()) }
}

/// Replaces N states by the new ones; returns the sum with what they add to it.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
fn step<const N: usize>(
    state: &mut [__m512],
    decays: &[[f32; LANES]],
    [dt, input]: [__m512; 2],
    [b, c]: [&[f32]; 2],
    mut sum: __m512,
) -> __m512 {
    let (state, b, c) = (&mut state[..N], &b[..N], &c[..N]);
    let mut decay = [dt; N];
    for (decay, decays) in decay.iter_mut().zip(decays) {
        *decay = _mm512_mul_ps(dt, load16(decays));
    }
    let decay = exp2(decay);
    for i in 0..N {
        state[i] = _mm512_fmadd_ps(decay[i], state[i], _mm512_mul_ps(input, _mm512_set1_ps(b[i])));
        sum = _mm512_fmadd_ps(state[i], _mm512_set1_ps(c[i]), sum);
    }
    sum
}

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
pub(crate) fn selective_scan(scan: &Selective<'_>, state: &mut [f32], mut y: RowsMut<'_>) {
    let states = scan.states;
    let tiles = state.chunks_exact_mut(states * LANES).zip(scan.decays.chunks_exact(states * LANES));
    for (i, (state, decays)) in tiles.enumerate() {
        let (state, decays) = (state.as_chunks_mut::<LANES>().0, decays.as_chunks::<LANES>().0);
        match (state.as_mut_array::<KEPT>(), decays.as_array::<KEPT>()) {
            (Some(state), Some(decays)) => kept(scan, i, state, decays, &mut y),
            _ => passing(scan, i, state, decays, &mut y),
        }
    }
}

/// One tile, its state in registers.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
fn kept(
    scan: &Selective<'_>,
    tile: usize,
    state: &mut [[f32; LANES]; KEPT],
    decays: &[[f32; LANES]; KEPT],
    y: &mut RowsMut<'_>,
) {
    let mut registers = [_mm512_setzero_ps(); KEPT];
    for (register, state) in registers.iter_mut().zip(&*state) {
        *register = load16(state);
    }
    tokens(scan, tile, y, |channels, [b, c]| {
        let (b, c) = (b.first_chunk::<KEPT>().expect("N of B"), c.first_chunk::<KEPT>().expect("N of C"));
        let mut sum = _mm512_setzero_ps();
        for n in (0..KEPT).step_by(SIDE) {
            let coefficients = [&b[n..], &c[n..]];
            sum = step::<SIDE>(&mut registers[n..n + SIDE], &decays[n..n + SIDE], channels, coefficients, sum);
        }
        sum
    });
    for (register, state) in registers.into_iter().zip(state) {
        store16(state, register);
    }
}

/// One tile of any number of states, which pass through registers.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
fn passing(
    scan: &Selective<'_>,
    tile: usize,
    state: &mut [[f32; LANES]],
    decays: &[[f32; LANES]],
    y: &mut RowsMut<'_>,
) {
    let whole = state.len() - state.len() % SIDE;
    tokens(scan, tile, y, |channels, [b, c]| {
        let mut sum = _mm512_setzero_ps();
        for n in (0..whole).step_by(SIDE) {
            sum = pass::<SIDE>(&mut state[n..], &decays[n..], channels, [&b[n..], &c[n..]], sum);
        }
        for n in whole..state.len() {
            sum = pass::<1>(&mut state[n..], &decays[n..], channels, [&b[n..], &c[n..]], sum);
        }
        sum
    });
}

/// [`step`] of the first N states, from memory and back.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
fn pass<const N: usize>(
    state: &mut [[f32; LANES]],
    decays: &[[f32; LANES]],
    channels: [__m512; 2],
    coefficients: [&[f32]; 2],
    sum: __m512,
) -> __m512 {
    let mut registers = [sum; N];
    for (register, state) in registers.iter_mut().zip(&*state) {
        *register = load16(state);
    }
    let sum = step::<N>(&mut registers, &decays[..N], channels, coefficients, sum);
    for (register, state) in registers.into_iter().zip(state) {
        store16(state, register);
    }
    sum
}

/// All tokens of a tile; `states` takes dt and dt · x, B and C to the sum.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
fn tokens(
    scan: &Selective<'_>,
    tile: usize,
    y: &mut RowsMut<'_>,
    mut states: impl FnMut([__m512; 2], [&[f32]; 2]) -> __m512,
) {
    let (width, channels) = (scan.skip.len(), scan.lanes(tile));
    let skip = load(&scan.skip[channels.clone()]);
    for t in 0..scan.tokens {
        scan.prefetch(tile, t, y);
        let row = |rows: Rows<'_>| load(&rows.row(t, width)[channels.clone()]);
        let (dt, x) = (row(scan.dt), row(scan.x));
        let coefficients = [scan.b.row(t, scan.states), scan.c.row(t, scan.states)];
        let sum = states([dt, _mm512_mul_ps(dt, x)], coefficients);
        let mut out = _mm512_fmadd_ps(skip, x, sum);
        if let Some(gate) = scan.gate {
            out = _mm512_mul_ps(out, silu16(row(gate)));
        }
        let y = &mut y.row(t, width)[channels.clone()];
        // SAFETY: the mask covers the elements of `y` alone.
        unsafe { _mm512_mask_storeu_ps(y.as_mut_ptr(), first(y.len()), out) };
    }
}
