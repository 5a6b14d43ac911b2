//! `vpmaddubsw` wants an unsigned operand: |activation|, and the weight takes the activation's sign. A 16-bit lane
//! holds two products and no more, so each register is widened at once. Many tokens multiply words ([`super::panel`]).

use super::panel;
use crate::blocking::{cached_runs, walk};
use crate::grouped::avx2::{AHEAD, Dots, Grouped, Halves};
use crate::grouped::format::TILE_ROWS;
use crate::grouped::{Activations, Weights};
use crate::streams::prefetch;
use std::arch::x86_64::*;
use std::marker::PhantomData;

#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn matmul(weights: Weights<'_>, x: Activations<'_>, out: &mut [f32]) {
    if x.tokens() >= panel::MANY {
        return panel::matmul(weights, x, out);
    }
    let tiles = weights.rows.div_ceil(TILE_ROWS);
    for run in cached_runs(x.tokens(), x.stride, 2) {
        // SAFETY: this function has the features that the blocks need.
        unsafe { walk_tiles(&Grouped { weights, x, dots: PhantomData::<Signed> }, tiles, run, out) };
    }
}

walk! {
    /// Tiles of 16 rows; at most eight integer accumulators.
    walk_tiles:
    1 => 4 items of 1 tokens;
    _ => 2 items of 1, 2 tokens;
}

pub(crate) struct Signed;

impl Dots for Signed {
    const CODE_LINES: usize = 8;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn dots<const N: usize, const T: usize>(
        lines: [*const __m256i; N],
        codes: [*const i32; T],
        _: [i32; T],
    ) -> [[Halves<__m256i>; T]; N] {
        let one = _mm256_set1_epi16(1);
        let mut dots = [[[_mm256_setzero_si256(); 2]; T]; N];
        for k in 0..8 {
            // SAFETY: a group of a token has eight dwords.
            let q = codes.map(|codes| _mm256_set1_epi32(unsafe { codes.add(k).read_unaligned() }));
            for (dots, lines) in dots.iter_mut().zip(lines) {
                prefetch(lines.wrapping_add(2 * k), AHEAD);
                for half in 0..2 {
                    // SAFETY: a group of a tile has eight lines of two registers.
                    let w = unsafe { _mm256_load_si256(lines.add(2 * k + half)) };
                    for (dots, q) in dots.iter_mut().zip(q) {
                        let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(q), _mm256_sign_epi8(w, q));
                        dots[half] = _mm256_add_epi32(dots[half], _mm256_madd_epi16(pairs, one));
                    }
                }
            }
        }
        dots
    }
}
