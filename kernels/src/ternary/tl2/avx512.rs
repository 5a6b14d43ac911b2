//! `vpermb` on a line of 64 rows at a time, once for each digit: its table of 64 bytes holds the sixteen digits and
//! their negatives, twice, so that the sign is a bit of the index. Otherwise as [`super::avx2`].
//!
//! Bit 5 of an index is what happens to lie beside the sign: that is why the table repeats.
//!
//! One token walks eight tiles far apart, all of them at once; more tokens take two tiles and four tokens.

use super::avx2::{AHEAD, BASE, LONG, TABLE_LINES};
use super::{Activations, LINES, TILE_ROWS, Weights};
use crate::Line;
use crate::blocking::{Product, cached_runs, walk};
use crate::streams::prefetch;
use std::arch::x86_64::*;
use std::array;
use std::hint::black_box;
use std::ops::Range;

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx512vnni,avx512vbmi,avx2,fma")]
pub(crate) fn matmul(weights: Weights<'_>, x: Activations<'_>, out: &mut [f32]) {
    let tiles = weights.rows.div_ceil(TILE_ROWS);
    for run in cached_runs(x.scales.len(), 64 * TABLE_LINES * weights.groups, 4) {
        // SAFETY: this function has the features that the blocks need.
        unsafe { walk_tiles(&Ternary { weights, x }, tiles, run, out) };
    }
}

walk! {
    /// Tiles of 64 rows; sixteen accumulators.
    walk_tiles:
    1 => 8 items of 1 tokens;
    2 => 4 items of 2 tokens;
    _ => 2 items of 1, 2, 4 tokens;
}

struct Ternary<'a> {
    weights: Weights<'a>,
    x: Activations<'a>,
}

/// In 16 bits: the first eight of every sixteen rows, then the last eight.
type Words = [__m512i; 2];

impl Product for Ternary<'_> {
    #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx512vnni,avx512vbmi,avx2,fma")]
    unsafe fn block<const N: usize, const T: usize>(&self, tiles: [usize; N], tokens: Range<usize>, out: &mut [f32]) {
        let Ternary { weights, x } = *self;
        let groups = weights.groups;
        let tile_lines = groups * LINES;
        let lines = tiles.map(|tile| &weights.lines[tile * tile_lines..][..tile_lines]);
        let token: [usize; T] = array::from_fn(|t| (tokens.start + t).min(tokens.end - 1));
        let tables = token.map(|t| &x.tables[t * groups * TABLE_LINES..][..groups * TABLE_LINES]);
        let mut sums = [[[0i32; TILE_ROWS]; T]; N];
        for long in (0..groups).step_by(LONG) {
            let mut words = [[[_mm512_setzero_si512(); 2]; T]; N];
            for g in long..(long + LONG).min(groups) {
                add(
                    lines.map(|lines| &lines[g * LINES..][..LINES]),
                    tables.map(|tables| &tables[g * TABLE_LINES..][..TABLE_LINES]),
                    &mut words,
                );
            }
            for (sums, words) in sums.as_flattened_mut().iter_mut().zip(words.as_flattened()) {
                widen(words, sums);
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

/// Adds the products of a group to `words`.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx512vnni,avx512vbmi,avx2,fma")]
fn add<const N: usize, const T: usize>(lines: [&[Line]; N], tables: [&[Line]; T], words: &mut [[Words; T]; N]) {
    let lines = lines.map(|lines| lines[..LINES].as_ptr().cast::<__m512i>());
    let tables = tables.map(|tables| tables[..LINES - 1].as_ptr().cast::<__m128i>());
    for lines in lines {
        for l in 0..LINES {
            prefetch(lines.wrapping_add(l), AHEAD);
        }
    }
    // SAFETY: there are so many lines.
    let load = |n: usize, line: usize| unsafe { _mm512_load_si512(lines[n].add(line)) };
    let nibble = _mm512_set1_epi8(15);
    let mut low = [[_mm512_setzero_si512(); T]; N];
    let mut high = [[_mm512_setzero_si512(); T]; N];
    // The sign of the triplet whose turn it is in bit 4.
    let mut signs: [_; N] = array::from_fn(|n| _mm512_ror_epi64::<3>(load(n, LINES - 1)));
    // A number that the compiler cannot see: see `super::avx2`.
    for l in 0..black_box(LINES - 1) {
        for odd in 0..2 {
            // SAFETY: there is a line of tables for each line but the last, and it is four registers of 16 bytes.
            let table = |t: usize, digit| unsafe {
                let table = _mm512_broadcast_i32x4(_mm_load_si128(tables[t].add(4 * l + 2 * odd + digit)));
                _mm512_mask_sub_epi8(table, 0xFFFF_0000_FFFF_0000, _mm512_setzero_si512(), table)
            };
            let digits: [[_; 2]; T] = array::from_fn(|t| [table(t, 0), table(t, 1)]);
            for n in 0..N {
                let line = load(n, l);
                let line = if odd == 0 { line } else { _mm512_srli_epi16::<4>(line) };
                // Where `nibble` has a bit, that of the line; elsewhere that of the signs.
                let index = _mm512_ternarylogic_epi64::<0xCA>(nibble, line, signs[n]);
                signs[n] = _mm512_rol_epi64::<1>(signs[n]);
                for t in 0..T {
                    let [small, large] = digits[t];
                    low[n][t] = _mm512_add_epi8(low[n][t], _mm512_permutexvar_epi8(index, small));
                    high[n][t] = _mm512_add_epi8(high[n][t], _mm512_permutexvar_epi8(index, large));
                }
            }
        }
    }
    let places = _mm512_set1_epi16(i16::from_le_bytes([1, BASE as u8]));
    for n in 0..N {
        for t in 0..T {
            let (low, high) = (low[n][t], high[n][t]);
            let [first, last] = &mut words[n][t];
            *first = _mm512_add_epi16(*first, _mm512_maddubs_epi16(places, _mm512_unpacklo_epi8(low, high)));
            *last = _mm512_add_epi16(*last, _mm512_maddubs_epi16(places, _mm512_unpackhi_epi8(low, high)));
        }
    }
}

/// Adds 16-bit sums to 32-bit ones.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx512vnni,avx512vbmi,avx2,fma")]
fn widen([first, last]: &Words, sums: &mut [i32; TILE_ROWS]) {
    let eights = [
        [_mm512_extracti32x4_epi32::<0>(*first), _mm512_extracti32x4_epi32::<0>(*last)],
        [_mm512_extracti32x4_epi32::<1>(*first), _mm512_extracti32x4_epi32::<1>(*last)],
        [_mm512_extracti32x4_epi32::<2>(*first), _mm512_extracti32x4_epi32::<2>(*last)],
        [_mm512_extracti32x4_epi32::<3>(*first), _mm512_extracti32x4_epi32::<3>(*last)],
    ];
    for ([first, last], sums) in eights.into_iter().zip(sums.as_chunks_mut::<16>().0) {
        let sixteen = _mm512_cvtepi16_epi32(_mm256_set_m128i(last, first));
        // SAFETY: sixteen integers are a register.
        unsafe {
            let sum = _mm512_add_epi32(_mm512_loadu_si512(sums.as_ptr().cast()), sixteen);
            _mm512_storeu_si512(sums.as_mut_ptr().cast(), sum);
        }
    }
}
