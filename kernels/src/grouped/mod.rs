//! Products of weights and activations that are quantised in groups: each 32 columns of a row, and each 32 columns of a
//! token, are integers that share a scale.
//!
//! A layout is a module: its drawing, its `Format`, its variants and its line in [`Layout`]. All compute,
//! group by group in ascending order,
//!
//! ```text
//! dot = sum over the group's columns of w[r, c] * q[t, c]          in integers, exact
//! sum = fma(dot, scale of the row's group * scale of the token's group, sum)     in f32
//! ```
//!
//! A row is a lane everywhere, so no sum is ever folded and the order of groups alone decides the bits.

pub mod codes;
pub(crate) mod format;
mod matrix;
pub(crate) mod product;
pub mod q4;
pub mod q8;
pub(crate) mod scalar;

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;

use crate::{Kernels, Line};

pub use matrix::{GroupedMatrix, GroupedRows, Layout, PackError};

/// Quantised activations of T tokens, as [`Kernels::quantise_groups`] makes them.
#[derive(Clone, Copy, Debug)]
pub struct Activations<'a> {
    /// Codes in -127..=127, `[T, stride]`; columns from the matrix's width to `stride` are zero.
    pub codes: &'a [i8],
    /// Distance between two tokens' rows in `codes`: the matrix's width rounded up to [`Activations::MULTIPLE`].
    pub stride: usize,
    /// What the codes of each group are multiplied by, `[T, stride / 32]`.
    pub scales: &'a [f32],
    /// The sum of each group's codes, `[T, stride / 32]`.
    pub sums: &'a [i32],
}

impl Activations<'_> {
    /// Codes are padded to a multiple of this many columns.
    pub const MULTIPLE: usize = format::PAIR * format::GROUP;

    /// `columns` rounded up to [`Activations::MULTIPLE`].
    pub const fn stride_for(columns: usize) -> usize {
        columns.next_multiple_of(Activations::MULTIPLE)
    }

    /// Groups of a token, the empty ones at its end included.
    pub(crate) fn groups(&self) -> usize {
        self.stride / format::GROUP
    }

    /// Tokens, T.
    pub(crate) fn tokens(&self) -> usize {
        self.scales.len().checked_div(self.groups()).unwrap_or(0)
    }
}

/// The weights as a variant sees them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weights<'a> {
    /// Rows to compute; the last tile may be part empty.
    pub(crate) rows: usize,
    /// Pairs of groups of columns.
    pub(crate) pairs: usize,
    /// `[tiles, pairs, lines of a block]`.
    pub(crate) lines: &'a [Line],
}

/// Weights, activations, out `[rows, T]`.
pub(crate) type Variant = unsafe fn(Weights<'_>, Activations<'_>, &mut [f32]);

impl Kernels {
    fn grouped(&self, layout: Layout) -> Variant {
        match layout {
            Layout::Q8 => self.dense_q8,
            Layout::Q4 => self.dense_q4,
        }
    }

    /// `out[r, t]` = the product of row r and token t; out `[R, T]`. See [`crate::grouped`].
    ///
    /// # Panics
    /// If shapes disagree or there are no columns.
    pub fn grouped_matmul(&self, weights: GroupedRows<'_>, x: Activations<'_>, out: &mut [f32]) {
        let (rows, columns, tokens) = (weights.rows(), weights.cols, x.tokens());
        assert!(columns > 0, "0 columns");
        assert_eq!(x.stride, Activations::stride_for(columns), "stride of codes for {columns} columns");
        assert_eq!(x.codes.len(), tokens * x.stride, "codes of {tokens} tokens");
        assert_eq!(x.scales.len(), tokens * x.groups(), "scales of {tokens} tokens");
        assert_eq!(x.sums.len(), tokens * x.groups(), "sums of {tokens} tokens");
        assert_eq!(out.len(), rows * tokens, "out [{rows}, {tokens}]");
        if out.is_empty() {
            return;
        }
        // SAFETY: this table exists only if the CPU has the variant's features.
        unsafe { self.grouped(weights.layout)(weights.weights, x, out) }
    }
}
