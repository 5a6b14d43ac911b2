//! The scan of Mamba-2: a head has one decay, and a state for each of its channels and each n.
//!
//! **Computes**, for each head h and token t in ascending order,
//! `S[n, p] = exp(dt · A) · S[n, p] + (dt · u[p]) · B[t, n]`, `y[p] = sum over n of S[n, p] · C[t, n] + D · u[p]`; A, D and dt
//! are those of the head, B and C those of its group.
//!
//! **Layout** state `[H, N, P]` (files and papers say `[P, N]`), so that a register holds one n of many channels, B and C are
//! broadcast and no sum crosses lanes.
//!
//! **Shapes** of H heads of one group: dt `[T, H]`, u and y `[T, H·P]`, B and C `[T, N]`, all with row strides; A and D
//! `[H]`.
//!
//! **Numbers** f32; dt is already softplus-ed and clamped, A = -exp(A_log). A decay below e^-86.9 is 0.
//!
//! **Exactness** the same bits everywhere, and from one call or many: `S = fma(decay, S, (dt u) B)`, sums in ascending n
//! with fused multiply-adds.
//!
//! **Cost** 5·H·N·P·T operations in three instructions, one of which only multiplies: the floor where there are two
//! multipliers is 1.5 cycles for a register of states, 5/6 of the peak. Bytes: the state read and written, once a call
//! where a block of it fits into the first-level cache; 8·T·H·P beside it.
//!
//! **Source** Dao and Gu, "Transformers are SSMs" (arXiv 2405.21060), section 6 in its recurrent form.
//!
//! **Variants** AVX2 and AVX-512: channels in blocks of four registers that keep dt u and the sum of y, all tokens of a block
//! before the next. From 64 tokens on AVX2 reaches 65 % of the peak on a Zen 4 core, four fifths of the floor; the
//! specification compiled for AVX2 takes 1.5 to 2.2 times as long.
//!
//! **Not done** the chunked matrix form (section 6 of the paper). For N = 128 and chunks of sixteen tokens it needs 2·N + 8
//! multiply-adds for a channel and token in place of 3·N instructions, so it gains 1.45 times at most, and its bits differ:
//! whether it is worth an op of its own has not been measured.

use crate::{Kernels, Rows, RowsMut};

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
mod op;
pub(crate) mod scalar;

pub(crate) use op::SsdScan;

/// What a scan of T tokens reads, for H heads that share B and C.
#[derive(Clone, Copy, Debug)]
pub struct Ssd<'a> {
    /// Tokens, T.
    pub tokens: usize,
    /// States of a channel, N.
    pub states: usize,
    /// Channels of a head, P.
    pub width: usize,
    /// A `[H]`, not positive.
    pub a: &'a [f32],
    /// D `[H]`.
    pub skip: &'a [f32],
    /// Step sizes `[T, H]`, not negative.
    pub dt: Rows<'a>,
    /// Inputs u `[T, H * P]`.
    pub x: Rows<'a>,
    /// B `[T, N]`.
    pub b: Rows<'a>,
    /// C `[T, N]`.
    pub c: Rows<'a>,
}

impl<'a> Ssd<'a> {
    /// u of a token and head.
    #[inline]
    fn head(&self, t: usize, head: usize) -> &'a [f32] {
        &self.x.data[t * self.x.stride + head * self.width..][..self.width]
    }
}

pub(crate) type Variant = unsafe fn(&Ssd<'_>, &mut [f32], RowsMut<'_>);

impl Kernels {
    /// Scans T tokens into y `[T, H * P]` and updates `state` `[H, N, P]`. See [`crate::scan::ssd`].
    ///
    /// # Panics
    /// If shapes disagree, or N or P is 0.
    pub fn ssd_scan(&self, scan: &Ssd<'_>, state: &mut [f32], y: RowsMut<'_>) {
        let Ssd { tokens, states, width, .. } = *scan;
        assert!(states > 0 && width > 0, "{width} channels of {states} states");
        let heads = scan.a.len();
        assert_eq!(scan.skip.len(), heads, "A and D of {heads} heads");
        let channels = heads.checked_mul(width).expect("heads that fit in memory");
        assert_eq!(Some(state.len()), channels.checked_mul(states), "state [{heads}, {states}, {width}]");
        scan.dt.check(tokens, heads, "dt");
        scan.x.check(tokens, channels, "x");
        scan.b.check(tokens, states, "B");
        scan.c.check(tokens, states, "C");
        y.check(tokens, channels, "y");
        // SAFETY: this table exists only if the CPU has the variant's features.
        unsafe { (self.ssd_scan)(scan, state, y) }
    }
}
