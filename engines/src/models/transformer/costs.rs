//! What a transformer's steps cost.

use super::{Layer, Transformer};
use crate::linear::{Fan, Linear};
use crate::{Facts, StepCost, StepKind};

impl Transformer {
    /// See [`Inspect::step_costs`](crate::Inspect::step_costs).
    pub(super) fn costs(&self, facts: &Facts, tokens: u64, depth: u64) -> Vec<StepCost> {
        let products = |kind, linears: &mut dyn Iterator<Item = &Linear>| StepCost::of_products(kind, tokens, linears);
        let fans = |kind, fan: fn(&Layer) -> &Fan| {
            products(kind, &mut self.layers.iter().flat_map(|layer| fan(layer).linears()))
        };
        // Token i, counted from 0, sees depth + i + 1 positions.
        let seen = tokens * depth + tokens * (tokens + 1) / 2;
        let queries = self.config.attention_width() as u64;
        vec![
            StepCost::of_vectors(facts),
            fans(StepKind::Qkv, |layer| &layer.qkv),
            StepCost {
                kind: StepKind::Attention,
                bytes: facts.cache_bytes_per_position * (depth + tokens),
                operations: 4 * facts.layers as u64 * queries * seen,
                integers: false,
            },
            fans(StepKind::Output, |layer| &layer.output),
            fans(StepKind::GateUp, |layer| &layer.gate_up),
            fans(StepKind::Down, |layer| &layer.down),
            StepCost::of_head(facts),
        ]
    }

    /// Numbers in norms, biases and other vectors.
    pub(super) fn count_vectors(&self) -> u64 {
        let len = |gain: &Option<Vec<f32>>| gain.as_ref().map_or(0, Vec::len);
        let norms = self.layers.iter().map(|layer| {
            layer.attention_norm.len()
                + layer.ffn_norm.len()
                + len(&layer.attention_sub_norm)
                + len(&layer.ffn_sub_norm)
        });
        let fans = self.layers.iter().flat_map(|layer| [&layer.qkv, &layer.output, &layer.gate_up, &layer.down]);
        let beside = fans.flat_map(Fan::linears).map(Linear::vector_numbers);
        (norms.sum::<usize>() + beside.sum::<usize>() + self.norm.len()) as u64
    }
}
