//! Ternary product by lookup in tables of bytes: faster than [`crate::ternary::tmac`] on the same packed weights, and
//! not exact.
//!
//! **Computes** `out[r, t] = (sum over c of w[r, c] * q[t, c]) * scale[t]`, but with the sum of every four activations
//! rounded to one of 256 steps before it is looked up. It never stands in for the exact product: it has a front door of
//! its own, [`Kernels::ternary_tmac8_matmul`].
//!
//! **Layout** that of [`crate::ternary::tmac`].
//!
//! **Tables** for each four activations of a token and each subset of them, B = its sum less the least sum of any
//! subset, at least 0 and at most the sum of the four magnitudes. Let `largest` be the largest of those bounds in the
//! token and m = min(1024, 255 · 1024 / largest), rounded down. The entry is e = (B m + 512) / 1024, rounded down: at
//! most 255. Hence one step a token, 1024 / m, at most 2.008. What is taken off B cancels between the planes.
//!
//! ```text
//!   a token's lines:  line 0, bytes 0..4         the step, an f32
//!                     then 16 bytes for each four columns: entry i is of those whose bit is set in i
//! ```
//!
//! **Shapes** weights `R × C` in [`Layout::Tmac`]; codes `[T, stride]`; scales `[T]`; out `[R, T]`.
//!
//! **Numbers** Four columns add at most 255 in magnitude, so 16 bits hold 128 of them before they are widened to 32.
//!
//! **Exactness** the same bits on every ISA: integers, then one conversion to `f32` and two multiplications, by the
//! step and by the scale. Against the exact product: two entries a row and four columns, each at most half a step off,
//! so at most C / 4 steps times the scale and no difference where every four activations sum to at most 255 in
//! magnitude. Over random codes in -128..=127 and a row of 2560 columns, the root mean square of the error is 0.6 % of
//! that of the products.
//!
//! **Cost** R·C/4 bytes of weights and 4·C·T of tables, which all rows share; 2·R·C·T operations, of which a lookup
//! does eight.
//!
//! **Source** T-MAC (Wei et al., arXiv 2407.00088): tables quantised to 8 bits. Its averaging instructions, which round
//! again at every addition, are left out.
//!
//! **Variants** AVX2: `vpshufb` on sixteen rows and both planes, `vpmaddubsw` with 1, -1, 1, -1, .. after each; four of
//! eight streams at a time for one token, two tiles and two tokens for more. AVX-512: a line to a register, eight tiles
//! at once.
//!
//! **Tried and dropped** prefetching 4 KiB ahead (0.85 of the speed in cache).
//!
//! **Not done** entries of 7 bits, of which two add up in a byte: a tenth fewer instructions for twice the error.

use super::product::Packed;
use super::tmac::{COLUMNS, TILE_ROWS};
use super::{Activations, Layout, TernaryRows, Weights};
use crate::{Kernels, Line};

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
pub(crate) mod scalar;

/// What B is multiplied with, for a largest sum of four magnitudes.
fn multiplier(largest: i32) -> i32 {
    (255 * 1024 / largest.max(1)).min(1024)
}

/// One step of the entries.
fn step(multiplier: i32) -> f32 {
    1024.0 / multiplier as f32
}

impl Kernels {
    /// Lines of lookup tables that [`Kernels::ternary_tmac8_matmul`] wants for a matrix of so many columns and so many
    /// tokens: 0 where it reads the codes themselves.
    pub fn ternary_tmac8_table_lines(&self, columns: usize, tokens: usize) -> usize {
        self.ternary_tmac8.table_lines(Layout::Tmac, columns, tokens)
    }

    /// Makes the lookup tables of T tokens. Codes `[T, stride]`; tables [`Kernels::ternary_tmac8_table_lines`] long.
    ///
    /// # Panics
    /// If shapes disagree.
    pub fn ternary_tmac8_tables(&self, columns: usize, codes: &[i8], tables: &mut [Line]) {
        self.ternary_tmac8.make_tables(Layout::Tmac, columns, codes, tables);
    }

    /// Nearly `out[r, t] = (w · q)[r, t] * scales[t]`; out `[R, T]`. See [`crate::ternary::tmac8`].
    ///
    /// # Panics
    /// If the weights are not in [`Layout::Tmac`] or shapes disagree.
    pub fn ternary_tmac8_matmul(&self, weights: TernaryRows<'_>, x: Activations<'_>, out: &mut [f32]) {
        assert_eq!(weights.layout, Layout::Tmac, "the layout that tables of bytes are looked up with");
        self.ternary_tmac8.product(weights, x, out);
    }
}

/// The op.
pub(crate) struct Tmac8;

impl Packed for Tmac8 {
    const NAME: &'static str = "ternary/tmac8";
    const LAYOUT: Layout = Layout::Tmac;

    fn variant(kernels: &Kernels) -> usize {
        kernels.ternary_tmac8.matmul as usize
    }

    fn table_lines(kernels: &Kernels, columns: usize, tokens: usize) -> usize {
        kernels.ternary_tmac8_table_lines(columns, tokens)
    }

    fn tables(kernels: &Kernels, columns: usize, codes: &[i8], tables: &mut [Line]) {
        kernels.ternary_tmac8_tables(columns, codes, tables);
    }

    fn matmul(kernels: &Kernels, weights: TernaryRows<'_>, x: Activations<'_>, out: &mut [f32]) {
        kernels.ternary_tmac8_matmul(weights, x, out);
    }
}
