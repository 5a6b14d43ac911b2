//! Many tokens: weights are widened once into a panel that stays in the first-level cache, and the panel is multiplied
//! with every token of a run.
//!
//! A sum has sixteen lanes, so an output is not one number between two pieces of its columns but sixteen. They wait in
//! the second-level cache, 64 bytes an output, and are the reason for the sizes here: a piece of [`COLS`] columns is so
//! long that lanes are loaded and stored rarely, a panel of [`GROUP`] rows fills half of the first-level cache, and the
//! lanes of [`BLOCK`] rows and [`RUN`] tokens with the tokens' piece take 480 KiB. Copying the tokens is shared by the
//! rows of a block, widening weights by the tokens of a run.
//!
//! Tokens are copied piece by piece, side by side. Where they lie, their rows are often a multiple of 4 KiB apart; then
//! the rows of a block of tokens fight for the same sets of the first-level cache, which costs a third of the speed.

use crate::Element;
use crate::lanes::LANES;
use crate::streams::prefetch;
use crate::widen::Widen;
use std::mem::MaybeUninit;

/// Columns of a piece.
pub(crate) const COLS: usize = 512;
/// Rows of a panel.
const GROUP: usize = 8;
/// Rows of a block of registers.
pub(crate) const ROWS: usize = 4;
/// Rows whose lanes wait between two pieces of columns.
const BLOCK: usize = 128;
/// Most tokens of a run; a multiple of the tokens of every block of registers.
pub(crate) const RUN: usize = 48;
const _: () = assert!(GROUP.is_multiple_of(ROWS) && BLOCK.is_multiple_of(GROUP) && COLS.is_multiple_of(LANES));

/// From so many tokens on a panel is worth its unpacking.
pub(crate) const MANY: usize = 20;

/// A row of a panel or a token: some columns, in an order that is the ISA's matter.
pub(crate) type Piece = [f32; COLS];

/// What a sum is before its lanes are folded.
pub(crate) type Sum = [f32; LANES];

/// What an ISA does in registers.
pub(crate) trait Registers {
    /// Tokens of a block of registers; its rows are [`ROWS`].
    const TOKENS: usize;

    /// Widens `steps` times sixteen columns.
    ///
    /// # Safety
    /// They must be readable and fit into the piece; the CPU has the ISA's features.
    unsafe fn widen<E: Widen>(from: *const E, steps: usize, piece: *mut Piece);

    /// Adds the products of `steps` times sixteen columns of [`ROWS`] rows and [`Registers::TOKENS`] tokens to their
    /// sums. Sums of a token lie side by side, those of the next row [`RUN`] further on. The sums begin at zero if this
    /// is the `first` piece.
    ///
    /// # Safety
    /// Rows, tokens and sums must be good for that, all aligned to cache lines; the CPU has the ISA's features.
    unsafe fn multiply(rows: *const Piece, tokens: *const Piece, steps: usize, first: bool, sums: *mut Sum);

    /// Folds each of the sums as [`crate::lanes::fold`] does.
    ///
    /// # Safety
    /// There are as many sums as results; the CPU has the ISA's features.
    unsafe fn fold(sums: &[Sum], out: &mut [f32]);
}

#[repr(C, align(64))]
struct Scratch {
    panel: [Piece; GROUP],
    tokens: [Piece; RUN],
    sums: [[Sum; RUN]; BLOCK],
}

/// `out[r, t]` of all rows and tokens.
///
/// # Safety
/// The CPU must have the ISA's features.
pub(crate) unsafe fn matmul<R: Registers, E: Widen>(weights: &[E], x: &[f32], cols: usize, out: &mut [f32]) {
    const { assert!(RUN.is_multiple_of(R::TOKENS)) };
    let (rows, tokens) = (weights.len() / cols, x.len() / cols);
    let whole = cols / LANES * LANES;
    // Runs of nearly one length, since a short one unpacks as much as a long one.
    let run = tokens.div_ceil(tokens.div_ceil(RUN)).next_multiple_of(R::TOKENS);
    // Never read before it is written; zeros would cost as much as a small product.
    let mut scratch = MaybeUninit::<Scratch>::uninit();
    let scratch = scratch.as_mut_ptr();
    for first_token in (0..tokens).step_by(run) {
        let x = &x[first_token * cols..tokens.min(first_token + run) * cols];
        let run = x.len() / cols;
        for first_row in (0..rows).step_by(BLOCK) {
            let weights = &weights[first_row * cols..rows.min(first_row + BLOCK) * cols];
            // SAFETY: the scratch is this function's; the caller vouches for the CPU.
            unsafe { add_pieces::<R, E>(weights, x, cols, scratch) };
            for (r, w) in weights.chunks_exact(cols).enumerate() {
                // SAFETY: the pieces, of which there is at least one, have written the sums of all rows and tokens.
                let sums = unsafe { &mut (&mut (*scratch).sums)[r][..run] };
                if whole < cols {
                    for (sum, x) in sums.iter_mut().zip(x.chunks_exact(cols)) {
                        for ((lane, w), x) in sum.iter_mut().zip(&w[whole..]).zip(&x[whole..]) {
                            *lane = w.widen().mul_add(*x, *lane);
                        }
                    }
                }
                // SAFETY: the caller vouches for the CPU.
                unsafe { R::fold(sums, &mut out[(first_row + r) * tokens + first_token..][..run]) };
            }
        }
    }
}

/// The sums of up to [`BLOCK`] rows and [`RUN`] tokens over all whole steps of sixteen columns; there is at least one.
///
/// # Safety
/// The CPU must have the ISA's features, and `scratch` must be the caller's alone.
unsafe fn add_pieces<R: Registers, E: Widen>(weights: &[E], x: &[f32], cols: usize, scratch: *mut Scratch) {
    let (rows, run) = (weights.len() / cols, x.len() / cols);
    let padded = run.next_multiple_of(R::TOKENS);
    // SAFETY: places in the caller's scratch.
    let (panel, tokens, sums) = unsafe {
        let (panel, tokens) = (&raw mut (*scratch).panel, &raw mut (*scratch).tokens);
        (panel.cast::<Piece>(), tokens.cast::<Piece>(), (&raw mut (*scratch).sums).cast::<Sum>())
    };
    for first in (0..cols / LANES * LANES).step_by(COLS) {
        let steps = (cols - first).min(COLS) / LANES;
        for t in 0..padded {
            let x = &x[t.min(run - 1) * cols + first..][..steps * LANES];
            // SAFETY: x has so many columns; a run has at most RUN tokens.
            unsafe { R::widen(x.as_ptr(), steps, tokens.add(t)) };
        }
        for group in (0..rows).step_by(GROUP) {
            for r in 0..GROUP {
                // Rows beyond the last are that row again.
                let w = &weights[(group + r).min(rows - 1) * cols + first..][..steps * LANES];
                // SAFETY: w has so many columns.
                unsafe { R::widen(w.as_ptr(), steps, panel.add(r)) };
            }
            let next = weights.as_ptr().wrapping_add((group + GROUP) * cols + first);
            for (block, t) in (0..padded).step_by(R::TOKENS).enumerate() {
                ask_for(next, cols, steps, block, padded / R::TOKENS);
                for r in (0..GROUP).step_by(ROWS) {
                    // SAFETY: the panel has eight rows, the run so many tokens, and there are sums for both: BLOCK is a
                    // multiple of GROUP.
                    unsafe {
                        let sums = sums.add((group + r) * RUN + t);
                        R::multiply(panel.add(r), tokens.add(t), steps, first == 0, sums);
                    }
                }
            }
        }
    }
}

/// Asks for the next panel's weights, a part with each block of tokens, so that they arrive while this one is
/// multiplied.
fn ask_for<E: Element>(next: *const E, cols: usize, steps: usize, block: usize, blocks: usize) {
    let lines = (steps * LANES * size_of::<E>()).div_ceil(64);
    for i in block * GROUP * lines / blocks..(block + 1) * GROUP * lines / blocks {
        prefetch(next.wrapping_add(i / lines * cols).cast::<u8>(), i % lines * 64);
    }
}
