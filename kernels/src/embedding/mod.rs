//! Embedding gather.
//!
//! **Computes** `out[t] = table[ids[t]]`, widened to f32.
//!
//! **Shapes** table `[V, D]`, ids `[T]`, out `[T, D]`.
//!
//! **Exactness** the same bits everywhere: widening is exact.
//!
//! **Cost** T·D times (the stored bytes + 4).

use crate::{Element, Kernels};

pub(crate) mod scalar;

/// table `[V, D]`, ids `[T]` (each below V), D, out `[T, D]`.
pub(crate) type Variant<E> = unsafe fn(&[E], &[u32], usize, &mut [f32]);

impl Kernels {
    /// Rows `ids` of `table` `[V, width]` into `out` `[T, width]`. See [`crate::embedding`].
    ///
    /// # Panics
    /// If shapes disagree or an id is not below V.
    pub fn embed<E: Element>(&self, table: &[E], ids: &[u32], width: usize, out: &mut [f32]) {
        assert!(width > 0 && table.len().is_multiple_of(width), "table [V, {width}] has {} elements", table.len());
        assert_eq!(out.len(), ids.len() * width, "out [{}, {width}]", ids.len());
        let vocabulary = table.len() / width;
        for id in ids {
            assert!((*id as usize) < vocabulary, "token {id} of a vocabulary of {vocabulary}");
        }
        // SAFETY: this table exists only if the CPU has the variant's features.
        unsafe { E::embedding(self)(table, ids, width, out) }
    }
}
