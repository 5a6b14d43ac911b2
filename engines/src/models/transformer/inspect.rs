//! What reports and tests ask of a transformer.

use super::pass::{Pass, Source};
use super::{Layer, Transformer, Weights, phases};
use crate::config::Config;
use crate::linear::{Fan, Linear};
use crate::team::lock;
use crate::{
    Error, Facts, Inspect, LanguageModel, Model, Result, Segment, Settings, State, StepCost, StepKind, Token, Trace,
    Want,
};
use std::sync::{Arc, Mutex};

impl Inspect for Transformer {
    fn facts(&self) -> Facts {
        let weights = &*self.weights;
        let Config { architecture, width, layers, vocab, context, .. } = weights.config;
        let bytes = |count: usize| count as u64;
        let linears = || weights.linears();
        let table = bytes(vocab * width);
        let vectors = weights.vector_numbers();
        let numbers: u64 = linears().map(|linear| bytes(linear.rows() * linear.cols())).sum();
        Facts {
            architecture,
            parameters: numbers + vectors + if weights.config.tied { table } else { 2 * table },
            layers,
            width,
            vocab,
            context,
            weights: weights.description(),
            linear_bytes: linears().map(|linear| bytes(linear.bytes())).sum(),
            head_bytes: bytes(weights.head.bytes()),
            other_bytes: 4 * vectors + bytes(weights.embedding.bytes() / vocab),
            cache_bytes_per_position: 2 * bytes(layers * weights.config.kv_width() * self.settings.cache.bytes()),
            linear_operations: 2 * numbers,
            linear_integers: linears().all(Linear::multiplies_integers),
            head_operations: 2 * table,
            head_integers: weights.head.multiplies_integers(),
            decode_phases: phases::of_one_token(layers),
        }
    }

    fn step_costs(&self, tokens: usize, depth: usize) -> Vec<StepCost> {
        let weights = &*self.weights;
        let (tokens, depth) = (tokens as u64, depth as u64);
        let products = |kind, linears: &mut dyn Iterator<Item = &Linear>| {
            let none = StepCost { kind, bytes: 0, operations: 0, integers: true };
            linears.fold(none, |cost, linear| StepCost {
                kind,
                bytes: cost.bytes + linear.bytes() as u64,
                operations: cost.operations + 2 * tokens * (linear.rows() * linear.cols()) as u64,
                integers: cost.integers && linear.multiplies_integers(),
            })
        };
        let fans = |kind, fan: fn(&Layer) -> &Fan| {
            products(kind, &mut weights.layers.iter().flat_map(|layer| fan(layer).linears()))
        };
        let Facts { cache_bytes_per_position, other_bytes, layers, head_bytes, head_operations, .. } = self.facts();
        // Token i, counted from 0, sees depth + i + 1 positions.
        let seen = tokens * depth + tokens * (tokens + 1) / 2;
        let queries = weights.config.attention_width() as u64;
        let step = |kind, bytes, operations, integers| StepCost { kind, bytes, operations, integers };
        vec![
            step(StepKind::Vectors, other_bytes, 0, false),
            fans(StepKind::Qkv, |layer| &layer.qkv),
            step(
                StepKind::Attention,
                cache_bytes_per_position * (depth + tokens),
                4 * layers as u64 * queries * seen,
                false,
            ),
            fans(StepKind::Output, |layer| &layer.output),
            fans(StepKind::GateUp, |layer| &layer.gate_up),
            fans(StepKind::Down, |layer| &layer.down),
            step(StepKind::Head, head_bytes, head_operations, weights.head.multiplies_integers()),
        ]
    }

    fn trace(&self, state: &mut State, tokens: &[Token]) -> Result<Trace> {
        let mut batch = [Segment { state, tokens, want: Want::All }];
        self.check(&batch)?;
        let Config { layers, width, .. } = self.weights.config;
        let hidden = Mutex::new(vec![vec![0.0; tokens.len() * width]; layers + 1]);
        let mut logits = self.read(&mut batch, Some(&hidden))?;
        let hidden = std::mem::take(&mut *lock(&hidden));
        Ok(Trace { hidden, logits: logits.remove(0) })
    }

    fn block(&self, index: usize, x: &[f32]) -> Result<Vec<f32>> {
        let Config { layers, width, context, .. } = self.weights.config;
        if index >= layers {
            return Err(Error::Input(format!("block {index} of {layers}")));
        }
        if x.is_empty() || !x.len().is_multiple_of(width) {
            return Err(Error::Input(format!("{} numbers: expected rows of {width}, at least one", x.len())));
        }
        let tokens = x.len() / width;
        if tokens > context {
            return Err(Error::Context { needed: tokens, context });
        }
        let mut state = self.start(0);
        let mut hidden = vec![Vec::new(); layers + 1];
        hidden[index + 1] = vec![0.0; x.len()];
        let hidden = Mutex::new(hidden);
        for start in (0..tokens).step_by(super::PASS_TOKENS) {
            let count = super::PASS_TOKENS.min(tokens - start);
            let mut pass = Pass::new(self, count);
            pass.add(&vec![0; count], start, state.heads_mut());
            pass.wanted = vec![false; count];
            let scratch = self.scratch(count);
            let x = &x[start * width..(start + count) * width];
            pass.run(&scratch, Source::Block(index, x), Some((&hidden, start)), std::iter::empty())?;
            self.give_back(scratch);
        }
        let mut hidden = std::mem::take(&mut *lock(&hidden));
        Ok(hidden.swap_remove(index + 1))
    }

    fn with(&self, settings: &Settings) -> Arc<dyn Model> {
        Arc::new(Transformer::new(self.weights.clone(), settings))
    }
}

impl Weights {
    /// The linear layers of all blocks.
    fn linears(&self) -> impl Iterator<Item = &Linear> {
        let fans = self.layers.iter().flat_map(|layer| [&layer.qkv, &layer.output, &layer.gate_up, &layer.down]);
        fans.flat_map(|fan| fan.linears())
    }

    /// Numbers in norms, biases and other vectors.
    fn vector_numbers(&self) -> u64 {
        let len = |gain: &Option<Vec<f32>>| gain.as_ref().map_or(0, Vec::len);
        let norms = self.layers.iter().map(|layer| {
            layer.attention_norm.len()
                + layer.ffn_norm.len()
                + len(&layer.attention_sub_norm)
                + len(&layer.ffn_sub_norm)
        });
        let beside = self.linears().map(Linear::vector_numbers);
        (norms.sum::<usize>() + beside.sum::<usize>() + self.norm.len()) as u64
    }

    /// Writes the vectors down in the books of memory; matrices count themselves.
    pub(super) fn count_vectors(&mut self) {
        self.vectors.resize(self.vector_numbers() as usize * size_of::<f32>());
    }

    /// For example "ternary i2, bf16 head".
    fn description(&self) -> String {
        let mut kinds: Vec<String> = Vec::new();
        for linear in self.linears() {
            let kind = linear.stored();
            if !kinds.contains(&kind) {
                kinds.push(kind);
            }
        }
        let head = if self.config.tied { "tied head" } else { "head" };
        format!("{}, {} {head}", kinds.join(" and "), self.head.stored())
    }
}
