//! Walking a matrix in several streams.
//!
//! A core that reads memory sequentially in one stream leaves a third to a half of its bandwidth unused, because the
//! hardware prefetcher keeps only so many lines of one stream in flight. So a matrix is cut into N runs of rows of nearly
//! equal length, which are walked side by side: each stays long and sequential, and one load of the activations serves
//! all of them.

use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
use std::array;

/// Rounds of N items, one of each stream: stream s holds items `s * items / N .. (s + 1) * items / N`.
pub(crate) fn rounds<const N: usize>(items: usize) -> impl Iterator<Item = [usize; N]> {
    let starts: [usize; N] = array::from_fn(|s| s * items / N);
    (0..items / N).map(move |i| starts.map(|start| start + i))
}

/// What the rounds leave: the last item of each stream that is one longer than the others.
pub(crate) fn leftovers<const N: usize>(items: usize) -> impl Iterator<Item = usize> {
    let length = items / N;
    (0..N).filter(move |s| (s + 1) * items / N - s * items / N > length).map(move |s| (s + 1) * items / N - 1)
}

/// Asks for the line `ahead` bytes after `at`; never faults, so the address may lie outside every allocation.
#[inline(always)]
pub(crate) fn prefetch<T>(at: *const T, ahead: usize) {
    let address = at.cast::<i8>().wrapping_add(ahead);
    // SAFETY: a prefetch is a hint: it reads nothing architecturally and ignores addresses that are not mapped.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(address) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_and_leftovers_cover_every_item_once() {
        for items in 0..100 {
            let mut seen: Vec<usize> = rounds::<8>(items).flatten().chain(leftovers::<8>(items)).collect();
            seen.sort_unstable();
            assert_eq!(seen, Vec::from_iter(0..items));
            let mut seen: Vec<usize> = rounds::<3>(items).flatten().chain(leftovers::<3>(items)).collect();
            seen.sort_unstable();
            assert_eq!(seen, Vec::from_iter(0..items));
        }
    }
}
