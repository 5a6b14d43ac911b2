//! What our ternary products are judged against: the same product, from the same random numbers, by the means that others
//! would take.
//!
//! A comparator is an op like every other, with a specification, checks and times; [`Op::COMPARATOR`] says what it stands
//! for, and reports mark it. Given the same shape and seed, all of them leave the bits that `ternary/i2` leaves, which
//! `tests/comparators.rs` holds them to. `ternary/i2_rows` is a layout and lives with the layouts.
//!
//! [`Op::COMPARATOR`]: crate::probe::Op::COMPARATOR

#[cfg(feature = "comparators")]
pub mod gemm;
pub mod naive;
pub mod openblas;
pub(crate) mod product;
pub(crate) mod scalar;

use crate::Kernels;
use crate::ternary::Activations;

/// The weights that all comparators of a shape and seed get.
pub(crate) struct Source<'a> {
    /// Rows, R.
    pub(crate) rows: usize,
    /// Columns, C.
    pub(crate) cols: usize,
    /// -1, 0 and 1, `[R, C]`.
    pub(crate) trits: &'a [i8],
}

/// A comparator's line in [`OPS`](crate::probe::OPS).
pub(crate) trait Comparator {
    /// Its op.
    const NAME: &'static str;
    /// See [`crate::probe::Op::COMPARATOR`].
    const STANDS_FOR: &'static str;
    /// See [`crate::probe::Op::ARITHMETIC`].
    const ARITHMETIC: crate::probe::Arithmetic = crate::probe::Arithmetic::Int8;
    /// Bits that a weight takes.
    const BITS: u64;
    /// Bits that an activation takes.
    const ACTIVATION_BITS: u64 = 8;
    /// The weights in its own form.
    type Weights;

    /// See [`crate::probe::Op::missing`].
    fn missing() -> Option<&'static str> {
        None
    }

    /// Packs the weights.
    fn weights(source: &Source<'_>) -> Self::Weights;

    /// The activations as `f32`, `[T, C]`, if it reads them so.
    fn floats(_codes: &[i8]) -> Vec<f32> {
        Vec::new()
    }

    /// The product.
    fn matmul(kernels: &Kernels, weights: &Self::Weights, x: Activations<'_>, floats: &[f32], out: &mut [f32]);

    /// The address of the variant that a table holds.
    fn variant(kernels: &Kernels) -> usize;
}
