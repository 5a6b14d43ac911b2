//! Who does what in a pass of some tokens, and the memory that each member of the team does it in.

use crate::exchange::FEW;
use crate::linear::{Input, MAX_INPUTS};
use crate::team::own;
use std::ops::Range;
use std::sync::{Mutex, RwLock};

/// Up to so many tokens, every member gathers all inputs of a product into one buffer of its own, so that weights are
/// streamed once for all of them.
const GATHERED: usize = 64;

/// Memory of a pass that outlives it, whatever the architecture. Everything that several members touch is behind a lock
/// that is never waited for (or is atomic): phases keep writers and readers apart.
pub(crate) struct Shares {
    /// T of the pass.
    pub(crate) tokens: usize,
    pub(crate) sharing: Sharing,
    /// Tokens, by slot.
    pub(crate) slots: Vec<Slot>,
    /// Tokens that meet the weights together, in order.
    pub(crate) groups: Vec<Range<usize>>,
    /// One for each slot; unused when tokens are [`Sharing::Private`].
    pub(crate) shared: Vec<RwLock<Rows>>,
    /// One for each member.
    pub(crate) workers: Vec<Mutex<Worker>>,
}

/// Who does what is done token by token (norms, residuals, quantisation).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sharing {
    /// Every member does all of it into buffers of its own: cheaper than a barrier for few tokens.
    Private,
    /// Slots are shared out; then every member gathers all inputs.
    Gathered,
    /// Slots are shared out; products read them where they are, slot by slot.
    InPlace,
}

/// Some neighbouring tokens of a pass.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    pub(crate) tokens: Range<usize>,
    /// The group that they belong to.
    pub(crate) group: Range<usize>,
}

/// Tokens on their way through the layers.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    /// The residual stream `[tokens, D]`.
    pub(crate) x: Vec<f32>,
    /// The same, normed, where several phases read it.
    pub(crate) normed: Vec<f32>,
    /// What the next linear layers read.
    pub(crate) inputs: [Input; MAX_INPUTS],
}

impl Rows {
    fn bytes(&self) -> usize {
        (self.x.capacity() + self.normed.capacity()) * size_of::<f32>()
            + self.inputs.iter().map(Input::bytes).sum::<usize>()
    }
}

/// A member's own memory.
#[derive(Debug, Default)]
pub(crate) struct Worker {
    /// All tokens if they are private; else only gathered inputs.
    pub(crate) rows: Rows,
    pub(crate) buffers: Buffers,
}

/// Scratch vectors; each grows to what is needed and stays so.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    /// A block's product.
    pub(crate) product: Vec<f32>,
    /// A second one.
    pub(crate) other: Vec<f32>,
    /// A slot's vectors, `[tokens, width]`.
    pub(crate) vectors: Vec<f32>,
    pub(crate) row: Vec<f32>,
    pub(crate) norm: Vec<f32>,
    pub(crate) factors: Vec<f32>,
    pub(crate) words: Vec<f32>,
    /// What else an architecture's items need, each under a number of its own.
    pub(crate) items: [Vec<f32>; 12],
}

impl Worker {
    fn bytes(&self) -> usize {
        let Worker { rows, buffers } = self;
        let Buffers { product, other, vectors, row, norm, factors, words, items } = buffers;
        let all = [product, other, vectors, row, norm, factors, words].into_iter().chain(items);
        rows.bytes() + all.map(|buffer| buffer.capacity() * size_of::<f32>()).sum::<usize>()
    }
}

/// The first `len` numbers of a vector that is made long enough.
pub(crate) fn sized(vector: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if vector.len() < len {
        vector.resize(len, 0.0);
    }
    &mut vector[..len]
}

impl Shares {
    pub(crate) fn new(tokens: usize, threads: usize) -> Shares {
        let sharing = if tokens <= FEW || threads == 1 && tokens <= GATHERED {
            Sharing::Private
        } else if tokens <= GATHERED {
            Sharing::Gathered
        } else {
            Sharing::InPlace
        };
        let size = match sharing {
            Sharing::Private => tokens,
            // A multiple of the tokens that kernels compute side by side, and two slots for each member if that leaves so many.
            Sharing::Gathered | Sharing::InPlace => tokens.div_ceil(2 * threads).next_multiple_of(8).min(GATHERED),
        };
        let starts = (0..tokens).step_by(size);
        let ranges: Vec<Range<usize>> = starts.map(|start| start..tokens.min(start + size)).collect();
        let whole = std::iter::once(0..tokens);
        let groups = if sharing == Sharing::InPlace { ranges.clone() } else { whole.collect() };
        let group = |index: usize| groups[if groups.len() == 1 { 0 } else { index }].clone();
        let slots = ranges.into_iter().enumerate().map(|(index, tokens)| Slot { tokens, group: group(index) });
        let slots: Vec<Slot> = slots.collect();
        Shares {
            tokens,
            sharing,
            shared: slots.iter().map(|_| RwLock::default()).collect(),
            slots,
            groups,
            workers: (0..threads).map(|_| Mutex::default()).collect(),
        }
    }

    /// Bytes allocated.
    pub(crate) fn bytes(&mut self) -> usize {
        let rows = self.shared.iter_mut().map(|rows| own(rows.get_mut()).bytes()).sum::<usize>();
        rows + self.workers.iter_mut().map(|worker| own(worker.get_mut()).bytes()).sum::<usize>()
    }
}
