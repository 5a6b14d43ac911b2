//! `vpmaddubsw` on half a line at a time: codes are the unsigned operand, 32 activations the signed one.

use super::{Activations, COLUMNS, PLANE, Weights};
use crate::Line;
use crate::blocking::{Product, cached_runs, walk};
use std::arch::x86_64::*;
use std::array;
use std::ops::Range;

/// Lines whose products add up in 16 bits, each half of a line for itself.
const RUN: usize = 10;
const _: () = assert!(RUN as i32 * 4 * 2 * 3 * 128 <= i16::MAX as i32, "16-bit sums of a run overflow");

#[target_feature(enable = "avx2,fma")]
pub(crate) fn matmul(weights: Weights<'_>, x: Activations<'_>, out: &mut [f32]) {
    for run in cached_runs(x.scales.len(), x.stride, 4) {
        // SAFETY: this function has the features that the blocks need.
        unsafe { walk_rows(&Rows { weights, x }, weights.rows, run, out) };
    }
}

walk! {
    /// Rows, one after the other.
    walk_rows:
    _ => 1 items of 1, 2, 3, 4 tokens;
}

struct Rows<'a> {
    weights: Weights<'a>,
    x: Activations<'a>,
}

impl Product for Rows<'_> {
    #[target_feature(enable = "avx2,fma")]
    unsafe fn block<const N: usize, const T: usize>(&self, rows: [usize; N], tokens: Range<usize>, out: &mut [f32]) {
        let Rows { weights, x } = *self;
        let token: [usize; T] = array::from_fn(|t| (tokens.start + t).min(tokens.end - 1));
        let codes = token.map(|t| &x.codes[t * x.stride..][..x.stride]);
        let whole = x.stride / COLUMNS;
        for row in rows {
            let lines = &weights.lines[row * weights.groups..][..weights.groups];
            let mut sums = [_mm256_setzero_si256(); T];
            for start in (0..whole).step_by(RUN) {
                let run = start..(start + RUN).min(whole);
                add::<T, 4>(&lines[run], codes.map(|codes| &codes[start * COLUMNS..]), &mut sums);
            }
            if x.stride > whole * COLUMNS {
                let (last, rest) = (&lines[whole..], codes.map(|codes| &codes[whole * COLUMNS..]));
                match rest[0].len() / PLANE {
                    1 => add::<T, 1>(last, rest, &mut sums),
                    2 => add::<T, 2>(last, rest, &mut sums),
                    _ => add::<T, 3>(last, rest, &mut sums),
                }
            }
            for (sums, t) in sums.into_iter().zip(tokens.clone()) {
                out[row * x.scales.len() + t] = (total(sums) - x.sums[t]) as f32 * x.scales[t];
            }
        }
    }
}

/// Adds the products of the first PLANES planes of at most [`RUN`] lines; tokens' activations from the first line's on.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn add<const T: usize, const PLANES: usize>(lines: &[Line], codes: [&[i8]; T], sums: &mut [__m256i; T]) {
    debug_assert!(lines.len() <= RUN);
    let length = lines.len().saturating_sub(1) * COLUMNS + PLANES * PLANE;
    let codes: [_; T] = array::from_fn(|t| codes[t][..length].as_ptr().cast::<__m256i>());
    let mut narrow = [[_mm256_setzero_si256(); 2]; T];
    for (g, line) in lines.iter().enumerate() {
        let halves = line.0.as_ptr().cast::<__m256i>();
        for half in [0, 1] {
            // SAFETY: a line is two aligned registers.
            let mut crumbs = unsafe { _mm256_load_si256(halves.add(half)) };
            for plane in 0..PLANES {
                let unpacked = _mm256_and_si256(crumbs, _mm256_set1_epi8(0b11));
                crumbs = _mm256_srli_epi16::<2>(crumbs);
                for t in 0..T {
                    // SAFETY: a group of activations is four planes of two registers, the last one PLANES of them.
                    let q = unsafe { _mm256_loadu_si256(codes[t].add(8 * g + 2 * plane + half)) };
                    narrow[t][half] = _mm256_add_epi16(narrow[t][half], _mm256_maddubs_epi16(unpacked, q));
                }
            }
        }
    }
    for t in 0..T {
        for half in narrow[t] {
            sums[t] = _mm256_add_epi32(sums[t], _mm256_madd_epi16(half, _mm256_set1_epi16(1)));
        }
    }
}

/// The sum of eight lanes.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(crate) fn total(lanes: __m256i) -> i32 {
    let four = _mm_add_epi32(_mm256_castsi256_si128(lanes), _mm256_extracti128_si256::<1>(lanes));
    let two = _mm_add_epi32(four, _mm_unpackhi_epi64(four, four));
    _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32::<0b01_01_01_01>(two)))
}
