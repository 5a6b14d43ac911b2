//! Transposition: products come as `[R, T]`, token-wise ops read `[T, R]`.
//!
//! **Computes** `out[c, r] = x[r, c]`.
//!
//! **Shapes** x `[R, C]` with a row stride; out `[C, R]` with a row stride.
//!
//! **Exactness** the same bits everywhere: a copy.
//!
//! **Cost** 8·R·C bytes.

use crate::Kernels;

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
pub(crate) mod scalar;

/// A matrix inside a slice: `rows × cols`, row r begins at `r * stride`.
#[derive(Clone, Copy, Debug)]
pub struct Grid {
    /// Rows, R.
    pub rows: usize,
    /// Columns, C.
    pub cols: usize,
    /// Elements between the starts of two rows of x; at least C.
    pub stride: usize,
    /// Elements between the starts of two rows of out; at least R.
    pub out_stride: usize,
}

pub(crate) type Variant = unsafe fn(&[f32], Grid, &mut [f32]);

impl Kernels {
    /// `out[c * out_stride + r] = x[r * stride + c]`. See [`crate::transpose`].
    ///
    /// # Panics
    /// If a slice is too short for the grid or a stride shorter than its row.
    pub fn transpose(&self, x: &[f32], grid: Grid, out: &mut [f32]) {
        let Grid { rows, cols, stride, out_stride } = grid;
        if rows == 0 || cols == 0 {
            return;
        }
        assert!(stride >= cols && out_stride >= rows, "strides of {grid:?}");
        assert!(x.len() >= (rows - 1) * stride + cols, "x of {} elements for {grid:?}", x.len());
        assert!(out.len() >= (cols - 1) * out_stride + rows, "out of {} elements for {grid:?}", out.len());
        // SAFETY: this table exists only if the CPU has the variant's features.
        unsafe { (self.transpose)(x, grid, out) }
    }
}
