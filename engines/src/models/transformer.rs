//! The decoder-only transformer: BitNet b1.58, LLaMA, and LLaMA with BitLinear, by configuration.
//!
//! **Papers** "The Era of 1-bit LLMs" (arXiv 2402.17764), "BitNet b1.58 2B4T" (arXiv 2504.12285), LLaMA (arXiv
//! 2302.13971). Where they leave a choice, Hugging Face's `BitNetForCausalLM` and `LlamaForCausalLM` decide.
//!
//! **Equations**, for token t at position p, x `[D]` its row of the embedding, L times:
//!
//! ```text
//! h = RMS(x) g1
//! q, k, v = Wq h, Wk h, Wv h                       [H K], [G K], [G K]   (G key/value heads)
//! q, k = rotate(q, p), rotate(k, p)
//! a_i = sum over j <= p of softmax_j(q_i · k_j / sqrt K) v_j       head i reads key/value head i / (H / G)
//! x += Wo S(a)                                     S(a) = RMS(a) gs in BitNet, else a
//! h = RMS(x) g2
//! x += Wd S(act(Wg h) (Wu h))                      act: squared ReLU or SiLU
//! ```
//!
//! and logits = E RMS(x) gf, with E the embedding or a head of its own. RMS(x) = x / sqrt(mean(x^2) + eps).
//!
//! In BitLinear layers `W h` is `(t · q) f / a`: t the ternary matrix, q = round(a h) int8 with a = 127 / max|h|, and f the
//! factor that the weights' form defines (see `weights::TernaryForm`).
//!
//! **Deviations** none in the arithmetic; everything is f32, where published models are often run in bf16. One softmax over
//! the whole row instead of an online one. The product of a ternary layer is scaled once, `f / a` rounded once.
//!
//! **Threads** A forward pass is one parallel region ([`crate::pass`]) whose phases are written in `phases.rs`.

mod build;
mod costs;
mod phases;

use crate::config::Config;
use crate::exchange::Exchange;
use crate::linear::{Fan, Linear};
use crate::pass::{Net, Outline, Shares, Walk, Worker};
use crate::plan::{self, Block};
use crate::rope::Rope;
use crate::state::{CacheShape, MemoryShape};
use crate::{CacheFormat, Facts, Result, StepCost};
use kernels::Kernels;

pub(crate) use build::{build, matrix_numbers};

/// A transformer with its weights.
pub(crate) struct Transformer {
    outline: Outline,
    config: Config,
    layers: Vec<Layer>,
    /// `[D]`.
    norm: Vec<f32>,
    rope: Rope,
}

/// One block of the model.
struct Layer {
    /// `[D]`.
    attention_norm: Vec<f32>,
    /// D to q `[H K]`, k and v `[G K]`.
    qkv: Fan,
    /// `[H K]`.
    attention_sub_norm: Option<Vec<f32>>,
    /// H K to D.
    output: Fan,
    /// `[D]`.
    ffn_norm: Vec<f32>,
    /// D to E, twice.
    gate_up: Fan,
    /// `[E]`.
    ffn_sub_norm: Option<Vec<f32>>,
    /// E to D.
    down: Fan,
}

/// How the rows of each kind of layer are shared out.
pub(crate) struct Blocks {
    qkv: Vec<Block>,
    output: Vec<Block>,
    /// Of E: gate and up are computed together.
    gate_up: Vec<Block>,
    down: Vec<Block>,
}

impl Net for Transformer {
    type Plan = Blocks;
    type Scratch = phases::Scratch;

    fn outline(&self) -> &Outline {
        &self.outline
    }

    fn memory(&self, format: CacheFormat) -> MemoryShape {
        let Config { layers, kv_heads, head_width, .. } = self.config;
        MemoryShape::Cache(CacheShape { layers, heads: kv_heads, width: head_width, format })
    }

    fn plan(&self, threads: usize, many: bool) -> Blocks {
        let layer = &self.layers[0];
        Blocks {
            qkv: plan::of_linears(layer.qkv.linears(), 1, threads, many),
            output: plan::of_linears(layer.output.linears(), 1, threads, many),
            gate_up: plan::of_linears(&layer.gate_up.linears()[..1], 2, threads, many),
            down: plan::of_linears(layer.down.linears(), 1, threads, many),
        }
    }

    fn scratch(&self, plan: &Blocks, shares: &Shares) -> phases::Scratch {
        phases::Scratch::new(self, plan, shares)
    }

    fn scratch_bytes(scratch: &mut phases::Scratch) -> usize {
        scratch.bytes()
    }

    fn layer(walk: &Walk<'_, '_, Transformer>, index: usize, worker: &mut Worker) -> Result<()> {
        walk.transformer_layer(index, worker)
    }

    fn pending(scratch: &phases::Scratch) -> &Exchange {
        &scratch.down
    }

    fn norm(&self, kernels: &Kernels, x: &[f32], out: &mut [f32]) {
        kernels.rms_norm(x, &self.norm, self.config.eps, out);
    }

    fn linears(&self) -> Box<dyn Iterator<Item = &Linear> + '_> {
        let fans = self.layers.iter().flat_map(|layer| [&layer.qkv, &layer.output, &layer.gate_up, &layer.down]);
        Box::new(fans.flat_map(Fan::linears))
    }

    fn vector_numbers(&self) -> u64 {
        self.count_vectors()
    }

    fn cache_bytes_per_position(&self, cache: CacheFormat) -> u64 {
        2 * (self.config.layers * self.config.kv_width() * cache.bytes()) as u64
    }

    fn phases(&self) -> usize {
        phases::of_one_token(self.config.layers)
    }

    fn step_costs(&self, facts: &Facts, tokens: u64, depth: u64) -> Vec<StepCost> {
        self.costs(facts, tokens, depth)
    }
}
