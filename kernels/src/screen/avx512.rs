//! The product of [`crate::grouped`] for one token, and beside it the sum of scales times norms: two instructions more
//! for sixteen rows and 32 columns. Eight tiles far apart are eight memory streams.

use crate::blocking::{Product, turns, walk};
use crate::grouped::avx512::{Dots, Grouped, tile_scales};
use crate::grouped::format::{PAIR, TILE_ROWS};
use crate::grouped::q4::avx512::Nibbles;
use crate::grouped::q8::avx512::Offset;
use crate::grouped::{Activations, Weights};
use crate::transpose::avx512::first as first_lanes;
use std::arch::x86_64::*;
use std::hint::black_box;
use std::marker::PhantomData;
use std::ops::Range;

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx512vnni,avx512vbmi,avx2,fma")]
pub(crate) fn q8(weights: Weights<'_>, x: Activations<'_>, norms: &[f32], out: &mut [f32]) {
    scores::<Offset>(weights, x, norms, out);
}

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx512vnni,avx512vbmi,avx2,fma")]
pub(crate) fn q4(weights: Weights<'_>, x: Activations<'_>, norms: &[f32], out: &mut [f32]) {
    scores::<Nibbles>(weights, x, norms, out);
}

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx512vnni,avx512vbmi,avx2,fma")]
fn scores<D: Dots>(weights: Weights<'_>, x: Activations<'_>, norms: &[f32], out: &mut [f32]) {
    let product = Scores { grouped: Grouped { weights, x, dots: PhantomData::<D> }, norms };
    // SAFETY: this function has the features that the blocks need.
    unsafe { walk_tiles(&product, weights.rows.div_ceil(TILE_ROWS), 0..1, out) };
}

walk! {
    /// Tiles of 16 rows.
    walk_tiles:
    _ => 8 items of 1 tokens;
}

struct Scores<'a, D> {
    grouped: Grouped<'a, D>,
    /// `[G]`.
    norms: &'a [f32],
}

impl<D: Dots> Product for Scores<'_, D> {
    /// Writes scores and reaches `[2, R]`.
    #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx512vnni,avx512vbmi,avx2,fma")]
    unsafe fn block<const N: usize, const T: usize>(&self, tiles: [usize; N], _: Range<usize>, out: &mut [f32]) {
        const { assert!(T == 1) };
        let Grouped { weights, x, .. } = self.grouped;
        let lines = tiles.map(|tile| self.grouped.tile(tile).as_ptr().cast::<__m512i>());
        let codes = x.codes[..x.stride].as_ptr().cast::<i32>();
        let turns = turns(D::CODE_LINES);
        let mut sums = [[_mm512_setzero_ps(); 2]; N];
        for (g, ((norm, scale), sum)) in self.norms.iter().zip(x.scales).zip(x.sums).enumerate() {
            let block = g / PAIR * (1 + PAIR * D::CODE_LINES);
            let first = block + 1 + g % PAIR * D::CODE_LINES;
            // SAFETY: a tile has a block for each two groups, a block a line of scales and then the groups' lines; a
            // token has 32 codes, eight dwords, a group.
            let dots = unsafe { D::dots(lines.map(|lines| lines.add(first)), [codes.add(8 * g)], [*sum], turns) };
            for ((sums, [dot]), lines) in sums.iter_mut().zip(dots).zip(lines) {
                // SAFETY: as above.
                let scales = unsafe { tile_scales(lines.add(block), g % PAIR) };
                let product = _mm512_mul_ps(scales, _mm512_set1_ps(*scale));
                sums[0] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), product, sums[0]);
                sums[1] = _mm512_fmadd_ps(_mm512_abs_ps(scales), _mm512_set1_ps(*norm), sums[1]);
            }
        }

        // A copy that the compiler cannot see through: the accumulators are then named by constants alone and stay in
        // registers.
        let sums = black_box(sums);
        let (scores, reaches) = out.split_at_mut(weights.rows);
        for (tile, [score, reach]) in tiles.into_iter().zip(sums) {
            let rows = tile * TILE_ROWS..((tile + 1) * TILE_ROWS).min(weights.rows);
            for (out, value) in [(&mut scores[rows.clone()], score), (&mut reaches[rows], reach)] {
                // SAFETY: the mask admits as many elements as `out` has.
                unsafe { _mm512_mask_storeu_ps(out.as_mut_ptr(), first_lanes(out.len()), value) };
            }
        }
    }
}
