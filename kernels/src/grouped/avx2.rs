//! What the AVX2 variants of the layouts share: the walk over groups and the float half of it. Within a group each layout
//! has its own way ([`Dots`]).

use super::format::PAIR;
use super::{Activations, Weights};
use crate::blocking::Product;
use std::arch::x86_64::*;
use std::array;
use std::marker::PhantomData;
use std::ops::Range;

/// Bytes between a load and the prefetch of its stream.
pub(super) const AHEAD: usize = 1792;

/// Rows 0..8 and 8..16 of a tile.
pub(super) type Halves<R> = [R; 2];

/// How a layout forms the inner products of a group.
pub(super) trait Dots {
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

pub(super) struct Grouped<'a, D> {
    pub(super) weights: Weights<'a>,
    pub(super) x: Activations<'a>,
    pub(super) dots: PhantomData<D>,
}

impl<D: Dots> Product for Grouped<'_, D> {
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn block<const N: usize, const T: usize>(&self, tiles: [usize; N], tokens: Range<usize>, out: &mut [f32]) {
        let Grouped { weights, x, .. } = *self;
        let block_lines = 1 + PAIR * D::CODE_LINES;
        let tile_lines = weights.pairs * block_lines;
        let lines = tiles.map(|tile| weights.lines[tile * tile_lines..][..tile_lines].as_ptr().cast::<__m256i>());
        let token: [usize; T] = array::from_fn(|t| (tokens.start + t).min(tokens.end - 1));
        let groups = x.groups();
        let codes = token.map(|t| x.codes[t * x.stride..][..x.stride].as_ptr().cast::<i32>());
        let scales = token.map(|t| &x.scales[t * groups..][..groups]);
        let code_sums = token.map(|t| &x.sums[t * groups..][..groups]);
        let mut sums = [[[_mm256_setzero_ps(); 2]; T]; N];
        for g in 0..groups {
            let block = 2 * (g / PAIR * block_lines);
            let first = block + 2 * (1 + g % PAIR * D::CODE_LINES);
            // SAFETY: a tile has a block for each two groups, a block a line of scales and then the groups' lines, a line
            // two registers; a token has 32 codes, eight dwords, a group.
            let dots = unsafe {
                D::dots(
                    lines.map(|lines| lines.add(first)),
                    codes.map(|codes| codes.add(8 * g)),
                    code_sums.map(|s| s[g]),
                )
            };
            for n in 0..N {
                for half in 0..2 {
                    // SAFETY: as above; the scales of eight rows are half a register.
                    let scale =
                        unsafe { _mm_load_si128(lines[n].add(block).cast::<__m128i>().add(2 * (g % PAIR) + half)) };
                    let scale = _mm256_cvtph_ps(scale);
                    for t in 0..T {
                        let product = _mm256_mul_ps(scale, _mm256_set1_ps(scales[t][g]));
                        let dot = _mm256_cvtepi32_ps(dots[n][t][half]);
                        sums[n][t][half] = _mm256_fmadd_ps(dot, product, sums[n][t][half]);
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
