//! Digits of eight rows at a time: the four lines of a group, interleaved, are fractions of four columns a row; three times
//! a fraction carries the next digit out.

use super::{Activations, LINES, TILE_ROWS, TRITS, Weights};
use crate::Line;
use crate::blocking::turns;
use crate::streams::{leftovers, prefetch, rounds};
use crate::ternary::panel::avx2::{Unpack, matmul as panels};
use crate::ternary::panel::{Panel, dwords};
use std::arch::x86_64::*;
use std::array;
use std::ops::Range;

/// Bytes between a load and the prefetch of its stream.
const AHEAD: usize = 2048;
/// Groups whose products add up in 16 bits.
const RUN: usize = 12;
const _: () = assert!((RUN * TRITS * 2 * 2 * 128) as i32 <= i16::MAX as i32, "16-bit sums overflow");
/// Registers of eight rows to a tile.
const REGISTERS: usize = TILE_ROWS / 8;
/// Rows of the lower and the upper four dwords of an interleaved register.
const ROWS_OF: [[usize; 2]; REGISTERS] = [[0, 16], [4, 20], [8, 24], [12, 28], [32, 48], [36, 52], [40, 56], [44, 60]];

#[target_feature(enable = "avx2,fma")]
pub(crate) fn matmul(weights: Weights<'_>, x: Activations<'_>, out: &mut [f32]) {
    if x.scales.len() > 1 {
        return panels(&Packed(weights), weights.rows, weights.groups, x, out);
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
#[target_feature(enable = "avx2,fma")]
fn vector<const N: usize>(weights: Weights<'_>, x: Activations<'_>, tiles: [usize; N], out: &mut [f32]) {
    let lines = tiles.map(|tile| weights.t5_tile(tile).1);
    let codes = dwords(&x, 0);
    let trits = turns(TRITS);
    let mut sums = [[_mm256_setzero_si256(); REGISTERS]; N];
    for first in (0..weights.groups).step_by(RUN) {
        let groups = first..(first + RUN).min(weights.groups);
        for (lines, sums) in lines.iter().zip(&mut sums) {
            add(&lines[groups.clone()], &codes[(groups.start * TRITS).min(codes.len())..], trits, sums);
        }
    }
    let (sum, scale) = (_mm256_set1_epi32(x.sums[0]), _mm256_set1_ps(x.scales[0]));
    for (sums, tile) in sums.iter().zip(tiles) {
        let out = &mut out[tile * TILE_ROWS..];
        for (sums, starts) in sums.iter().zip(ROWS_OF) {
            let results = _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_sub_epi32(*sums, sum)), scale);
            let mut eight = [0.0; 8];
            // SAFETY: eight numbers.
            unsafe { _mm256_storeu_ps(eight.as_mut_ptr(), results) };
            for (four, start) in eight.as_chunks::<4>().0.iter().zip(starts) {
                out.iter_mut().skip(start).zip(four).for_each(|(out, result)| *out = *result);
            }
        }
    }
}

/// Adds the products of at most [`RUN`] groups of a tile and a token to the sums of its rows. `trits` is [`TRITS`], hidden
/// by [`turns`]: unrolled, the compiler makes three times three times a fraction one product with nine, then with 27 and
/// 81, and bytes have no such instruction.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn add(groups: &[[Line; LINES]], codes: &[[i8; 4]], trits: usize, sums: &mut [__m256i; REGISTERS]) {
    debug_assert!(groups.len() <= RUN);
    let one = _mm256_set1_epi16(1);
    for half in 0..2 {
        let mut narrow = [_mm256_setzero_si256(); 4];
        for (g, group) in groups.iter().enumerate() {
            prefetch(group[2 * half..].as_ptr(), AHEAD);
            prefetch(group[2 * half + 1..].as_ptr(), AHEAD);
            let mut fractions = fractions(group, half);
            // Columns beyond the stride have no codes and hold weight 0.
            for q in codes.iter().skip(g * TRITS).take(trits) {
                let q = _mm256_set1_epi32(i32::from_ne_bytes(q.map(|q| q as u8)));
                for (fractions, narrow) in fractions.iter_mut().zip(&mut narrow) {
                    *narrow = _mm256_add_epi16(*narrow, _mm256_maddubs_epi16(digits(*fractions), q));
                    *fractions = thrice(*fractions);
                }
            }
        }
        for (sum, narrow) in sums[4 * half..].iter_mut().zip(narrow) {
            *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(narrow, one));
        }
    }
}

/// The fractions of 32 rows of a group, less 128: four registers, four bytes to a row, in the order of [`ROWS_OF`].
#[inline]
#[target_feature(enable = "avx2,fma")]
fn fractions(group: &[Line; LINES], half: usize) -> [__m256i; 4] {
    // SAFETY: a line is two aligned registers.
    let [a, b, c, d] =
        array::from_fn(|j| unsafe { _mm256_load_si256(group[j].0.as_ptr().cast::<__m256i>().add(half)) });
    let (ab_low, ab_high) = (_mm256_unpacklo_epi8(a, b), _mm256_unpackhi_epi8(a, b));
    let (cd_low, cd_high) = (_mm256_unpacklo_epi8(c, d), _mm256_unpackhi_epi8(c, d));
    let interleaved = [
        _mm256_unpacklo_epi16(ab_low, cd_low),
        _mm256_unpackhi_epi16(ab_low, cd_low),
        _mm256_unpacklo_epi16(ab_high, cd_high),
        _mm256_unpackhi_epi16(ab_high, cd_high),
    ];
    let magnitude = _mm256_set1_epi8(0x7F);
    interleaved.map(|bytes| _mm256_sign_epi8(_mm256_and_si256(bytes, magnitude), bytes))
}

/// The first digit of every fraction, floor(3 f / 256): two, less one for each of the thirds 86 and 171 that f does not reach.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn digits(fractions: __m256i) -> __m256i {
    let below_one = _mm256_cmpgt_epi8(_mm256_set1_epi8(-42), fractions);
    let below_two = _mm256_cmpgt_epi8(_mm256_set1_epi8(43), fractions);
    _mm256_add_epi8(_mm256_add_epi8(_mm256_set1_epi8(2), below_one), below_two)
}

/// What is left of three times every fraction once the digit is carried out; the 128 that is missing stays missing, since
/// 3 · 128 = 128 modulo 256.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn thrice(fractions: __m256i) -> __m256i {
    _mm256_add_epi8(fractions, _mm256_add_epi8(fractions, fractions))
}

/// For panels.
struct Packed<'a>(Weights<'a>);

impl Unpack for Packed<'_> {
    const GROUP_STEPS: usize = TRITS;
    const ROWS_OF: [[usize; 2]; REGISTERS] = ROWS_OF;

    #[target_feature(enable = "avx2,fma")]
    unsafe fn unpack(&self, first_row: usize, groups: Range<usize>, panel: &mut Panel) {
        let (_, tile) = self.0.t5_tile(first_row / TILE_ROWS);
        for (group, steps) in tile[groups].iter().zip(panel.as_chunks_mut::<TRITS>().0) {
            for half in 0..2 {
                for (register, fractions) in fractions(group, half).into_iter().enumerate() {
                    let mut fractions = fractions;
                    let at = 4 * half + register;
                    for step in steps.iter_mut() {
                        let to = step[at / 2].0.as_mut_ptr().cast::<__m256i>();
                        // SAFETY: a line is two aligned registers.
                        unsafe { _mm256_store_si256(to.add(at % 2), digits(fractions)) };
                        fractions = thrice(fractions);
                    }
                }
            }
        }
    }
}
