//! Ternary product on five trits to a byte whose digits are computed, not looked up: [`crate::ternary::t5`] by
//! arithmetic, for VNNI.
//!
//! **Computes** `out[r, t] = (sum over c of w[r, c] * q[t, c]) * scale[t]`: the sum in integers, then one conversion to
//! `f32` and one multiplication. It has a front door of its own, [`Kernels::ternary_t5_digits_matmul`], and needs no
//! tables.
//!
//! **Layout** that of [`crate::ternary::t5`]: a byte is a fraction f / 256 whose digits to base three are codes w + 1.
//! With f\[0\] = f and f\[i + 1\] = 3 f\[i\] mod 256, digit i is (3 f\[i\] - f\[i + 1\]) / 256. Hence
//!
//! ```text
//! sum of digit i times q i  =  (3 sum of f[i] q[i]  -  sum of f[i + 1] q[i]) / 256
//! ```
//!
//! and no digit is ever formed: fractions are bytes without a sign, which is what `vpdpbusd` takes.
//!
//! **Shapes** weights `R × C` in [`Layout::T5`]; codes `[T, stride]`; sums and scales `[T]`; out `[R, T]`.
//!
//! **Numbers** The two sums of fractions are formed for twelve groups of columns at a time, at most 12 · 20 · 255 · 128 in
//! magnitude, three of which fit 32 bits; their difference is a multiple of 256, so the shift by eight bits is exact.
//!
//! **Exactness** integers throughout, one rounding to `f32` and one in the product: the same bits everywhere, and those of
//! [`Layout::I2`].
//!
//! **Cost** R·C/5 bytes of weights; 2·R·C·T operations. AVX-512: for 64 weights two `vpdpbusd` and two additions, and a
//! seventh of an instruction each to interleave and to read the sign.
//!
//! **Source** five trits a byte as a fraction: TQ1_0 of ggml (Compilade 2024); that digits need not be formed is worked out
//! here.
//!
//! **Variants** AVX-512 (VNNI): one token as above, eight tiles far apart in turn; more tokens share the panels of
//! `ternary/t5`. AVX2: that of `ternary/t5`, which computes digits too, by comparisons: `vpmaddubsw` would saturate on
//! fractions.
//!
//! **Not done** timing of the AVX-512 variant, which so far was run on an emulated CPU alone.

use crate::ternary::product::Packed;
use crate::ternary::{Activations, Layout, TernaryRows};
use crate::{Kernels, Line};

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;

impl Kernels {
    /// `out[r, t] = (w · q)[r, t] * scales[t]`; out `[R, T]`; needs no tables. See [`crate::ternary::t5::digits`].
    ///
    /// # Panics
    /// If the weights are not in [`Layout::T5`] or shapes disagree.
    pub fn ternary_t5_digits_matmul(&self, weights: TernaryRows<'_>, x: Activations<'_>, out: &mut [f32]) {
        assert_eq!(weights.layout, Layout::T5, "the layout whose digits are computed");
        self.ternary_t5_digits.product(weights, x, out);
    }
}

/// The op.
pub(crate) struct T5Digits;

impl Packed for T5Digits {
    const NAME: &'static str = "ternary/t5_digits";
    const LAYOUT: Layout = Layout::T5;

    fn variant(kernels: &Kernels) -> usize {
        kernels.ternary_t5_digits.matmul as usize
    }

    fn table_lines(_: &Kernels, _: usize, _: usize) -> usize {
        0
    }

    fn tables(_: &Kernels, _: usize, _: &[i8], _: &mut [Line]) {}

    fn matmul(kernels: &Kernels, weights: TernaryRows<'_>, x: Activations<'_>, out: &mut [f32]) {
        kernels.ternary_t5_digits_matmul(weights, x, out);
    }
}
