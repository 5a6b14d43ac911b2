//! Eight lanes twice for each product; see [`crate::blocking`] for the blocks. One token walks four rows far apart, each a
//! memory stream of its own; more take blocks of three rows and two tokens.

use crate::blocking::{Product, cached_runs, walk};
use crate::lanes::{LANES, fold, x86::array};
use crate::streams::prefetch;
use crate::widen::Widen;
use std::arch::x86_64::*;
use std::array;
use std::hint::black_box;
use std::ops::Range;

/// Bytes between a load and the prefetch of its stream.
const AHEAD: usize = 1792;

#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn matmul<E: Widen>(weights: &[E], x: &[f32], cols: usize, out: &mut [f32]) {
    let (rows, tokens) = (weights.len() / cols, x.len() / cols);
    for run in cached_runs(tokens, 4 * cols, 2) {
        // SAFETY: this function has the features that the blocks need.
        unsafe { walk_rows(&Dense { weights, x, cols }, rows, run, out) };
    }
}

walk! {
    /// Rows; at most six accumulators of two registers.
    walk_rows:
    1 => 4 items of 1 tokens;
    _ => 3 items of 1, 2 tokens;
}

struct Dense<'a, E> {
    /// `[R, C]`.
    weights: &'a [E],
    /// `[T, C]`.
    x: &'a [f32],
    cols: usize,
}

impl<E: Widen> Product for Dense<'_, E> {
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn block<const N: usize, const T: usize>(&self, rows: [usize; N], tokens: Range<usize>, out: &mut [f32]) {
        let Dense { weights, x, cols } = *self;
        let w_rows = rows.map(|r| &weights[r * cols..][..cols]);
        let token: [usize; T] = array::from_fn(|t| (tokens.start + t).min(tokens.end - 1));
        let x_rows = token.map(|t| &x[t * cols..][..cols]);
        let (w, x) = (w_rows.map(<[E]>::as_ptr), x_rows.map(<[f32]>::as_ptr));
        let mut low = [[_mm256_setzero_ps(); T]; N];
        let mut high = [[_mm256_setzero_ps(); T]; N];
        let whole = cols / LANES * LANES;
        for c in (0..whole).step_by(LANES) {
            for w in w {
                prefetch(w.wrapping_add(c), AHEAD);
            }
            for (sums, c) in [(&mut low, c), (&mut high, c + 8)] {
                // SAFETY: c + 8 <= cols, the length of every row, here and below.
                let x: [_; T] = array::from_fn(|t| unsafe { _mm256_loadu_ps(x[t].add(c)) });
                for n in 0..N {
                    // SAFETY: as above.
                    let w = unsafe { E::eight(w[n].add(c)) };
                    for t in 0..T {
                        sums[n][t] = _mm256_fmadd_ps(w, x[t], sums[n][t]);
                    }
                }
            }
        }

        // A copy that the compiler cannot see through: the accumulators are then named by constants alone and stay in
        // registers.
        let (low, high) = black_box((low, high));
        let width = self.x.len() / cols;
        for n in 0..N {
            for t in 0..tokens.len() {
                let mut lanes = array(low[n][t], high[n][t]);
                for ((lane, w), x) in lanes.iter_mut().zip(&w_rows[n][whole..]).zip(&x_rows[t][whole..]) {
                    *lane = w.widen().mul_add(*x, *lane);
                }
                out[rows[n] * width + tokens.start + t] = fold(lanes);
            }
        }
    }
}
