//! `vpshufb` on 32 rows at a time, once for each digit, then `vpsignb`. The digits of a group add up in bytes; low and
//! high ones are interleaved, and `vpmaddubsw` with 1, 31, 1, 31, .. puts them together in 16 bits.
//!
//! One token walks eight tiles far apart, a group of one after a group of the other. Two tokens share what an index and
//! a sign cost.

use super::{Activations, COLUMNS, LINES, TILE_ROWS, TRIPLETS, Weights};
use crate::Line;
use crate::blocking::{Product, cached_runs, walk};
use crate::streams::prefetch;
use crate::ternary::Tables;
use std::arch::x86_64::*;
use std::array;
use std::hint::black_box;
use std::ops::Range;

/// Bytes between a load and the prefetch of its stream.
pub(super) const AHEAD: usize = 768;
/// The base of the digits.
pub(super) const BASE: i16 = 31;
/// 2^15 / [`BASE`], rounded: what `vpmulhrsw` divides by it with.
const RECIPROCAL: i16 = 1057;
/// Groups whose sums add up in 16 bits.
pub(super) const LONG: usize = 10;
/// Lines of tables to a group.
pub(super) const TABLE_LINES: usize = TRIPLETS / 2;

const _: () = {
    let mut sum = -3 * 128;
    while sum <= 3 * 128 {
        let high = (sum * RECIPROCAL as i32 + (1 << 14)) >> 15;
        let low = sum - high * BASE as i32;
        assert!(TRIPLETS as i32 * low.abs() <= i8::MAX as i32, "low digits add up in a byte");
        assert!(TRIPLETS as i32 * high.abs() <= i8::MAX as i32, "high digits add up in a byte");
        sum += 1;
    }
    assert!(LONG * COLUMNS * 128 <= i16::MAX as usize, "sums of groups add up in 16 bits");
};

/// See [`TABLE_LINES`].
pub(crate) const TABLES: Tables = Tables { lines: |groups, tokens| groups * tokens * TABLE_LINES, make };

/// See [`Tables::make`].
#[target_feature(enable = "avx2,fma")]
fn make(codes: &[i8], stride: usize, groups: usize, tables: &mut [Line]) {
    // Weights plus one of the magnitudes 0..4 and 8..12, then of the others: the order in which `vpackssdw` puts them
    // right. The fourth of each is 0.
    let weights: [[u8; 32]; 2] = array::from_fn(|half| {
        array::from_fn(|i| {
            let magnitude = i / 16 * 8 + half * 4 + i / 4 % 4;
            super::weights(magnitude as i8).get(i % 4).map_or(0, |weight| (weight + 1) as u8)
        })
    });
    // SAFETY: any 32 bytes are a register.
    let weights: [__m256i; 2] = weights.map(|bytes| unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) });
    let one = _mm256_set1_epi16(1);
    for (codes, tables) in codes.chunks_exact(stride).zip(tables.chunks_exact_mut(groups * TABLE_LINES)) {
        for (codes, tables) in codes.chunks(COLUMNS).zip(tables.chunks_exact_mut(TABLE_LINES)) {
            // The last group may reach beyond the codes.
            let mut group = [0; COLUMNS];
            group[..codes.len()].copy_from_slice(codes);
            let halves = tables.iter_mut().flat_map(|line| line.0.chunks_exact_mut(32));
            for (codes, half) in group.chunks_exact(3).zip(halves) {
                let sum = codes.iter().map(|code| i16::from(*code)).sum();
                let codes = i32::from_le_bytes([codes[0] as u8, codes[1] as u8, codes[2] as u8, 0]);
                let codes = _mm256_set1_epi32(codes);
                let first = _mm256_madd_epi16(_mm256_maddubs_epi16(weights[0], codes), one);
                let second = _mm256_madd_epi16(_mm256_maddubs_epi16(weights[1], codes), one);
                let sums = _mm256_sub_epi16(_mm256_packs_epi32(first, second), _mm256_set1_epi16(sum));
                let high = _mm256_mulhrs_epi16(sums, _mm256_set1_epi16(RECIPROCAL));
                let low = _mm256_sub_epi16(sums, _mm256_mullo_epi16(high, _mm256_set1_epi16(BASE)));
                let digits = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi16(low, high));
                // SAFETY: half a line is 32 bytes.
                unsafe { _mm256_storeu_si256(half.as_mut_ptr().cast(), digits) };
            }
        }
    }
}

#[target_feature(enable = "avx2,fma")]
pub(crate) fn matmul(weights: Weights<'_>, x: Activations<'_>, out: &mut [f32]) {
    let tiles = weights.rows.div_ceil(TILE_ROWS);
    for run in cached_runs(x.scales.len(), 64 * TABLE_LINES * weights.groups, 4) {
        // SAFETY: this function has the features that the blocks need.
        unsafe { walk_tiles(&Ternary { weights, x }, tiles, run, out) };
    }
}

walk! {
    /// Tiles of 64 rows.
    walk_tiles:
    1 => 8 items of 1 tokens;
    2 => 4 items of 2 tokens;
    _ => 2 items of 1, 2, 4 tokens;
}

struct Ternary<'a> {
    weights: Weights<'a>,
    x: Activations<'a>,
}

/// In 16 bits: rows 0..8 and 16..24, rows 8..16 and 24..32; then the same of the upper half of the rows.
type Words = [[__m256i; 2]; 2];

impl Product for Ternary<'_> {
    #[target_feature(enable = "avx2,fma")]
    unsafe fn block<const N: usize, const T: usize>(&self, tiles: [usize; N], tokens: Range<usize>, out: &mut [f32]) {
        let Ternary { weights, x } = *self;
        let groups = weights.groups;
        let tile_lines = groups * LINES;
        let lines = tiles.map(|tile| &weights.lines[tile * tile_lines..][..tile_lines]);
        let token: [usize; T] = array::from_fn(|t| (tokens.start + t).min(tokens.end - 1));
        let tables = token.map(|t| &x.tables[t * groups * TABLE_LINES..][..groups * TABLE_LINES]);
        let mut sums = [[[0i32; TILE_ROWS]; T]; N];
        for long in (0..groups).step_by(LONG) {
            let mut words = [[[[_mm256_setzero_si256(); 2]; 2]; T]; N];
            for g in long..(long + LONG).min(groups) {
                for (lines, words) in lines.iter().zip(&mut words) {
                    let lines = &lines[g * LINES..][..LINES];
                    for line in lines {
                        prefetch(line, AHEAD);
                    }
                    if T == 1 {
                        add::<1, 2>(lines, [&tables[0][g * TABLE_LINES..][..TABLE_LINES]], 0, words);
                    } else {
                        for (tables, words) in tables.as_chunks::<2>().0.iter().zip(words.chunks_exact_mut(2)) {
                            let [a, b] = tables;
                            let at = g * TABLE_LINES..(g + 1) * TABLE_LINES;
                            let tables = [&a[at.clone()], &b[at]];
                            add::<2, 1>(lines, tables, 0, words);
                            add::<2, 1>(lines, tables, 1, words);
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

/// Adds the products of a group to `words` `[T]`: of the halves `first .. first + H` of the rows.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn add<const T: usize, const H: usize>(lines: &[Line], tables: [&[Line]; T], first: usize, words: &mut [Words]) {
    assert!(lines.len() == LINES && words.len() == T && first + H <= 2);
    let nibble = _mm256_set1_epi8(15);
    let one = _mm256_set1_epi8(1);
    let mut low = [[_mm256_setzero_si256(); H]; T];
    let mut high = [[_mm256_setzero_si256(); H]; T];
    let lines = lines.as_ptr().cast::<__m256i>();
    let tables = tables.map(|tables| tables[..LINES - 1].as_ptr().cast::<__m128i>());
    // SAFETY: there are so many lines, and each is two registers.
    let load = |line: usize, h: usize| unsafe { _mm256_load_si256(lines.add(2 * line + first + h)) };
    let mut signs: [_; H] = array::from_fn(|h| load(LINES - 1, h));
    // A number that the compiler cannot see: it would unroll the loop, add the low digits of all triplets before the
    // high ones, and spill the indices and the signs.
    for l in 0..black_box(LINES - 1) {
        for odd in 0..2 {
            // SAFETY: there is a line of tables for each line but the last, and it is four registers of 16 bytes.
            let table = |t: usize, digit| unsafe {
                _mm256_broadcastsi128_si256(_mm_load_si128(tables[t].add(4 * l + 2 * odd + digit)))
            };
            let digits: [[_; 2]; T] = array::from_fn(|t| [table(t, 0), table(t, 1)]);
            for h in 0..H {
                let line = load(l, h);
                let line = if odd == 0 { line } else { _mm256_srli_epi16::<4>(line) };
                let index = _mm256_and_si256(line, nibble);
                // The sign of a byte is that of its triplet, and no byte is 0.
                let sign = _mm256_or_si256(signs[h], one);
                signs[h] = _mm256_slli_epi16::<1>(signs[h]);
                for t in 0..T {
                    let [small, large] = digits[t];
                    let small = _mm256_sign_epi8(_mm256_shuffle_epi8(small, index), sign);
                    let large = _mm256_sign_epi8(_mm256_shuffle_epi8(large, index), sign);
                    low[t][h] = _mm256_add_epi8(low[t][h], small);
                    high[t][h] = _mm256_add_epi8(high[t][h], large);
                }
            }
        }
    }
    let places = _mm256_set1_epi16(i16::from_le_bytes([1, BASE as u8]));
    for t in 0..T {
        for h in 0..H {
            let (low, high) = (low[t][h], high[t][h]);
            let [first, last] = &mut words[t][first + h];
            *first = _mm256_add_epi16(*first, _mm256_maddubs_epi16(places, _mm256_unpacklo_epi8(low, high)));
            *last = _mm256_add_epi16(*last, _mm256_maddubs_epi16(places, _mm256_unpackhi_epi8(low, high)));
        }
    }
}

/// Adds 16-bit sums to 32-bit ones.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn widen(words: &Words, sums: &mut [i32; TILE_ROWS]) {
    for ([first, last], sums) in words.iter().zip(sums.as_chunks_mut::<32>().0) {
        let quarters = [
            _mm256_castsi256_si128(*first),
            _mm256_castsi256_si128(*last),
            _mm256_extracti128_si256::<1>(*first),
            _mm256_extracti128_si256::<1>(*last),
        ];
        for (quarter, sums) in quarters.into_iter().zip(sums.as_chunks_mut::<8>().0) {
            // SAFETY: eight integers are a register.
            unsafe {
                let sum = _mm256_add_epi32(_mm256_loadu_si256(sums.as_ptr().cast()), _mm256_cvtepi16_epi32(quarter));
                _mm256_storeu_si256(sums.as_mut_ptr().cast(), sum);
            }
        }
    }
}
