//! The specification.

/// One rotation.
pub(crate) fn rotate(a: f32, b: f32, cos: f32, sin: f32) -> (f32, f32) {
    (a.mul_add(cos, -(b * sin)), b.mul_add(cos, a * sin))
}

pub(crate) fn half_split(x: &mut [f32], cos: &[f32], sin: &[f32]) {
    let half = cos.len();
    for head in x.chunks_exact_mut(2 * half) {
        let (a, b) = head.split_at_mut(half);
        for i in 0..half {
            (a[i], b[i]) = rotate(a[i], b[i], cos[i], sin[i]);
        }
    }
}

pub(crate) fn interleaved(x: &mut [f32], cos: &[f32], sin: &[f32]) {
    for head in x.chunks_exact_mut(2 * cos.len()) {
        for (i, pair) in head.chunks_exact_mut(2).enumerate() {
            (pair[0], pair[1]) = rotate(pair[0], pair[1], cos[i], sin[i]);
        }
    }
}
