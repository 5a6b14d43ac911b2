//! The specification: a heap of the best so far with the lowest of them on top, sorted at the end.

use std::cmp::Ordering;

/// Whether `a` ranks above `b`; a NaN ranks below everything, and two NaNs are equal.
pub(crate) fn above(a: f32, b: f32) -> bool {
    a > b || (b.is_nan() && !a.is_nan())
}

/// The total order of positions: by value, then the lower position first.
fn rank(x: &[f32], i: u32, j: u32) -> Ordering {
    let (a, b) = (x[i as usize], x[j as usize]);
    if above(a, b) {
        Ordering::Less
    } else if above(b, a) {
        Ordering::Greater
    } else {
        i.cmp(&j)
    }
}

/// Lets the position at `place` sink until both below it rank above it.
fn sink(x: &[f32], heap: &mut [u32], mut place: usize) {
    loop {
        let mut lower = 2 * place + 1;
        if lower >= heap.len() {
            return;
        }
        if lower + 1 < heap.len() && rank(x, heap[lower], heap[lower + 1]).is_lt() {
            lower += 1;
        }
        if rank(x, heap[place], heap[lower]).is_gt() {
            return;
        }
        heap.swap(place, lower);
        place = lower;
    }
}

/// Makes a heap of the first `heap.len()` positions.
pub(crate) fn begin(x: &[f32], heap: &mut [u32]) {
    for (i, place) in heap.iter_mut().enumerate() {
        *place = i as u32;
    }
    for place in (0..heap.len() / 2).rev() {
        sink(x, heap, place);
    }
}

/// Takes in position i, higher than all before it, where it ranks above the lowest.
pub(crate) fn offer(x: &[f32], heap: &mut [u32], i: usize) {
    if above(x[i], x[heap[0] as usize]) {
        heap[0] = i as u32;
        sink(x, heap, 0);
    }
}

/// Sorts the heap, best first.
pub(crate) fn finish(x: &[f32], heap: &mut [u32]) {
    heap.sort_unstable_by(|i, j| rank(x, *i, *j));
}

pub(crate) fn top_k(x: &[f32], indices: &mut [u32]) {
    begin(x, indices);
    for i in indices.len()..x.len() {
        offer(x, indices, i);
    }
    finish(x, indices);
}
