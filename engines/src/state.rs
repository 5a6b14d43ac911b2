//! What one sequence has left behind.

use crate::cache::Head;
use crate::{CacheFormat, Error, Result};

/// The memory of one sequence: a key/value cache for each layer and head. Cheap to clone: clones share their numbers until
/// one of them reads on.
#[derive(Clone)]
pub struct State {
    shape: CacheShape,
    /// Tokens read.
    len: usize,
    /// `[layers, heads]`. Entries may hold more than `len` positions after a rewind; they are overwritten.
    heads: Vec<Head>,
}

/// What a state must agree on with its model.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct CacheShape {
    pub(crate) layers: usize,
    /// Key/value heads.
    pub(crate) heads: usize,
    /// K.
    pub(crate) width: usize,
    pub(crate) format: CacheFormat,
}

impl std::fmt::Display for CacheShape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let CacheShape { layers, heads, width, format } = self;
        write!(f, "{layers} layers of {heads} key/value heads of width {width} in {format}")
    }
}

impl State {
    pub(crate) fn new(shape: CacheShape) -> State {
        State { shape, len: 0, heads: vec![Head::new(shape.format); shape.layers * shape.heads] }
    }

    /// Tokens read.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing has been read.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Forgets everything after the first `len` tokens. A cache can be rewound to any length.
    ///
    /// # Errors
    /// [`Error::Rewind`] if so many have not been read.
    pub fn rewind(&mut self, len: usize) -> Result<()> {
        if len > self.len {
            return Err(Error::Rewind { wanted: len, len: self.len });
        }
        self.len = len;
        Ok(())
    }

    /// Bytes of memory that the state holds; what clones share counts for each.
    pub fn bytes(&self) -> usize {
        self.heads.iter().map(Head::bytes).sum()
    }

    /// Whether a model of this shape can read on.
    pub(crate) fn check(&self, expected: CacheShape) -> Result<()> {
        if self.shape == expected {
            return Ok(());
        }
        Err(Error::State { expected: expected.to_string(), found: self.shape.to_string() })
    }

    pub(crate) fn heads_mut(&mut self) -> &mut [Head] {
        &mut self.heads
    }

    pub(crate) fn advance(&mut self, tokens: usize) {
        self.len += tokens;
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "State({} tokens; {})", self.len, self.shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rewinding_forwards_is_an_error_that_names_both_lengths() {
        let shape = CacheShape { layers: 1, heads: 1, width: 2, format: CacheFormat::F32 };
        let mut state = State::new(shape);
        state.advance(3);
        assert_eq!(state.rewind(4).unwrap_err().to_string(), "cannot rewind to 4 tokens: the state has read 3");
        assert!(state.rewind(1).is_ok() && state.len() == 1 && !state.is_empty());
    }
}
