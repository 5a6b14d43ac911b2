//! What the members of a team share during one pass of some tokens through the layers.

use super::Transformer;
use crate::cache::Head;
use crate::exchange::{Exchange, FEW, Parts};
use crate::linear::{Input, MAX_INPUTS};
use crate::team::own;
use crate::{Segment, Token, Want};
use kernels::memory::{Purpose, Reservation};
use std::ops::Range;
use std::sync::{Mutex, RwLock};

/// Up to so many tokens, every member gathers all inputs of a product into one buffer of its own, so that weights are
/// streamed once for all of them.
const GATHERED: usize = 64;

/// Memory of a pass that outlives it. Everything that several members touch is behind a lock that is never waited for (or
/// is atomic): phases keep writers and readers apart.
pub(super) struct Scratch {
    tokens: usize,
    pub(super) sharing: Sharing,
    /// Tokens, by slot.
    pub(super) slots: Vec<Slot>,
    /// Tokens that meet the weights together, in order.
    pub(super) groups: Vec<Range<usize>>,
    /// One for each slot; unused when tokens are [`Sharing::Private`].
    pub(super) shared: Vec<RwLock<Rows>>,
    /// One for each member.
    pub(super) workers: Vec<Mutex<Worker>>,
    /// What attention heads must be computed, in order of claiming.
    pub(super) heads: Vec<HeadItem>,
    pub(super) qkv: Exchange,
    /// Attention outputs, one part for each of `heads`: `[tokens, queries K]`.
    pub(super) attended: Parts,
    pub(super) output: Exchange,
    pub(super) gated: Exchange,
    pub(super) down: Exchange,
    /// All of this, in the books of memory.
    memory: Reservation,
}

/// Who does what is done token by token (norms, residuals, quantisation).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sharing {
    /// Every member does all of it into buffers of its own: cheaper than a barrier for few tokens.
    Private,
    /// Slots are shared out; then every member gathers all inputs.
    Gathered,
    /// Slots are shared out; products read them where they are, slot by slot.
    InPlace,
}

/// Some neighbouring tokens of a pass.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub(super) tokens: Range<usize>,
    /// The group that they belong to.
    pub(super) group: Range<usize>,
}

/// Tokens on their way through the layers.
#[derive(Debug, Default)]
pub(super) struct Rows {
    /// The residual stream `[tokens, D]`.
    pub(super) x: Vec<f32>,
    /// What the next linear layers read.
    pub(super) inputs: [Input; MAX_INPUTS],
}

impl Rows {
    fn bytes(&self) -> usize {
        self.x.capacity() * size_of::<f32>() + self.inputs.iter().map(Input::bytes).sum::<usize>()
    }
}

/// A member's own memory.
#[derive(Debug, Default)]
pub(super) struct Worker {
    /// All tokens if they are private; else only gathered inputs.
    pub(super) rows: Rows,
    pub(super) buffers: Buffers,
}

/// Scratch vectors; each grows to what is needed and stays so.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    /// A block's product.
    pub(super) product: Vec<f32>,
    /// A second one.
    pub(super) other: Vec<f32>,
    /// A slot's vectors, `[tokens, width]`.
    pub(super) vectors: Vec<f32>,
    pub(super) row: Vec<f32>,
    pub(super) norm: Vec<f32>,
    pub(super) queries: Vec<f32>,
    pub(super) keys: Vec<f32>,
    pub(super) values: Vec<f32>,
    pub(super) scores: Vec<f32>,
    pub(super) factors: Vec<f32>,
    pub(super) words: Vec<f32>,
}

impl Worker {
    fn bytes(&self) -> usize {
        let Worker { rows, buffers } = self;
        let Buffers { product, other, vectors, row, norm, queries, keys, values, scores, factors, words } = buffers;
        let all = [product, other, vectors, row, norm, queries, keys, values, scores, factors, words];
        rows.bytes() + all.into_iter().map(|buffer| buffer.capacity() * size_of::<f32>()).sum::<usize>()
    }
}

/// The first `len` numbers of a vector that is made long enough.
pub(super) fn sized(vector: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if vector.len() < len {
        vector.resize(len, 0.0);
    }
    &mut vector[..len]
}

/// Attention of some queries that share a key/value head, for the tokens of a slot.
#[derive(Clone, Debug)]
pub(super) struct HeadItem {
    pub(super) slot: usize,
    pub(super) kv_head: usize,
    /// Query heads, counted from the first.
    pub(super) queries: Range<usize>,
}

impl Scratch {
    pub(super) fn new(model: &Transformer, tokens: usize) -> Scratch {
        let threads = model.settings.cpu.threads();
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
        let group = |range: &Range<usize>| groups[if groups.len() == 1 { 0 } else { range.start / size }].clone();
        let slots: Vec<Slot> = ranges.iter().map(|r| Slot { tokens: r.clone(), group: group(r) }).collect();
        let heads = head_items(model, slots.len(), threads);
        let width = model.weights.config.head_width;
        let attended = heads.iter().map(|item| slots[item.slot].tokens.len() * item.queries.len() * width);
        let attended = Parts::new(attended, tokens);
        let blocks = &model.blocks[usize::from(tokens > FEW)];
        let mut scratch = Scratch {
            tokens,
            sharing,
            shared: slots.iter().map(|_| RwLock::default()).collect(),
            slots,
            groups,
            workers: (0..threads).map(|_| Mutex::default()).collect(),
            heads,
            qkv: Exchange::new(&blocks.qkv, tokens),
            attended,
            output: Exchange::new(&blocks.output, tokens),
            gated: Exchange::new(&blocks.gate_up, tokens),
            down: Exchange::new(&blocks.down, tokens),
            memory: Reservation::new(Purpose::Scratch, 0),
        };
        scratch.count();
        scratch
    }

    /// Brings the books of memory up to date: buffers grow in the first pass, and with the length of the caches.
    pub(super) fn count(&mut self) {
        let Scratch { qkv, attended, output, gated, down, shared, workers, .. } = self;
        let exchanges = [qkv, output, gated, down].into_iter().map(Exchange::bytes).sum::<usize>();
        let rows = shared.iter_mut().map(|rows| own(rows.get_mut()).bytes()).sum::<usize>();
        let workers = workers.iter_mut().map(|worker| own(worker.get_mut()).bytes()).sum::<usize>();
        self.memory.resize(exchanges + attended.bytes() + rows + workers);
    }

    pub(super) fn tokens(&self) -> usize {
        self.tokens
    }
}

/// Every key/value head of every slot is an item; of those that would leave some members idle at the end, the queries are
/// split. Later slots come first: they have more to read.
fn head_items(model: &Transformer, slots: usize, threads: usize) -> Vec<HeadItem> {
    let config = &model.weights.config;
    let per_kv = config.heads / config.kv_heads;
    let count = slots * config.kv_heads;
    let mut items = Vec::new();
    for i in 0..count {
        let (slot, kv_head) = (slots - 1 - i / config.kv_heads, i % config.kv_heads);
        let parts = if i < count - count % threads { 1 } else { threads.min(per_kv) };
        for part in 0..parts {
            let queries = kv_head * per_kv + per_kv * part / parts..kv_head * per_kv + per_kv * (part + 1) / parts;
            items.push(HeadItem { slot, kv_head, queries });
        }
    }
    items
}

/// Some tokens on their way through the layers.
pub(super) struct Pass<'a, 'b> {
    pub(super) model: &'a Transformer,
    /// Tokens that this pass can still take.
    room: usize,
    pub(super) tokens: Vec<Token>,
    pub(super) runs: Vec<Run<'b>>,
    /// Whether the logits after each token are wanted.
    pub(super) wanted: Vec<bool>,
}

/// Neighbouring tokens of a pass that belong to one sequence.
pub(super) struct Run<'b> {
    /// In the pass.
    pub(super) tokens: Range<usize>,
    /// Of the first token in its sequence.
    pub(super) position: usize,
    /// `[L, G]`.
    pub(super) caches: Vec<RwLock<Cached<'b>>>,
}

/// A head's cache and whether this pass's keys and values are in it: the first member that needs them appends them.
pub(super) struct Cached<'b> {
    pub(super) head: &'b mut Head,
    pub(super) appended: bool,
}

/// Where the residual stream of a pass begins.
#[derive(Clone, Copy)]
pub(super) enum Source<'a> {
    /// The embedding, through all layers to the logits.
    Embedding,
    /// Given rows `[T, D]`, through one layer.
    Block(usize, &'a [f32]),
}

impl<'a, 'b> Pass<'a, 'b> {
    /// An empty pass for `room` tokens.
    pub(super) fn new(model: &'a Transformer, room: usize) -> Pass<'a, 'b> {
        Pass { model, room, tokens: Vec::new(), runs: Vec::new(), wanted: Vec::new() }
    }

    /// Takes as many of a segment's tokens from the `from`-th on as there is room for; gives how many.
    pub(super) fn add_segment(&mut self, segment: &'b mut Segment<'_>, from: usize) -> usize {
        let count = self.room.min(segment.tokens.len() - from);
        if count == 0 {
            return 0;
        }
        let last = segment.tokens.len() - 1;
        let want = segment.want;
        self.wanted.extend((from..from + count).map(|i| want == Want::All || i == last));
        let position = segment.state.len() + from;
        self.add(&segment.tokens[from..from + count], position, segment.state.heads_mut());
        count
    }

    /// Adds a run of tokens.
    pub(super) fn add(&mut self, tokens: &[Token], position: usize, heads: &'b mut [Head]) {
        let start = self.tokens.len();
        self.tokens.extend_from_slice(tokens);
        let caches = heads.iter_mut().map(|head| RwLock::new(Cached { head, appended: false })).collect();
        self.runs.push(Run { tokens: start..self.tokens.len(), position, caches });
        self.room -= tokens.len();
    }

    pub(super) fn token_count(&self) -> usize {
        self.tokens.len()
    }

    /// Rows of logits that this pass gives.
    pub(super) fn wanted_count(&self) -> usize {
        self.wanted.iter().filter(|wanted| **wanted).count()
    }
}
