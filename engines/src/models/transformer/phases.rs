//! What a transformer's layer does, as every member of the team walks through it: five barriers to a layer when tokens are
//! private, nine when they are shared out.

use super::{Blocks, Layer, Transformer};
use crate::Result;
use crate::cache::{Head, Pair};
use crate::exchange::{Exchange, Parts};
use crate::pass::{Buffers, Run, Shares, Slot, Walk, Worker, sized};
use crate::team::{read, write};
use crate::watch::{Step, StepKind};
use kernels::CacheElement;
use kernels::attention::{Heads, causal};
use std::ops::Range;

/// Phases of a pass of one token: the products of each layer, its attention, and the head.
pub(super) fn of_one_token(layers: usize) -> usize {
    5 * layers + 1
}

/// What the phases of a layer hand to each other.
pub(crate) struct Scratch {
    /// What attention heads must be computed, in order of claiming.
    heads: Vec<HeadItem>,
    qkv: Exchange,
    /// Attention outputs, one part for each of `heads`: `[tokens, queries K]`.
    attended: Parts,
    output: Exchange,
    gated: Exchange,
    pub(super) down: Exchange,
}

/// Attention of some queries that share a key/value head, for the tokens of a slot.
#[derive(Clone, Debug)]
struct HeadItem {
    slot: usize,
    kv_head: usize,
    /// Query heads, counted from the first.
    queries: Range<usize>,
}

impl Scratch {
    pub(super) fn new(model: &Transformer, blocks: &Blocks, shares: &Shares) -> Scratch {
        let (tokens, slots) = (shares.tokens, &shares.slots);
        let heads = head_items(model, slots.len(), shares.workers.len());
        let width = model.config.head_width;
        let attended = heads.iter().map(|item| slots[item.slot].tokens.len() * item.queries.len() * width);
        let attended = Parts::new(attended, tokens);
        Scratch {
            heads,
            qkv: Exchange::new(&blocks.qkv, tokens),
            attended,
            output: Exchange::new(&blocks.output, tokens),
            gated: Exchange::new(&blocks.gate_up, tokens),
            down: Exchange::new(&blocks.down, tokens),
        }
    }

    pub(super) fn bytes(&mut self) -> usize {
        let Scratch { heads: _, qkv, attended, output, gated, down } = self;
        [qkv, output, gated, down].into_iter().map(Exchange::bytes).sum::<usize>() + attended.bytes()
    }
}

/// Every key/value head of every slot is an item; of those that would leave some members idle at the end, the queries are
/// split. Later slots come first: they have more to read.
fn head_items(model: &Transformer, slots: usize, threads: usize) -> Vec<HeadItem> {
    let config = &model.config;
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

impl Walk<'_, '_, Transformer> {
    pub(super) fn transformer_layer(&self, index: usize, worker: &mut Worker) -> Result<()> {
        let layer = &self.net.layers[index];
        let (config, scratch, blocks) = (&self.net.config, self.scratch, self.plan);
        let at = |kind| Step { kind, layer: Some(index) };
        let eps = config.eps;
        self.tokens(at(StepKind::Vectors), worker, Some(&layer.qkv), |slot, rows, buffers| {
            self.begin(index, slot, rows, buffers);
            self.inputs_of_residual(&layer.qkv, (&layer.attention_norm, eps), rows, buffers);
        })?;
        self.product(at(StepKind::Qkv), worker, &layer.qkv, &blocks.qkv, &scratch.qkv)?;
        self.items(at(StepKind::Attention), scratch.heads.len(), |i| self.attend(index, i, &mut worker.buffers))?;
        self.tokens(at(StepKind::Vectors), worker, Some(&layer.output), |slot, rows, buffers| {
            self.gather_heads(slot, buffers);
            let norm = layer.attention_sub_norm.as_deref().map(|gain| (gain, eps));
            self.inputs(&layer.output, norm, rows, buffers);
        })?;
        self.product(at(StepKind::Output), worker, &layer.output, &blocks.output, &scratch.output)?;
        self.tokens(at(StepKind::Vectors), worker, Some(&layer.gate_up), |slot, rows, buffers| {
            self.add(&scratch.output, slot, rows, buffers);
            self.inputs_of_residual(&layer.gate_up, (&layer.ffn_norm, eps), rows, buffers);
        })?;
        self.gated(at(StepKind::GateUp), worker, layer)?;
        self.tokens(at(StepKind::Vectors), worker, Some(&layer.down), |slot, rows, buffers| {
            self.vectors(&scratch.gated, config.inner, slot, buffers);
            let norm = layer.ffn_sub_norm.as_deref().map(|gain| (gain, eps));
            self.inputs(&layer.down, norm, rows, buffers);
        })?;
        self.product(at(StepKind::Down), worker, &layer.down, &blocks.down, &scratch.down)
    }

    /// Blocks of the gated product act(Wg h) (Wu h).
    fn gated(&self, step: Step, worker: &mut Worker, layer: &Layer) -> Result<()> {
        let Worker { rows, buffers } = worker;
        let (fan, blocks) = (&layer.gate_up, &self.plan.gate_up);
        self.items(step, blocks.len(), |i| {
            let Buffers { product, other, factors, .. } = buffers;
            for (matrix, out) in [(0, &mut *product), (1, &mut *other)] {
                self.multiply(&fan.linears()[matrix], fan.input_of(matrix), &blocks[i], rows, out, factors);
            }
            let len = blocks[i].rows.len() * self.pass.token_count();
            self.kernels.activate_gated(self.net.config.gate, &mut product[..len], &other[..len]);
            self.scratch.gated.put(i, product);
        })
    }

    /// One item of attention: rotates its queries, sees to it that the keys and values are cached, and attends.
    fn attend(&self, layer: usize, index: usize, buffers: &mut Buffers) {
        let item = &self.scratch.heads[index];
        let (config, slot) = (&self.net.config, &self.shares.slots[item.slot]);
        let width = item.queries.len() * config.head_width;
        let rows = item.queries.start * config.head_width..item.queries.end * config.head_width;
        let Buffers { items, words, .. } = buffers;
        let queries = sized(&mut items[0], slot.tokens.len() * width);
        let (tokens, group) = (slot.tokens.clone(), slot.group.clone());
        self.scratch.qkv.get(self.kernels, rows, tokens, group, words, (queries, width));
        sized(&mut buffers.product, slot.tokens.len() * width);
        for run in &self.pass.runs {
            let tokens = run.tokens.start.max(slot.tokens.start)..run.tokens.end.min(slot.tokens.end);
            if tokens.is_empty() {
                continue;
            }
            let cache = &run.caches()[layer * config.kv_heads + item.kv_head];
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
        let config = &self.net.config;
        let width = config.head_width;
        let scale = 1.0 / (width as f32).sqrt();
        let group = item.queries.len();
        let first = tokens.start - slot.tokens.start;
        let range = first * group * width..(first + tokens.len()) * group * width;
        let Buffers { items, product, .. } = buffers;
        let [queries, _, _, scores, ..] = items;
        let queries = &mut queries[range.clone()];
        let position = run.position + tokens.start - run.tokens.start;
        for (t, queries) in queries.chunks_exact_mut(group * width).enumerate() {
            let (cos, sin) = self.net.rope.at(position + t);
            self.kernels.rope(config.pairs, queries, cos, sin);
        }
        let seen = position + tokens.len();
        let heads = Heads { queries, keys: cache.keys(seen * width), values: cache.values(seen * width), width, scale };
        let out = &mut product[range];
        if tokens.len() == 1 {
            self.kernels.attention(heads, sized(scores, group * seen), out);
        } else {
            self.kernels.attention_causal(heads, tokens.len(), sized(scores, causal::ROWS * seen), out);
        }
    }

    /// Puts the keys and values of a run's tokens into a head's cache, unless another member just did.
    fn append(&self, run: &Run<'_>, layer: usize, kv_head: usize, buffers: &mut Buffers) {
        let config = &self.net.config;
        let mut cached = write(&run.caches()[layer * config.kv_heads + kv_head]);
        if cached.appended {
            return;
        }
        let width = config.head_width;
        let first = config.attention_width() + kv_head * width;
        let count = run.tokens.len();
        let Buffers { items, words, .. } = buffers;
        let [_, keys, values, ..] = items;
        let (keys, values) = (sized(keys, count * width), sized(values, count * width));
        for slot in &self.shares.slots {
            let tokens = run.tokens.start.max(slot.tokens.start)..run.tokens.end.min(slot.tokens.end);
            if tokens.is_empty() {
                continue;
            }
            let at = (tokens.start - run.tokens.start) * width;
            for (out, row) in [(&mut *keys, first), (&mut *values, first + config.kv_width())] {
                let out = (&mut out[at..], width);
                let (rows, group) = (row..row + width, slot.group.clone());
                self.scratch.qkv.get(self.kernels, rows, tokens.clone(), group, words, out);
            }
        }
        for (i, key) in keys.chunks_exact_mut(width).enumerate() {
            let (cos, sin) = self.net.rope.at(run.position + i);
            self.kernels.rope(config.pairs, key, cos, sin);
        }
        cached.head.append(run.position, width, keys, values);
        cached.appended = true;
    }

    /// The attention outputs of a slot's tokens into `buffers.vectors` `[tokens, H K]`.
    fn gather_heads(&self, slot: &Slot, buffers: &mut Buffers) {
        let config = &self.net.config;
        let width = config.attention_width();
        let out = sized(&mut buffers.vectors, slot.tokens.len() * width);
        for (index, item) in self.scratch.heads.iter().enumerate() {
            if self.shares.slots[item.slot].tokens != slot.tokens {
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
