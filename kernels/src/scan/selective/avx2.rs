//! Half a tile in a register; a tile's state and decays stay in the first-level cache over all tokens.

use super::Selective;
use crate::RowsMut;
use crate::activation::avx2::silu8;
use crate::lanes::LANES;
use crate::lanes::x86::{load8, store8};
use crate::math::avx2::exp2;
use std::arch::x86_64::*;

/// States that go through the exponential side by side.
const SIDE: usize = 4;

/// The channels of a tile, zeros for those that do not exist.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn load(x: &[f32]) -> [__m256; 2] {
    if x.len() == LANES {
        [load8(x), load8(&x[8..])]
    } else {
        let mut padded = [0.0; LANES];
        padded[..x.len()].copy_from_slice(x);
        [load8(&padded), load8(&padded[8..])]
    }
}

/// The first N states of half a tile, whose lanes begin at `lane`; returns the sum with what they add to it.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn step<const N: usize>(
    state: &mut [[f32; LANES]],
    decays: &[[f32; LANES]],
    lane: usize,
    [dt, input]: [__m256; 2],
    [b, c]: [&[f32]; 2],
    mut sum: __m256,
) -> __m256 {
    let (state, decays) = (&mut state[..N], &decays[..N]);
    let (b, c) = (&b[..N], &c[..N]);
    let mut decay = [dt; N];
    for (decay, decays) in decay.iter_mut().zip(decays) {
        *decay = _mm256_mul_ps(dt, load8(&decays[lane..]));
    }
    let decay = exp2(decay);
    for i in 0..N {
        let state = &mut state[i][lane..];
        let new = _mm256_fmadd_ps(decay[i], load8(state), _mm256_mul_ps(input, _mm256_set1_ps(b[i])));
        sum = _mm256_fmadd_ps(new, _mm256_set1_ps(c[i]), sum);
        store8(state, new);
    }
    sum
}

/// One token of half a tile, whose lanes begin at `lane`: the sum over its states.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn half_tile(
    state: &mut [[f32; LANES]],
    decays: &[[f32; LANES]],
    lane: usize,
    channels: [__m256; 2],
    [b, c]: [&[f32]; 2],
) -> __m256 {
    let mut sum = _mm256_setzero_ps();
    let whole = state.len() - state.len() % SIDE;
    for n in (0..whole).step_by(SIDE) {
        sum = step::<SIDE>(&mut state[n..], &decays[n..], lane, channels, [&b[n..], &c[n..]], sum);
    }
    for n in whole..state.len() {
        sum = step::<1>(&mut state[n..], &decays[n..], lane, channels, [&b[n..], &c[n..]], sum);
    }
    sum
}

#[target_feature(enable = "avx2,fma")]
pub(crate) fn selective_scan(scan: &Selective<'_>, state: &mut [f32], mut y: RowsMut<'_>) {
    let (width, states) = (scan.skip.len(), scan.states);
    let tiles = state.chunks_exact_mut(states * LANES).zip(scan.decays.chunks_exact(states * LANES));
    for (i, (state, decays)) in tiles.enumerate() {
        let channels = scan.lanes(i);
        let skip = load(&scan.skip[channels.clone()]);
        let (state, decays) = (state.as_chunks_mut::<LANES>().0, decays.as_chunks::<LANES>().0);
        for t in 0..scan.tokens {
            scan.prefetch(i, t, &y);
            let row = |rows: crate::Rows<'_>| load(&rows.row(t, width)[channels.clone()]);
            let (dt, x) = (row(scan.dt), row(scan.x));
            let inputs = [_mm256_mul_ps(dt[0], x[0]), _mm256_mul_ps(dt[1], x[1])];
            let mut sums = [_mm256_setzero_ps(); 2];
            let (b, c) = (scan.b.row(t, states), scan.c.row(t, states));
            for half in 0..2 {
                sums[half] = half_tile(state, decays, 8 * half, [dt[half], inputs[half]], [b, c]);
            }
            let mut out = [_mm256_fmadd_ps(skip[0], x[0], sums[0]), _mm256_fmadd_ps(skip[1], x[1], sums[1])];
            if let Some(gate) = scan.gate {
                let gate = row(gate);
                out = [_mm256_mul_ps(out[0], silu8(gate[0])), _mm256_mul_ps(out[1], silu8(gate[1]))];
            }
            let y = &mut y.row(t, width)[channels.clone()];
            if y.len() == LANES {
                store8(y, out[0]);
                store8(&mut y[8..], out[1]);
            } else {
                y.copy_from_slice(&crate::lanes::x86::array(out[0], out[1])[..y.len()]);
            }
        }
    }
}
