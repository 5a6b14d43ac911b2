//! Products of ternary weights {-1, 0, 1} and int8 activations.

pub mod i2;
mod matrix;

pub use matrix::{Layout, TILE_ROWS, TernaryMatrix, TernaryRows};

/// Quantised activations of T tokens: what a ternary product reads.
#[derive(Clone, Copy, Debug)]
pub struct Activations<'a> {
    /// Codes in -128..=127, `[T, stride]`; columns from the matrix's width to `stride` are zero.
    pub codes: &'a [i8],
    /// Distance between two tokens' rows in `codes`: the matrix's width rounded up to [`Activations::GROUP`].
    pub stride: usize,
    /// The sum of each token's codes, `[T]`.
    pub sums: &'a [i32],
    /// What each token's integer result is multiplied by, `[T]`: weight scale over activation scale.
    pub scales: &'a [f32],
}

impl Activations<'_> {
    /// Codes are padded to a multiple of this many columns.
    pub const GROUP: usize = 64;

    /// `columns` rounded up to [`Activations::GROUP`].
    pub const fn stride_for(columns: usize) -> usize {
        columns.div_ceil(Activations::GROUP) * Activations::GROUP
    }
}
