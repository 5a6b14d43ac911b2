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
//! **Threads** A forward pass is one parallel region whose phases are written in `phases.rs`; `pass.rs` holds what they share.

mod build;
mod inspect;
mod pass;
mod phases;

use crate::config::Config;
use crate::linear::{Fan, Linear};
use crate::plan::{self, Block};
use crate::rope::Rope;
use crate::state::CacheShape;
use crate::team::lock;
use crate::weights::dense::Dense;
use crate::{Error, LanguageModel, Logits, Result, Segment, Settings, State, Want};
use kernels::memory::Reservation;
use pass::{Pass, Scratch, Source};
use std::sync::{Arc, Mutex};

pub(crate) use build::build;

/// Tokens that go through the layers together at most, so that the memory of a pass is bounded.
const PASS_TOKENS: usize = 512;

/// A transformer ready to run.
pub(crate) struct Transformer {
    weights: Arc<Weights>,
    settings: Settings,
    /// How rows are shared out for few tokens and for many.
    blocks: [Blocks; 2],
    /// Scratch memory of earlier passes.
    pool: Mutex<Vec<Scratch>>,
}

/// Everything that was loaded. Shared by all `Transformer`s made `with` other settings.
struct Weights {
    config: Config,
    /// `[V, D]`.
    embedding: Dense,
    layers: Vec<Layer>,
    /// `[D]`.
    norm: Vec<f32>,
    /// `[V, D]`, dense or rounded in groups.
    head: Linear,
    rope: Rope,
    /// The norms and biases, in the books of memory.
    vectors: Reservation,
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
struct Blocks {
    qkv: Vec<Block>,
    output: Vec<Block>,
    /// Of E: gate and up are computed together.
    gate_up: Vec<Block>,
    down: Vec<Block>,
    head: Vec<Block>,
}

/// Bytes of weights that a block has at most when it meets many tokens: they stay in a core's second-level cache.
const CACHED_BYTES: usize = 384 << 10;

impl Blocks {
    fn new(weights: &Weights, threads: usize, many: bool) -> Blocks {
        let layer = &weights.layers[0];
        let blocks = |linears: &[Linear], together: usize| {
            let rows: Vec<usize> = linears.iter().map(Linear::rows).collect();
            let row_bytes = together * linears[0].bytes() / linears[0].rows();
            plan::blocks(
                &rows,
                linears[0].tile_rows(),
                threads,
                if many { CACHED_BYTES / row_bytes.max(1) } else { usize::MAX },
            )
        };
        Blocks {
            qkv: blocks(layer.qkv.linears(), 1),
            output: blocks(layer.output.linears(), 1),
            gate_up: blocks(&layer.gate_up.linears()[..1], 2),
            down: blocks(layer.down.linears(), 1),
            head: head_blocks(weights.head.rows(), threads),
        }
    }
}

/// Blocks of the head are equally long (the last perhaps shorter), because they are written straight into rows of logits.
fn head_blocks(rows: usize, threads: usize) -> Vec<Block> {
    let size = rows.div_ceil(threads * 64).next_multiple_of(16).clamp(64, 256);
    let starts = (0..rows).step_by(size);
    starts.map(|start| Block { matrix: 0, rows: start..rows.min(start + size), start }).collect()
}

impl Transformer {
    fn new(weights: Arc<Weights>, settings: &Settings) -> Transformer {
        let threads = settings.cpu.threads();
        let blocks = [false, true].map(|many| Blocks::new(&weights, threads, many));
        Transformer { weights, settings: settings.clone(), blocks, pool: Mutex::new(Vec::new()) }
    }

    fn cache_shape(&self) -> CacheShape {
        let Config { layers, kv_heads, head_width, .. } = self.weights.config;
        CacheShape { layers, heads: kv_heads, width: head_width, format: self.settings.cache }
    }

    /// Scratch memory for a pass of `tokens` tokens, used before if there is any.
    fn scratch(&self, tokens: usize) -> Scratch {
        let mut pool = lock(&self.pool);
        let found = pool.iter().position(|scratch| scratch.tokens() == tokens);
        found.map(|i| pool.remove(i)).unwrap_or_else(|| Scratch::new(self, tokens))
    }

    /// Keeps scratch memory for later: that of the last few sizes used.
    fn give_back(&self, mut scratch: Scratch) {
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
        let Config { vocab, context, .. } = self.weights.config;
        for (index, segment) in batch.iter().enumerate() {
            if segment.tokens.is_empty() {
                return Err(Error::Empty { segment: index });
            }
            if let Some(token) = segment.tokens.iter().find(|token| **token as usize >= vocab) {
                return Err(Error::Token { token: *token, vocab });
            }
            segment.state.check(self.cache_shape())?;
            let needed = segment.state.len() + segment.tokens.len();
            if needed > context {
                return Err(Error::Context { needed, context });
            }
        }
        Ok(())
    }

    /// Reads a checked batch in passes of at most [`PASS_TOKENS`] tokens.
    fn read(&self, batch: &mut [Segment<'_>], trace: Option<&Mutex<Vec<Vec<f32>>>>) -> Result<Vec<Logits>> {
        let vocab = self.weights.config.vocab;
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
            let mut pass = Pass::new(self, PASS_TOKENS.min(total - start));
            for (segment, read) in batch.iter_mut().zip(&mut read) {
                let taken = pass.add_segment(segment, *read);
                *read += taken;
            }
            let count = pass.wanted_count();
            let scratch = self.scratch(pass.token_count());
            pass.run(&scratch, Source::Embedding, trace.map(|trace| (trace, start)), rows.by_ref().take(count))?;
            self.give_back(scratch);
        }
        drop(rows);
        for segment in batch {
            segment.state.advance(segment.tokens.len());
        }
        Ok(logits.into_iter().map(|values| Logits::new(values, vocab)).collect())
    }
}

impl LanguageModel for Transformer {
    fn vocab(&self) -> usize {
        self.weights.config.vocab
    }

    fn start(&self, _keep: usize) -> State {
        // A cache can be rewound to anywhere, whatever `keep` says.
        State::new(self.cache_shape())
    }

    fn forward(&self, batch: &mut [Segment<'_>]) -> Result<Vec<Logits>> {
        self.check(batch)?;
        self.read(batch, None)
    }
}
