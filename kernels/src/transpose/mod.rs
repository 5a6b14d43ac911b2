//! Transposition: products come as `[R, T]`, token-wise ops read `[T, R]`.
//!
//! **Computes** `out[c, r] = x[r, c]`.
//!
//! **Shapes** x `[R, C]` with a row stride; out `[C, R]` with a row stride.
//!
//! **Exactness** the same bits everywhere: a copy.
//!
//! **Cost** 8·R·C bytes.
//!
//! **Variants** AVX-512: squares of 16 × 16 in registers, edges by masks. AVX2: squares of 8 × 8, edges one by one.
//!
//! **Not done** stores that bypass the caches: what is transposed is read at once.

use crate::probe::{Op, Shape, Work};
use crate::{Kernels, Rng};

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
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

/// The op, for [`OPS`](crate::probe::OPS). A shape is R × C × P: both strides are P longer than their rows.
pub(crate) struct Transpose;

/// A matrix inside a slice and the place for its transpose.
pub(crate) struct Case {
    x: Vec<f32>,
    grid: Grid,
    out: Vec<f32>,
}

impl Op for Transpose {
    const NAME: &'static str = "transpose";
    type Case = Case;

    fn shapes() -> Vec<Shape> {
        let sides = [0, 1, 3, 7, 8, 9, 15, 16, 17, 31, 33];
        let mut shapes: Vec<Shape> = sides.iter().flat_map(|r| sides.map(|c| Shape::new(*r, c, 3))).collect();
        shapes.extend([Shape::new(2560, 8, 0), Shape::new(2560, 128, 0), Shape::new(6912, 128, 0)]);
        shapes
    }

    fn model_shapes() -> Vec<Shape> {
        vec![Shape::new(2560, 8, 0), Shape::new(2560, 128, 0), Shape::new(6912, 128, 0)]
    }

    fn case(shape: &Shape, rng: &mut Rng) -> Case {
        let Shape { r: rows, c: cols, t: gap } = *shape;
        let grid = Grid { rows, cols, stride: cols + gap, out_stride: rows + gap };
        Case {
            x: (0..rows * grid.stride).map(|_| rng.normal()).collect(),
            grid,
            out: vec![f32::NAN; cols * grid.out_stride],
        }
    }

    fn run(kernels: &Kernels, case: &mut Case) {
        kernels.transpose(&case.x, case.grid, &mut case.out);
    }

    fn output(case: &Case) -> Vec<f32> {
        // The gaps too: they must keep what they held.
        case.out.clone()
    }

    fn work(shape: &Shape) -> Work {
        let elements = (shape.r * shape.c) as u64;
        Work { bytes: 8 * elements, operations: elements }
    }

    fn variant(kernels: &Kernels) -> usize {
        kernels.transpose as usize
    }
}
