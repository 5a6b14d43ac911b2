//! `vpdpbusd` of fractions: a group's four lines, interleaved, are four columns of sixteen rows a register, and three
//! times a fraction, modulo 256, holds the next four columns.
//!
//! Two sums a register, of fractions and of what follows them; eight in all, which hide each other's latency.

use crate::Line;
use crate::blocking::turns;
use crate::streams::{leftovers, prefetch, rounds};
use crate::ternary::panel::dwords;
use crate::ternary::t5::avx512::{interleaved, lanes_in_order, matmul as looked_up};
use crate::ternary::t5::{COLUMNS, LINES, TILE_ROWS, TRITS};
use crate::ternary::{Activations, Weights};
use crate::transpose::avx512::first;
use std::arch::x86_64::*;

/// Bytes between a load and the prefetch of its stream.
const AHEAD: usize = 2048;
/// Groups whose fractions add up before the sums are combined.
const RUN: usize = 12;
const _: () = assert!(3 * (RUN * COLUMNS) as i64 * 255 * 128 <= i32::MAX as i64, "32-bit sums overflow");

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx512vnni,avx512vbmi,avx2,fma")]
pub(crate) fn matmul(weights: Weights<'_>, x: Activations<'_>, out: &mut [f32]) {
    if x.scales.len() > 1 {
        return looked_up(weights, x, out);
    }
    let tiles = weights.rows.div_ceil(TILE_ROWS);
    for tiles in rounds::<8>(tiles) {
        vector(weights, x, tiles, out);
    }
    for tile in leftovers::<8>(tiles) {
        vector(weights, x, [tile], out);
    }
}

/// The products of N tiles and one token.
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx512vnni,avx512vbmi,avx2,fma")]
fn vector<const N: usize>(weights: Weights<'_>, x: Activations<'_>, tiles: [usize; N], out: &mut [f32]) {
    let lines = tiles.map(|tile| weights.t5_tile(tile).1);
    let codes = dwords(&x, 0);
    let trits = turns(TRITS);
    let mut sums = [[_mm512_setzero_si512(); LINES]; N];
    for start in (0..weights.groups).step_by(RUN) {
        let groups = start..(start + RUN).min(weights.groups);
        for (lines, sums) in lines.iter().zip(&mut sums) {
            add(&lines[groups.clone()], &codes[(groups.start * TRITS).min(codes.len())..], trits, sums);
        }
    }
    let (sum, scale) = (_mm512_set1_epi32(x.sums[0]), _mm512_set1_ps(x.scales[0]));
    for (sums, tile) in sums.into_iter().zip(tiles) {
        let out = &mut out[tile * TILE_ROWS..];
        for (out, sums) in out.chunks_mut(16).zip(lanes_in_order(sums)) {
            let results = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_sub_epi32(sums, sum)), scale);
            // SAFETY: the mask admits as many elements as `out` has.
            unsafe { _mm512_mask_storeu_ps(out.as_mut_ptr(), first(out.len()), results) };
        }
    }
}

/// Adds the products of at most [`RUN`] groups of a tile and a token to the sums of its rows. `trits` is [`TRITS`], hidden
/// by [`turns`]: unrolled, the compiler makes three times three times a fraction one product with nine, then with 27 and
/// 81, and bytes have no such instruction.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx512vnni,avx512vbmi,avx2,fma")]
fn add(groups: &[[Line; LINES]], codes: &[[i8; 4]], trits: usize, sums: &mut [__m512i; LINES]) {
    debug_assert!(groups.len() <= RUN);
    let (zero, half) = (_mm512_setzero_si512(), _mm512_set1_epi8(-128));
    let (mut now, mut next) = ([zero; LINES], [zero; LINES]);
    for (g, group) in groups.iter().enumerate() {
        for line in group {
            prefetch(line, AHEAD);
        }
        // 128 plus the magnitude, or 256 less that where the sign says so.
        let mut fractions = interleaved(group).map(|bytes| {
            let above = _mm512_or_si512(bytes, half);
            _mm512_mask_sub_epi8(above, _mm512_movepi8_mask(bytes), zero, above)
        });
        // Columns beyond the stride have no codes and hold weight 0.
        for q in codes.iter().skip(g * TRITS).take(trits) {
            let q = _mm512_set1_epi32(i32::from_ne_bytes(q.map(|q| q as u8)));
            for l in 0..LINES {
                now[l] = _mm512_dpbusd_epi32(now[l], fractions[l], q);
                fractions[l] = _mm512_add_epi8(fractions[l], _mm512_add_epi8(fractions[l], fractions[l]));
                next[l] = _mm512_dpbusd_epi32(next[l], fractions[l], q);
            }
        }
    }
    for l in 0..LINES {
        let thrice = _mm512_add_epi32(now[l], _mm512_add_epi32(now[l], now[l]));
        sums[l] = _mm512_add_epi32(sums[l], _mm512_srai_epi32::<8>(_mm512_sub_epi32(thrice, next[l])));
    }
}
