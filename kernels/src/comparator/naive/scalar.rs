//! The specification; that of a byte a weight is the dense product's.

use crate::ternary::Activations;

pub(crate) use crate::dense::int8::scalar::matmul;

/// Compiled with the features of whoever calls it.
#[inline(always)]
pub(crate) fn crumbs(weights: &[u8], x: Activations<'_>, out: &mut [f32]) {
    let (tokens, stride) = (x.scales.len(), x.stride);
    for (r, out) in out.chunks_exact_mut(tokens).enumerate() {
        let row = &weights[r * stride / 4..][..stride / 4];
        for (t, out) in out.iter_mut().enumerate() {
            let codes = &x.codes[t * stride..][..stride];
            let mut sum = 0;
            for (byte, codes) in row.iter().zip(codes.as_chunks::<4>().0) {
                for (i, q) in codes.iter().enumerate() {
                    let weight = i32::from(byte >> (2 * i) & 3) - 1;
                    sum += weight * i32::from(*q);
                }
            }
            *out = sum as f32 * x.scales[t];
        }
    }
}
