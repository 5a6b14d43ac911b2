//! From an architecture to a model: batches, passes, states and what reports ask.

use super::{Cached, PASS_TOKENS, Pass, RunMemory, Shares, Source, Walk, Worker, share_room};
use crate::exchange::{Exchange, FEW};
use crate::linear::Linear;
use crate::plan::Block;
use crate::recurrent::{Cells, Recalled, Recurrent, Snapshot};
use crate::state::{Memory, MemoryShape};
use crate::team::lock;
use crate::weights::dense::Dense;
use crate::{
    CacheFormat, Error, Facts, Inspect, LanguageModel, Logits, Model, Remembered, Result, Segment, Settings, State,
    StepCost, Token, Trace, Want,
};
use kernels::Kernels;
use kernels::memory::{Purpose, Reservation};
use std::sync::{Arc, Mutex, RwLock};

/// An architecture with its weights: what a layer computes, and what is around the layers.
pub(crate) trait Net: Send + Sync + Sized + 'static {
    /// How the rows of its products, and its other items, are shared out.
    type Plan: Send + Sync;
    /// What its phases hand to each other.
    type Scratch: Send + Sync;

    fn outline(&self) -> &Outline;

    /// What sequences remember.
    fn memory(&self, cache: CacheFormat) -> MemoryShape;

    /// What a layer of a recurrent net remembers before the first token; `numbers` are 0.
    fn begin_memory(&self, _numbers: &mut [f32]) {}

    /// What a layer's recurrent numbers are, for comparison with other programs.
    fn remembered(&self, _layer: usize, _numbers: &[f32]) -> Vec<Remembered> {
        Vec::new()
    }

    /// The sharing out for few tokens, or for many.
    fn plan(&self, threads: usize, many: bool) -> Self::Plan;

    /// How that plan divides a layer's recurrent memory.
    fn cells(_plan: &Self::Plan) -> Cells {
        Cells::default()
    }

    fn scratch(&self, plan: &Self::Plan, shares: &Shares) -> Self::Scratch;

    /// Bytes allocated for the numbers of a scratch.
    fn scratch_bytes(scratch: &mut Self::Scratch) -> usize;

    /// What enters the first layer for these tokens, `[T, D]`; anything may be left in `scratch`.
    fn embed(&self, kernels: &Kernels, tokens: &[Token], x: &mut [f32], _scratch: &mut Vec<f32>) {
        self.outline().embedding.embed(kernels, tokens, x);
    }

    /// One member's way through a layer. Begins with [`Walk::begin`], and leaves the layer's last product in
    /// [`Net::pending`], which the next layer or the end adds to the residual stream.
    fn layer(walk: &Walk<'_, '_, Self>, index: usize, worker: &mut Worker) -> Result<()>;

    /// Where a layer leaves what it adds last.
    fn pending(scratch: &Self::Scratch) -> &Exchange;

    /// The norm after the last layer, of x `[D]` into `out`.
    fn norm(&self, kernels: &Kernels, x: &[f32], out: &mut [f32]);

    /// Why a layer cannot be run alone, if so.
    fn bound(&self, _layer: usize) -> Option<String> {
        None
    }

    /// The linear layers of all blocks.
    fn linears(&self) -> Box<dyn Iterator<Item = &Linear> + '_>;

    /// Numbers in norms, biases and other vectors.
    fn vector_numbers(&self) -> u64;

    /// Bytes of cache that each earlier position adds to a token's reading.
    fn cache_bytes_per_position(&self, _cache: CacheFormat) -> u64 {
        0
    }

    /// Phases of a pass of one token.
    fn phases(&self) -> usize;

    /// See [`Inspect::step_costs`].
    fn step_costs(&self, facts: &Facts, tokens: u64, depth: u64) -> Vec<StepCost>;
}

/// What every architecture has.
pub(crate) struct Outline {
    /// A name in `ARCHITECTURES`.
    pub(crate) architecture: &'static str,
    /// D.
    pub(crate) width: usize,
    /// L.
    pub(crate) layers: usize,
    /// V.
    pub(crate) vocab: usize,
    /// Positions that it can tell apart; as many as there are where that has no limit.
    pub(crate) context: Option<usize>,
    /// Whether the head is the embedding.
    pub(crate) tied: bool,
    /// `[V, D]`.
    pub(crate) embedding: Dense,
    /// `[V, D]`, dense or rounded in groups.
    pub(crate) head: Linear,
    /// The vectors, in the books of memory.
    pub(crate) vectors: Reservation,
}

/// An architecture ready to run.
pub(crate) struct Runner<N: Net> {
    net: Arc<N>,
    settings: Settings,
    /// How work is shared out for few tokens and for many.
    plans: [Plan<N>; 2],
    /// What recurrent sequences begin with.
    initial: Option<Arc<Snapshot>>,
    /// Scratch memory of earlier passes.
    pool: Mutex<Vec<Scratch<N>>>,
}

/// How a pass is shared out.
struct Plan<N: Net> {
    own: N::Plan,
    cells: Cells,
    head: Vec<Block>,
}

/// Memory of a pass that outlives it.
struct Scratch<N: Net> {
    shares: Shares,
    own: N::Scratch,
    /// All of this, in the books of memory.
    memory: Reservation,
}

/// Hidden states `[L + 1]` of `[T, D]`; empty ones are not asked for.
type Hidden = Mutex<Vec<Vec<f32>>>;

/// Blocks of the head are equally long (the last perhaps shorter), because they are written straight into rows of logits.
fn head_blocks(rows: usize, threads: usize) -> Vec<Block> {
    let size = rows.div_ceil(threads * 64).next_multiple_of(16).clamp(64, 256);
    let starts = (0..rows).step_by(size);
    starts.map(|start| Block { matrix: 0, rows: start..rows.min(start + size), start }).collect()
}

impl<N: Net> Runner<N> {
    pub(crate) fn new(net: Arc<N>, settings: &Settings) -> Runner<N> {
        let threads = settings.cpu.threads();
        let plans = [false, true].map(|many| {
            let own = net.plan(threads, many);
            Plan { cells: N::cells(&own), own, head: head_blocks(net.outline().head.rows(), threads) }
        });
        let initial = match net.memory(settings.cache) {
            MemoryShape::Cache(_) => None,
            MemoryShape::Recurrent(shape) => {
                let mut initial = Snapshot::zeroed(shape);
                initial.numbers_mut().chunks_exact_mut(shape.numbers).for_each(|layer| net.begin_memory(layer));
                Some(Arc::new(initial))
            }
        };
        Runner { net, settings: settings.clone(), plans, initial, pool: Mutex::new(Vec::new()) }
    }

    fn plan(&self, tokens: usize) -> &Plan<N> {
        &self.plans[usize::from(tokens > FEW)]
    }

    fn empty(&self, keep: usize) -> State {
        match (self.net.memory(self.settings.cache), &self.initial) {
            (MemoryShape::Recurrent(shape), Some(initial)) => State::recurrent(Recurrent::new(shape, initial, keep)),
            (MemoryShape::Recurrent(shape), None) => {
                State::recurrent(Recurrent::new(shape, &Arc::new(Snapshot::zeroed(shape)), keep))
            }
            // A cache can be rewound to anywhere, whatever `keep` says.
            (MemoryShape::Cache(shape), _) => State::cached(shape),
        }
    }

    /// Scratch memory for a pass of `tokens` tokens, used before if there is any.
    fn scratch(&self, tokens: usize) -> Scratch<N> {
        let mut pool = lock(&self.pool);
        if let Some(i) = pool.iter().position(|scratch| scratch.shares.tokens == tokens) {
            return pool.remove(i);
        }
        let shares = Shares::new(tokens, self.settings.cpu.threads());
        let own = self.net.scratch(&self.plan(tokens).own, &shares);
        let mut scratch = Scratch { shares, own, memory: Reservation::new(Purpose::Scratch, 0) };
        scratch.count();
        scratch
    }

    /// Keeps scratch memory for later: that of the last few sizes used.
    fn give_back(&self, mut scratch: Scratch<N>) {
        const KEPT: usize = 4;
        scratch.count();
        let mut pool = lock(&self.pool);
        if pool.len() == KEPT {
            pool.remove(0);
        }
        pool.push(scratch);
    }

    /// Whether a batch can be read. Nothing has changed when this fails.
    fn check(&self, batch: &[Segment<'_>]) -> Result<()> {
        let Outline { vocab, context, .. } = *self.net.outline();
        for (index, segment) in batch.iter().enumerate() {
            if segment.tokens.is_empty() {
                return Err(Error::Empty { segment: index });
            }
            if let Some(token) = segment.tokens.iter().find(|token| **token as usize >= vocab) {
                return Err(Error::Token { token: *token, vocab });
            }
            segment.state.check(self.net.memory(self.settings.cache))?;
            let needed = segment.state.len().saturating_add(segment.tokens.len());
            if let Some(context) = context.filter(|context| needed > *context) {
                return Err(Error::Context { needed, context });
            }
        }
        Ok(())
    }

    /// Reads a checked batch in passes of at most [`PASS_TOKENS`] tokens.
    fn read(&self, batch: &mut [Segment<'_>], trace: Option<&Hidden>) -> Result<Vec<Logits>> {
        let vocab = self.net.outline().vocab;
        let wanted = |segment: &Segment<'_>| match segment.want {
            Want::Last => 1,
            Want::All => segment.tokens.len(),
        };
        let mut logits: Vec<Vec<f32>> = batch.iter().map(|segment| vec![0.0; wanted(segment) * vocab]).collect();
        let mut rows = logits.iter_mut().flat_map(|logits| logits.chunks_exact_mut(vocab));
        let total: usize = batch.iter().map(|segment| segment.tokens.len()).sum();
        // How many tokens of each segment have been read.
        let mut read = vec![0; batch.len()];
        for start in (0..total).step_by(PASS_TOKENS) {
            let taken = share_room(batch, &read, PASS_TOKENS);
            let parts = batch.iter_mut().zip(&taken).zip(&read).filter(|((_, taken), _)| **taken > 0);
            let parts = parts.map(|((segment, taken), read)| {
                let Segment { state, tokens, want } = segment;
                Part { state, tokens: &tokens[*read..read + taken], wanted: (*want, tokens.len() - read) }
            });
            self.pass(parts.collect(), Source::Embedding, trace.map(|trace| (trace, start)), &mut rows)?;
            read.iter_mut().zip(taken).for_each(|(read, taken)| *read += taken);
        }
        drop(rows);
        Ok(logits.into_iter().map(|values| Logits::new(values, vocab)).collect())
    }

    /// Reads a pass's tokens after the states, which remember them when this returns; `logits` gives the rows `[V]` of those
    /// that are wanted.
    fn pass<'l>(
        &self,
        mut parts: Vec<Part<'_>>,
        source: Source<'_>,
        trace: Option<(&Hidden, usize)>,
        logits: &mut impl Iterator<Item = &'l mut [f32]>,
    ) -> Result<()> {
        let count = parts.iter().map(|part| part.tokens.len()).sum();
        let plan = self.plan(count);
        // What recurrent sequences read, and where they write.
        let mut snapshots: Vec<_> = parts
            .iter_mut()
            .map(|part| match part.state.memory_mut() {
                Memory::Cache(_) => None,
                Memory::Recurrent(memory) => {
                    Some((memory.shape(), memory.present().clone(), memory.begin(part.tokens.len())))
                }
            })
            .collect();
        let mut pass = Pass::new();
        for (part, snapshots) in parts.iter_mut().zip(&mut snapshots) {
            let position = part.state.len();
            let memory = match (part.state.memory_mut(), snapshots) {
                (_, Some((shape, before, after))) => {
                    RunMemory::Recurrent(Recalled::new(*shape, &plan.cells, part.tokens.len(), before, after))
                }
                (Memory::Cache(cache), None) => {
                    let caches = cache.heads.iter_mut().map(|head| RwLock::new(Cached { head, appended: false }));
                    RunMemory::Caches(caches.collect())
                }
                (Memory::Recurrent(_), None) => RunMemory::Caches(Vec::new()),
            };
            let (want, left) = part.wanted;
            pass.add(part.tokens, position, memory, |i| want == Want::All || i + 1 == left);
        }
        let scratch = self.scratch(count);
        let wanted = pass.wanted_count();
        let own = (&scratch.shares, &scratch.own, &plan.own);
        Walk::run(
            &*self.net,
            &self.settings.cpu,
            &pass,
            own,
            &plan.head,
            (source, trace),
            logits.by_ref().take(wanted),
        )?;
        drop(pass);
        self.give_back(scratch);
        for (part, snapshots) in parts.into_iter().zip(snapshots) {
            if let (Memory::Recurrent(memory), Some((.., after))) = (part.state.memory_mut(), snapshots) {
                memory.commit(after);
            }
            part.state.advance(part.tokens.len());
        }
        Ok(())
    }
}

/// What a pass reads of a segment.
struct Part<'p> {
    state: &'p mut State,
    tokens: &'p [Token],
    /// Which logits the segment wants, and how many of its tokens are left, these included.
    wanted: (Want, usize),
}

impl<N: Net> Scratch<N> {
    /// Brings the books of memory up to date: buffers grow in the first pass, and with the length of the caches.
    fn count(&mut self) {
        self.memory.resize(self.shares.bytes() + N::scratch_bytes(&mut self.own));
    }
}

impl<N: Net> LanguageModel for Runner<N> {
    fn vocab(&self) -> usize {
        self.net.outline().vocab
    }

    fn start(&self, keep: usize) -> State {
        self.empty(keep)
    }

    fn forward(&self, batch: &mut [Segment<'_>]) -> Result<Vec<Logits>> {
        self.check(batch)?;
        self.read(batch, None)
    }
}

impl<N: Net> Inspect for Runner<N> {
    fn facts(&self) -> Facts {
        let net = &*self.net;
        let Outline { architecture, width, layers, vocab, context, tied, embedding, head, .. } = net.outline();
        let bytes = |count: usize| count as u64;
        let table = bytes(vocab * width);
        let vectors = net.vector_numbers();
        let numbers: u64 = net.linears().map(|linear| bytes(linear.rows() * linear.cols())).sum();
        let state_bytes = match net.memory(self.settings.cache) {
            MemoryShape::Cache(_) => 0,
            MemoryShape::Recurrent(shape) => bytes(shape.layers * shape.numbers * size_of::<f32>()),
        };
        Facts {
            architecture,
            parameters: numbers + vectors + if *tied { table } else { 2 * table },
            layers: *layers,
            width: *width,
            vocab: *vocab,
            context: *context,
            weights: description(net),
            linear_bytes: net.linears().map(|linear| bytes(linear.bytes())).sum(),
            head_bytes: bytes(head.bytes()),
            other_bytes: 4 * vectors + bytes(embedding.bytes() / vocab),
            cache_bytes_per_position: net.cache_bytes_per_position(self.settings.cache),
            state_bytes,
            linear_operations: 2 * numbers,
            linear_integers: net.linears().all(Linear::multiplies_integers),
            head_operations: 2 * table,
            head_integers: head.multiplies_integers(),
            decode_phases: net.phases(),
        }
    }

    fn step_costs(&self, tokens: usize, depth: usize) -> Vec<StepCost> {
        self.net.step_costs(&self.facts(), tokens as u64, depth as u64)
    }

    fn trace(&self, state: &mut State, tokens: &[Token]) -> Result<Trace> {
        let mut batch = [Segment { state, tokens, want: Want::All }];
        self.check(&batch)?;
        let Outline { layers, width, .. } = *self.net.outline();
        let hidden = Mutex::new(vec![vec![0.0; tokens.len() * width]; layers + 1]);
        let mut logits = self.read(&mut batch, Some(&hidden))?;
        let hidden = std::mem::take(&mut *lock(&hidden));
        Ok(Trace { hidden, logits: logits.remove(0) })
    }

    fn block(&self, index: usize, x: &[f32]) -> Result<Vec<f32>> {
        let Outline { layers, width, context, .. } = *self.net.outline();
        if index >= layers {
            return Err(Error::Input(format!("block {index} of {layers}")));
        }
        if let Some(reason) = self.net.bound(index) {
            return Err(Error::Input(reason));
        }
        if x.is_empty() || !x.len().is_multiple_of(width) {
            return Err(Error::Input(format!("{} numbers: expected rows of {width}, at least one", x.len())));
        }
        let tokens = x.len() / width;
        if let Some(context) = context.filter(|context| tokens > *context) {
            return Err(Error::Context { needed: tokens, context });
        }
        let mut state = self.empty(0);
        let mut hidden = vec![Vec::new(); layers + 1];
        hidden[index + 1] = vec![0.0; x.len()];
        let hidden = Mutex::new(hidden);
        for (i, x) in x.chunks(PASS_TOKENS * width).enumerate() {
            let tokens = vec![0; x.len() / width];
            // No logits: the last token is never reached.
            let part = Part { state: &mut state, tokens: &tokens, wanted: (Want::Last, usize::MAX) };
            let trace = Some((&hidden, i * PASS_TOKENS));
            self.pass(vec![part], Source::Block(index, x), trace, &mut std::iter::empty())?;
        }
        let mut hidden = std::mem::take(&mut *lock(&hidden));
        Ok(hidden.swap_remove(index + 1))
    }

    fn remembered(&self, state: &State) -> Result<Vec<Remembered>> {
        state.check(self.net.memory(self.settings.cache))?;
        let Memory::Recurrent(memory) = state.memory() else { return Ok(Vec::new()) };
        let layers = memory.present().numbers().chunks_exact(memory.shape().numbers).enumerate();
        Ok(layers.flat_map(|(layer, numbers)| self.net.remembered(layer, numbers)).collect())
    }

    fn with(&self, settings: &Settings) -> Arc<dyn Model> {
        Arc::new(Runner::new(self.net.clone(), settings))
    }
}

/// How the weights are stored, for example "ternary i2, bf16 head".
fn description<N: Net>(net: &N) -> String {
    let mut kinds: Vec<String> = Vec::new();
    for linear in net.linears() {
        let kind = linear.stored();
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    let Outline { tied, head, .. } = net.outline();
    format!("{}, {} {}", kinds.join(" and "), head.stored(), if *tied { "tied head" } else { "head" })
}
