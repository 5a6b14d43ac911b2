//! The specification: insertion into a sorted list of the best so far.

/// Whether `a` ranks above `b`; a NaN ranks below everything, and two NaNs are equal.
pub(crate) fn above(a: f32, b: f32) -> bool {
    a > b || (b.is_nan() && !a.is_nan())
}

/// Inserts index `i` into the first `len` of `indices` (sorted), dropping the last where they are full. Returns the new
/// length.
pub(crate) fn insert(x: &[f32], indices: &mut [u32], len: usize, i: usize) -> usize {
    let mut place = len;
    // An equal element already there has a lower index and stays above.
    while place > 0 && above(x[i], x[indices[place - 1] as usize]) {
        place -= 1;
    }
    if place == indices.len() {
        return len;
    }
    let end = len.min(indices.len() - 1);
    indices.copy_within(place..end, place + 1);
    indices[place] = i as u32;
    end + 1
}

pub(crate) fn top_k(x: &[f32], indices: &mut [u32]) {
    let mut len = 0;
    for i in 0..x.len() {
        len = insert(x, indices, len, i);
    }
}
