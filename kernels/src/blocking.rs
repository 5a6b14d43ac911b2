//! Register blocking: how a matrix product cuts its rows and tokens.
//!
//! A block computes N rows (or row tiles) for T tokens with N · T accumulators in registers: each weight that is loaded
//! and unpacked serves T tokens, each activation N rows. Few tokens leave room for many rows, which then are streams far
//! apart ([`crate::streams`]); one token is the case that memory decides.

use std::hint::black_box;
use std::ops::Range;

/// A number that the compiler does not know, so that a loop of so many turns stays one. Of an unrolled loop it loads
/// the operands of all turns first, and then spills accumulators to make room for them.
pub(crate) fn turns(count: usize) -> usize {
    black_box(count)
}

/// A product that can compute a block of its result.
pub(crate) trait Product {
    /// The products of N items (rows or row tiles) and at most T tokens, never 0. A block that is not full computes its
    /// last token again instead of branching.
    ///
    /// # Safety
    /// The CPU must have the features that the implementation names.
    unsafe fn block<const N: usize, const T: usize>(&self, items: [usize; N], tokens: Range<usize>, out: &mut [f32]);
}

/// Defines a walk over all items for a run of tokens, by the run's length: N items at a time, and tokens in blocks of the
/// last size in the list; what remains takes the smallest size that holds it.
macro_rules! walk {
    ($(#[$doc:meta])* $name:ident: $($length:pat => $n:literal items of $($size:literal),+ tokens;)+) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// The CPU must have the features that the product's blocks name.
        pub(crate) unsafe fn $name<P: $crate::blocking::Product>(
            product: &P,
            items: usize,
            run: std::ops::Range<usize>,
            out: &mut [f32],
        ) {
            match run.len() {
                0 => {}
                $($length => {
                    let most = [$($size),+].into_iter().max().unwrap_or(1);
                    let blocks = || run.clone().step_by(most).map(|start| start..(start + most).min(run.end));
                    for items in $crate::streams::rounds::<$n>(items) {
                        for tokens in blocks() {
                            match tokens.len() {
                                // SAFETY: the caller vouches for the CPU.
                                $(..=$size => unsafe { product.block::<$n, $size>(items, tokens, out) },)+
                                more => unreachable!("a block of {more} tokens"),
                            }
                        }
                    }
                    for item in $crate::streams::leftovers::<$n>(items) {
                        for tokens in blocks() {
                            match tokens.len() {
                                // SAFETY: the caller vouches for the CPU.
                                $(..=$size => unsafe { product.block::<1, $size>([item], tokens, out) },)+
                                more => unreachable!("a block of {more} tokens"),
                            }
                        }
                    }
                })+
            }
        }
    };
}
pub(crate) use walk;

/// Runs of tokens whose activations, `bytes` each, stay in half a mebibyte of second-level cache while all rows pass.
pub(crate) fn cached_runs(tokens: usize, bytes: usize, multiple: usize) -> impl Iterator<Item = Range<usize>> {
    const CACHED: usize = 512 << 10;
    let length = (CACHED / bytes.max(1)).max(1).next_multiple_of(multiple);
    (0..tokens).step_by(length).map(move |start| start..(start + length).min(tokens))
}
