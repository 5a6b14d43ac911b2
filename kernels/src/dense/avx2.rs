//! Eight lanes twice for each product. One token walks four rows far apart, each a memory stream of its own, and folds
//! their sums together; a few take blocks of three rows and two tokens ([`crate::blocking`]); many take panels
//! ([`super::panel`]) in blocks of four rows and three tokens, first the lower lanes of all columns and then the upper
//! ones: twelve accumulators that need seven loads a step.

use super::panel::{self, Piece, ROWS, RUN, Registers, Sum};
use crate::blocking::{Product, cached_runs, walk};
use crate::lanes::{LANES, fold, x86::array, x86::fold4_avx2};
use crate::streams::{leftovers, prefetch, rounds};
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
    if tokens >= panel::MANY && cols >= LANES {
        // SAFETY: this function has the features that the panels need.
        return unsafe { panel::matmul::<Halves, E>(weights, x, cols, out) };
    }
    if tokens == 1 && cols.is_multiple_of(LANES) {
        return one_token(weights, x, out);
    }
    for run in cached_runs(tokens, 4 * cols, 2) {
        // SAFETY: this function has the features that the blocks need.
        unsafe { walk_rows(&Dense { weights, x, cols }, rows, run, out) };
    }
}

/// One token of whole steps of sixteen columns, without the detours of a block, which take longer than the products
/// where rows have a hundred columns, as those of low rank do.
#[target_feature(enable = "avx2,fma,f16c")]
fn one_token<E: Widen>(weights: &[E], x: &[f32], out: &mut [f32]) {
    let cols = x.len();
    let (weights, x) = (&weights[..out.len() * cols], x.as_ptr());
    // What the rounds leave is a round of one row four times.
    for [a, b, c, d] in rounds::<4>(out.len()).chain(leftovers::<4>(out.len()).map(|row| [row; 4])) {
        let row = |r: usize| weights.as_ptr().wrapping_add(r * cols);
        let w = [row(a), row(b), row(c), row(d)];
        let mut low = [_mm256_setzero_ps(); 4];
        let mut high = [_mm256_setzero_ps(); 4];
        for c in (0..cols).step_by(LANES) {
            // SAFETY: c + 16 <= cols, the length of every row.
            unsafe {
                let (x_low, x_high) = (_mm256_loadu_ps(x.add(c)), _mm256_loadu_ps(x.add(c + 8)));
                for n in 0..4 {
                    prefetch(w[n].wrapping_add(c), AHEAD);
                    low[n] = _mm256_fmadd_ps(E::eight(w[n].add(c)), x_low, low[n]);
                    high[n] = _mm256_fmadd_ps(E::eight(w[n].add(c + 8)), x_high, high[n]);
                }
            }
        }
        let sums = fold4_avx2(low, high);
        [out[a], out[b], out[c], out[d]] = sums;
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

/// A piece holds lanes 0..8 of all steps, then lanes 8..16 from the middle on.
struct Halves;

/// Where the upper lanes of a piece begin.
const UPPER: usize = panel::COLS / 2;

impl Registers for Halves {
    const TOKENS: usize = 3;

    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn widen<E: Widen>(from: *const E, steps: usize, piece: *mut Piece) {
        let piece = piece.cast::<f32>();
        for s in 0..steps {
            // SAFETY: so many steps of sixteen columns can be read, and each half of the piece has room for half of
            // them.
            unsafe {
                _mm256_store_ps(piece.add(8 * s), E::eight(from.add(16 * s)));
                _mm256_store_ps(piece.add(UPPER + 8 * s), E::eight(from.add(16 * s + 8)));
            }
        }
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn multiply(rows: *const Piece, tokens: *const Piece, steps: usize, first: bool, sums: *mut Sum) {
        for half in 0..2 {
            // SAFETY: rows and tokens are pieces of two halves, each of so many steps; sums lie as the caller promises.
            unsafe {
                let w: [*const f32; ROWS] = array::from_fn(|r| rows.add(r).cast::<f32>().add(half * UPPER));
                let x: [*const f32; 3] = array::from_fn(|t| tokens.add(t).cast::<f32>().add(half * UPPER));
                let sum = |r: usize, t: usize| sums.add(r * RUN + t).cast::<f32>().add(8 * half);
                let mut lanes: [[__m256; 3]; ROWS] = if first {
                    [[_mm256_setzero_ps(); 3]; ROWS]
                } else {
                    array::from_fn(|r| array::from_fn(|t| _mm256_load_ps(sum(r, t))))
                };
                for s in 0..steps {
                    let x = x.map(|x| _mm256_load_ps(x.add(8 * s)));
                    for r in 0..ROWS {
                        let w = _mm256_load_ps(w[r].add(8 * s));
                        for t in 0..3 {
                            lanes[r][t] = _mm256_fmadd_ps(w, x[t], lanes[r][t]);
                        }
                    }
                }
                for (r, lanes) in lanes.into_iter().enumerate() {
                    for (t, lanes) in lanes.into_iter().enumerate() {
                        _mm256_store_ps(sum(r, t), lanes);
                    }
                }
            }
        }
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn fold(sums: &[Sum], out: &mut [f32]) {
        let (fours, rest) = sums.as_chunks::<4>();
        let (out_fours, out_rest) = out.as_chunks_mut::<4>();
        for (four, out) in fours.iter().zip(out_fours) {
            // SAFETY: a sum is sixteen floats.
            let lanes = |at: usize| four.each_ref().map(|sum| unsafe { _mm256_loadu_ps(sum.as_ptr().add(at)) });
            *out = fold4_avx2(lanes(0), lanes(8));
        }
        for (sum, out) in rest.iter().zip(out_rest) {
            *out = fold(*sum);
        }
    }
}
