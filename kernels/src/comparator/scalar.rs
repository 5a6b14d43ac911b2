//! The specification of products in `f32`: three loops. Also the terms on which they are exact.

/// Sums of fewer products than this of a trit and an eight-bit code are whole numbers of at most 2^24, which `f32` holds
/// exactly: no order of additions changes a bit.
pub(crate) const MAX_COLUMNS: usize = 1 << 17;
const _: () = assert!(MAX_COLUMNS * 128 <= 1 << f32::MANTISSA_DIGITS, "sums of products are rounded");

/// w `[R, C]`, x `[T, C]`, scales `[T]`, C, out `[R, T]`.
pub(crate) type Variant = unsafe fn(&[f32], &[f32], &[f32], usize, &mut [f32]);

/// `out[r, t] = (sum over c of w[r, c] * x[t, c]) * scales[t]`.
pub(crate) fn matmul(weights: &[f32], x: &[f32], scales: &[f32], cols: usize, out: &mut [f32]) {
    for (w, out) in weights.chunks_exact(cols).zip(out.chunks_exact_mut(scales.len())) {
        for ((x, scale), out) in x.chunks_exact(cols).zip(scales).zip(out) {
            let mut sum = 0.0;
            for (w, x) in w.iter().zip(x) {
                sum += w * x;
            }
            *out = sum * scale;
        }
    }
}

/// Multiplies sums `[R, T]` by the tokens' scales. A library may leave -0.0 where all products are zeros; adding 0.0 makes
/// it the 0.0 of the specification.
pub(crate) fn scale(sums: &mut [f32], scales: &[f32]) {
    for sums in sums.chunks_exact_mut(scales.len()) {
        for (sum, scale) in sums.iter_mut().zip(scales) {
            *sum = (*sum + 0.0) * scale;
        }
    }
}

/// The checks before a variant is called: whether there is something to compute. Sums over no columns are 0.
pub(crate) fn checked(weights: &[f32], x: &[f32], scales: &[f32], cols: usize, out: &mut [f32]) -> bool {
    let tokens = scales.len();
    assert_eq!(x.len(), tokens * cols, "x [{tokens}, {cols}]");
    assert!(cols < MAX_COLUMNS, "{cols} columns: sums would be rounded");
    if cols == 0 {
        out.fill(0.0);
        return false;
    }
    assert!(weights.len().is_multiple_of(cols), "weights [R, {cols}] have {} elements", weights.len());
    assert_eq!(out.len(), weights.len() / cols * tokens, "out [{}, {tokens}]", weights.len() / cols);
    !out.is_empty()
}
