//! The product of [`crate::grouped`] for one token, and beside it the sum of scales times norms: two instructions more
//! for eight rows and 32 columns. Four tiles far apart are four memory streams.

use crate::blocking::{Product, walk};
use crate::grouped::avx2::{Dots, Grouped, tile_scales};
use crate::grouped::format::{PAIR, TILE_ROWS};
use crate::grouped::q4::avx2::Nibbles;
use crate::grouped::q8::avx2::Signed;
use crate::grouped::{Activations, Weights};
use crate::lanes::x86::array;
use std::arch::x86_64::*;
use std::marker::PhantomData;
use std::ops::Range;

#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn q8(weights: Weights<'_>, x: Activations<'_>, norms: &[f32], out: &mut [f32]) {
    scores::<Signed>(weights, x, norms, out);
}

#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn q4(weights: Weights<'_>, x: Activations<'_>, norms: &[f32], out: &mut [f32]) {
    scores::<Nibbles>(weights, x, norms, out);
}

#[target_feature(enable = "avx2,fma,f16c")]
fn scores<D: Dots>(weights: Weights<'_>, x: Activations<'_>, norms: &[f32], out: &mut [f32]) {
    let product = Scores { grouped: Grouped { weights, x, dots: PhantomData::<D> }, norms };
    // SAFETY: this function has the features that the blocks need.
    unsafe { walk_tiles(&product, weights.rows.div_ceil(TILE_ROWS), 0..1, out) };
}

walk! {
    /// Tiles of 16 rows.
    walk_tiles:
    _ => 4 items of 1 tokens;
}

struct Scores<'a, D> {
    grouped: Grouped<'a, D>,
    /// `[G]`.
    norms: &'a [f32],
}

impl<D: Dots> Product for Scores<'_, D> {
    /// Writes scores and reaches `[2, R]`.
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn block<const N: usize, const T: usize>(&self, tiles: [usize; N], _: Range<usize>, out: &mut [f32]) {
        const { assert!(T == 1) };
        let Grouped { weights, x, .. } = self.grouped;
        let lines = tiles.map(|tile| self.grouped.tile(tile).as_ptr().cast::<__m256i>());
        let codes = x.codes[..x.stride].as_ptr().cast::<i32>();
        let magnitude = _mm256_castsi256_ps(_mm256_set1_epi32(i32::MAX));
        let mut sums = [[[_mm256_setzero_ps(); 2]; 2]; N];
        for (g, ((norm, scale), sum)) in self.norms.iter().zip(x.scales).zip(x.sums).enumerate() {
            let block = g / PAIR * (1 + PAIR * D::CODE_LINES);
            let first = block + 1 + g % PAIR * D::CODE_LINES;
            // SAFETY: a tile has a block for each two groups, a block a line of scales and then the groups' lines, a
            // line two registers; a token has 32 codes, eight dwords, a group.
            let dots = unsafe { D::dots(lines.map(|lines| lines.add(2 * first)), [codes.add(8 * g)], [*sum]) };
            for ((sums, [dots]), lines) in sums.iter_mut().zip(dots).zip(lines) {
                // SAFETY: as above.
                let scales = unsafe { tile_scales(lines.add(2 * block), g % PAIR) };
                for half in 0..2 {
                    let product = _mm256_mul_ps(scales[half], _mm256_set1_ps(*scale));
                    sums[0][half] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots[half]), product, sums[0][half]);
                    let magnitudes = _mm256_and_ps(scales[half], magnitude);
                    sums[1][half] = _mm256_fmadd_ps(magnitudes, _mm256_set1_ps(*norm), sums[1][half]);
                }
            }
        }
        let (scores, reaches) = out.split_at_mut(weights.rows);
        for (tile, [score, reach]) in tiles.into_iter().zip(sums) {
            let rows = tile * TILE_ROWS..((tile + 1) * TILE_ROWS).min(weights.rows);
            let length = rows.len();
            scores[rows.clone()].copy_from_slice(&array(score[0], score[1])[..length]);
            reaches[rows].copy_from_slice(&array(reach[0], reach[1])[..length]);
        }
    }
}
