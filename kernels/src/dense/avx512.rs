//! Sixteen lanes in one register for each product; see [`crate::blocking`] for the blocks.
//!
//! One token walks eight rows far apart, each a memory stream of its own. A few take blocks of up to four rows and six
//! tokens: activations are four bytes, so fewer rows a block would be held back by the second-level cache. Many take
//! panels ([`super::panel`]) in blocks of the same size.

use super::panel::{self, Piece, ROWS, RUN, Registers, Sum};
use crate::blocking::{Product, cached_runs, walk};
use crate::lanes::{self, LANES, x86::tail_mask};
use crate::streams::prefetch;
use crate::widen::Widen;
use std::arch::x86_64::*;
use std::array;
use std::hint::black_box;
use std::ops::Range;

/// Bytes between a load and the prefetch of its stream.
const AHEAD: usize = 1792;

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
pub(crate) fn matmul<E: Widen>(weights: &[E], x: &[f32], cols: usize, out: &mut [f32]) {
    let (rows, tokens) = (weights.len() / cols, x.len() / cols);
    if tokens >= panel::MANY && cols >= LANES {
        // SAFETY: this function has the features that the panels need.
        return unsafe { panel::matmul::<Sixteen, E>(weights, x, cols, out) };
    }
    for run in cached_runs(tokens, 4 * cols, 12) {
        // SAFETY: this function has the features that the blocks need.
        unsafe { walk_rows(&Dense { weights, x, cols }, rows, run, out) };
    }
}

walk! {
    /// Rows; at most 24 accumulators.
    walk_rows:
    1..=3 => 8 items of 1, 2, 3 tokens;
    4 => 6 items of 4 tokens;
    _ => 4 items of 1, 2, 3, 4, 6 tokens;
}

struct Dense<'a, E> {
    /// `[R, C]`.
    weights: &'a [E],
    /// `[T, C]`.
    x: &'a [f32],
    cols: usize,
}

impl<E: Widen> Product for Dense<'_, E> {
    #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
    unsafe fn block<const N: usize, const T: usize>(&self, rows: [usize; N], tokens: Range<usize>, out: &mut [f32]) {
        let Dense { weights, x, cols } = *self;
        let w = rows.map(|r| weights[r * cols..][..cols].as_ptr());
        let token: [usize; T] = array::from_fn(|t| (tokens.start + t).min(tokens.end - 1));
        let x_rows = token.map(|t| x[t * cols..][..cols].as_ptr());
        let mut sums = [[_mm512_setzero_ps(); T]; N];
        let whole = cols / LANES * LANES;
        for c in (0..whole).step_by(LANES) {
            if N > T {
                for w in w {
                    prefetch(w.wrapping_add(c), AHEAD);
                }
            }
            // The smaller side waits in registers, the other passes through one.
            if T < N {
                // SAFETY: c + 16 <= cols, the length of every row.
                let x: [_; T] = array::from_fn(|t| unsafe { _mm512_loadu_ps(x_rows[t].add(c)) });
                for n in 0..N {
                    // SAFETY: as above.
                    let w = unsafe { E::sixteen(w[n].add(c)) };
                    for t in 0..T {
                        sums[n][t] = _mm512_fmadd_ps(w, x[t], sums[n][t]);
                    }
                }
            } else {
                // SAFETY: as above.
                let w: [_; N] = array::from_fn(|n| unsafe { E::sixteen(w[n].add(c)) });
                for t in 0..T {
                    // SAFETY: as above.
                    let x = unsafe { _mm512_loadu_ps(x_rows[t].add(c)) };
                    for n in 0..N {
                        sums[n][t] = _mm512_fmadd_ps(w[n], x, sums[n][t]);
                    }
                }
            }
        }
        if whole < cols {
            let mask = tail_mask(cols - whole);
            // SAFETY: the mask admits the elements from `whole` to `cols` alone, here and below.
            let x: [_; T] = array::from_fn(|t| unsafe { _mm512_maskz_loadu_ps(mask, x_rows[t].add(whole)) });
            for n in 0..N {
                // SAFETY: as above.
                let w = unsafe { E::some(w[n].add(whole), mask) };
                for t in 0..T {
                    sums[n][t] = _mm512_mask3_fmadd_ps(w, x[t], sums[n][t], mask);
                }
            }
        }

        // A copy that the compiler cannot see through: the accumulators are then named by constants alone and stay in
        // registers.
        let sums = black_box(sums);
        let sums = sums.as_flattened();
        let mut products = [0.0; 24 + LANES];
        for (four, products) in sums.chunks(4).zip(products.chunks_exact_mut(4)) {
            let four = array::from_fn(|i| *four.get(i).unwrap_or(&four[0]));
            // SAFETY: the chunk holds four floats.
            unsafe { _mm_storeu_ps(products.as_mut_ptr(), fold_four(four)) };
        }
        let (width, mask) = (x.len() / cols, tail_mask(tokens.len()));
        for (n, row) in rows.into_iter().enumerate() {
            let out = &mut out[row * width + tokens.start..][..tokens.len()];
            // SAFETY: the array holds sixteen floats from any of the N · T <= 24 on; `out` as many as the mask admits.
            unsafe { _mm512_mask_storeu_ps(out.as_mut_ptr(), mask, _mm512_loadu_ps(products[n * T..].as_ptr())) };
        }
    }
}

/// Four sums of sixteen lanes, each folded as [`crate::lanes::fold`] does, in a third of the instructions.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
pub(super) fn fold_four([a, b, c, d]: [__m512; 4]) -> __m128 {
    // Halves of a and b beside each other, then of c and d; then quarters of all four, one to a 128-bit lane.
    let halves = |a, b| {
        let low = _mm512_shuffle_f32x4::<0b01_00_01_00>(a, b);
        _mm512_add_ps(low, _mm512_shuffle_f32x4::<0b11_10_11_10>(a, b))
    };
    let (ab, cd) = (halves(a, b), halves(c, d));
    let even = _mm512_shuffle_f32x4::<0b10_00_10_00>(ab, cd);
    let four = _mm512_add_ps(even, _mm512_shuffle_f32x4::<0b11_01_11_01>(ab, cd));
    let two = _mm512_add_ps(four, _mm512_permute_ps::<0b11_10_11_10>(four));
    let one = _mm512_add_ps(two, _mm512_permute_ps::<0b01_01_01_01>(two));
    _mm512_castps512_ps128(_mm512_maskz_compress_ps(0x1111, one))
}

/// A piece holds its columns in their order.
struct Sixteen;

impl Registers for Sixteen {
    const TOKENS: usize = 6;

    #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
    unsafe fn widen<E: Widen>(from: *const E, steps: usize, piece: *mut Piece) {
        let piece = piece.cast::<f32>();
        for s in 0..steps {
            // SAFETY: so many steps of sixteen columns can be read, and the piece has room for them.
            unsafe { _mm512_store_ps(piece.add(LANES * s), E::sixteen(from.add(LANES * s))) };
        }
    }

    #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
    unsafe fn multiply(rows: *const Piece, tokens: *const Piece, steps: usize, first: bool, sums: *mut Sum) {
        // SAFETY: rows and tokens are pieces of so many steps; sums lie as the caller promises.
        unsafe {
            let w: [*const f32; ROWS] = array::from_fn(|r| rows.add(r).cast());
            let x: [*const f32; 6] = array::from_fn(|t| tokens.add(t).cast());
            let sum = |r: usize, t: usize| sums.add(r * RUN + t).cast::<f32>();
            let mut lanes: [[__m512; 6]; ROWS] = if first {
                [[_mm512_setzero_ps(); 6]; ROWS]
            } else {
                array::from_fn(|r| array::from_fn(|t| _mm512_load_ps(sum(r, t))))
            };
            for s in 0..steps {
                let w = w.map(|w| _mm512_load_ps(w.add(LANES * s)));
                for t in 0..6 {
                    let x = _mm512_load_ps(x[t].add(LANES * s));
                    for r in 0..ROWS {
                        lanes[r][t] = _mm512_fmadd_ps(w[r], x, lanes[r][t]);
                    }
                }
            }
            for (r, lanes) in lanes.into_iter().enumerate() {
                for (t, lanes) in lanes.into_iter().enumerate() {
                    _mm512_store_ps(sum(r, t), lanes);
                }
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
    unsafe fn fold(sums: &[Sum], out: &mut [f32]) {
        let (fours, rest) = sums.as_chunks::<4>();
        let (out_fours, out_rest) = out.as_chunks_mut::<4>();
        for (four, out) in fours.iter().zip(out_fours) {
            // SAFETY: a sum is sixteen floats, a chunk of results four.
            unsafe {
                let lanes = four.each_ref().map(|sum| _mm512_loadu_ps(sum.as_ptr()));
                _mm_storeu_ps(out.as_mut_ptr(), fold_four(lanes));
            }
        }
        for (sum, out) in rest.iter().zip(out_rest) {
            *out = lanes::fold(*sum);
        }
    }
}
