//! `vpdpbusd` on a line at a time. It wants an unsigned operand: weights plus 128, one exclusive or a line for all tokens;
//! 128 sums of a token's activations are subtracted at the end.

use super::{Activations, Weights, row};
use crate::blocking::{Product, cached_runs, walk};
use crate::streams::prefetch;
use std::arch::x86_64::*;
use std::array;
use std::hint::black_box;
use std::ops::Range;

/// Bytes between a load and the prefetch of its stream.
const AHEAD: usize = 1792;

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx512vnni,avx512vbmi,avx2,fma")]
pub(crate) fn matmul(weights: Weights<'_>, x: Activations<'_>, out: &mut [f32]) {
    for run in cached_runs(x.scales.len(), x.stride, 12) {
        // SAFETY: this function has the features that the blocks need.
        unsafe { walk_rows(&Dense { weights, x }, weights.rows, run, out) };
    }
}

walk! {
    /// Rows; at most 24 accumulators.
    walk_rows:
    _ => 4 items of 1, 2, 3, 4, 6 tokens;
}

struct Dense<'a> {
    weights: Weights<'a>,
    x: Activations<'a>,
}

impl Product for Dense<'_> {
    #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx512vnni,avx512vbmi,avx2,fma")]
    unsafe fn block<const N: usize, const T: usize>(&self, rows: [usize; N], tokens: Range<usize>, out: &mut [f32]) {
        let Dense { weights, x } = *self;
        let w = rows.map(|r| row(weights, r)[..x.stride].as_ptr().cast::<__m512i>());
        let token: [usize; T] = array::from_fn(|t| (tokens.start + t).min(tokens.end - 1));
        let codes = token.map(|t| x.codes[t * x.stride..][..x.stride].as_ptr().cast::<__m512i>());
        let offset = _mm512_set1_epi8(-128);
        let mut sums = [[_mm512_setzero_si512(); T]; N];
        for g in 0..weights.groups {
            if N > T {
                for w in w {
                    prefetch(w.wrapping_add(g), AHEAD);
                }
            }
            // SAFETY: rows and tokens are 64 bytes a group long, here and below; lines are aligned.
            let w: [_; N] = array::from_fn(|n| unsafe { _mm512_xor_si512(_mm512_load_si512(w[n].add(g)), offset) });
            for t in 0..T {
                // SAFETY: as above.
                let q = unsafe { _mm512_loadu_si512(codes[t].add(g)) };
                for n in 0..N {
                    sums[n][t] = _mm512_dpbusd_epi32(sums[n][t], w[n], q);
                }
            }
        }
        // A copy that the compiler cannot see through: the accumulators are then named by constants alone and stay in
        // registers.
        let sums = black_box(sums);
        let sums = sums.as_flattened();
        let mut totals = [0i32; 24];
        for (four, totals) in sums.chunks(4).zip(totals.chunks_exact_mut(4)) {
            let four = array::from_fn(|i| *four.get(i).unwrap_or(&four[0]));
            // SAFETY: the chunk holds four numbers.
            unsafe { _mm_storeu_si128(totals.as_mut_ptr().cast(), total_of_four(four)) };
        }
        for (n, row) in rows.into_iter().enumerate() {
            for (i, t) in tokens.clone().enumerate() {
                let sum = totals[n * T + i].wrapping_sub(x.sums[t].wrapping_mul(128));
                out[row * x.scales.len() + t] = sum as f32 * x.scales[t];
            }
        }
    }
}

/// The sums of sixteen lanes each, modulo 2^32.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
fn total_of_four([a, b, c, d]: [__m512i; 4]) -> __m128i {
    // Halves of a and b beside each other, then of c and d; then quarters of all four, one to a 128-bit lane.
    let halves = |a, b| {
        let low = _mm512_shuffle_i32x4::<0b01_00_01_00>(a, b);
        _mm512_add_epi32(low, _mm512_shuffle_i32x4::<0b11_10_11_10>(a, b))
    };
    let (ab, cd) = (halves(a, b), halves(c, d));
    let even = _mm512_shuffle_i32x4::<0b10_00_10_00>(ab, cd);
    let four = _mm512_add_epi32(even, _mm512_shuffle_i32x4::<0b11_01_11_01>(ab, cd));
    let two = _mm512_add_epi32(four, _mm512_shuffle_epi32::<0b11_10_11_10>(four));
    let one = _mm512_add_epi32(two, _mm512_shuffle_epi32::<0b01_01_01_01>(two));
    _mm512_castsi512_si128(_mm512_maskz_compress_epi32(0x1111, one))
}
