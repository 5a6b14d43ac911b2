//! `vpdpbusd` on sixteen rows at a time with nibbles as the unsigned operand; sums begin at -8 sums of activations,
//! since nibbles are codes plus 8.

use crate::blocking::cached_runs;
use crate::grouped::avx512::{AHEAD, Dots, Grouped, walk_tiles};
use crate::grouped::format::TILE_ROWS;
use crate::grouped::{Activations, Weights};
use crate::streams::prefetch;
use std::arch::x86_64::*;
use std::marker::PhantomData;

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx512vnni,avx512vbmi,avx2,fma")]
pub(crate) fn matmul(weights: Weights<'_>, x: Activations<'_>, out: &mut [f32]) {
    let tiles = weights.rows.div_ceil(TILE_ROWS);
    for run in cached_runs(x.tokens(), x.stride, 6) {
        // SAFETY: this function has the features that the blocks need.
        unsafe { walk_tiles(&Grouped { weights, x, dots: PhantomData::<Nibbles> }, tiles, run, out) };
    }
}

pub(crate) struct Nibbles;

impl Dots for Nibbles {
    const CODE_LINES: usize = 4;

    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx512vnni,avx512vbmi,avx2,fma")]
    unsafe fn dots<const N: usize, const T: usize>(
        lines: [*const __m512i; N],
        codes: [*const i32; T],
        sums: [i32; T],
        turns: usize,
    ) -> [[__m512i; T]; N] {
        let nibble = _mm512_set1_epi8(15);
        let mut dots = [sums.map(|sum| _mm512_set1_epi32(-8 * sum)); N];
        for k in 0..turns {
            // SAFETY: a group of a tile has four lines.
            let w = lines.map(|lines| unsafe { _mm512_load_si512(lines.add(k)) });
            let low = w.map(|w| _mm512_and_si512(w, nibble));
            let high = w.map(|w| _mm512_and_si512(_mm512_srli_epi16::<4>(w), nibble));
            for (plane, w) in [low, high].into_iter().enumerate() {
                for t in 0..T {
                    // SAFETY: a group of a token has eight dwords.
                    let q = _mm512_set1_epi32(unsafe { codes[t].add(2 * k + plane).read_unaligned() });
                    for n in 0..N {
                        dots[n][t] = _mm512_dpbusd_epi32(dots[n][t], w[n], q);
                    }
                }
            }
            for lines in lines {
                prefetch(lines.wrapping_add(k), AHEAD);
            }
        }
        dots
    }
}
