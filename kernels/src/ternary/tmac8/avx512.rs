//! As [`super::avx2`], with a whole line of 32 rows to a register: eight tiles at a time for one token, two tiles and
//! four tokens for more.

use super::avx2::{AHEAD, LONG, token_lines};
use super::{Activations, TILE_ROWS, Weights};
use crate::Line;
use crate::blocking::{Product, cached_runs, walk};
use crate::streams::prefetch;
use crate::ternary::tmac::avx512::widen;
use std::arch::x86_64::*;
use std::array;
use std::ops::Range;

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx512vnni,avx512vbmi,avx2,fma")]
pub(crate) fn matmul(weights: Weights<'_>, x: Activations<'_>, out: &mut [f32]) {
    let tiles = weights.rows.div_ceil(TILE_ROWS);
    for run in cached_runs(x.scales.len(), 64 * token_lines(weights.groups), 4) {
        // SAFETY: this function has the features that the blocks need.
        unsafe { walk_tiles(&Ternary { weights, x }, tiles, run, out) };
    }
}

walk! {
    /// Tiles of 32 rows; eight accumulators.
    walk_tiles:
    1 => 8 items of 1 tokens;
    2 => 4 items of 2 tokens;
    _ => 2 items of 1, 2, 4 tokens;
}

struct Ternary<'a> {
    weights: Weights<'a>,
    x: Activations<'a>,
}

impl Product for Ternary<'_> {
    #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx512vnni,avx512vbmi,avx2,fma")]
    unsafe fn block<const N: usize, const T: usize>(&self, tiles: [usize; N], tokens: Range<usize>, out: &mut [f32]) {
        let Ternary { weights, x } = *self;
        let groups = weights.groups;
        let lines = tiles.map(|tile| &weights.lines[tile * groups..][..groups]);
        let token: [usize; T] = array::from_fn(|t| (tokens.start + t).min(tokens.end - 1));
        let tables = token.map(|t| &x.tables[t * token_lines(groups)..][..token_lines(groups)]);
        let mut sums = [[[0i32; TILE_ROWS]; T]; N];
        for long in (0..groups).step_by(LONG) {
            let words = products(lines, tables, long..(long + LONG).min(groups));
            for (sums, words) in sums.as_flattened_mut().iter_mut().zip(words.as_flattened()) {
                widen(*words, sums);
            }
        }
        let width = x.scales.len();
        for (sums, tile) in sums.iter().zip(tiles) {
            let rows = tile * TILE_ROWS..((tile + 1) * TILE_ROWS).min(weights.rows);
            for (t, (sums, tables)) in tokens.clone().zip(sums.iter().zip(tables)) {
                let step = tables.first().map_or(1.0, |line| f32::from_le_bytes(array::from_fn(|i| line.0[i])));
                for (r, sum) in rows.clone().zip(sums) {
                    out[r * width + t] = *sum as f32 * step * x.scales[t];
                }
            }
        }
    }
}

/// The products of some groups, at least one and at most [`LONG`].
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx512vnni,avx512vbmi,avx2,fma")]
fn products<const N: usize, const T: usize>(
    lines: [&[Line]; N],
    tables: [&[Line]; T],
    groups: Range<usize>,
) -> [[__m512i; T]; N] {
    debug_assert!(groups.len() <= LONG);
    let lines = lines.map(|lines| lines[groups.clone()].as_ptr().cast::<__m512i>());
    // A run starts with a whole line of tables: `LONG` is even.
    let tables =
        tables.map(|tables| tables[1 + groups.start / 2..1 + groups.end.div_ceil(2)].as_ptr().cast::<__m128i>());
    let nibble = _mm512_set1_epi8(15);
    let signs = _mm512_set1_epi16(i16::from_le_bytes([1, -1i8 as u8]));
    let mut sums = [[_mm512_setzero_si512(); T]; N];
    for g in 0..groups.len() {
        for lines in lines {
            prefetch(lines.wrapping_add(g), AHEAD);
        }
        for four in 0..2 {
            // SAFETY: a group has two tables of 16 bytes.
            let table = |t: usize| unsafe { _mm512_broadcast_i32x4(_mm_load_si128(tables[t].add(2 * g + four))) };
            let tables: [_; T] = array::from_fn(table);
            for n in 0..N {
                // SAFETY: there is a line a group.
                let line = unsafe { _mm512_load_si512(lines[n].add(g)) };
                let line = if four == 0 { line } else { _mm512_srli_epi16::<4>(line) };
                let index = _mm512_and_si512(line, nibble);
                for t in 0..T {
                    let difference = _mm512_maddubs_epi16(_mm512_shuffle_epi8(tables[t], index), signs);
                    sums[n][t] = _mm512_add_epi16(sums[n][t], difference);
                }
            }
        }
    }
    sums
}
