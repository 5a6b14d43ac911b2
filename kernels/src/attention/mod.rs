//! Softmax attention of G queries that share one key/value head, over a cache.
//!
//! **Computes** for each query g: `s_i = (q_g · k_i) * scale`; p = softmax(s); `out_g = sum over i of p_i * v_i`.
//!
//! **Shapes** q `[G, K]`; keys and values `[n, K]`, n >= 1; scores `[G, n]` scratch; out `[G, K]`.
//!
//! **Numbers** f32; cached numbers widen exactly.
//!
//! **Exactness** the same bits everywhere, however the queries are grouped: dot products and the softmax keep the
//! sixteen-lane rule; each element of the output is one chain of fused multiply-adds in ascending i.
//!
//! **Cost** 2·n·K times the cache's bytes; 4·G·n·K operations beside G·n exponentials.
//!
//! **Source** Vaswani et al. (arXiv 1706.03762), eq. 1; grouped queries: Ainslie et al. (arXiv 2305.13245).
//!
//! **Not done** one-pass (online) softmax: it would make the bits depend on the block size.

use crate::{CacheElement, Kernels};

pub(crate) mod scalar;

/// One call's inputs.
#[derive(Clone, Copy, Debug)]
pub struct Heads<'a, E> {
    /// Queries `[G, K]`.
    pub queries: &'a [f32],
    /// Keys `[n, K]`.
    pub keys: &'a [E],
    /// Values `[n, K]`.
    pub values: &'a [E],
    /// Head width K.
    pub width: usize,
    /// What dot products are multiplied by, usually 1 / sqrt(K).
    pub scale: f32,
}

/// inputs, scores `[G, n]`, out `[G, K]`.
pub(crate) type Variant<E> = unsafe fn(Heads<'_, E>, &mut [f32], &mut [f32]);

impl Kernels {
    /// Attention of G queries over n cached positions; `scores` `[G, n]` is scratch and holds the probabilities after.
    /// See [`crate::attention`].
    ///
    /// # Panics
    /// If shapes disagree, or nothing is cached.
    pub fn attention<E: CacheElement>(&self, heads: Heads<'_, E>, scores: &mut [f32], out: &mut [f32]) {
        let width = heads.width;
        assert!(
            width > 0 && heads.queries.len().is_multiple_of(width),
            "queries [G, {width}]: {}",
            heads.queries.len()
        );
        assert!(
            !heads.keys.is_empty() && heads.keys.len().is_multiple_of(width),
            "keys [n, {width}]: {}",
            heads.keys.len()
        );
        assert_eq!(heads.keys.len(), heads.values.len(), "keys and values");
        let (queries, cached) = (heads.queries.len() / width, heads.keys.len() / width);
        assert_eq!(scores.len(), queries * cached, "scores [{queries}, {cached}]");
        assert_eq!(out.len(), heads.queries.len(), "out [{queries}, {width}]");
        // SAFETY: this table exists only if the CPU has the variant's features.
        unsafe { E::attention(self)(heads, scores, out) }
    }
}
