//! The specification.

use super::Grid;

pub(crate) fn transpose(x: &[f32], grid: Grid, out: &mut [f32]) {
    for r in 0..grid.rows {
        for c in 0..grid.cols {
            out[c * grid.out_stride + r] = x[r * grid.stride + c];
        }
    }
}
