//! What the AVX-512 variants of the layouts share: the walk over groups and the float half of it. Within a group each
//! layout has its own way ([`Dots`]). One token walks eight tiles far apart as memory streams of their own; more share
//! the weights that are loaded and unpacked. The lines of a group are walked in a loop that is not unrolled, so that sums
//! and the products of the group stay in registers, 24 of them at most.

use super::format::{PAIR, TILE_ROWS};
use super::{Activations, Weights};
use crate::Line;
use crate::blocking::{Product, turns, walk};
use crate::transpose::avx512::{first, square16};
use std::arch::x86_64::*;
use std::array;
use std::hint::black_box;
use std::marker::PhantomData;
use std::ops::Range;

/// Bytes between a load and the prefetch of its stream.
pub(crate) const AHEAD: usize = 1792;

/// How a layout forms the inner products of a group: sixteen rows in a register.
pub(crate) trait Dots {
    /// Lines of codes to a group of a tile.
    const CODE_LINES: usize;

    /// The inner products of one group of N tiles and of T tokens. `lines` point to the group's codes; `codes` to the
    /// tokens' eight dwords; `sums` are the sums of those. `turns` is [`Dots::CODE_LINES`], hidden by
    /// [`crate::blocking::turns`].
    ///
    /// # Safety
    /// The pointers must be good for that; the CPU has the AVX-512 level.
    unsafe fn dots<const N: usize, const T: usize>(
        lines: [*const __m512i; N],
        codes: [*const i32; T],
        sums: [i32; T],
        turns: usize,
    ) -> [[__m512i; T]; N];
}

walk! {
    /// Tiles of 16 rows; at most twelve integer and twelve float accumulators.
    walk_tiles:
    1 => 8 items of 1 tokens;
    2 | 3 => 4 items of 2, 3 tokens;
    _ => 2 items of 1, 2, 3, 4, 6 tokens;
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
/// The line must be readable; the CPU has the AVX-512 level.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
pub(crate) unsafe fn tile_scales(line: *const __m512i, group: usize) -> __m512 {
    // SAFETY: the scales of a group are a register of f16, half of the line.
    _mm512_cvtph_ps(unsafe { _mm256_load_si256(line.cast::<__m256i>().add(group)) })
}

impl<D: Dots> Product for Grouped<'_, D> {
    #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx512vnni,avx512vbmi,avx2,fma")]
    unsafe fn block<const N: usize, const T: usize>(&self, tiles: [usize; N], tokens: Range<usize>, out: &mut [f32]) {
        let Grouped { weights, x, .. } = *self;
        let lines = tiles.map(|tile| self.tile(tile).as_ptr().cast::<__m512i>());
        let token: [usize; T] = array::from_fn(|t| (tokens.start + t).min(tokens.end - 1));
        let groups = x.groups();
        let codes = token.map(|t| x.codes[t * x.stride..][..x.stride].as_ptr().cast::<i32>());
        let scales = token.map(|t| x.scales[t * groups..][..groups].as_ptr());
        let code_sums = token.map(|t| x.sums[t * groups..][..groups].as_ptr());
        let turns = turns(D::CODE_LINES);
        let mut sums = [[_mm512_setzero_ps(); T]; N];
        for g in 0..groups {
            let block = g / PAIR * (1 + PAIR * D::CODE_LINES);
            let first = block + 1 + g % PAIR * D::CODE_LINES;
            // SAFETY: a tile has a block for each two groups, a block a line of scales and then the groups' lines; a
            // token has 32 codes, eight dwords, one scale and one sum a group.
            let dots = unsafe {
                let lines = lines.map(|lines| lines.add(first));
                D::dots(lines, codes.map(|codes| codes.add(8 * g)), code_sums.map(|sums| *sums.add(g)), turns)
            };
            for ((sums, dots), lines) in sums.iter_mut().zip(dots).zip(lines) {
                // SAFETY: as above.
                let tile_scales = unsafe { tile_scales(lines.add(block), g % PAIR) };
                for ((sum, dot), scales) in sums.iter_mut().zip(dots).zip(scales) {
                    // SAFETY: as above.
                    let product = _mm512_mul_ps(tile_scales, _mm512_set1_ps(unsafe { *scales.add(g) }));
                    *sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), product, *sum);
                }
            }
        }

        // A copy that the compiler cannot see through: the accumulators are then named by constants alone and stay in
        // registers.
        let sums = black_box(sums);
        let (width, mask) = (x.tokens(), first(tokens.len()));
        for (sums, tile) in sums.iter().zip(tiles) {
            let first_row = tile * TILE_ROWS;
            let rows = (weights.rows - first_row).min(TILE_ROWS);
            if width == 1 {
                let out = &mut out[first_row..][..rows];
                // SAFETY: the mask admits as many elements as `out` has.
                unsafe { _mm512_mask_storeu_ps(out.as_mut_ptr(), first(rows), sums[0]) };
                continue;
            }
            let mut square = [_mm512_setzero_ps(); 16];
            square[..T].copy_from_slice(sums);
            for (r, row) in square16(square).into_iter().enumerate().take(rows) {
                let out = &mut out[(first_row + r) * width + tokens.start..][..tokens.len()];
                // SAFETY: the mask admits as many elements as `out` has.
                unsafe { _mm512_mask_storeu_ps(out.as_mut_ptr(), mask, row) };
            }
        }
    }
}
