//! Squares of 8 × 8 in registers; the edges one element at a time.

use super::Grid;
use crate::lanes::x86::load8;
use std::arch::x86_64::*;

const SQUARE: usize = 8;

#[target_feature(enable = "avx2,fma")]
pub(crate) fn transpose(x: &[f32], grid: Grid, out: &mut [f32]) {
    let (rows, cols) = (grid.rows / SQUARE * SQUARE, grid.cols / SQUARE * SQUARE);
    for r in (0..rows).step_by(SQUARE) {
        for c in (0..cols).step_by(SQUARE) {
            let mut square = [_mm256_setzero_ps(); SQUARE];
            for (i, line) in square.iter_mut().enumerate() {
                *line = load8(&x[(r + i) * grid.stride + c..]);
            }
            for (i, line) in square8(square).into_iter().enumerate() {
                let out = &mut out[(c + i) * grid.out_stride + r..][..SQUARE];
                // SAFETY: `out` has eight elements.
                unsafe { _mm256_storeu_ps(out.as_mut_ptr(), line) };
            }
        }
    }
    for r in 0..grid.rows {
        for c in if r < rows { cols } else { 0 }..grid.cols {
            out[c * grid.out_stride + r] = x[r * grid.stride + c];
        }
    }
}

/// The transpose of eight rows of eight: 24 shuffles.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(crate) fn square8(rows: [__m256; SQUARE]) -> [__m256; SQUARE] {
    // Lane l of `quads[4 i + j]` holds column 4 l + j of rows 4 i .. 4 i + 4.
    let mut quads = [_mm256_setzero_ps(); SQUARE];
    for i in 0..2 {
        let [a, b, c, d] = [rows[4 * i], rows[4 * i + 1], rows[4 * i + 2], rows[4 * i + 3]];
        let (ab_low, ab_high) = (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
        let (cd_low, cd_high) = (_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
        quads[4 * i] = _mm256_shuffle_ps::<0b01_00_01_00>(ab_low, cd_low);
        quads[4 * i + 1] = _mm256_shuffle_ps::<0b11_10_11_10>(ab_low, cd_low);
        quads[4 * i + 2] = _mm256_shuffle_ps::<0b01_00_01_00>(ab_high, cd_high);
        quads[4 * i + 3] = _mm256_shuffle_ps::<0b11_10_11_10>(ab_high, cd_high);
    }
    let mut out = [_mm256_setzero_ps(); SQUARE];
    for j in 0..4 {
        out[j] = _mm256_permute2f128_ps::<0x20>(quads[j], quads[4 + j]);
        out[4 + j] = _mm256_permute2f128_ps::<0x31>(quads[j], quads[4 + j]);
    }
    out
}
