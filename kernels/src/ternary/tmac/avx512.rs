//! As [`super::avx2`], with a whole line of 32 rows to a register: eight tiles at a time for one token, two tiles and
//! four tokens for more.

use super::avx2::{AHEAD, DIGIT, LONG, SHORT};
use super::{Activations, TILE_ROWS, Weights};
use crate::Line;
use crate::blocking::{Product, cached_runs, walk};
use crate::streams::prefetch;
use std::arch::x86_64::*;
use std::array;
use std::ops::Range;

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx512vnni,avx512vbmi,avx2,fma")]
pub(crate) fn matmul(weights: Weights<'_>, x: Activations<'_>, out: &mut [f32]) {
    let tiles = weights.rows.div_ceil(TILE_ROWS);
    for run in cached_runs(x.scales.len(), 64 * weights.groups, 4) {
        // SAFETY: this function has the features that the blocks need.
        unsafe { walk_tiles(&Ternary { weights, x }, tiles, run, out) };
    }
}

walk! {
    /// Tiles of 32 rows; sixteen accumulators.
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
        let tables = token.map(|t| &x.tables[t * groups..][..groups]);
        let mut sums = [[[0i32; TILE_ROWS]; T]; N];
        for long in (0..groups).step_by(LONG) {
            let mut words = [[_mm512_setzero_si512(); T]; N];
            for short in (long..(long + LONG).min(groups)).step_by(SHORT) {
                add(lines, tables, short..(short + SHORT).min(groups), &mut words);
            }
            for (sums, words) in sums.as_flattened_mut().iter_mut().zip(words.as_flattened()) {
                widen(*words, sums);
            }
        }
        let width = x.scales.len();
        for (sums, tile) in sums.iter().zip(tiles) {
            let rows = tile * TILE_ROWS..((tile + 1) * TILE_ROWS).min(weights.rows);
            for (sums, t) in sums.iter().zip(tokens.clone()) {
                for (r, sum) in rows.clone().zip(sums) {
                    out[r * width + t] = *sum as f32 * x.scales[t];
                }
            }
        }
    }
}

/// Adds the products of some groups, at most [`SHORT`], to `words`.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx512vnni,avx512vbmi,avx2,fma")]
fn add<const N: usize, const T: usize>(
    lines: [&[Line]; N],
    tables: [&[Line]; T],
    groups: Range<usize>,
    words: &mut [[__m512i; T]; N],
) {
    debug_assert!(groups.len() <= SHORT);
    let lines = lines.map(|lines| lines[groups.clone()].as_ptr().cast::<__m512i>());
    let tables = tables.map(|tables| tables[groups.clone()].as_ptr().cast::<__m128i>());
    let nibble = _mm512_set1_epi8(15);
    let mut low = [[_mm512_setzero_si512(); T]; N];
    let mut high = [[_mm512_setzero_si512(); T]; N];
    for g in 0..groups.len() {
        for lines in lines {
            prefetch(lines.wrapping_add(g), AHEAD);
        }
        for four in 0..2 {
            // SAFETY: there is a line of tables a group, and it is four registers of 16 bytes.
            let table = |t: usize, digit| unsafe {
                _mm512_broadcast_i32x4(_mm_load_si128(tables[t].add(4 * g + 2 * four + digit)))
            };
            let digits: [[_; 2]; T] = array::from_fn(|t| [table(t, 0), table(t, 1)]);
            for n in 0..N {
                // SAFETY: there is a line a group.
                let line = unsafe { _mm512_load_si512(lines[n].add(g)) };
                let line = if four == 0 { line } else { _mm512_srli_epi16::<4>(line) };
                let index = _mm512_and_si512(line, nibble);
                for t in 0..T {
                    let [l, h] = digits[t];
                    low[n][t] = _mm512_add_epi8(low[n][t], _mm512_shuffle_epi8(l, index));
                    high[n][t] = _mm512_add_epi8(high[n][t], _mm512_shuffle_epi8(h, index));
                }
            }
        }
    }
    let signs = _mm512_set1_epi16(i16::from_le_bytes([1, -1i8 as u8]));
    let high_signs = _mm512_set1_epi16(i16::from_le_bytes([1 << DIGIT, -(1i8 << DIGIT) as u8]));
    for n in 0..N {
        for t in 0..T {
            let low = _mm512_maddubs_epi16(low[n][t], signs);
            let high = _mm512_maddubs_epi16(high[n][t], high_signs);
            words[n][t] = _mm512_add_epi16(words[n][t], _mm512_add_epi16(low, high));
        }
    }
}

/// Adds 16-bit sums to 32-bit ones.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx512vnni,avx512vbmi,avx2,fma")]
pub(in crate::ternary) fn widen(words: __m512i, sums: &mut [i32; TILE_ROWS]) {
    let halves = [_mm512_castsi512_si256(words), _mm512_extracti64x4_epi64::<1>(words)];
    for (half, sums) in halves.into_iter().zip(sums.as_chunks_mut::<16>().0) {
        // SAFETY: sixteen integers are a register.
        unsafe {
            let sum = _mm512_add_epi32(_mm512_loadu_si512(sums.as_ptr().cast()), _mm512_cvtepi16_epi32(half));
            _mm512_storeu_si512(sums.as_mut_ptr().cast(), sum);
        }
    }
}
