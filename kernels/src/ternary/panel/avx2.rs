//! `vpmaddubsw` of a panel with four tokens at a time: sixteen rows and four tokens make eight accumulators.

use super::{LINES, Panel, ROWS, STEPS, TOKENS, dwords};
use crate::Line;
use crate::ternary::Activations;
use std::arch::x86_64::*;
use std::array;
use std::ops::Range;

/// Registers of eight rows each.
const REGISTERS: usize = ROWS / 8;

/// A packed matrix that can fill panels.
pub(crate) trait Unpack {
    /// Steps of four columns to a group.
    const GROUP_STEPS: usize;
    /// The first row of eight that each half of a panel's line holds, in pairs of four: `ROWS_OF[h]` are the rows of the
    /// lower and of the upper four dwords of half-line h.
    const ROWS_OF: [[usize; 2]; REGISTERS];

    /// Writes the codes of `groups` of 64 rows from `first_row` on.
    ///
    /// # Safety
    /// The CPU must have AVX2.
    unsafe fn unpack(&self, first_row: usize, groups: Range<usize>, panel: &mut Panel);
}

/// `out[r, t]` of all rows and tokens.
#[target_feature(enable = "avx2,fma")]
pub(crate) fn matmul<U: Unpack>(source: &U, rows: usize, groups: usize, x: Activations<'_>, out: &mut [f32]) {
    let tokens = x.scales.len();
    let mut panel: Panel = [[Line([0; 64]); LINES]; STEPS];
    let mut sums = [[_mm256_setzero_si256(); REGISTERS]; TOKENS];
    for run in (0..tokens).step_by(TOKENS).map(|start| start..(start + TOKENS).min(tokens)) {
        for first_row in (0..rows).step_by(ROWS) {
            sums[..run.len()].fill([_mm256_setzero_si256(); REGISTERS]);
            let per_panel = STEPS / U::GROUP_STEPS;
            for first in (0..groups).step_by(per_panel) {
                let some = first..(first + per_panel).min(groups);
                // Steps beyond the stride hold weight 0 and have no codes.
                let steps = some.start * U::GROUP_STEPS..(some.end * U::GROUP_STEPS).min(x.stride / 4);
                // SAFETY: this function has AVX2.
                unsafe { source.unpack(first_row, some, &mut panel) };
                let mut left = run.clone();
                for sums in sums[..run.len()].chunks_mut(4) {
                    let first = left.start;
                    left.start += sums.len();
                    match sums.len() {
                        1 => multiply::<1>(&panel, steps.clone(), x, first, sums),
                        2 => multiply::<2>(&panel, steps.clone(), x, first, sums),
                        3 => multiply::<3>(&panel, steps.clone(), x, first, sums),
                        _ => multiply::<4>(&panel, steps.clone(), x, first, sums),
                    }
                }
            }
            for (t, sums) in run.clone().zip(&sums) {
                let (sum, scale) = (_mm256_set1_epi32(x.sums[t]), _mm256_set1_ps(x.scales[t]));
                for (sums, starts) in sums.iter().zip(U::ROWS_OF) {
                    let results = _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_sub_epi32(*sums, sum)), scale);
                    let mut eight = [0.0; 8];
                    // SAFETY: eight numbers.
                    unsafe { _mm256_storeu_ps(eight.as_mut_ptr(), results) };
                    for (four, start) in eight.as_chunks::<4>().0.iter().zip(starts) {
                        for (row, result) in (first_row + start..rows).zip(four) {
                            out[row * tokens + t] = *result;
                        }
                    }
                }
            }
        }
    }
}

/// Adds the products of some steps and T tokens from `first` on.
#[target_feature(enable = "avx2,fma")]
fn multiply<const T: usize>(
    panel: &Panel,
    steps: Range<usize>,
    x: Activations<'_>,
    first: usize,
    sums: &mut [[__m256i; REGISTERS]],
) {
    let codes: [*const i32; T] = array::from_fn(|t| dwords(&x, first + t)[steps.clone()].as_ptr().cast());
    let lines = &panel[..steps.len()];
    let one = _mm256_set1_epi16(1);
    for pair in 0..REGISTERS / 2 {
        let mut narrow = [[_mm256_setzero_si256(); 2]; T];
        for (s, lines) in lines.iter().enumerate() {
            let halves = lines[pair].0.as_ptr().cast::<__m256i>();
            // SAFETY: a line is two aligned registers.
            let (a, b) = unsafe { (_mm256_load_si256(halves), _mm256_load_si256(halves.add(1))) };
            for t in 0..T {
                // SAFETY: a token has as many dwords as there are steps.
                let q = _mm256_set1_epi32(unsafe { codes[t].add(s).read_unaligned() });
                narrow[t][0] = _mm256_add_epi16(narrow[t][0], _mm256_maddubs_epi16(a, q));
                narrow[t][1] = _mm256_add_epi16(narrow[t][1], _mm256_maddubs_epi16(b, q));
            }
        }
        for t in 0..T {
            for half in 0..2 {
                let sum = &mut sums[t][2 * pair + half];
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(narrow[t][half], one));
            }
        }
    }
}
