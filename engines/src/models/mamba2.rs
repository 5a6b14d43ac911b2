//! Mamba-2: state spaces with one decay to a head.
//!
//! **Paper** Dao and Gu, "Transformers are SSMs: Generalized Models and Efficient Algorithms Through Structured State Space
//! Duality" (arXiv 2405.21060), sections 6 and 7, in its recurrent form. Where it leaves a choice, the authors' `mamba2.py`
//! decides.
//!
//! **Equations**, for token t, x `[D]` its row of the embedding, L times:
//!
//! ```text
//! h = RMS(x) g
//! z, v, d = Wi h                                  [E], [E + 2 G N], [H]
//! u, B, C = silu(sum over j < K of Wc_j v_(t-K+1+j) + bc)   [H, P], [G, N], [G, N]
//! dt = clamp(softplus(d + bd))                    [H], to the config's limits
//! S = exp(dt a) S + dt u B                        each head, [P, N], a = -exp(A_log), B and C of its group
//! y = S C + s u                                   s the skip, "D" in files
//! x += Wo RMS(y silu(z)) gy                       the gate first, then the norm of each group's E / G channels
//! ```
//!
//! and logits = E RMS(x) gf. The state of a layer is S and the last K - 1 rows of v.
//!
//! **Deviations** none in the arithmetic; everything is f32. Of several groups each has a norm of its own, as in the
//! authors' program; the plain path of transformers norms all channels at once. Of one group both say the same.
//!
//! **Threads** Three phases to a layer of one token: the products Wi and Wo, and the scan, which is divided by heads of one
//! group. Every part of a group convolves the group's B and C for itself, which costs less than a phase for them would.

mod build;
mod config;
mod phases;

use crate::exchange::{Columns, Exchange};
use crate::linear::{Fan, Linear};
use crate::pass::{Net, Outline, Shares, Walk, Worker};
use crate::plan::{self, Block};
use crate::recurrent::{Cells, RecurrentShape};
use crate::state::MemoryShape;
use crate::{CacheFormat, Facts, Remembered, Result, StepCost, StepKind};
use kernels::Kernels;
use std::ops::Range;

pub(crate) use build::{build, matrix_numbers};
pub(crate) use config::Config;

/// A Mamba-2 with its weights.
pub(crate) struct Mamba2 {
    outline: Outline,
    config: Config,
    layers: Vec<Layer>,
    /// `[D]`.
    norm: Vec<f32>,
}

/// One block of the model.
struct Layer {
    vectors: Vectors,
    /// D to z, v and d, `[2 E + 2 G N + H]`.
    input: Fan,
    /// E to D.
    output: Fan,
}

/// What a block has beside its linear layers.
struct Vectors {
    /// `[D]`.
    norm: Vec<f32>,
    /// `[K, E + 2 G N]`.
    conv: Vec<f32>,
    /// `[E + 2 G N]`.
    conv_bias: Option<Vec<f32>>,
    /// `[H]`.
    dt_bias: Vec<f32>,
    /// a `[H]`.
    decays: Vec<f32>,
    /// `[H]`.
    skip: Vec<f32>,
    /// `[E]`.
    gated_norm: Vec<f32>,
}

/// Neighbouring heads that are scanned together.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Part {
    heads: Range<usize>,
    group: usize,
    /// Whether these are the group's first heads, who keep its B and C.
    first: bool,
}

/// How work is shared out.
pub(crate) struct Plan {
    input: Vec<Block>,
    scan: Vec<Part>,
    output: Vec<Block>,
    /// S of each head, then the rows of v that each part keeps.
    cells: Cells,
}

/// What phases hand to each other.
pub(crate) struct Scratch {
    input: Exchange,
    scanned: Columns,
    output: Exchange,
}

impl Config {
    /// E.
    fn inner(&self) -> usize {
        self.heads * self.head_width
    }

    /// E + 2 G N.
    fn channels(&self) -> usize {
        self.inner() + 2 * self.groups * self.states
    }

    /// Numbers of a layer's rows of v: `[K - 1, E + 2 G N]`.
    fn conv_numbers(&self) -> usize {
        (self.taps - 1) * self.channels()
    }

    /// Where S lies of some heads, each `[N, P]`.
    fn scan_numbers(&self, heads: Range<usize>) -> Range<usize> {
        let (start, head) = (self.conv_numbers(), self.states * self.head_width);
        start + heads.start * head..start + heads.end * head
    }

    /// The columns of v that a part convolves: u of its heads, B and C of its group.
    fn columns(&self, part: &Part) -> [Range<usize>; 3] {
        let (states, inner) = (self.states, self.inner());
        let b = inner + part.group * states;
        let c = b + self.groups * states;
        [part.heads.start * self.head_width..part.heads.end * self.head_width, b..b + states, c..c + states]
    }

    /// Cuts each group's heads into parts for `threads` members that claim them in order: each is a fraction of what is left,
    /// as in [`plan::blocks`].
    fn parts(&self, threads: usize, many: bool) -> Vec<Part> {
        /// Channels of a scan over many tokens: what they read and write stays in the second-level cache.
        const MOST: usize = 256;
        /// Channels for which convolving B and C of their group once more is worth while.
        const LEAST: usize = 128;
        let heads_of = |channels: usize| (channels / self.head_width).max(1);
        let most = if many { heads_of(MOST) } else { usize::MAX };
        let mut left = self.heads;
        let mut parts = Vec::new();
        for group in 0..self.groups {
            let (start, end) = (group * self.heads / self.groups, (group + 1) * self.heads / self.groups);
            let mut from = start;
            while from < end {
                let fair = if threads == 1 { usize::MAX } else { left.div_ceil(2 * threads).max(heads_of(LEAST)) };
                let to = from.saturating_add(fair.min(most)).min(end);
                parts.push(Part { heads: from..to, group, first: from == start });
                left -= to - from;
                from = to;
            }
        }
        parts
    }
}

impl Net for Mamba2 {
    type Plan = Plan;
    type Scratch = Scratch;

    fn outline(&self) -> &Outline {
        &self.outline
    }

    fn memory(&self, _: CacheFormat) -> MemoryShape {
        let numbers = self.config.scan_numbers(0..self.config.heads).end;
        let Outline { architecture, layers, .. } = self.outline;
        MemoryShape::Recurrent(RecurrentShape { architecture, layers, numbers })
    }

    fn remembered(&self, layer: usize, numbers: &[f32]) -> Vec<Remembered> {
        let Config { heads, head_width, states, taps, .. } = self.config;
        let channels = self.config.channels();
        let (conv, scan) = numbers.split_at(self.config.conv_numbers());
        let conv = (0..channels).flat_map(|e| (0..taps - 1).map(move |j| conv[j * channels + e])).collect();
        let ssm = scan
            .chunks_exact(states * head_width)
            .flat_map(|head| (0..head_width).flat_map(move |p| (0..states).map(move |n| head[n * head_width + p])));
        let ssm = Remembered { layer, name: "ssm", shape: vec![heads, head_width, states], values: ssm.collect() };
        vec![Remembered { layer, name: "conv", shape: vec![channels, taps - 1], values: conv }, ssm]
    }

    fn plan(&self, threads: usize, many: bool) -> Plan {
        let config = &self.config;
        let layer = &self.layers[0];
        let blocks = |fan: &Fan| plan::of_linears(fan.linears(), 1, threads, many);
        let scan = config.parts(threads, many);
        let states = (0..config.heads).map(|head| vec![config.scan_numbers(head..head + 1)]);
        let rows = scan.iter().map(|part| {
            let kept = |columns: Range<usize>| {
                (0..config.taps - 1)
                    .map(move |j| j * config.channels() + columns.start..j * config.channels() + columns.end)
            };
            config.columns(part).into_iter().take(part.kept()).flat_map(kept).collect()
        });
        Plan {
            input: blocks(&layer.input),
            cells: Cells::new(states.chain(rows).collect()),
            scan,
            output: blocks(&layer.output),
        }
    }

    fn cells(plan: &Plan) -> Cells {
        plan.cells.clone()
    }

    fn scratch(&self, plan: &Plan, shares: &Shares) -> Scratch {
        let tokens = shares.tokens;
        let widths = plan.scan.iter().map(|part| part.heads.len() * self.config.head_width);
        Scratch {
            input: Exchange::new(&plan.input, tokens),
            scanned: Columns::new(widths, tokens),
            output: Exchange::new(&plan.output, tokens),
        }
    }

    fn scratch_bytes(scratch: &mut Scratch) -> usize {
        let Scratch { input, scanned, output } = scratch;
        input.bytes() + scanned.bytes() + output.bytes()
    }

    fn layer(walk: &Walk<'_, '_, Mamba2>, index: usize, worker: &mut Worker) -> Result<()> {
        walk.mamba2_layer(index, worker)
    }

    fn pending(scratch: &Scratch) -> &Exchange {
        &scratch.output
    }

    fn norm(&self, kernels: &Kernels, x: &[f32], out: &mut [f32]) {
        kernels.rms_norm(x, &self.norm, self.config.eps, out);
    }

    fn linears(&self) -> Box<dyn Iterator<Item = &Linear> + '_> {
        Box::new(self.layers.iter().flat_map(|layer| [&layer.input, &layer.output]).flat_map(Fan::linears))
    }

    fn vector_numbers(&self) -> u64 {
        let layers = self.layers.iter().map(|layer| {
            let Vectors { norm, conv, conv_bias, dt_bias, decays, skip, gated_norm } = &layer.vectors;
            let all = [norm, conv, dt_bias, decays, skip, gated_norm];
            all.map(Vec::len).iter().sum::<usize>() + conv_bias.as_ref().map_or(0, Vec::len)
        });
        let beside = self.linears().map(Linear::vector_numbers).sum::<usize>();
        (layers.sum::<usize>() + beside + self.norm.len()) as u64
    }

    fn phases(&self) -> usize {
        3 * self.layers.len() + 1
    }

    fn step_costs(&self, facts: &Facts, tokens: u64, _: u64) -> Vec<StepCost> {
        let fans = |kind, fan: fn(&Layer) -> &Fan| {
            let mut linears = self.layers.iter().flat_map(|layer| fan(layer).linears());
            StepCost::of_products(kind, tokens, &mut linears)
        };
        let states = (self.layers.len() * self.config.inner() * self.config.states) as u64;
        vec![
            StepCost::of_vectors(facts),
            fans(StepKind::Input, |layer| &layer.input),
            StepCost {
                kind: StepKind::Scan,
                bytes: 2 * facts.state_bytes,
                operations: 5 * tokens * states,
                integers: false,
            },
            fans(StepKind::Output, |layer| &layer.output),
            StepCost::of_head(facts),
        ]
    }
}

impl Part {
    /// How many of its columns of v it keeps for the next tokens: u, and as the first of its group B and C.
    fn kept(&self) -> usize {
        if self.first { 3 } else { 1 }
    }
}
