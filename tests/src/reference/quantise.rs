//! Quantisation of weights and activations, and the packed form of ternary weights.

use ndarray::{Array1, Array2, ArrayView1, Axis};

/// Codes of one token's activations reach from `-LEVELS - 1` to `LEVELS`.
pub const LEVELS: f64 = 127.0;

/// Weights by absmean, per tensor (arXiv 2402.17764, eq. 1-3): s = 1 / max(mean|W|, 1e-5); t = clip(round(W s), -1, 1),
/// ties to even. Returns t and mean|W| = 1 / s.
pub fn absmean(weight: &Array2<f64>) -> (Array2<f64>, f64) {
    let mean = (weight.mapv(f64::abs).sum() / weight.len() as f64).max(1e-5);
    (weight.mapv(|w| (w / mean).round_ties_even().clamp(-1.0, 1.0)), mean)
}

/// Activations by absmax, per token (arXiv 2402.17764, sec. 2): a = levels / max(max|x|, 1e-5);
/// q = clip(round(x a), -levels - 1, levels), ties to even. x `[T, C]`; returns q `[T, C]` and a `[T]`.
pub fn absmax(x: &Array2<f64>, levels: f64) -> (Array2<f64>, Array1<f64>) {
    let largest = |row: ArrayView1<'_, f64>| row.fold(0.0f64, |max, value| max.max(value.abs()));
    let scale = x.map_axis(Axis(1), |row| levels / largest(row).max(1e-5));
    let mut codes = x * &scale.view().insert_axis(Axis(1));
    codes.mapv_inplace(|value| value.round_ties_even().clamp(-levels - 1.0, levels));
    (codes, scale)
}

/// Unpacks uint8 `[ceil(R/4), C]`: bits 2i, 2i + 1 of byte (j, c) hold t + 1 of row i ceil(R/4) + j. Row blocks, not
/// neighbouring rows. Returns the first `rows` rows of t.
///
/// # Panics
/// On code 3, which means nothing.
pub fn unpack(bytes: &[u8], rows: usize, cols: usize) -> Array2<f64> {
    let quarter = rows.div_ceil(4);
    assert_eq!(bytes.len(), quarter * cols, "bytes of a packed {rows}×{cols} matrix");
    Array2::from_shape_fn((rows, cols), |(r, c)| {
        let code = bytes[(r % quarter) * cols + c] >> (2 * (r / quarter)) & 3;
        assert!(code < 3, "code 3 at row {r}, column {c}");
        f64::from(code) - 1.0
    })
}

/// The inverse of [`unpack`]; rows beyond the last are stored as zero weights.
pub fn pack(ternary: &Array2<f64>) -> Vec<u8> {
    let (rows, cols) = ternary.dim();
    let quarter = rows.div_ceil(4);
    let mut bytes = vec![0b01_01_01_01u8; quarter * cols];
    for ((r, c), weight) in ternary.indexed_iter() {
        let (byte, shift) = (&mut bytes[(r % quarter) * cols + c], 2 * (r / quarter));
        *byte = *byte & !(3 << shift) | ((weight + 1.0) as u8) << shift;
    }
    bytes
}
