//! `vpdpbusd` on sixteen rows at a time. It wants an unsigned operand: weights plus 128, one exclusive or a line for
//! all tokens; sums begin at -128 sums of activations.

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
        unsafe { walk_tiles(&Grouped { weights, x, dots: PhantomData::<Offset> }, tiles, run, out) };
    }
}

pub(crate) struct Offset;

impl Dots for Offset {
    const CODE_LINES: usize = 8;

    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx512vnni,avx512vbmi,avx2,fma")]
    unsafe fn dots<const N: usize, const T: usize>(
        lines: [*const __m512i; N],
        codes: [*const i32; T],
        sums: [i32; T],
        turns: usize,
    ) -> [[__m512i; T]; N] {
        let offset = _mm512_set1_epi8(-128);
        let mut dots = [sums.map(|sum| _mm512_set1_epi32(-128 * sum)); N];
        for k in 0..turns {
            // SAFETY: a group of a tile has eight lines.
            let w = lines.map(|lines| _mm512_xor_si512(unsafe { _mm512_load_si512(lines.add(k)) }, offset));
            for t in 0..T {
                // SAFETY: a group of a token has eight dwords.
                let q = _mm512_set1_epi32(unsafe { codes[t].add(k).read_unaligned() });
                for n in 0..N {
                    dots[n][t] = _mm512_dpbusd_epi32(dots[n][t], w[n], q);
                }
            }
            for lines in lines {
                prefetch(lines.wrapping_add(k), AHEAD);
            }
        }
        dots
    }
}
