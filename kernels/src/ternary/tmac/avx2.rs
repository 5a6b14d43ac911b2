//! `vpshufb` on sixteen rows and both planes at a time. A table of sixteen sums is two registers, one for each digit;
//! the digits of eight groups of four columns add up in bytes, then `vpmaddubsw` subtracts the minus plane from the
//! plus plane and widens to 16 bits.
//!
//! One token walks eight tiles far apart, two of them at a time, since sixteen registers hold no more: eight
//! accumulators, and a pair of tables that serves four registers of weights. Tiles change after every four lines, so
//! that memory is read in all streams at once. With more tokens one tile and two tokens take the place of two tiles, so
//! that the nibbles of a line are taken apart once for both.

use super::{Activations, COLUMNS, TILE_ROWS, Weights};
use crate::Line;
use crate::blocking::{Product, cached_runs, walk};
use crate::streams::prefetch;
use crate::ternary::Tables;
use std::arch::x86_64::*;
use std::array;
use std::ops::Range;

/// Bytes between a load and the prefetch of its stream.
pub(super) const AHEAD: usize = 768;
/// Added to each sum of a table, so that none is negative.
const BIAS: i16 = 4 * 128;
/// Bits of a digit.
pub(super) const DIGIT: i32 = 5;
/// Lines whose digits add up in bytes: two lookups each.
pub(super) const SHORT: usize = 4;
/// Lines whose sums add up in 16 bits.
pub(super) const LONG: usize = 7 * SHORT;

const _: () = {
    assert!(2 * BIAS as usize <= 1 << (2 * DIGIT), "the largest sum of a table, 4 * 127 + BIAS, has two digits");
    assert!(2 * SHORT * ((1 << DIGIT) - 1) <= u8::MAX as usize, "digits add up in a byte");
    assert!(2 * LONG * 4 * 128 <= i16::MAX as usize, "sums of four products add up in 16 bits");
};

/// A line of tables for each line of weights and token.
pub(crate) const TABLES: Tables = Tables { lines: |groups, tokens| groups * tokens, make };

/// See [`Tables::make`].
#[target_feature(enable = "avx2,fma")]
fn make(codes: &[i8], stride: usize, groups: usize, tables: &mut [Line]) {
    // Entries 0..4 and 8..12 of a table, then the others: the order in which `vpackssdw` puts them right.
    let subsets: [[u8; 32]; 2] = array::from_fn(|half| {
        array::from_fn(|i| {
            let entry = i / 16 * 8 + half * 4 + i / 4 % 4;
            (entry >> (i % 4) & 1) as u8
        })
    });
    // SAFETY: any 32 bytes are a register.
    let subsets: [__m256i; 2] = subsets.map(|bytes| unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) });
    let digit = _mm256_set1_epi16((1 << DIGIT) - 1);
    for (codes, tables) in codes.chunks_exact(stride).zip(tables.chunks_exact_mut(groups)) {
        for (codes, line) in codes.chunks_exact(COLUMNS).zip(tables) {
            for (codes, half) in codes.chunks_exact(4).zip(line.0.chunks_exact_mut(32)) {
                let codes = _mm256_set1_epi32(i32::from_le_bytes(array::from_fn(|i| codes[i] as u8)));
                let sums = subsets
                    .map(|subsets| _mm256_madd_epi16(_mm256_maddubs_epi16(subsets, codes), _mm256_set1_epi16(1)));
                let sums = _mm256_add_epi16(_mm256_packs_epi32(sums[0], sums[1]), _mm256_set1_epi16(BIAS));
                let (low, high) = (_mm256_and_si256(sums, digit), _mm256_srli_epi16::<DIGIT>(sums));
                let digits = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packus_epi16(low, high));
                // SAFETY: half a line is 32 bytes.
                unsafe { _mm256_storeu_si256(half.as_mut_ptr().cast(), digits) };
            }
        }
    }
}

#[target_feature(enable = "avx2,fma")]
pub(crate) fn matmul(weights: Weights<'_>, x: Activations<'_>, out: &mut [f32]) {
    let tiles = weights.rows.div_ceil(TILE_ROWS);
    for run in cached_runs(x.scales.len(), 64 * weights.groups, 4) {
        // SAFETY: this function has the features that the blocks need.
        unsafe { walk_tiles(&Ternary { weights, x }, tiles, run, out) };
    }
}

walk! {
    /// Tiles of 32 rows.
    walk_tiles:
    1 => 8 items of 1 tokens;
    2 => 4 items of 2 tokens;
    _ => 2 items of 1, 2, 4 tokens;
}

struct Ternary<'a> {
    weights: Weights<'a>,
    x: Activations<'a>,
}

/// Sixteen rows each, in 16 bits.
type Words = [__m256i; 2];

impl Product for Ternary<'_> {
    #[target_feature(enable = "avx2,fma")]
    unsafe fn block<const N: usize, const T: usize>(&self, tiles: [usize; N], tokens: Range<usize>, out: &mut [f32]) {
        let Ternary { weights, x } = *self;
        let groups = weights.groups;
        let lines = tiles.map(|tile| &weights.lines[tile * groups..][..groups]);
        let token: [usize; T] = array::from_fn(|t| (tokens.start + t).min(tokens.end - 1));
        let tables = token.map(|t| &x.tables[t * groups..][..groups]);
        let mut sums = [[[0i32; TILE_ROWS]; T]; N];
        for long in (0..groups).step_by(LONG) {
            let mut words = [[[_mm256_setzero_si256(); 2]; T]; N];
            // All streams take turns at short runs, so that all of them are read at once.
            for short in (long..(long + LONG).min(groups)).step_by(SHORT) {
                let run = short..(short + SHORT).min(groups);
                if T == 1 {
                    let (pairs, rest) = lines.as_chunks::<2>();
                    let (pair_words, rest_words) = words.as_chunks_mut::<2>();
                    for (lines, words) in pairs.iter().zip(pair_words) {
                        add(*lines, [tables[0]], run.clone(), words.as_flattened_mut());
                    }
                    for (lines, words) in rest.iter().zip(rest_words) {
                        add([*lines], [tables[0]], run.clone(), words);
                    }
                } else {
                    for (lines, words) in lines.iter().zip(&mut words) {
                        for (tables, words) in tables.as_chunks::<2>().0.iter().zip(words.as_chunks_mut::<2>().0) {
                            add([*lines], *tables, run.clone(), words);
                        }
                    }
                }
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

/// Adds the products of some groups, at most [`SHORT`], to `words` `[N, T]`.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn add<const N: usize, const T: usize>(
    lines: [&[Line]; N],
    tables: [&[Line]; T],
    groups: Range<usize>,
    words: &mut [Words],
) {
    debug_assert!(groups.len() <= SHORT && words.len() == N * T);
    let lines = lines.map(|lines| lines[groups.clone()].as_ptr().cast::<__m256i>());
    let tables = tables.map(|tables| tables[groups.clone()].as_ptr().cast::<__m128i>());
    let nibble = _mm256_set1_epi8(15);
    let mut low = [[[_mm256_setzero_si256(); 2]; T]; N];
    let mut high = [[[_mm256_setzero_si256(); 2]; T]; N];
    for g in 0..groups.len() {
        for lines in lines {
            prefetch(lines.wrapping_add(2 * g), AHEAD);
        }
        for four in 0..2 {
            // SAFETY: there is a line of tables a group, and it is four registers.
            let table = |t: usize, digit| unsafe {
                _mm256_broadcastsi128_si256(_mm_load_si128(tables[t].add(4 * g + 2 * four + digit)))
            };
            let digits: [[_; 2]; T] = array::from_fn(|t| [table(t, 0), table(t, 1)]);
            for n in 0..N {
                for half in 0..2 {
                    // SAFETY: there is a line a group, and it is two registers.
                    let line = unsafe { _mm256_load_si256(lines[n].add(2 * g + half)) };
                    let line = if four == 0 { line } else { _mm256_srli_epi16::<4>(line) };
                    let index = _mm256_and_si256(line, nibble);
                    for t in 0..T {
                        let [l, h] = digits[t];
                        low[n][t][half] = _mm256_add_epi8(low[n][t][half], _mm256_shuffle_epi8(l, index));
                        high[n][t][half] = _mm256_add_epi8(high[n][t][half], _mm256_shuffle_epi8(h, index));
                    }
                }
            }
        }
    }
    let signs = _mm256_set1_epi16(i16::from_le_bytes([1, -1i8 as u8]));
    let high_signs = _mm256_set1_epi16(i16::from_le_bytes([1 << DIGIT, -(1i8 << DIGIT) as u8]));
    for n in 0..N {
        for t in 0..T {
            for half in 0..2 {
                let low = _mm256_maddubs_epi16(low[n][t][half], signs);
                let high = _mm256_maddubs_epi16(high[n][t][half], high_signs);
                let word = &mut words[n * T + t][half];
                *word = _mm256_add_epi16(*word, _mm256_add_epi16(low, high));
            }
        }
    }
}

/// Adds 16-bit sums to 32-bit ones.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(in crate::ternary) fn widen(words: &Words, sums: &mut [i32; TILE_ROWS]) {
    for (words, sums) in words.iter().zip(sums.as_chunks_mut::<16>().0) {
        let halves = [_mm256_castsi256_si128(*words), _mm256_extracti128_si256::<1>(*words)];
        for (half, sums) in halves.into_iter().zip(sums.as_chunks_mut::<8>().0) {
            // SAFETY: eight integers are a register.
            unsafe {
                let sum = _mm256_add_epi32(_mm256_loadu_si256(sums.as_ptr().cast()), _mm256_cvtepi16_epi32(half));
                _mm256_storeu_si256(sums.as_mut_ptr().cast(), sum);
            }
        }
    }
}
