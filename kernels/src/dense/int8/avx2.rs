//! `vpmaddubsw` wants an unsigned operand: |activation|, and the weight takes the activation's sign. A 16-bit lane holds
//! two products and no more, so each register is widened at once.

use super::{Activations, Weights, row};
use crate::blocking::{Product, cached_runs, walk};
use crate::streams::prefetch;
use crate::ternary::i2_rows::avx2::total;
use std::arch::x86_64::*;
use std::array;
use std::hint::black_box;
use std::ops::Range;

/// Bytes between a load and the prefetch of its stream.
const AHEAD: usize = 1792;

#[target_feature(enable = "avx2,fma")]
pub(crate) fn matmul(weights: Weights<'_>, x: Activations<'_>, out: &mut [f32]) {
    for run in cached_runs(x.scales.len(), x.stride, 2) {
        // SAFETY: this function has the features that the blocks need.
        unsafe { walk_rows(&Dense { weights, x }, weights.rows, run, out) };
    }
}

walk! {
    /// Rows; at most eight accumulators.
    walk_rows:
    1 => 4 items of 1 tokens;
    _ => 4 items of 1, 2 tokens;
}

struct Dense<'a> {
    weights: Weights<'a>,
    x: Activations<'a>,
}

impl Product for Dense<'_> {
    #[target_feature(enable = "avx2,fma")]
    unsafe fn block<const N: usize, const T: usize>(&self, rows: [usize; N], tokens: Range<usize>, out: &mut [f32]) {
        let Dense { weights, x } = *self;
        let w = rows.map(|r| row(weights, r)[..x.stride].as_ptr().cast::<__m256i>());
        let token: [usize; T] = array::from_fn(|t| (tokens.start + t).min(tokens.end - 1));
        let codes = token.map(|t| x.codes[t * x.stride..][..x.stride].as_ptr().cast::<__m256i>());
        let one = _mm256_set1_epi16(1);
        let mut sums = [[_mm256_setzero_si256(); T]; N];
        for g in 0..weights.groups {
            if N > T {
                for w in w {
                    prefetch(w.wrapping_add(2 * g), AHEAD);
                }
            }
            for i in [2 * g, 2 * g + 1] {
                // SAFETY: rows and tokens are 64 bytes a group long, here and below.
                let q: [_; T] = array::from_fn(|t| unsafe { _mm256_loadu_si256(codes[t].add(i)) });
                let magnitude = q.map(|q| _mm256_abs_epi8(q));
                for n in 0..N {
                    // SAFETY: as above; lines are aligned.
                    let w = unsafe { _mm256_load_si256(w[n].add(i)) };
                    for t in 0..T {
                        let pairs = _mm256_maddubs_epi16(magnitude[t], _mm256_sign_epi8(w, q[t]));
                        sums[n][t] = _mm256_add_epi32(sums[n][t], _mm256_madd_epi16(pairs, one));
                    }
                }
            }
        }
        // A copy that the compiler cannot see through: the accumulators are then named by constants alone and stay in
        // registers.
        let sums = black_box(sums);
        for (sums, row) in sums.into_iter().zip(rows) {
            for (sums, t) in sums.into_iter().zip(tokens.clone()) {
                out[row * x.scales.len() + t] = total(sums) as f32 * x.scales[t];
            }
        }
    }
}
