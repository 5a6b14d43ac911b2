//! What one sequence has left behind.

use crate::cache::Head;
use crate::recurrent::{Recurrent, RecurrentShape};
use crate::{CacheFormat, Error, Result};

/// The memory of one sequence: a key/value cache for each layer and head, or what a recurrent model remembers. Cheap to
/// clone: clones share their numbers until one of them reads on.
#[derive(Clone)]
pub struct State {
    /// Tokens read.
    len: usize,
    memory: Memory,
}

/// What is remembered.
#[derive(Clone)]
pub(crate) enum Memory {
    /// Grows with every token.
    Cache(Cache),
    /// Has one size for ever.
    Recurrent(Recurrent),
}

/// Key/value caches.
#[derive(Clone)]
pub(crate) struct Cache {
    shape: CacheShape,
    /// `[layers, heads]`. Entries may hold more than the state's positions after a rewind; they are overwritten.
    pub(crate) heads: Vec<Head>,
}

/// What a state must agree on with its model.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum MemoryShape {
    Cache(CacheShape),
    Recurrent(RecurrentShape),
}

/// Sizes of key/value caches.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct CacheShape {
    pub(crate) layers: usize,
    /// Key/value heads.
    pub(crate) heads: usize,
    /// K.
    pub(crate) width: usize,
    pub(crate) format: CacheFormat,
}

impl std::fmt::Display for MemoryShape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            MemoryShape::Cache(CacheShape { layers, heads, width, format }) => {
                write!(f, "{layers} layers of {heads} key/value heads of width {width} in {format}")
            }
            MemoryShape::Recurrent(RecurrentShape { architecture, layers, numbers }) => {
                write!(f, "{layers} layers of {numbers} recurrent numbers of {architecture}")
            }
        }
    }
}

impl State {
    /// An empty one with caches.
    pub(crate) fn cached(shape: CacheShape) -> State {
        let heads = vec![Head::new(shape.format); shape.layers * shape.heads];
        State { len: 0, memory: Memory::Cache(Cache { shape, heads }) }
    }

    /// An empty one that remembers what `recurrent` does.
    pub(crate) fn recurrent(recurrent: Recurrent) -> State {
        State { len: 0, memory: Memory::Recurrent(recurrent) }
    }

    /// Tokens read.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing has been read.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Forgets everything after the first `len` tokens. A cache can be rewound to any length, a recurrent memory by as many
    /// tokens as [`start`](crate::LanguageModel::start) was asked to keep, and to nothing.
    ///
    /// # Errors
    /// [`Error::Rewind`] if so many have not been read, [`Error::Forgotten`] if a recurrent memory no longer goes back so far.
    pub fn rewind(&mut self, len: usize) -> Result<()> {
        if len > self.len {
            return Err(Error::Rewind { wanted: len, len: self.len });
        }
        if let Memory::Recurrent(recurrent) = &mut self.memory {
            recurrent.rewind(self.len, len)?;
        }
        self.len = len;
        Ok(())
    }

    /// Bytes of memory that the state holds; what clones share counts for each.
    pub fn bytes(&self) -> usize {
        match &self.memory {
            Memory::Cache(cache) => cache.heads.iter().map(Head::bytes).sum(),
            Memory::Recurrent(recurrent) => recurrent.bytes(),
        }
    }

    fn shape(&self) -> MemoryShape {
        match &self.memory {
            Memory::Cache(cache) => MemoryShape::Cache(cache.shape),
            Memory::Recurrent(recurrent) => MemoryShape::Recurrent(recurrent.shape()),
        }
    }

    /// Whether a model of this shape can read on.
    pub(crate) fn check(&self, expected: MemoryShape) -> Result<()> {
        let found = self.shape();
        if found == expected {
            return Ok(());
        }
        Err(Error::State { expected: expected.to_string(), found: found.to_string() })
    }

    pub(crate) fn memory(&self) -> &Memory {
        &self.memory
    }

    pub(crate) fn memory_mut(&mut self) -> &mut Memory {
        &mut self.memory
    }

    pub(crate) fn advance(&mut self, tokens: usize) {
        self.len += tokens;
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "State({} tokens; {})", self.len, self.shape())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rewinding_forwards_is_an_error_that_names_both_lengths() {
        let shape = CacheShape { layers: 1, heads: 1, width: 2, format: CacheFormat::F32 };
        let mut state = State::cached(shape);
        state.advance(3);
        assert_eq!(state.rewind(4).unwrap_err().to_string(), "cannot rewind to 4 tokens: the state has read 3");
        assert!(state.rewind(1).is_ok() && state.len() == 1 && !state.is_empty());
    }
}
