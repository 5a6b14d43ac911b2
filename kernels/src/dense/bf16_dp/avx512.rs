//! `vdpbf16ps`: sixteen pairs of products an instruction. Eight rows far apart for one token, blocks of four rows and six
//! tokens for many.

use super::scalar;
use crate::blocking::{Product, cached_runs, walk};
use crate::dense::avx512::fold_four;
use crate::lanes::LANES;
use crate::streams::prefetch;
use half::bf16;
use std::arch::x86_64::*;
use std::array;
use std::hint::black_box;
use std::ops::Range;

/// Bytes between a load and the prefetch of its stream.
const AHEAD: usize = 1792;
/// Columns that an instruction takes.
const COLUMNS: usize = 2 * LANES;

/// The specification where this CPU has no bf16 arithmetic.
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
pub(crate) fn matmul(weights: &[bf16], x: &[bf16], cols: usize, out: &mut [f32]) {
    if !super::is_available() {
        return scalar::matmul(weights, x, cols, out);
    }
    let (rows, tokens) = (weights.len() / cols, x.len() / cols);
    for run in cached_runs(tokens, 2 * cols, 12) {
        // SAFETY: this function has the features that the blocks need, but for bf16 arithmetic, which was asked for.
        unsafe { walk_rows(&Pairs { weights, x, cols }, rows, run, out) };
    }
}

walk! {
    /// Rows; at most 24 accumulators.
    walk_rows:
    1 | 2 => 8 items of 1, 2 tokens;
    _ => 4 items of 1, 2, 3, 4, 6 tokens;
}

struct Pairs<'a> {
    /// `[R, C]`.
    weights: &'a [bf16],
    /// `[T, C]`.
    x: &'a [bf16],
    cols: usize,
}

impl Product for Pairs<'_> {
    #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx512bf16,avx2,fma")]
    unsafe fn block<const N: usize, const T: usize>(&self, rows: [usize; N], tokens: Range<usize>, out: &mut [f32]) {
        let Pairs { weights, x, cols } = *self;
        let w = rows.map(|r| weights[r * cols..][..cols].as_ptr());
        let token: [usize; T] = array::from_fn(|t| (tokens.start + t).min(tokens.end - 1));
        let x_rows = token.map(|t| x[t * cols..][..cols].as_ptr());
        let mut sums = [[_mm512_setzero_ps(); T]; N];
        for c in (0..cols).step_by(COLUMNS) {
            if N > T {
                for w in w {
                    prefetch(w.wrapping_add(c), AHEAD);
                }
            }
            let mask = first(cols - c);
            // SAFETY: the mask admits the elements before `cols` alone, the length of every row.
            let load = |row: *const bf16| unsafe { _mm512_maskz_loadu_epi16(mask, row.add(c).cast()) };
            let w = w.map(load);
            for (t, row) in x_rows.into_iter().enumerate() {
                let x = load(row);
                for (sums, w) in sums.iter_mut().zip(w) {
                    sums[t] = add(sums[t], w, x);
                }
            }
        }

        // A copy that the compiler cannot see through: the accumulators are then named by constants alone and stay in
        // registers.
        let sums = black_box(sums);
        let mut products = [0.0; 24];
        for (four, products) in sums.as_flattened().chunks(4).zip(products.chunks_exact_mut(4)) {
            let four = array::from_fn(|i| *four.get(i).unwrap_or(&four[0]));
            // SAFETY: the chunk holds four floats.
            unsafe { _mm_storeu_ps(products.as_mut_ptr(), fold_four(four)) };
        }
        let width = x.len() / cols;
        for (row, products) in rows.into_iter().zip(products.chunks_exact(T)) {
            let out = &mut out[row * width + tokens.start..][..tokens.len()];
            out.copy_from_slice(&products[..tokens.len()]);
        }
    }
}

/// The mask of the first `len` of 32 lanes, all of them if there are more.
fn first(len: usize) -> __mmask32 {
    if len < COLUMNS { (1 << len) - 1 } else { !0 }
}

/// `sums` and two products more in each lane.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn add(sums: __m512, w: __m512i, x: __m512i) -> __m512 {
    // SAFETY: 32 numbers of 16 bits, whichever type they are named by.
    let [w, x] = unsafe { std::mem::transmute::<[__m512i; 2], [__m512bh; 2]>([w, x]) };
    _mm512_dpbf16_ps(sums, w, x)
}
