//! What the AVX2 variants of the layouts share: the walk over groups and the float half of it. Within a group each
//! layout has its own way ([`Dots`]).

use super::format::PAIR;
use super::{Activations, Weights};
use crate::Line;
use crate::blocking::Product;
use std::arch::x86_64::*;
use std::array;
use std::marker::PhantomData;
use std::ops::Range;

/// Bytes between a load and the prefetch of its stream.
pub(crate) const AHEAD: usize = 1792;

/// Rows 0..8 and 8..16 of a tile.
pub(crate) type Halves<R> = [R; 2];

/// How a layout forms the inner products of a group.
pub(crate) trait Dots {
    /// Lines of codes to a group of a tile.
    const CODE_LINES: usize;

    /// The inner products of one group of N tiles and of T tokens. `lines` point to the group's codes, two registers a
    /// line; `codes` to the tokens' eight dwords; `sums` are the sums of those.
    ///
    /// # Safety
    /// The pointers must be good for that; the CPU has AVX2 and FMA.
    unsafe fn dots<const N: usize, const T: usize>(
        lines: [*const __m256i; N],
        codes: [*const i32; T],
        sums: [i32; T],
    ) -> [[Halves<__m256i>; T]; N];
}

pub(crate) struct Grouped<'a, D> {
    pub(crate) weights: Weights<'a>,
    pub(crate) x: Activations<'a>,
    pub(crate) dots: PhantomData<D>,
}

impl<D: Dots> Grouped<'_, D> {
    /// The lines of a tile.
    pub(crate) fn tile(&self, tile: usize) -> &[Line] {
        let length = self.weights.pairs * (1 + PAIR * D::CODE_LINES);
        &self.weights.lines[tile * length..][..length]
    }
}

/// The scales of a group of a tile, from the line that begins its block.
///
/// # Safety
/// The line must be readable; the CPU has AVX2 and F16C.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) unsafe fn tile_scales(line: *const __m256i, group: usize) -> Halves<__m256> {
    // SAFETY: the scales of a group are a register of f16, half of the line.
    let scales = unsafe { _mm256_load_si256(line.add(group)) };
    [_mm256_cvtph_ps(_mm256_castsi256_si128(scales)), _mm256_cvtph_ps(_mm256_extracti128_si256::<1>(scales))]
}

impl<D: Dots> Product for Grouped<'_, D> {
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn block<const N: usize, const T: usize>(&self, tiles: [usize; N], tokens: Range<usize>, out: &mut [f32]) {
        let Grouped { weights, x, .. } = *self;
        let lines = tiles.map(|tile| self.tile(tile).as_ptr().cast::<__m256i>());
        let token: [usize; T] = array::from_fn(|t| (tokens.start + t).min(tokens.end - 1));
        let groups = x.groups();
        let codes = token.map(|t| x.codes[t * x.stride..][..x.stride].as_ptr().cast::<i32>());
        let scales = token.map(|t| &x.scales[t * groups..][..groups]);
        let code_sums = token.map(|t| &x.sums[t * groups..][..groups]);
        let mut sums = [[[_mm256_setzero_ps(); 2]; T]; N];
        for g in 0..groups {
            let block = g / PAIR * (1 + PAIR * D::CODE_LINES);
            let first = block + 1 + g % PAIR * D::CODE_LINES;
            // SAFETY: a tile has a block for each two groups, a block a line of scales and then the groups' lines, a
            // line two registers; a token has 32 codes, eight dwords, a group.
            let dots = unsafe {
                let lines = lines.map(|lines| lines.add(2 * first));
                D::dots(lines, codes.map(|codes| codes.add(8 * g)), code_sums.map(|sums| sums[g]))
            };
            for ((sums, dots), lines) in sums.iter_mut().zip(dots).zip(lines) {
                // SAFETY: as above.
                let tile_scales = unsafe { tile_scales(lines.add(2 * block), g % PAIR) };
                for ((sums, dots), scales) in sums.iter_mut().zip(dots).zip(scales) {
                    let scale = _mm256_set1_ps(scales[g]);
                    for half in 0..2 {
                        let product = _mm256_mul_ps(tile_scales[half], scale);
                        sums[half] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots[half]), product, sums[half]);
                    }
                }
            }
        }
        let width = x.tokens();
        for (sums, tile) in sums.iter().zip(tiles) {
            let rows = tile * super::format::TILE_ROWS..weights.rows;
            for (sums, t) in sums.iter().zip(tokens.clone()) {
                let results = crate::lanes::x86::array(sums[0], sums[1]);
                for (r, result) in rows.clone().zip(results) {
                    out[r * width + t] = result;
                }
            }
        }
    }
}
