//! Eight numbers at a time.

use crate::widen::Widen;
use std::arch::x86_64::*;

#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn gather<E: Widen>(table: &[E], ids: &[u32], width: usize, out: &mut [f32]) {
    let quiet = _mm256_castsi256_ps(_mm256_set1_epi32(1 << 22));
    for (id, out) in ids.iter().zip(out.chunks_exact_mut(width)) {
        let stored = &table[*id as usize * width..][..width];
        let mut eights = stored.chunks_exact(8);
        let mut outs = out.chunks_exact_mut(8);
        for (stored, out) in (&mut eights).zip(&mut outs) {
            // SAFETY: the chunk holds eight numbers.
            let v = unsafe { E::eight(stored.as_ptr()) };
            // A signalling NaN becomes quiet, as in the specification.
            let v = _mm256_or_ps(v, _mm256_and_ps(quiet, _mm256_cmp_ps::<_CMP_UNORD_Q>(v, v)));
            // SAFETY: so does the chunk of `out`.
            unsafe { _mm256_storeu_ps(out.as_mut_ptr(), v) };
        }
        for (stored, out) in eights.remainder().iter().zip(outs.into_remainder()) {
            *out = stored.widen();
        }
    }
}
