//! What reports and tests ask of a transformer.

use super::pass::{Pass, Source};
use super::{Transformer, Weights, phases};
use crate::config::Config;
use crate::linear::Linear;
use crate::team::lock;
use crate::{Error, Facts, Inspect, LanguageModel, Model, Result, Segment, Settings, State, Token, Trace, Want};
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
