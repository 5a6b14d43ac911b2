//! `vpshufb` on sixteen rows and both planes at a time, from one register of sixteen bytes; `vpmaddubsw` subtracts the
//! minus plane from the plus plane and widens to 16 bits at once.
//!
//! One token walks eight tiles far apart, four of them at a time: eight accumulators, and one table at a time. Tiles
//! change after every eight lines, so that memory is read in all streams at once. More tokens: two tiles and two
//! tokens.

use super::{Activations, COLUMNS, TILE_ROWS, Weights, multiplier, step};
use crate::Line;
use crate::blocking::{Product, cached_runs, walk};
use crate::streams::prefetch;
use crate::ternary::Tables;
use std::arch::x86_64::*;
use std::array;
use std::ops::Range;

/// Bytes between a load and the prefetch of its stream.
pub(super) const AHEAD: usize = 768;
/// Lines of a tile before the next tile's turn.
const SHORT: usize = 8;
/// Lines whose sums add up in 16 bits: two differences of two bytes each.
pub(super) const LONG: usize = 8 * SHORT;

const _: () = assert!(2 * LONG * 255 <= i16::MAX as usize, "differences add up in 16 bits");

/// See the module.
pub(crate) const TABLES: Tables = Tables { lines: |groups, tokens| token_lines(groups) * tokens, make };

/// A token's lines of tables: one for the step, then half a line a group; none for no columns.
pub(super) const fn token_lines(groups: usize) -> usize {
    if groups == 0 { 0 } else { 1 + groups.div_ceil(2) }
}

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
    let one = _mm256_set1_epi16(1);
    for (codes, lines) in codes.chunks_exact(stride).zip(tables.chunks_exact_mut(token_lines(groups))) {
        let multiplier = multiplier(largest(codes));
        lines[0].0[..4].copy_from_slice(&step(multiplier).to_le_bytes());
        let multiplier = _mm256_set1_epi16(multiplier as i16);
        let halves = lines[1..].iter_mut().flat_map(|line| line.0.chunks_exact_mut(32));
        for (codes, half) in codes.chunks_exact(COLUMNS).zip(halves) {
            let mut steps = [_mm256_setzero_si256(); 2];
            for (codes, steps) in codes.chunks_exact(4).zip(&mut steps) {
                let least: i16 = codes.iter().map(|code| i16::from(*code).min(0)).sum();
                let codes = _mm256_set1_epi32(i32::from_le_bytes(array::from_fn(|i| codes[i] as u8)));
                let first = _mm256_madd_epi16(_mm256_maddubs_epi16(subsets[0], codes), one);
                let second = _mm256_madd_epi16(_mm256_maddubs_epi16(subsets[1], codes), one);
                let sums = _mm256_sub_epi16(_mm256_packs_epi32(first, second), _mm256_set1_epi16(least));
                // At most 512 · 32; the product is rounded at its fifteenth bit.
                *steps = _mm256_mulhrs_epi16(_mm256_slli_epi16::<5>(sums), multiplier);
            }
            let entries = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packus_epi16(steps[0], steps[1]));
            // SAFETY: half a line is 32 bytes.
            unsafe { _mm256_storeu_si256(half.as_mut_ptr().cast(), entries) };
        }
    }
}

/// The largest sum of the magnitudes of four codes.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn largest(codes: &[i8]) -> i32 {
    let mut most = _mm256_setzero_si256();
    for codes in codes.chunks_exact(32) {
        // SAFETY: 32 codes are a register.
        let magnitudes = _mm256_abs_epi8(unsafe { _mm256_loadu_si256(codes.as_ptr().cast()) });
        let pairs = _mm256_maddubs_epi16(magnitudes, _mm256_set1_epi8(1));
        most = _mm256_max_epi32(most, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
    }
    let mut lanes = [0i32; 8];
    // SAFETY: eight integers are a register.
    unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), most) };
    lanes.into_iter().fold(0, i32::max)
}

#[target_feature(enable = "avx2,fma")]
pub(crate) fn matmul(weights: Weights<'_>, x: Activations<'_>, out: &mut [f32]) {
    let tiles = weights.rows.div_ceil(TILE_ROWS);
    for run in cached_runs(x.scales.len(), 64 * token_lines(weights.groups), 4) {
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
        let tables = token.map(|t| &x.tables[t * token_lines(groups)..][..token_lines(groups)]);
        let mut sums = [[[0i32; TILE_ROWS]; N]; T];
        for long in (0..groups).step_by(LONG) {
            let mut words = [[[_mm256_setzero_si256(); 2]; N]; T];
            for short in (long..(long + LONG).min(groups)).step_by(SHORT) {
                let run = short..(short + SHORT).min(groups);
                if T == 1 {
                    let (fours, rest) = lines.as_chunks::<4>();
                    let (four_words, rest_words) = words[0].as_chunks_mut::<4>();
                    for (lines, words) in fours.iter().zip(four_words) {
                        add(*lines, [tables[0]], run.clone(), [words]);
                    }
                    for (lines, words) in rest.iter().zip(rest_words.as_chunks_mut::<1>().0) {
                        add([*lines], [tables[0]], run.clone(), [words]);
                    }
                } else {
                    for (tables, words) in tables.as_chunks::<2>().0.iter().zip(words.as_chunks_mut::<2>().0) {
                        let [a, b] = words;
                        let (pairs, rest) = lines.as_chunks::<2>();
                        let (a, a_rest) = a.as_chunks_mut::<2>();
                        let (b, b_rest) = b.as_chunks_mut::<2>();
                        for (lines, (a, b)) in pairs.iter().zip(a.iter_mut().zip(b)) {
                            add(*lines, *tables, run.clone(), [a, b]);
                        }
                        let rest_words = a_rest.as_chunks_mut::<1>().0.iter_mut().zip(b_rest.as_chunks_mut::<1>().0);
                        for (lines, (a, b)) in rest.iter().zip(rest_words) {
                            add([*lines], *tables, run.clone(), [a, b]);
                        }
                    }
                }
            }
            for (sums, words) in sums.as_flattened_mut().iter_mut().zip(words.as_flattened()) {
                crate::ternary::tmac::avx2::widen(words, sums);
            }
        }
        let width = x.scales.len();
        for (t, (sums, tables)) in tokens.zip(sums.iter().zip(tables)) {
            let step = tables.first().map_or(1.0, |line| f32::from_le_bytes(array::from_fn(|i| line.0[i])));
            for (sums, tile) in sums.iter().zip(tiles) {
                let rows = tile * TILE_ROWS..((tile + 1) * TILE_ROWS).min(weights.rows);
                for (r, sum) in rows.zip(sums) {
                    out[r * width + t] = *sum as f32 * step * x.scales[t];
                }
            }
        }
    }
}

/// Adds the products of some groups, at most [`SHORT`], to `words` `[T, N]`.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn add<const N: usize, const T: usize>(
    lines: [&[Line]; N],
    tables: [&[Line]; T],
    groups: Range<usize>,
    words: [&mut [Words; N]; T],
) {
    debug_assert!(groups.len() <= SHORT);
    let lines = lines.map(|lines| lines[groups.clone()].as_ptr().cast::<__m256i>());
    let tables = tables.map(|tables| {
        let tables = &tables[1..];
        assert!(2 * tables.len() >= groups.end);
        // SAFETY: just asserted: half a line a group.
        unsafe { tables.as_ptr().cast::<__m128i>().add(2 * groups.start) }
    });
    let nibble = _mm256_set1_epi8(15);
    let signs = _mm256_set1_epi16(i16::from_le_bytes([1, -1i8 as u8]));
    let mut sums = [[[_mm256_setzero_si256(); 2]; N]; T];
    for g in 0..groups.len() {
        for lines in lines {
            prefetch(lines.wrapping_add(2 * g), AHEAD);
        }
        for four in 0..2 {
            // SAFETY: a group has two tables of a register each.
            let table = |t: usize| unsafe { _mm256_broadcastsi128_si256(_mm_load_si128(tables[t].add(2 * g + four))) };
            let tables: [_; T] = array::from_fn(table);
            for n in 0..N {
                let indices: [_; 2] = array::from_fn(|half| {
                    // SAFETY: there is a line a group, and it is two registers.
                    let line = unsafe { _mm256_load_si256(lines[n].add(2 * g + half)) };
                    _mm256_and_si256(if four == 0 { line } else { _mm256_srli_epi16::<4>(line) }, nibble)
                });
                for t in 0..T {
                    for (sum, index) in sums[t][n].iter_mut().zip(indices) {
                        let difference = _mm256_maddubs_epi16(_mm256_shuffle_epi8(tables[t], index), signs);
                        *sum = _mm256_add_epi16(*sum, difference);
                    }
                }
            }
        }
    }
    for (words, sums) in words.into_iter().zip(sums) {
        for (words, sums) in words.as_flattened_mut().iter_mut().zip(sums.as_flattened()) {
            *words = _mm256_add_epi16(*words, *sums);
        }
    }
}
