//! A pass of some tokens through the layers: what every architecture's forward pass has in common.
//!
//! An architecture is a [`Net`]: it says what a layer computes. The [`Runner`] makes a model of it: batches cut into passes,
//! states, logits, inspection. A [`Walk`] is one thread's way through a pass, as a sequence of phases.

mod runner;
mod shares;
mod walk;

use crate::cache::Head;
use crate::recurrent::Recalled;
use crate::{Segment, Token};
use std::ops::Range;
use std::sync::RwLock;

pub(crate) use runner::{Net, Outline, Runner};
pub(crate) use shares::{Buffers, Rows, Shares, Sharing, Slot, Worker, sized};
pub(crate) use walk::Walk;

/// Tokens that go through the layers together at most, so that the memory of a pass is bounded.
pub(crate) const PASS_TOKENS: usize = 512;

/// Some tokens on their way through the layers.
pub(crate) struct Pass<'b> {
    pub(crate) tokens: Vec<Token>,
    pub(crate) runs: Vec<Run<'b>>,
    /// Whether the logits after each token are wanted.
    pub(crate) wanted: Vec<bool>,
}

/// Neighbouring tokens of a pass that belong to one sequence.
pub(crate) struct Run<'b> {
    /// In the pass.
    pub(crate) tokens: Range<usize>,
    /// Of the first token in its sequence.
    pub(crate) position: usize,
    pub(crate) memory: RunMemory<'b>,
}

/// What a run's sequence remembers.
pub(crate) enum RunMemory<'b> {
    /// `[L, G]`.
    Caches(Vec<RwLock<Cached<'b>>>),
    Recurrent(Recalled<'b>),
}

/// A head's cache and whether this pass's keys and values are in it: the first member that needs them appends them.
pub(crate) struct Cached<'b> {
    pub(crate) head: &'b mut Head,
    pub(crate) appended: bool,
}

impl<'b> Run<'b> {
    /// The caches `[L, G]`; none where the memory is recurrent.
    pub(crate) fn caches(&self) -> &[RwLock<Cached<'b>>] {
        match &self.memory {
            RunMemory::Caches(caches) => caches,
            RunMemory::Recurrent(_) => &[],
        }
    }

    /// The recurrent memory, if that is what it is.
    pub(crate) fn recalled(&self) -> Option<&Recalled<'b>> {
        match &self.memory {
            RunMemory::Caches(_) => None,
            RunMemory::Recurrent(recalled) => Some(recalled),
        }
    }
}

/// Where the residual stream of a pass begins.
#[derive(Clone, Copy)]
pub(crate) enum Source<'a> {
    /// The embedding, through all layers to the logits.
    Embedding,
    /// Given rows `[T, D]`, through one layer.
    Block(usize, &'a [f32]),
}

impl<'b> Pass<'b> {
    pub(crate) fn new() -> Pass<'b> {
        Pass { tokens: Vec::new(), runs: Vec::new(), wanted: Vec::new() }
    }

    /// Adds a run of tokens; `wanted` says whether the logits after its i-th one are.
    pub(crate) fn add(
        &mut self,
        tokens: &[Token],
        position: usize,
        memory: RunMemory<'b>,
        wanted: impl Fn(usize) -> bool,
    ) {
        let start = self.tokens.len();
        self.tokens.extend_from_slice(tokens);
        self.wanted.extend((0..tokens.len()).map(wanted));
        self.runs.push(Run { tokens: start..self.tokens.len(), position, memory });
    }

    pub(crate) fn token_count(&self) -> usize {
        self.tokens.len()
    }

    /// Rows of logits that this pass gives.
    pub(crate) fn wanted_count(&self) -> usize {
        self.wanted.iter().filter(|wanted| **wanted).count()
    }
}

/// How many tokens of each segment a pass takes, when it has room for so many and so many are left.
pub(crate) fn share_room(batch: &[Segment<'_>], read: &[usize], mut room: usize) -> Vec<usize> {
    let left = batch.iter().zip(read).map(|(segment, read)| segment.tokens.len() - read);
    left.map(|left| {
        let taken = left.min(room);
        room -= taken;
        taken
    })
    .collect()
}
