//! The selective scan of Mamba-1: each channel has N states of its own, and a decay for each.
//!
//! **Computes**, for each channel w and token t in ascending order,
//! `S[n] = exp(dt · A[w, n]) · S[n] + (dt · x) · B[t, n]`, `y = sum over n of S[n] · C[t, n] + D[w] · x`, then y · silu(z)
//! where there is a gate z; dt and x are those of (t, w).
//!
//! **Layout** channels in tiles of sixteen: state and decays `[tiles, N, 16]`, so that a register holds one n of a tile, B
//! and C are broadcast and no sum crosses lanes. The decays are `A · log2 e` ([`pack_decays`]). Lanes beyond W are
//! padding, never read out. [`state_to_rows`] and [`state_from_rows`] convert to `[W, N]`.
//!
//! **Shapes** dt, x, z and y `[T, W]`, B and C `[T, N]`, all with row strides; D `[W]`.
//!
//! **Numbers** f32; dt >= 0 and A <= 0, so that a decay is at most 1; a decay below 2^-126 is 0. The decay is
//! 2^(dt · A log2 e) with a relative error below 1.2e-7 beside the rounding of its argument.
//!
//! **Exactness** the same bits everywhere, and from one call or many: `S = fma(decay, S, (dt x) B)`, sums in ascending n
//! with fused multiply-adds.
//!
//! **Cost** W·N exponentials a token are the floor: of about 20 instructions for a register of states, ten multiply (18
//! operations a state: 13 of the exponential, 5 of state and sum) and bound the time where there are two multipliers.
//! Bytes: state read and written, decays read, once a call and tile; 16·T·W beside them.
//!
//! **Source** Gu and Dao, "Mamba" (arXiv 2312.00752), algorithm 2; its B is discretised by Euler's rule, as in the authors'
//! `selective_scan_ref`.
//!
//! **Variants** AVX2: half a tile in a register, state and decays in the first-level cache over all tokens. AVX-512: a
//! tile in a register; for N = 16 the sixteen registers of the state stay where they are over all tokens. Both ask for
//! rows four tokens ahead, without which 64 tokens of 5120 channels take AVX2 1.3 times as long. On a Zen 4 core AVX2 reaches
//! 31 % of the peak of multiply-adds where N is 16 and 42 % where it is 64: an exponential waits for itself longer than
//! the scheduler of the core can look ahead. The specification compiled for AVX2 takes 3 times as long for one token, 5.7
//! times for 64.
//!
//! **Tried and dropped** the polynomial by pairs (Estrin): a multiplication more, and at most a twentieth faster.
//!
//! **Not done** A = -1 .. -N as models begin with, where one exponential and powers of it would do: training moves A.

use crate::lanes::LANES;
use crate::math::scalar::exp;
use crate::{Kernels, Rows, RowsMut};

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
mod op;
pub(crate) mod scalar;

pub(crate) use op::SelectiveScan;

/// What a scan of T tokens reads.
#[derive(Clone, Copy, Debug)]
pub struct Selective<'a> {
    /// Tokens, T.
    pub tokens: usize,
    /// States of a channel, N.
    pub states: usize,
    /// Packed decays `[tiles, N, 16]`, see [`pack_decays`].
    pub decays: &'a [f32],
    /// D `[W]`.
    pub skip: &'a [f32],
    /// Step sizes `[T, W]`, not negative.
    pub dt: Rows<'a>,
    /// Inputs `[T, W]`.
    pub x: Rows<'a>,
    /// B `[T, N]`.
    pub b: Rows<'a>,
    /// C `[T, N]`.
    pub c: Rows<'a>,
    /// z `[T, W]`, before silu.
    pub gate: Option<Rows<'a>>,
}

/// How many tokens ahead a tile's rows are asked for.
#[cfg(target_arch = "x86_64")]
const AHEAD: usize = 4;

impl Selective<'_> {
    /// The channels of a tile that exist.
    #[cfg(target_arch = "x86_64")]
    fn lanes(&self, tile: usize) -> std::ops::Range<usize> {
        tile * LANES..self.skip.len().min((tile + 1) * LANES)
    }

    /// Asks for what is read and written [`AHEAD`] tokens on: rows lie pages apart, where no prefetcher looks by itself.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn prefetch(&self, tile: usize, t: usize, y: &RowsMut<'_>) {
        let (tile, t) = if t + AHEAD < self.tokens { (tile, t + AHEAD) } else { (tile + 1, t + AHEAD - self.tokens) };
        let ask = |data: *const f32, stride: usize| {
            crate::streams::prefetch(data.wrapping_add(t * stride + tile * LANES), 0);
        };
        for rows in [Some(self.dt), Some(self.x), self.gate].into_iter().flatten() {
            ask(rows.data.as_ptr(), rows.stride);
        }
        ask(y.data.as_ptr(), y.stride);
    }
}

pub(crate) type Variant = unsafe fn(&Selective<'_>, &mut [f32], RowsMut<'_>);

/// Elements of a packed state, and of packed decays, of W channels.
pub fn packed_len(width: usize, states: usize) -> usize {
    let padded = width.checked_next_multiple_of(LANES).and_then(|width| width.checked_mul(states));
    padded.expect("a state that fits in memory")
}

/// Where state n of a channel lies.
fn place(channel: usize, n: usize, states: usize) -> usize {
    (channel / LANES * states + n) * LANES + channel % LANES
}

/// Packs `a_log` `[W, N]` of a file: A = -exp(a_log), times log2 e. Padding becomes 0.
///
/// # Panics
/// If N is 0 or `out` is not [`packed_len`] long.
pub fn pack_decays(a_log: &[f32], states: usize, out: &mut [f32]) {
    // In f64, so that the constant costs no rounding of its own.
    let decay = |a_log: f32| (-f64::from(exp(a_log)) * std::f64::consts::LOG2_E) as f32;
    pack(a_log, states, out, decay);
}

/// Packs a state `[W, N]`. Padding becomes 0.
///
/// # Panics
/// If N is 0 or `out` is not [`packed_len`] long.
pub fn state_from_rows(rows: &[f32], states: usize, out: &mut [f32]) {
    pack(rows, states, out, |state| state);
}

fn pack(rows: &[f32], states: usize, out: &mut [f32], f: impl Fn(f32) -> f32) {
    assert!(states > 0 && rows.len().is_multiple_of(states), "rows [W, {states}] have {} elements", rows.len());
    assert_eq!(out.len(), packed_len(rows.len() / states, states), "packed [tiles, {states}, {LANES}]");
    out.fill(0.0);
    for (i, value) in rows.iter().enumerate() {
        out[place(i / states, i % states, states)] = f(*value);
    }
}

/// Unpacks a state into rows `[W, N]`.
///
/// # Panics
/// If N is 0 or `state` is not [`packed_len`] long.
pub fn state_to_rows(state: &[f32], states: usize, rows: &mut [f32]) {
    assert!(states > 0 && rows.len().is_multiple_of(states), "rows [W, {states}] have {} elements", rows.len());
    assert_eq!(state.len(), packed_len(rows.len() / states, states), "packed [tiles, {states}, {LANES}]");
    for (i, value) in rows.iter_mut().enumerate() {
        *value = state[place(i / states, i % states, states)];
    }
}

impl Kernels {
    /// Scans T tokens into y `[T, W]` and updates the packed `state` `[tiles, N, 16]`. See [`crate::scan::selective`].
    ///
    /// # Panics
    /// If shapes disagree, or W or N is 0.
    pub fn selective_scan(&self, scan: &Selective<'_>, state: &mut [f32], y: RowsMut<'_>) {
        let Selective { tokens, states, skip, .. } = *scan;
        let width = skip.len();
        assert!(width > 0 && states > 0, "{width} channels of {states} states");
        let packed = packed_len(width, states);
        assert_eq!(scan.decays.len(), packed, "decays [tiles, {states}, {LANES}] of {width} channels");
        assert_eq!(state.len(), packed, "state [tiles, {states}, {LANES}] of {width} channels");
        scan.dt.check(tokens, width, "dt");
        scan.x.check(tokens, width, "x");
        scan.b.check(tokens, states, "B");
        scan.c.check(tokens, states, "C");
        if let Some(gate) = scan.gate {
            gate.check(tokens, width, "gate");
        }
        y.check(tokens, width, "y");
        // SAFETY: this table exists only if the CPU has the variant's features.
        unsafe { (self.selective_scan)(scan, state, y) }
    }
}
