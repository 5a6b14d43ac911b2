//! Squares of 16 × 16 in registers; the edges by masks.

use super::Grid;
use std::arch::x86_64::*;

const SQUARE: usize = 16;

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
pub(crate) fn transpose(x: &[f32], grid: Grid, out: &mut [f32]) {
    for r in (0..grid.rows).step_by(SQUARE) {
        let rows = (grid.rows - r).min(SQUARE);
        for c in (0..grid.cols).step_by(SQUARE) {
            let cols = (grid.cols - c).min(SQUARE);
            let x = &x[r * grid.stride + c..][..(rows - 1) * grid.stride + cols];
            let out = &mut out[c * grid.out_stride + r..][..(cols - 1) * grid.out_stride + rows];
            let (row_mask, col_mask) = (first(cols), first(rows));
            let mut square = [_mm512_setzero_ps(); SQUARE];
            for (i, line) in square.iter_mut().enumerate().take(rows) {
                // SAFETY: i < rows, so the `cols` elements that the mask admits lie inside `x`.
                *line = unsafe { _mm512_maskz_loadu_ps(row_mask, x.as_ptr().add(i * grid.stride)) };
            }
            let square = square16(square);
            for (i, line) in square.iter().enumerate().take(cols) {
                // SAFETY: i < cols, so the `rows` elements that the mask admits lie inside `out`.
                unsafe { _mm512_mask_storeu_ps(out.as_mut_ptr().add(i * grid.out_stride), col_mask, *line) };
            }
        }
    }
}

/// The mask of the first `len` of sixteen lanes, sixteen included.
#[inline]
pub(crate) fn first(len: usize) -> __mmask16 {
    debug_assert!(len <= SQUARE);
    ((1u32 << len) - 1) as __mmask16
}

/// The transpose of sixteen rows of sixteen: 64 shuffles.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
pub(crate) fn square16(rows: [__m512; SQUARE]) -> [__m512; SQUARE] {
    // Pairs of rows, then of pairs, inside each 128-bit lane: lane l of `quads[4 i + j]` holds column 4 l + j of rows
    // 4 i .. 4 i + 4.
    let mut quads = [_mm512_setzero_ps(); SQUARE];
    for i in 0..4 {
        let [a, b, c, d] = [rows[4 * i], rows[4 * i + 1], rows[4 * i + 2], rows[4 * i + 3]];
        let (ab_low, ab_high) = (_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
        let (cd_low, cd_high) = (_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
        quads[4 * i] = _mm512_shuffle_ps::<0b01_00_01_00>(ab_low, cd_low);
        quads[4 * i + 1] = _mm512_shuffle_ps::<0b11_10_11_10>(ab_low, cd_low);
        quads[4 * i + 2] = _mm512_shuffle_ps::<0b01_00_01_00>(ab_high, cd_high);
        quads[4 * i + 3] = _mm512_shuffle_ps::<0b11_10_11_10>(ab_high, cd_high);
    }
    // The same over whole lanes: a 4 × 4 transpose of lanes for each j.
    let mut out = [_mm512_setzero_ps(); SQUARE];
    for j in 0..4 {
        let [a, b, c, d] = [quads[j], quads[4 + j], quads[8 + j], quads[12 + j]];
        let (ab_low, ab_high) =
            (_mm512_shuffle_f32x4::<0b10_00_10_00>(a, b), _mm512_shuffle_f32x4::<0b11_01_11_01>(a, b));
        let (cd_low, cd_high) =
            (_mm512_shuffle_f32x4::<0b10_00_10_00>(c, d), _mm512_shuffle_f32x4::<0b11_01_11_01>(c, d));
        out[j] = _mm512_shuffle_f32x4::<0b10_00_10_00>(ab_low, cd_low);
        out[4 + j] = _mm512_shuffle_f32x4::<0b10_00_10_00>(ab_high, cd_high);
        out[8 + j] = _mm512_shuffle_f32x4::<0b11_01_11_01>(ab_low, cd_low);
        out[12 + j] = _mm512_shuffle_f32x4::<0b11_01_11_01>(ab_high, cd_high);
    }
    out
}
