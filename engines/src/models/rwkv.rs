//! RWKV, versions 4 to 7: a recurrence of fixed size instead of attention, and a channel mix that remembers one token.
//!
//! **Papers** Peng et al., "RWKV: Reinventing RNNs for the Transformer Era" (arXiv 2305.13048; version 4), "Eagle and Finch"
//! (arXiv 2404.05892; 5 and 6), "RWKV-7 Goose" (arXiv 2503.14456). Where they leave a choice, the author's `rwkv` package
//! decides.
//!
//! **Equations**, for token t, x `[C]` its row of the embedding after LN0, L times, p the row before h, m with a letter how far
//! each channel moves towards it, [..] rounds of a recurrence for each head of N channels:
//!
//! ```text
//! h = LN1(x), h_f = h + (p - h) m_f
//! r = Wr h_r, k = Wk h_k, v = Wv h_v, g = silu(Wg h_g)
//! 4:  y = sigmoid(r) [wkv4 of k, v; w = -exp(decay), u]
//! 5:  y = GN([wkv6 of r, k, v; w = exp(-exp(decay)), u]) g          no g in 5.0
//! 6:  as 5, w = exp(-exp(decay + D2 tanh(D1 h_w))), and m_f = mu_f + M2_f tanh(M1 h_x)_f
//! 7:  w = exp(-0.606531 sigmoid(w0 + W2 tanh(W1 h_w))), a = sigmoid(a0 + A2 A1 h_a), g = G2 sigmoid(G1 h_g)
//!     kk = k k_k / |k k_k|, k = k (1 + (a - 1) k_a)
//!     v += (v of layer 0 - v) sigmoid(v0 + V2 V1 h_v)               above layer 0
//!     y = (GN([wkv7 of r, w, k, v, kk, a]) + (sum r k r_k) v) g
//! x += Wo y
//! h = LN2(x), h_f as above
//! x += sigmoid(Wr h_r) (Wv max(Wk h_k, 0)^2)                        no r in 7
//! ```
//!
//! and logits = E LNf(x). GN is a layer norm of each head. The state of a layer is h of both halves and what the recurrence
//! carries.
//!
//! **Deviations** versions 4 and 5 store 1 - m, which is rounded once more; everything is f32. Hugging Face halves x every few
//! layers, which only the epsilon of norms sees. Products of low rank stay as they are stored when dense weights are packed:
//! they are few, and decays and mixes come from them.
//!
//! **Threads** Phases of a layer for one token: the products that enter, (6 and 7) their second halves, the heads, Wo, and the
//! channel mix's two; version 6 has two products more, for its mixes. Heads are shared out with their part of the state. The
//! row before a slot's first token is another slot's: where tokens are shared out, a phase of its own hands over the last row
//! of each.

mod build;
mod config;
mod heads;
mod phases;

use crate::exchange::{Columns, Exchange, Parts};
use crate::linear::{Fan, Linear};
use crate::pass::{Net, Outline, Shares, Walk, Worker, sized};
use crate::plan::{self, Block};
use crate::recurrent::{Cells, RecurrentShape};
use crate::state::MemoryShape;
use crate::{CacheFormat, Facts, Remembered, Result, StepCost, StepKind, Token};
use kernels::Kernels;
use kernels::wkv::wkv4;
use std::ops::Range;

pub(crate) use build::{build, matrix_numbers, synthetic_range};
use config::Version;
pub(crate) use config::{Config, is_rwkv};

/// An RWKV with its weights.
pub(crate) struct Rwkv {
    outline: Outline,
    config: Config,
    /// LN0, of the embedding's rows.
    first_norm: LayerNorm,
    layers: Vec<Layer>,
    last_norm: LayerNorm,
}

/// One block of the model.
struct Layer {
    /// LN1 and LN2.
    norms: [LayerNorm; 2],
    mixing: Option<Mixing>,
    /// How far each input of `time` moves towards the row before, `[inputs, C]`.
    time_shares: Vec<f32>,
    /// C to r, k, v and what else enters: see [`Version::time_activation`].
    time: Fan,
    /// The second halves of products of low rank, whose first ones are in `time`.
    adapters: Option<Fan>,
    core: Core,
    /// C to C.
    output: Fan,
    /// `[inputs, C]`.
    channel_shares: Vec<f32>,
    /// C to F, and to C where there is a receptance.
    up: Fan,
    /// F to C.
    down: Fan,
}

/// How version 6 finds out how far its inputs move.
struct Mixing {
    /// `[C]`, of what `down` reads.
    share: Vec<f32>,
    /// C to `[5, rank]`.
    down: Fan,
    /// Five of rank to C.
    up: Fan,
}

/// What a recurrence has of its own; all `[C]`.
enum Core {
    Four {
        /// w.
        decay: Vec<f32>,
        bonus: Vec<f32>,
    },
    /// 5 and 6.
    Matrix {
        /// w; none where it is the token's.
        decay: Option<Vec<f32>>,
        bonus: Vec<f32>,
        norm: LayerNorm,
    },
    Seven {
        /// k_k.
        removal: Vec<f32>,
        /// k_a.
        replacement: Vec<f32>,
        /// r_k.
        bonus: Vec<f32>,
        norm: LayerNorm,
    },
}

/// Gains and biases of a layer norm, or of one of each head.
struct LayerNorm {
    gain: Vec<f32>,
    bias: Vec<f32>,
}

/// How work is shared out.
pub(crate) struct Plan {
    mix_down: Vec<Block>,
    mix_up: Vec<Block>,
    time: Vec<Block>,
    adapters: Vec<Block>,
    /// Channels, in whole heads.
    heads: Vec<Block>,
    output: Vec<Block>,
    up: Vec<Block>,
    down: Vec<Block>,
    cells: Cells,
}

/// What phases hand to each other.
pub(crate) struct Scratch {
    mix_down: Exchange,
    mix_up: Exchange,
    time: Exchange,
    adapters: Exchange,
    /// The first layer's values, one part for each item of heads: `[T, channels]`.
    values: Parts,
    heads: Columns,
    output: Exchange,
    up: Exchange,
    down: Exchange,
    /// The last row of each slot that [`phases`] shift, `[C]`.
    edges: Parts,
}

/// Halves of a layer that remember the row before.
#[derive(Clone, Copy)]
enum Half {
    Time,
    Channel,
}

impl Config {
    /// Where a half's row of the token before lies among a layer's numbers.
    fn row_numbers(&self, half: Half) -> Range<usize> {
        let start = half as usize * self.width;
        start..start + self.width
    }

    /// Where the recurrence's numbers lie of some channels, in whole heads: aa, bb and pp of version 4, else states.
    fn core_numbers(&self, channels: Range<usize>) -> Vec<Range<usize>> {
        let start = 2 * self.width;
        if self.version == Version::Four {
            let row = |i: usize| start + i * self.width;
            return (0..3).map(|i| row(i) + channels.start..row(i) + channels.end).collect();
        }
        let states = start + channels.start * self.head_width..start + channels.end * self.head_width;
        std::iter::once(states).collect()
    }

    /// All numbers of a layer.
    fn layer_numbers(&self) -> usize {
        self.core_numbers(0..self.width).last().map_or(0, |last| last.end)
    }
}

impl Layer {
    fn fans(&self) -> impl Iterator<Item = &Fan> {
        let Layer { mixing, time, adapters, output, up, down, .. } = self;
        let mixing = mixing.iter().flat_map(|mixing| [&mixing.down, &mixing.up]);
        mixing.chain([time]).chain(adapters).chain([output, up, down])
    }

    fn vector_numbers(&self) -> usize {
        let Layer { norms, mixing, time_shares, core, channel_shares, .. } = self;
        let core = match core {
            Core::Four { decay, bonus } => decay.len() + bonus.len(),
            Core::Matrix { decay, bonus, norm } => decay.as_ref().map_or(0, Vec::len) + bonus.len() + norm.numbers(),
            Core::Seven { removal, replacement, bonus, norm } => {
                removal.len() + replacement.len() + bonus.len() + norm.numbers()
            }
        };
        let mixing = mixing.as_ref().map_or(0, |mixing| mixing.share.len());
        let norms = norms.iter().map(LayerNorm::numbers).sum::<usize>();
        norms + mixing + time_shares.len() + core + channel_shares.len()
    }
}

impl LayerNorm {
    fn apply(&self, kernels: &Kernels, x: &[f32], eps: f32, out: &mut [f32]) {
        kernels.layer_norm(x, &self.gain, &self.bias, eps, out);
    }

    fn numbers(&self) -> usize {
        self.gain.len() + self.bias.len()
    }
}

/// Channels of the items of heads.
fn head_blocks(config: &Config, threads: usize, many: bool) -> Vec<Block> {
    /// Channels of an item over many tokens: its rows stay in the second-level cache.
    const CHANNELS: usize = 64;
    let Config { version, width, head_width, .. } = *config;
    if version == Version::Four {
        return plan::blocks(&[width], plan::CHANNELS, threads, if many { CHANNELS } else { usize::MAX });
    }
    let heads = config.heads();
    // Few tokens: twice as many items as members.
    let size = if many { CHANNELS.div_ceil(head_width) } else { heads.div_ceil(2 * threads) };
    let size = if threads == 1 && !many { heads } else { size };
    let starts = (0..heads).step_by(size);
    let rows = starts.map(|start| start * head_width..heads.min(start + size) * head_width);
    rows.map(|rows| Block { matrix: 0, start: rows.start, rows }).collect()
}

impl Net for Rwkv {
    type Plan = Plan;
    type Scratch = Scratch;

    fn outline(&self) -> &Outline {
        &self.outline
    }

    fn memory(&self, _: CacheFormat) -> MemoryShape {
        let Outline { architecture, layers, .. } = self.outline;
        MemoryShape::Recurrent(RecurrentShape { architecture, layers, numbers: self.config.layer_numbers() })
    }

    fn begin_memory(&self, numbers: &mut [f32]) {
        if let [_, _, exponents] = &self.config.core_numbers(0..self.config.width)[..] {
            numbers[exponents.clone()].fill(wkv4::START);
        }
    }

    fn remembered(&self, layer: usize, numbers: &[f32]) -> Vec<Remembered> {
        let Config { version, width, head_width, .. } = self.config;
        let part =
            |name, shape, range: Range<usize>| Remembered { layer, name, shape, values: numbers[range].to_vec() };
        let row = |name, half| part(name, vec![width], self.config.row_numbers(half));
        let mut all = vec![row("attention_x", Half::Time)];
        let core = self.config.core_numbers(0..width);
        if version == Version::Four {
            all.extend(["aa", "bb", "pp"].into_iter().zip(core).map(|(name, range)| part(name, vec![width], range)));
        } else {
            let shape = vec![self.config.heads(), head_width, head_width];
            all.extend(core.into_iter().map(|range| part("wkv", shape.clone(), range)));
        }
        if version == Version::Seven {
            // The author's are [value, key].
            for state in all[1].values.chunks_exact_mut(head_width * head_width) {
                for i in 0..head_width {
                    (0..i).for_each(|j| state.swap(i * head_width + j, j * head_width + i));
                }
            }
        }
        all.push(row("ffn_x", Half::Channel));
        all
    }

    fn plan(&self, threads: usize, many: bool) -> Plan {
        // The last layer has all that any has; the first one of version 7 lacks the last products.
        let layer = &self.layers[self.layers.len() - 1];
        let blocks = |fan: &Fan| plan::of_linears(fan.linears(), 1, threads, many);
        let heads = head_blocks(&self.config, threads, many);
        let cells = heads.iter().map(|block| self.config.core_numbers(block.rows.clone()));
        let rows = [Half::Time, Half::Channel].map(|half| vec![self.config.row_numbers(half)]);
        let mixing = layer.mixing.as_ref();
        Plan {
            mix_down: mixing.map_or(Vec::new(), |mixing| blocks(&mixing.down)),
            mix_up: mixing.map_or(Vec::new(), |mixing| blocks(&mixing.up)),
            time: blocks(&layer.time),
            adapters: layer.adapters.as_ref().map_or(Vec::new(), blocks),
            cells: Cells::new(cells.chain(rows).collect()),
            heads,
            output: blocks(&layer.output),
            up: blocks(&layer.up),
            down: blocks(&layer.down),
        }
    }

    fn cells(plan: &Plan) -> Cells {
        plan.cells.clone()
    }

    fn scratch(&self, plan: &Plan, shares: &Shares) -> Scratch {
        let tokens = shares.tokens;
        let widths = plan.heads.iter().map(|block| block.rows.len());
        let seven = self.config.version == Version::Seven;
        Scratch {
            mix_down: Exchange::new(&plan.mix_down, tokens),
            mix_up: Exchange::new(&plan.mix_up, tokens),
            time: Exchange::new(&plan.time, tokens),
            adapters: Exchange::new(&plan.adapters, tokens),
            values: Parts::new(widths.clone().filter(|_| seven).map(|width| width * tokens), tokens),
            heads: Columns::new(widths, tokens),
            output: Exchange::new(&plan.output, tokens),
            up: Exchange::new(&plan.up, tokens),
            down: Exchange::new(&plan.down, tokens),
            edges: Parts::new(shares.slots.iter().map(|_| self.config.width), tokens),
        }
    }

    fn scratch_bytes(scratch: &mut Scratch) -> usize {
        let Scratch { mix_down, mix_up, time, adapters, values, heads, output, up, down, edges } = scratch;
        let exchanges = [mix_down, mix_up, time, adapters, output, up, down].into_iter().map(Exchange::bytes);
        exchanges.sum::<usize>() + values.bytes() + heads.bytes() + edges.bytes()
    }

    fn embed(&self, kernels: &Kernels, tokens: &[Token], x: &mut [f32], scratch: &mut Vec<f32>) {
        self.outline.embedding.embed(kernels, tokens, x);
        for x in x.chunks_exact_mut(self.config.width) {
            let row = sized(scratch, self.config.width);
            row.copy_from_slice(x);
            self.first_norm.apply(kernels, row, self.config.eps, x);
        }
    }

    fn layer(walk: &Walk<'_, '_, Rwkv>, index: usize, worker: &mut Worker) -> Result<()> {
        walk.rwkv_layer(index, worker)
    }

    fn pending(scratch: &Scratch) -> &Exchange {
        &scratch.down
    }

    fn norm(&self, kernels: &Kernels, x: &[f32], out: &mut [f32]) {
        self.last_norm.apply(kernels, x, self.config.eps, out);
    }

    fn bound(&self, layer: usize) -> Option<String> {
        let bound = self.config.version == Version::Seven && layer > 0;
        bound.then(|| format!("block {layer} of an RWKV-7 reads the values of block 0 beside its input"))
    }

    fn linears(&self) -> Box<dyn Iterator<Item = &Linear> + '_> {
        Box::new(self.layers.iter().flat_map(Layer::fans).flat_map(Fan::linears))
    }

    fn vector_numbers(&self) -> u64 {
        let layers = self.layers.iter().map(Layer::vector_numbers).sum::<usize>();
        let beside = self.linears().map(Linear::vector_numbers).sum::<usize>();
        (layers + beside + self.first_norm.numbers() + self.last_norm.numbers()) as u64
    }

    fn phases(&self) -> usize {
        let layer = match self.config.version {
            Version::Six => 8,
            Version::Seven => 6,
            _ => 5,
        };
        layer * self.layers.len() + 1
    }

    fn step_costs(&self, facts: &Facts, tokens: u64, _: u64) -> Vec<StepCost> {
        let products = |kind, fans: fn(&Layer) -> Vec<&Fan>| {
            let mut linears = self.layers.iter().flat_map(|layer| fans(layer).into_iter().flat_map(Fan::linears));
            StepCost::of_products(kind, tokens, &mut linears)
        };
        // Of each number of the state; version 4 has three of them and two exponentials of 13 to a channel.
        let each = match self.config.version {
            Version::Four => 20,
            Version::Seven => 9,
            _ => 5,
        };
        let states = (self.layers.len() * (self.config.layer_numbers() - 2 * self.config.width)) as u64;
        let scan = StepCost {
            kind: StepKind::Scan,
            bytes: 2 * facts.state_bytes,
            operations: each * tokens * states,
            integers: false,
        };
        let adapters = products(StepKind::Adapters, |layer| {
            let mixing = layer.mixing.iter().flat_map(|mixing| [&mixing.down, &mixing.up]);
            mixing.chain(&layer.adapters).collect()
        });
        let all = [
            StepCost::of_vectors(facts),
            products(StepKind::Input, |layer| vec![&layer.time]),
            adapters,
            scan,
            products(StepKind::Output, |layer| vec![&layer.output]),
            products(StepKind::GateUp, |layer| vec![&layer.up]),
            products(StepKind::Down, |layer| vec![&layer.down]),
            StepCost::of_head(facts),
        ];
        all.into_iter().filter(|cost| cost.bytes > 0).collect()
    }
}
