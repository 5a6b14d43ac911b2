//! Mamba: a selective state space instead of attention.
//!
//! **Paper** Gu and Dao, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces" (arXiv 2312.00752). Where it leaves
//! a choice, the authors' `mamba_simple.py` and `selective_scan_ref` decide.
//!
//! **Equations**, for token t, x `[D]` its row of the embedding, L times:
//!
//! ```text
//! h = RMS(x) g
//! u, z = Wi h                                     [E], [E]
//! c = silu(sum over j < K of Wc_j u_(t-K+1+j) + bc)   each channel by itself
//! d, B, C = Wx c                                  [R], [N], [N]
//! dt = softplus(Wd d + bd)                        [E]
//! S = exp(dt A) S + (dt c) B                      [E, N], A = -exp(A_log), outer product
//! y = (S C + s c) silu(z)                         s the skip, "D" in files
//! x += Wo y
//! ```
//!
//! and logits = E RMS(x) gf. The state of a layer is S and the last K - 1 rows of u.
//!
//! **Deviations** none in the arithmetic; everything is f32.
//!
//! **Threads** Four phases to a layer of one token: the products Wi, Wx and Wo, and the scan, which is divided by channels and
//! computes dt for its own. The convolution is computed twice: before Wx, which wants all channels of a token, and in the
//! scan, which wants all tokens of some channels and moves the state on.

pub(super) mod build;
pub(super) mod config;
mod phases;

use crate::exchange::{Columns, Exchange};
use crate::linear::{Fan, Linear};
use crate::pass::{Net, Outline, Shares, Walk, Worker};
use crate::plan::{self, Block};
use crate::recurrent::{Cells, RecurrentShape};
use crate::state::MemoryShape;
use crate::{CacheFormat, Facts, Remembered, Result, StepCost, StepKind};
use kernels::Kernels;
use kernels::scan::selective;
use std::ops::Range;

pub(super) use build::synthetic_range;
pub(crate) use build::{build, matrix_numbers};
pub(crate) use config::Config;

/// A Mamba with its weights.
pub(crate) struct Mamba {
    outline: Outline,
    config: Config,
    layers: Vec<Layer>,
    /// `[D]`.
    norm: Vec<f32>,
}

/// One block of the model.
struct Layer {
    /// `[D]`.
    norm: Vec<f32>,
    /// D to u and z, `[2 E]`.
    input: Fan,
    /// `[K, E]`.
    conv: Vec<f32>,
    /// `[E]`.
    conv_bias: Option<Vec<f32>>,
    /// E to d, B and C, `[R + 2 N]`.
    adapters: Fan,
    /// R to E.
    dt: Fan,
    /// A `[E, N]`, as [`selective::pack_decays`] packs it.
    decays: Vec<f32>,
    /// `[E]`.
    skip: Vec<f32>,
    /// E to D.
    output: Fan,
}

/// How work is shared out.
pub(crate) struct Plan {
    input: Vec<Block>,
    adapters: Vec<Block>,
    /// Channels that are scanned together.
    scan: Vec<Block>,
    output: Vec<Block>,
    cells: Cells,
}

/// What phases hand to each other.
pub(crate) struct Scratch {
    input: Exchange,
    adapters: Exchange,
    scanned: Columns,
    output: Exchange,
}

impl Config {
    /// Numbers of a layer's rows of u: `[K - 1, E]`.
    fn conv_numbers(&self) -> usize {
        (self.taps - 1) * self.inner
    }

    /// Where S lies of some channels, whose first one begins a tile.
    fn scan_numbers(&self, channels: Range<usize>) -> Range<usize> {
        let tiles = |channels: usize| selective::packed_len(channels, self.states);
        let start = self.conv_numbers();
        start + tiles(channels.start)..start + tiles(channels.end)
    }
}

impl Net for Mamba {
    type Plan = Plan;
    type Scratch = Scratch;

    fn outline(&self) -> &Outline {
        &self.outline
    }

    fn memory(&self, _: CacheFormat) -> MemoryShape {
        let numbers = self.config.scan_numbers(0..self.config.inner).end;
        let Outline { architecture, layers, .. } = self.outline;
        MemoryShape::Recurrent(RecurrentShape { architecture, layers, numbers })
    }

    fn remembered(&self, layer: usize, numbers: &[f32]) -> Vec<Remembered> {
        let Config { inner, states, taps, .. } = self.config;
        let (conv, scan) = numbers.split_at(self.config.conv_numbers());
        let conv = (0..inner).flat_map(|e| (0..taps - 1).map(move |j| conv[j * inner + e])).collect();
        let mut ssm = vec![0.0; inner * states];
        selective::state_to_rows(scan, states, &mut ssm);
        let part = |name, cols, values| Remembered { layer, name, shape: vec![inner, cols], values };
        vec![part("conv", taps - 1, conv), part("ssm", states, ssm)]
    }

    fn plan(&self, threads: usize, many: bool) -> Plan {
        /// Channels of a scan over many tokens: its rows stay in the second-level cache.
        const CHANNELS: usize = 128;
        let layer = &self.layers[0];
        let blocks = |fan: &Fan| plan::of_linears(fan.linears(), 1, threads, many);
        let scan =
            plan::blocks(&[self.config.inner], plan::CHANNELS, threads, if many { CHANNELS } else { usize::MAX });
        let cells = scan.iter().map(|block| {
            let inner = self.config.inner;
            let rows = (0..self.config.taps - 1).map(|j| j * inner + block.rows.start..j * inner + block.rows.end);
            rows.chain([self.config.scan_numbers(block.rows.clone())]).collect()
        });
        Plan {
            input: blocks(&layer.input),
            adapters: blocks(&layer.adapters),
            cells: Cells::new(cells.collect()),
            scan,
            output: blocks(&layer.output),
        }
    }

    fn cells(plan: &Plan) -> Cells {
        plan.cells.clone()
    }

    fn scratch(&self, plan: &Plan, shares: &Shares) -> Scratch {
        let tokens = shares.tokens;
        Scratch {
            input: Exchange::new(&plan.input, tokens),
            adapters: Exchange::new(&plan.adapters, tokens),
            scanned: Columns::new(plan.scan.iter().map(|block| block.rows.len()), tokens),
            output: Exchange::new(&plan.output, tokens),
        }
    }

    fn scratch_bytes(scratch: &mut Scratch) -> usize {
        let Scratch { input, adapters, scanned, output } = scratch;
        [input, adapters, output].into_iter().map(Exchange::bytes).sum::<usize>() + scanned.bytes()
    }

    fn layer(walk: &Walk<'_, '_, Mamba>, index: usize, worker: &mut Worker) -> Result<()> {
        walk.mamba_layer(index, worker)
    }

    fn pending(scratch: &Scratch) -> &Exchange {
        &scratch.output
    }

    fn norm(&self, kernels: &Kernels, x: &[f32], out: &mut [f32]) {
        kernels.rms_norm(x, &self.norm, self.config.eps, out);
    }

    fn linears(&self) -> Box<dyn Iterator<Item = &Linear> + '_> {
        let fans = |layer| {
            let Layer { input, adapters, dt, output, .. }: &Layer = layer;
            [input, adapters, dt, output]
        };
        Box::new(self.layers.iter().flat_map(fans).flat_map(Fan::linears))
    }

    fn vector_numbers(&self) -> u64 {
        let Config { inner, states, .. } = self.config;
        let layers = self.layers.iter().map(|layer| {
            let Layer { norm, conv, conv_bias, skip, .. } = layer;
            norm.len() + conv.len() + conv_bias.as_ref().map_or(0, Vec::len) + inner * states + skip.len()
        });
        let beside = self.linears().map(Linear::vector_numbers).sum::<usize>();
        (layers.sum::<usize>() + beside + self.norm.len()) as u64
    }

    fn phases(&self) -> usize {
        4 * self.layers.len() + 1
    }

    fn step_costs(&self, facts: &Facts, tokens: u64, _: u64) -> Vec<StepCost> {
        let fans = |kind, fan: fn(&Layer) -> &Fan| {
            let mut linears = self.layers.iter().flat_map(|layer| fan(layer).linears());
            StepCost::of_products(kind, tokens, &mut linears)
        };
        let dt = fans(StepKind::Scan, |layer| &layer.dt);
        let states = (self.layers.len() * self.config.inner * self.config.states) as u64;
        vec![
            StepCost::of_vectors(facts),
            fans(StepKind::Input, |layer| &layer.input),
            fans(StepKind::Adapters, |layer| &layer.adapters),
            StepCost {
                bytes: dt.bytes + 2 * facts.state_bytes + 4 * states,
                // Beside its product: an exponential of 13, the state and its part of the sum.
                operations: dt.operations + 18 * tokens * states,
                integers: false,
                ..dt
            },
            fans(StepKind::Output, |layer| &layer.output),
            StepCost::of_head(facts),
        ]
    }
}
