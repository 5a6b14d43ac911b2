//! `vpdpbusd` of a panel with six tokens at a time: 64 rows and six tokens make 24 accumulators, which need four loads and
//! six broadcasts a step.

use super::{LINES, Panel, ROWS, STEPS, TOKENS, dwords};
use crate::Line;
use crate::ternary::Activations;
use crate::transpose::avx512::{first, square16};
use std::arch::x86_64::*;
use std::array;
use std::ops::Range;

/// A packed matrix that can fill panels. Dword i of line l of a step is row 16 (i / 4) + 4 l + i % 4 of the 64.
pub(crate) trait Unpack {
    /// Steps of four columns to a group.
    const GROUP_STEPS: usize;

    /// Writes the codes of `groups` of 64 rows from `first_row` on.
    ///
    /// # Safety
    /// The CPU must have the features of [`crate::Isa::Avx512`].
    unsafe fn unpack(&self, first_row: usize, groups: Range<usize>, panel: &mut Panel);
}

/// `out[r, t]` of all rows and tokens.
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx512vnni,avx512vbmi,avx2,fma")]
pub(crate) fn matmul<U: Unpack>(source: &U, rows: usize, groups: usize, x: Activations<'_>, out: &mut [f32]) {
    let tokens = x.scales.len();
    let mut panel: Panel = [[Line([0; 64]); LINES]; STEPS];
    let mut sums = [[_mm512_setzero_si512(); LINES]; TOKENS];
    for run in (0..tokens).step_by(TOKENS).map(|start| start..(start + TOKENS).min(tokens)) {
        for first_row in (0..rows).step_by(ROWS) {
            sums[..run.len()].fill([_mm512_setzero_si512(); LINES]);
            let per_panel = STEPS / U::GROUP_STEPS;
            for first in (0..groups).step_by(per_panel) {
                let some = first..(first + per_panel).min(groups);
                // Steps beyond the stride hold weight 0 and have no codes.
                let steps = some.start * U::GROUP_STEPS..(some.end * U::GROUP_STEPS).min(x.stride / 4);
                // SAFETY: this function has the features.
                unsafe { source.unpack(first_row, some, &mut panel) };
                let mut left = run.clone();
                for sums in sums[..run.len()].chunks_mut(6) {
                    let first = left.start;
                    left.start += sums.len();
                    match sums.len() {
                        1 => multiply::<1>(&panel, steps.clone(), x, first, sums),
                        2 => multiply::<2>(&panel, steps.clone(), x, first, sums),
                        3 => multiply::<3>(&panel, steps.clone(), x, first, sums),
                        4 => multiply::<4>(&panel, steps.clone(), x, first, sums),
                        5 => multiply::<5>(&panel, steps.clone(), x, first, sums),
                        _ => multiply::<6>(&panel, steps.clone(), x, first, sums),
                    }
                }
            }
            let mut left = run.clone();
            for sums in sums[..run.len()].chunks(16) {
                write(sums, first_row..rows.min(first_row + ROWS), left.start, x, out);
                left.start += sums.len();
            }
        }
    }
}

/// Adds the products of some steps and T tokens from `first` on.
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx512vnni,avx512vbmi,avx2,fma")]
fn multiply<const T: usize>(
    panel: &Panel,
    steps: Range<usize>,
    x: Activations<'_>,
    first: usize,
    sums: &mut [[__m512i; LINES]],
) {
    let codes: [*const i32; T] = array::from_fn(|t| dwords(&x, first + t)[steps.clone()].as_ptr().cast());
    let mut products: [[__m512i; LINES]; T] = array::from_fn(|t| sums[t]);
    for (s, lines) in panel[..steps.len()].iter().enumerate() {
        // SAFETY: a line is one aligned register.
        let weights: [__m512i; LINES] = array::from_fn(|l| unsafe { _mm512_load_si512(lines[l].0.as_ptr().cast()) });
        for t in 0..T {
            // SAFETY: a token has as many dwords as there are steps.
            let q = _mm512_set1_epi32(unsafe { codes[t].add(s).read_unaligned() });
            for l in 0..LINES {
                products[t][l] = _mm512_dpbusd_epi32(products[t][l], weights[l], q);
            }
        }
    }
    sums[..T].copy_from_slice(&products);
}

/// Writes the results of up to sixteen tokens from `token` on.
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx512vnni,avx512vbmi,avx2,fma")]
fn write(sums: &[[__m512i; LINES]], rows: Range<usize>, token: usize, x: Activations<'_>, out: &mut [f32]) {
    let tokens = x.scales.len();
    let mask = first(sums.len());
    for l in 0..LINES {
        let mut square = [_mm512_setzero_ps(); 16];
        for (i, (square, sums)) in square.iter_mut().zip(sums).enumerate() {
            let products = _mm512_sub_epi32(sums[l], _mm512_set1_epi32(x.sums[token + i]));
            *square = _mm512_mul_ps(_mm512_cvtepi32_ps(products), _mm512_set1_ps(x.scales[token + i]));
        }
        for (i, results) in square16(square).into_iter().enumerate() {
            let row = rows.start + i / 4 * 16 + 4 * l + i % 4;
            if row < rows.end {
                let out = &mut out[row * tokens + token..][..sums.len()];
                // SAFETY: the mask admits as many elements as `out` has.
                unsafe { _mm512_mask_storeu_ps(out.as_mut_ptr(), mask, results) };
            }
        }
    }
}
