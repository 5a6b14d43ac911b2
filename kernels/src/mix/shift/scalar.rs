//! The specification.

/// One number.
#[inline]
pub(crate) fn mixed(h: f32, p: f32, m: f32) -> f32 {
    (p - h).mul_add(m, h)
}

pub(crate) fn shift(h: &[f32], p: &[f32], m: &[f32], out: &mut [f32]) {
    for (i, out) in out.iter_mut().enumerate() {
        *out = mixed(h[i], p[i], m[i]);
    }
}

pub(crate) fn shift_own(h: &[f32], p: &[f32], base: &[f32], own: &[f32], out: &mut [f32]) {
    for (i, out) in out.iter_mut().enumerate() {
        *out = mixed(h[i], p[i], base[i] + own[i]);
    }
}
