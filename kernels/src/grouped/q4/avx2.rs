//! `vpmaddubsw` with nibbles as the unsigned operand. A group's sixteen products of a 16-bit lane fit, and are widened
//! once; 8 sums of activations are subtracted, since nibbles are codes plus 8.

use crate::blocking::{cached_runs, walk};
use crate::grouped::avx2::{AHEAD, Dots, Grouped, Halves};
use crate::grouped::format::TILE_ROWS;
use crate::grouped::{Activations, Weights};
use crate::streams::prefetch;
use std::arch::x86_64::*;
use std::marker::PhantomData;

/// The largest nibble and the largest magnitude of a code; sixteen products of theirs fall into one lane.
const _: () = assert!(16 * 15 * 128 <= i16::MAX as i32);

#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn matmul(weights: Weights<'_>, x: Activations<'_>, out: &mut [f32]) {
    let tiles = weights.rows.div_ceil(TILE_ROWS);
    for run in cached_runs(x.tokens(), x.stride, 4) {
        // SAFETY: this function has the features that the blocks need.
        unsafe { walk_tiles(&Grouped { weights, x, dots: PhantomData::<Nibbles> }, tiles, run, out) };
    }
}

walk! {
    /// Tiles of 16 rows; at most eight accumulators.
    walk_tiles:
    1 => 4 items of 1 tokens;
    _ => 1 items of 1, 2, 3, 4 tokens;
}

pub(crate) struct Nibbles;

impl Dots for Nibbles {
    const CODE_LINES: usize = 4;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn dots<const N: usize, const T: usize>(
        lines: [*const __m256i; N],
        codes: [*const i32; T],
        sums: [i32; T],
    ) -> [[Halves<__m256i>; T]; N] {
        let nibble = _mm256_set1_epi8(15);
        let mut narrow = [[[_mm256_setzero_si256(); 2]; T]; N];
        for k in 0..4 {
            // SAFETY: a group of a token has eight dwords.
            let four = |plane| codes.map(|q| unsafe { _mm256_set1_epi32(q.add(2 * k + plane).read_unaligned()) });
            let (q_low, q_high) = (four(0), four(1));
            for (narrow, lines) in narrow.iter_mut().zip(lines) {
                prefetch(lines.wrapping_add(2 * k), AHEAD);
                for half in 0..2 {
                    // SAFETY: a group of a tile has four lines of two registers.
                    let w = unsafe { _mm256_load_si256(lines.add(2 * k + half)) };
                    let low = _mm256_and_si256(w, nibble);
                    let high = _mm256_and_si256(_mm256_srli_epi16::<4>(w), nibble);
                    for ((narrow, q_low), q_high) in narrow.iter_mut().zip(q_low).zip(q_high) {
                        let (low, high) = (_mm256_maddubs_epi16(low, q_low), _mm256_maddubs_epi16(high, q_high));
                        narrow[half] = _mm256_add_epi16(narrow[half], _mm256_add_epi16(low, high));
                    }
                }
            }
        }
        let one = _mm256_set1_epi16(1);
        let mut dots = [[[_mm256_setzero_si256(); 2]; T]; N];
        for n in 0..N {
            for t in 0..T {
                let offset = _mm256_set1_epi32(8 * sums[t]);
                dots[n][t] = narrow[n][t].map(|narrow| _mm256_sub_epi32(_mm256_madd_epi16(narrow, one), offset));
            }
        }
        dots
    }
}
