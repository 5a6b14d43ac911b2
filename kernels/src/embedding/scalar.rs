//! The specification.

use crate::Element;

pub(crate) fn gather<E: Element>(table: &[E], ids: &[u32], width: usize, out: &mut [f32]) {
    for (id, out) in ids.iter().zip(out.chunks_exact_mut(width)) {
        for (out, v) in out.iter_mut().zip(&table[*id as usize * width..][..width]) {
            *out = v.widen();
        }
    }
}
