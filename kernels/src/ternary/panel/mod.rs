//! Many tokens: weights are unpacked once into a panel that stays in the first-level cache, and the panel is multiplied with
//! every token of a run.
//!
//! **Layout** a panel holds the codes w + 1 of 64 rows and up to [`STEPS`] · 4 columns, whatever they were packed as:
//!
//! ```text
//! step s (columns 4 s .. 4 s + 4), line l of four, byte 4 i + j  =  column 4 s + j of row ROW[16 l + i] of the tile
//! ```
//!
//! so that one dword of a token's codes, broadcast, meets the four columns of a row in every 32-bit lane. The order of rows
//! is the unpacker's own, and undone when the sums are written.
//!
//! **Numbers** A 16-bit sum of two products is at most 2 · 2 · 128 in magnitude; a panel's steps add up before it is
//! widened to 32 bits.
//!
//! **Cost** unpacking once for each run of [`TOKENS`] tokens; two instructions for 32 products (AVX2), one for 64 (VNNI).

use super::Activations;
use crate::Line;

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;

/// Rows to a panel.
pub(crate) const ROWS: usize = 64;
/// Steps of four columns to a panel: a multiple of what every layout's group has.
pub(crate) const STEPS: usize = 60;
/// Lines to a step.
pub(crate) const LINES: usize = ROWS / 16;
/// Tokens to a run.
pub(crate) const TOKENS: usize = 64;

/// The codes of 64 rows and a run of columns.
pub(crate) type Panel = [[Line; LINES]; STEPS];

const _: () = assert!(STEPS as i32 * 2 * 2 * 128 <= i16::MAX as i32, "16-bit sums of a panel overflow");

/// The codes of a token as dwords, one a step; steps beyond the stride read zeros.
pub(crate) fn dwords<'a>(x: &Activations<'a>, token: usize) -> &'a [[i8; 4]] {
    x.codes[token * x.stride..][..x.stride].as_chunks().0
}
