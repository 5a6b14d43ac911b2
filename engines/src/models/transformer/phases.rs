//! The forward pass as every member of the team walks through it.
//!
//! Between two barriers a member either computes blocks of rows of a product, or attention heads, or (see
//! [`Sharing`]) what is done token by token. Five barriers to a layer when tokens are private, nine
//! when they are shared out.

use super::pass::{Buffers, HeadItem, Pass, Rows, Run, Scratch, Sharing, Slot, Source, Worker, sized};
use super::{Blocks, Layer, Weights};
use crate::Result;
use crate::cache::{Head, Pair};
use crate::exchange::{Exchange, FEW};
use crate::linear::{Fan, Input};
use crate::plan::Block;
use crate::team::{Member, lock, read, write};
use crate::watch::{Step, StepKind};
use kernels::attention::{Heads, causal};
use kernels::{CacheElement, Kernels};
use std::ops::Range;
use std::sync::Mutex;

/// Phases of a pass of one token: the products of each layer, its attention, and the head.
pub(super) fn of_one_token(layers: usize) -> usize {
    5 * layers + 1
}

/// Hidden states `[L + 1]` of `[T, D]`, and where this pass's tokens begin.
type Trace<'t> = (&'t Mutex<Vec<Vec<f32>>>, usize);

/// A block of the head's rows, as pieces of the rows of logits.
type Pieces<'l> = Mutex<Vec<&'l mut [f32]>>;

/// One member's view of a pass.
struct Walk<'w, 'b> {
    pass: &'w Pass<'w, 'b>,
    scratch: &'w Scratch,
    source: Source<'w>,
    trace: Option<Trace<'w>>,
    member: &'w Member<'w>,
    kernels: &'static Kernels,
    weights: &'w Weights,
    blocks: &'w Blocks,
}

impl Pass<'_, '_> {
    /// Sends the tokens through the layers; `logits` are the rows `[V]` of the wanted tokens, in order.
    pub(super) fn run<'l>(
        &self,
        scratch: &Scratch,
        source: Source<'_>,
        trace: Option<Trace<'_>>,
        logits: impl Iterator<Item = &'l mut [f32]>,
    ) -> Result<()> {
        let blocks = &self.model.blocks[usize::from(self.token_count() > FEW)];
        let mut pieces: Vec<Vec<&mut [f32]>> = blocks.head.iter().map(|_| Vec::new()).collect();
        for row in logits {
            let size = blocks.head[0].rows.len();
            pieces.iter_mut().zip(row.chunks_mut(size)).for_each(|(pieces, piece)| pieces.push(piece));
        }
        let pieces: Vec<Pieces<'_>> = pieces.into_iter().map(Mutex::new).collect();
        let cpu = &self.model.settings.cpu;
        cpu.watched_team(|member| {
            let walk = Walk {
                pass: self,
                scratch,
                source,
                trace,
                member,
                kernels: cpu.kernels(),
                weights: &self.model.weights,
                blocks,
            };
            let mut worker = lock(&scratch.workers[member.index()]);
            walk.all(&mut worker, &pieces)
        })?;
        Ok(())
    }
}

impl Walk<'_, '_> {
    fn all(&self, worker: &mut Worker, logits: &[Pieces<'_>]) -> Result<()> {
        let layers = match self.source {
            Source::Embedding => 0..self.weights.layers.len(),
            Source::Block(index, _) => index..index + 1,
        };
        for index in layers.clone() {
            let layer = &self.weights.layers[index];
            let at = |kind| Step { kind, layer: Some(index) };
            self.tokens(at(StepKind::Vectors), worker, Some(&layer.qkv), |slot, rows, buffers| {
                self.begin(index, index == layers.start, slot, rows, buffers);
            })?;
            self.product(at(StepKind::Qkv), worker, &layer.qkv, &self.blocks.qkv, &self.scratch.qkv)?;
            self.member.begin(at(StepKind::Attention));
            self.member.phase(self.scratch.heads.len(), |i| {
                self.attend(index, i, &mut worker.buffers);
                Ok(())
            })?;
            self.tokens(at(StepKind::Vectors), worker, Some(&layer.output), |slot, rows, buffers| {
                self.gather_heads(slot, buffers);
                self.inputs(&layer.output, layer.attention_sub_norm.as_deref(), rows, buffers);
            })?;
            self.product(at(StepKind::Output), worker, &layer.output, &self.blocks.output, &self.scratch.output)?;
            self.tokens(at(StepKind::Vectors), worker, Some(&layer.gate_up), |slot, rows, buffers| {
                self.add(&self.scratch.output, slot, rows, buffers);
                self.inputs_of_residual(&layer.gate_up, &layer.ffn_norm, rows, buffers);
            })?;
            self.gated(at(StepKind::GateUp), worker, layer)?;
            self.tokens(at(StepKind::Vectors), worker, Some(&layer.down), |slot, rows, buffers| {
                self.vectors(&self.scratch.gated, self.weights.config.inner, slot, buffers);
                self.inputs(&layer.down, layer.ffn_sub_norm.as_deref(), rows, buffers);
            })?;
            self.product(at(StepKind::Down), worker, &layer.down, &self.blocks.down, &self.scratch.down)?;
        }
        let last = |kind| Step { kind, layer: None };
        self.tokens(last(StepKind::Vectors), worker, None, |slot, rows, buffers| {
            self.end(layers.end, slot, rows, buffers);
        })?;
        self.member.begin(last(StepKind::Head));
        self.head(worker, logits)
    }

    /// Does `work` once for each slot, or for all tokens on every member; then the products' inputs are where this member
    /// finds them. `next` are the layers that read the inputs; the head reads them as they are.
    fn tokens(
        &self,
        step: Step,
        worker: &mut Worker,
        next: Option<&Fan>,
        work: impl Fn(&Slot, &mut Rows, &mut Buffers),
    ) -> Result<()> {
        let finish = |rows: &mut Rows| {
            if let Some(fan) = next {
                fan.finish(self.kernels, &mut rows.inputs);
            }
        };
        let Worker { rows, buffers } = worker;
        let Scratch { sharing, slots, shared, .. } = self.scratch;
        self.member.begin(step);
        if *sharing == Sharing::Private {
            work(&slots[0], rows, buffers);
            finish(rows);
            self.member.end();
            return Ok(());
        }
        self.member.phase(slots.len(), |i| {
            let mut shared = write(&shared[i]);
            work(&slots[i], &mut shared, buffers);
            if *sharing == Sharing::InPlace {
                finish(&mut shared);
            }
            Ok(())
        })?;
        if *sharing == Sharing::Gathered {
            self.member.begin(step);
            for (k, input) in rows.inputs[..next.map_or(1, Fan::inputs)].iter_mut().enumerate() {
                input.clear();
                for slot in shared {
                    input.append(&read(slot).inputs[k]);
                }
            }
            finish(rows);
            self.member.end();
        }
        Ok(())
    }

    /// Shows each group's input number `k`.
    fn each_group(&self, rows: &Rows, k: usize, mut show: impl FnMut(&Range<usize>, &Input)) {
        let Scratch { sharing, groups, shared, .. } = self.scratch;
        if *sharing != Sharing::InPlace {
            return show(&groups[0], &rows.inputs[k]);
        }
        for (group, slot) in groups.iter().zip(shared) {
            show(group, &read(slot).inputs[k]);
        }
    }

    /// The beginning of a layer: the residual stream, and the inputs of q, k and v.
    fn begin(&self, index: usize, first: bool, slot: &Slot, rows: &mut Rows, buffers: &mut Buffers) {
        let (layer, width) = (&self.weights.layers[index], self.weights.config.width);
        if first {
            let x = &mut rows.x;
            x.resize(slot.tokens.len() * width, 0.0);
            match self.source {
                Source::Embedding => {
                    self.weights.embedding.embed(self.kernels, &self.pass.tokens[slot.tokens.clone()], x)
                }
                Source::Block(_, given) => {
                    x.copy_from_slice(&given[slot.tokens.start * width..slot.tokens.end * width]);
                }
            }
        } else {
            self.add(&self.scratch.down, slot, rows, buffers);
        }
        self.record(index, slot, rows);
        self.inputs_of_residual(&layer.qkv, &layer.attention_norm, rows, buffers);
    }

    /// The end: the residual stream after the last layer, and the head's inputs for the tokens whose logits are wanted.
    fn end(&self, layers: usize, slot: &Slot, rows: &mut Rows, buffers: &mut Buffers) {
        self.add(&self.scratch.down, slot, rows, buffers);
        self.record(layers, slot, rows);
        let config = &self.weights.config;
        let Rows { x, inputs } = rows;
        inputs[0].clear();
        let norm = sized(&mut buffers.norm, config.width);
        for (t, x) in slot.tokens.clone().zip(x.chunks_exact(config.width)) {
            if self.pass.wanted[t] {
                self.kernels.rms_norm(x, &self.weights.norm, config.eps, norm);
                self.weights.head.push(self.kernels, norm, &mut inputs[0]);
            }
        }
    }

    /// Keeps hidden states for [`Inspect`](crate::Inspect).
    fn record(&self, index: usize, slot: &Slot, rows: &Rows) {
        let Some((trace, start)) = self.trace else { return };
        if self.scratch.sharing == Sharing::Private && self.member.index() != 0 {
            return;
        }
        let mut trace = lock(trace);
        let at = (start + slot.tokens.start) * self.weights.config.width;
        // Empty where nobody asked.
        if !trace[index].is_empty() {
            trace[index][at..at + rows.x.len()].copy_from_slice(&rows.x);
        }
    }

    /// Adds a product `[D, T]` to the residual stream.
    fn add(&self, product: &Exchange, slot: &Slot, rows: &mut Rows, buffers: &mut Buffers) {
        self.vectors(product, self.weights.config.width, slot, buffers);
        rows.x.iter_mut().zip(&buffers.vectors).for_each(|(x, y)| *x += y);
    }

    /// A slot's tokens of a matrix `[width, T]` into `buffers.vectors` `[tokens, width]`.
    fn vectors(&self, from: &Exchange, width: usize, slot: &Slot, buffers: &mut Buffers) {
        let out = sized(&mut buffers.vectors, slot.tokens.len() * width);
        let (tokens, group) = (slot.tokens.clone(), slot.group.clone());
        from.get(self.kernels, 0..width, tokens, group, &mut buffers.words, (out, width));
    }

    /// Inputs from the normalised residual stream.
    fn inputs_of_residual(&self, fan: &Fan, gain: &[f32], rows: &mut Rows, buffers: &mut Buffers) {
        let Rows { x, inputs } = rows;
        inputs.iter_mut().for_each(Input::clear);
        let (row, norm) = (sized(&mut buffers.row, gain.len()), sized(&mut buffers.norm, gain.len()));
        for x in x.chunks_exact(gain.len()) {
            fan.push(self.kernels, x, Some((gain, self.weights.config.eps)), inputs, [row, norm]);
        }
    }

    /// Inputs from `buffers.vectors`, normalised where there is a sub-norm.
    fn inputs(&self, fan: &Fan, sub_norm: Option<&[f32]>, rows: &mut Rows, buffers: &mut Buffers) {
        let width = fan.linears()[0].cols();
        let count = rows.x.len() / self.weights.config.width;
        rows.inputs.iter_mut().for_each(Input::clear);
        let (row, norm) = (sized(&mut buffers.row, width), sized(&mut buffers.norm, width));
        for vector in buffers.vectors[..count * width].chunks_exact(width) {
            let norm_of = sub_norm.map(|gain| (gain, self.weights.config.eps));
            fan.push(self.kernels, vector, norm_of, &mut rows.inputs, [row, norm]);
        }
    }

    /// Blocks of the products of a fan.
    fn product(&self, step: Step, worker: &mut Worker, fan: &Fan, blocks: &[Block], to: &Exchange) -> Result<()> {
        let Worker { rows, buffers } = worker;
        self.member.begin(step);
        self.member.phase(blocks.len(), |i| {
            let block = &blocks[i];
            self.multiply(fan, block.matrix, &block.rows, rows, &mut buffers.product, &mut buffers.factors);
            to.put(i, &mut buffers.product);
            Ok(())
        })
    }

    /// Rows of one layer of a fan for all tokens, group by group.
    fn multiply(
        &self,
        fan: &Fan,
        linear: usize,
        block: &Range<usize>,
        rows: &Rows,
        product: &mut Vec<f32>,
        factors: &mut Vec<f32>,
    ) {
        let product = sized(product, block.len() * self.pass.token_count());
        self.each_group(rows, fan.input_of(linear), |group, input| {
            let out = &mut product[block.len() * group.start..block.len() * group.end];
            fan.linears()[linear].apply(self.kernels, block.clone(), input, factors, out);
        });
    }

    /// Blocks of the gated product act(Wg h) (Wu h).
    fn gated(&self, step: Step, worker: &mut Worker, layer: &Layer) -> Result<()> {
        let Worker { rows, buffers } = worker;
        self.member.begin(step);
        let fan = &layer.gate_up;
        self.member.phase(self.blocks.gate_up.len(), |i| {
            let block = &self.blocks.gate_up[i].rows;
            self.multiply(fan, 0, block, rows, &mut buffers.product, &mut buffers.factors);
            self.multiply(fan, 1, block, rows, &mut buffers.other, &mut buffers.factors);
            let len = block.len() * self.pass.token_count();
            let gate = &mut buffers.product[..len];
            self.kernels.activate_gated(self.weights.config.gate, gate, &buffers.other[..len]);
            self.scratch.gated.put(i, &mut buffers.product);
            Ok(())
        })
    }

    /// Blocks of logits, straight into their rows.
    fn head(&self, worker: &mut Worker, logits: &[Pieces<'_>]) -> Result<()> {
        let Worker { rows, buffers } = worker;
        let wanted = lock(&logits[0]).len();
        let blocks = if wanted == 0 { &[][..] } else { &self.blocks.head[..] };
        self.member.phase(blocks.len(), |i| {
            let block = &blocks[i].rows;
            let mut pieces = lock(&logits[i]);
            let mut pieces = pieces.iter_mut();
            self.each_group(rows, 0, |_, input| {
                let tokens = input.tokens();
                if tokens == 0 {
                    return;
                }
                let product = sized(&mut buffers.product, block.len() * tokens);
                self.weights.head.apply(self.kernels, block.clone(), input, &mut buffers.factors, product);
                for (t, piece) in pieces.by_ref().take(tokens).enumerate() {
                    piece.iter_mut().zip(product[t..].iter().step_by(tokens)).for_each(|(y, x)| *y = *x);
                }
            });
            Ok(())
        })
    }

    /// One item of attention: rotates its queries, sees to it that the keys and values are cached, and attends.
    fn attend(&self, layer: usize, index: usize, buffers: &mut Buffers) {
        let item = &self.scratch.heads[index];
        let (config, slot) = (&self.weights.config, &self.scratch.slots[item.slot]);
        let width = item.queries.len() * config.head_width;
        let rows = item.queries.start * config.head_width..item.queries.end * config.head_width;
        let queries = sized(&mut buffers.queries, slot.tokens.len() * width);
        let (tokens, group) = (slot.tokens.clone(), slot.group.clone());
        self.scratch.qkv.get(self.kernels, rows, tokens, group, &mut buffers.words, (queries, width));
        sized(&mut buffers.product, slot.tokens.len() * width);
        for run in &self.pass.runs {
            let tokens = run.tokens.start.max(slot.tokens.start)..run.tokens.end.min(slot.tokens.end);
            if tokens.is_empty() {
                continue;
            }
            let cache = &run.caches[layer * config.kv_heads + item.kv_head];
            if !read(cache).appended {
                self.append(run, layer, item.kv_head, buffers);
            }
            let cached = read(cache);
            match &*cached.head {
                Head::F32(pair) => self.attend_run(run, pair, tokens, item, slot, buffers),
                Head::Bf16(pair) => self.attend_run(run, pair, tokens, item, slot, buffers),
            }
        }
        self.scratch.attended.put(index, &mut buffers.product);
    }

    /// Attention of the tokens that a run and a slot share.
    fn attend_run<E: CacheElement>(
        &self,
        run: &Run<'_>,
        cache: &Pair<E>,
        tokens: Range<usize>,
        item: &HeadItem,
        slot: &Slot,
        buffers: &mut Buffers,
    ) {
        let config = &self.weights.config;
        let width = config.head_width;
        let scale = 1.0 / (width as f32).sqrt();
        let group = item.queries.len();
        let first = tokens.start - slot.tokens.start;
        let range = first * group * width..(first + tokens.len()) * group * width;
        let queries = &mut buffers.queries[range.clone()];
        let position = run.position + tokens.start - run.tokens.start;
        for (t, queries) in queries.chunks_exact_mut(group * width).enumerate() {
            let (cos, sin) = self.weights.rope.at(position + t);
            self.kernels.rope(config.pairs, queries, cos, sin);
        }
        let seen = position + tokens.len();
        let heads = Heads { queries, keys: cache.keys(seen * width), values: cache.values(seen * width), width, scale };
        let out = &mut buffers.product[range];
        if tokens.len() == 1 {
            self.kernels.attention(heads, sized(&mut buffers.scores, group * seen), out);
        } else {
            self.kernels.attention_causal(heads, tokens.len(), sized(&mut buffers.scores, causal::ROWS * seen), out);
        }
    }

    /// Puts the keys and values of a run's tokens into a head's cache, unless another member just did.
    fn append(&self, run: &Run<'_>, layer: usize, kv_head: usize, buffers: &mut Buffers) {
        let config = &self.weights.config;
        let mut cached = write(&run.caches[layer * config.kv_heads + kv_head]);
        if cached.appended {
            return;
        }
        let width = config.head_width;
        let first = config.attention_width() + kv_head * width;
        let count = run.tokens.len();
        let (keys, values) = (sized(&mut buffers.keys, count * width), sized(&mut buffers.values, count * width));
        for slot in &self.scratch.slots {
            let tokens = run.tokens.start.max(slot.tokens.start)..run.tokens.end.min(slot.tokens.end);
            if tokens.is_empty() {
                continue;
            }
            let at = (tokens.start - run.tokens.start) * width;
            for (out, row) in [(&mut *keys, first), (&mut *values, first + config.kv_width())] {
                let out = (&mut out[at..], width);
                let (rows, group) = (row..row + width, slot.group.clone());
                self.scratch.qkv.get(self.kernels, rows, tokens.clone(), group, &mut buffers.words, out);
            }
        }
        for (i, key) in keys.chunks_exact_mut(width).enumerate() {
            let (cos, sin) = self.weights.rope.at(run.position + i);
            self.kernels.rope(config.pairs, key, cos, sin);
        }
        cached.head.append(run.position, width, keys, values);
        cached.appended = true;
    }

    /// The attention outputs of a slot's tokens into `buffers.vectors` `[tokens, H K]`.
    fn gather_heads(&self, slot: &Slot, buffers: &mut Buffers) {
        let config = &self.weights.config;
        let width = config.attention_width();
        let out = sized(&mut buffers.vectors, slot.tokens.len() * width);
        for (index, item) in self.scratch.heads.iter().enumerate() {
            if self.scratch.slots[item.slot].tokens != slot.tokens {
                continue;
            }
            let (first, size) = (item.queries.start * config.head_width, item.queries.len() * config.head_width);
            self.scratch.attended.look(index, 0..slot.tokens.len() * size, &mut buffers.words, |heads| {
                for (out, heads) in out.chunks_exact_mut(width).zip(heads.chunks_exact(size)) {
                    out[first..first + size].copy_from_slice(heads);
                }
            });
        }
    }
}
