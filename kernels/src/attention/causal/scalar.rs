//! The specification.

use super::one_by_one;
use crate::CacheElement;
use crate::attention::{Heads, scalar};

pub(crate) fn causal<E: CacheElement>(heads: Heads<'_, E>, tokens: usize, scores: &mut [f32], out: &mut [f32]) {
    // SAFETY: the scalar variant runs on every CPU.
    unsafe { one_by_one(scalar::attention, heads, tokens, scores, out) }
}
