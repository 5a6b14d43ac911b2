//! Dequantised weights through the machine's OpenBLAS, on one thread.
//!
//! **Computes** `out[r, t] = (sum over c of w[r, c] * q[t, c]) * scale[t]` in f32, w and q being whole numbers.
//!
//! **Shapes** w `[R, C]`; q `[T, C]`; scales `[T]`; out `[R, T]`.
//!
//! **Numbers** Weights are -1, 0 and 1, activations eight-bit codes, both as f32.
//!
//! **Exactness** the same bits everywhere although the library adds in an order of its own: every partial sum is a whole
//! number of at most 128 · C <= 2^24 in magnitude, which f32 holds exactly. The front door asserts C < 2^17.
//!
//! **Cost** 4·R·C bytes of weights; 2·R·C·T operations.
//!
//! **Source** openblas.net; the CBLAS interface.
//!
//! **Variants** scalar: three loops. The other levels: `cblas_sgemv` for one token, `cblas_sgemm` for more, from the
//! `libopenblas` that the system's loader finds when it is first wanted; the library chooses its instructions for itself.
//! Where there is none, or its symbols are missing, every level holds the scalar variant and [`Op::missing`] says so.
//!
//! [`Op::missing`]: crate::probe::Op::missing

mod library;

use super::{Comparator, Source, scalar};
use crate::Kernels;
use crate::probe::Arithmetic;
use crate::ternary::Activations;

/// The library's product, or the specification where there is no library.
#[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "called from levels above scalar"))]
pub(crate) fn matmul(weights: &[f32], x: &[f32], scales: &[f32], cols: usize, out: &mut [f32]) {
    match library::get() {
        Some(library) => {
            library.product(weights, x, cols, out);
            scalar::scale(out, scales);
        }
        None => scalar::matmul(weights, x, scales, cols, out),
    }
}

impl Kernels {
    /// `out[r, t] = (w · x)[r, t] * scales[t]`; w `[R, cols]`, x `[T, cols]`, whole numbers of at most 1 and 128 in
    /// magnitude; out `[R, T]`. See [`crate::comparator::openblas`].
    ///
    /// # Panics
    /// If shapes disagree.
    pub fn openblas_matmul(&self, weights: &[f32], x: &[f32], scales: &[f32], cols: usize, out: &mut [f32]) {
        if scalar::checked(weights, x, scales, cols, out) {
            // SAFETY: this table exists only if the CPU has the variant's features.
            unsafe { (self.openblas)(weights, x, scales, cols, out) }
        }
    }
}

/// The op.
pub(crate) struct OpenBlas;

impl Comparator for OpenBlas {
    const NAME: &'static str = "comparator/openblas";
    const STANDS_FOR: &'static str = "dequantised f32 weights through the machine's OpenBLAS, one thread";
    const ARITHMETIC: Arithmetic = Arithmetic::F32;
    const BITS: u64 = 32;
    const ACTIVATION_BITS: u64 = 32;
    type Weights = (Vec<f32>, usize);

    fn missing() -> Option<&'static str> {
        library::get().is_none().then_some("the loader finds no libopenblas on this machine")
    }

    fn weights(source: &Source<'_>) -> (Vec<f32>, usize) {
        (source.trits.iter().map(|w| f32::from(*w)).collect(), source.cols)
    }

    fn floats(codes: &[i8]) -> Vec<f32> {
        codes.iter().map(|q| f32::from(*q)).collect()
    }

    fn matmul(kernels: &Kernels, (w, cols): &Self::Weights, x: Activations<'_>, floats: &[f32], out: &mut [f32]) {
        kernels.openblas_matmul(w, floats, x.scales, *cols, out);
    }

    fn variant(kernels: &Kernels) -> usize {
        let held = if library::get().is_some() { kernels.openblas } else { scalar::matmul };
        held as usize
    }
}
