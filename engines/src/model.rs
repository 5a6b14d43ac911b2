//! The interface of every model, and the list of architectures.

use crate::{Result, Settings, State, StepCost};
use kernels::memory::{Purpose, Reservation};
use std::sync::Arc;

/// A token's number, below the vocabulary's size.
pub type Token = u32;

/// A model that reads tokens and says what may come next.
pub trait LanguageModel: Send + Sync {
    /// V, the number of logits to a token.
    fn vocab(&self) -> usize;

    /// An empty sequence that can later be rewound by up to `keep` tokens.
    fn start(&self, keep: usize) -> State;

    /// Reads each segment's tokens after everything its state has read; weights are streamed once for the whole batch.
    /// Answers with logits `[n, V]` for each segment: n is 1 or the number of its tokens, as `want` says. The bits do not
    /// depend on how tokens are cut into segments, calls or threads.
    ///
    /// # Errors
    /// A segment without tokens, a token outside the vocabulary, a state of another model, or more positions than the
    /// context holds. All of these leave every state as it was.
    fn forward(&self, batch: &mut [Segment<'_>]) -> Result<Vec<Logits>>;
}

/// Tokens to read after a state.
#[derive(Debug)]
pub struct Segment<'a> {
    /// What came before; advanced by the call.
    pub state: &'a mut State,
    /// At least one.
    pub tokens: &'a [Token],
    /// Which positions' logits are wanted.
    pub want: Want,
}

/// Which of a segment's positions get logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// The last only.
    Last,
    /// Every one.
    All,
}

/// Logits `[n, V]`, row-major.
#[derive(Clone)]
pub struct Logits {
    values: Vec<f32>,
    vocab: usize,
    _memory: Reservation,
}

impl PartialEq for Logits {
    fn eq(&self, other: &Logits) -> bool {
        (&self.values, self.vocab) == (&other.values, other.vocab)
    }
}

impl Logits {
    /// From `values` `[n, vocab]`.
    ///
    /// # Panics
    /// If `vocab` is 0 or does not divide the length.
    pub fn new(values: Vec<f32>, vocab: usize) -> Logits {
        assert!(vocab > 0 && values.len().is_multiple_of(vocab), "logits [n, {vocab}] of {} numbers", values.len());
        let memory = Reservation::new(Purpose::Scratch, values.capacity() * size_of::<f32>());
        Logits { values, vocab, _memory: memory }
    }

    /// n.
    pub fn rows(&self) -> usize {
        self.values.len() / self.vocab
    }

    /// V.
    pub fn vocab(&self) -> usize {
        self.vocab
    }

    /// The logits `[V]` after the i-th wanted token.
    ///
    /// # Panics
    /// If there are not so many rows.
    pub fn row(&self, i: usize) -> &[f32] {
        &self.values[i * self.vocab..][..self.vocab]
    }

    /// The last row.
    ///
    /// # Panics
    /// If there is none; a model always gives at least one.
    pub fn last(&self) -> &[f32] {
        self.row(self.rows() - 1)
    }

    /// All of them, `[n, V]`.
    pub fn as_slice(&self) -> &[f32] {
        &self.values
    }
}

impl std::fmt::Debug for Logits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Logits [{}, {}]", self.rows(), self.vocab)
    }
}

/// What reports and tests ask of a model beside running it. Decoding never does.
pub trait Inspect {
    /// Sizes and costs.
    fn facts(&self) -> Facts;

    /// The least that each kind of step costs when `tokens` tokens are read after `depth` others and the last one's logits
    /// are wanted; kinds that the model has not are left out.
    fn step_costs(&self, tokens: usize, depth: usize) -> Vec<StepCost>;

    /// Reads tokens as `forward` does and keeps the hidden states.
    ///
    /// # Errors
    /// As `forward`.
    fn trace(&self, state: &mut State, tokens: &[Token]) -> Result<Trace>;

    /// What a recurrent model remembers of a sequence, in the shapes of the model's own publication; nothing for caches.
    ///
    /// # Errors
    /// A state of another model.
    fn remembered(&self, state: &State) -> Result<Vec<Remembered>>;

    /// One block alone on inputs x `[T, D]` at positions 0..T, with an empty cache: its output `[T, D]`.
    ///
    /// # Errors
    /// No such block, one that reads more than its input, x not `[T, D]` with T >= 1, or more positions than the context holds.
    fn block(&self, index: usize, x: &[f32]) -> Result<Vec<f32>>;

    /// The same weights on another `Cpu` or cache format; the weights are shared, nothing is copied.
    fn with(&self, settings: &Settings) -> Arc<dyn Model>;
}

/// A language model that can be inspected: what [`load`](crate::load()) gives.
pub trait Model: LanguageModel + Inspect {}

impl<M: LanguageModel + Inspect> Model for M {}

impl Facts {
    /// Whether a sequence may have so many positions.
    pub fn holds(&self, positions: usize) -> bool {
        self.context.is_none_or(|context| positions <= context)
    }
}

/// Everything on the way through a model.
#[derive(Clone, Debug)]
pub struct Trace {
    /// `[0]` the embedding output, `[i]` the output of block i - 1 (before the final norm); each `[T, D]`.
    pub hidden: Vec<Vec<f32>>,
    /// Logits of every token, `[T, V]`.
    pub logits: Logits,
}

/// A part of a recurrent memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Remembered {
    /// The layer, from 0.
    pub layer: usize,
    /// Its name, for example "ssm".
    pub name: &'static str,
    /// The extents of `values`, row-major.
    pub shape: Vec<usize>,
    /// The numbers.
    pub values: Vec<f32>,
}

/// Sizes and costs of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    /// A name from [`ARCHITECTURES`].
    pub architecture: &'static str,
    /// Numbers in the weights; shared embeddings count once.
    pub parameters: u64,
    /// L.
    pub layers: usize,
    /// D.
    pub width: usize,
    /// V.
    pub vocab: usize,
    /// Positions that the model can tell apart; none where there is no limit, as in recurrent models.
    pub context: Option<usize>,
    /// How the weights are stored, for example "ternary i2, bf16 head".
    pub weights: String,
    /// Bytes of linear layers that one token must read.
    pub linear_bytes: u64,
    /// Bytes of the head that one token must read.
    pub head_bytes: u64,
    /// Bytes beside these that one token must read: norms, biases, one row of the embedding.
    pub other_bytes: u64,
    /// Bytes of cache that each earlier position adds to a token's reading.
    pub cache_bytes_per_position: u64,
    /// Bytes of recurrent memory, of one size for ever, that each token reads and writes anew.
    pub state_bytes: u64,
    /// Multiplications and additions of one token in the linear layers.
    pub linear_operations: u64,
    /// Whether these are of eight-bit integers, and not of floats.
    pub linear_integers: bool,
    /// Multiplications and additions of one token in the head.
    pub head_operations: u64,
    /// Whether these are of eight-bit integers, and not of floats.
    pub head_integers: bool,
    /// Phases of one token's forward pass, each of which ends with all threads waiting for each other.
    pub decode_phases: usize,
}

/// A line of [`ARCHITECTURES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Architecture {
    /// The name, as in [`Facts::architecture`].
    pub name: &'static str,
    /// What `model_type` in config.json says, or how else it is recognised.
    pub recognised_by: &'static str,
    /// Where it was published.
    pub source: &'static str,
}

/// Every architecture that can be loaded.
pub const ARCHITECTURES: &[Architecture] = &[
    Architecture {
        name: "bitnet-b1.58",
        recognised_by: "config.json with model_type bitnet",
        source: "The Era of 1-bit LLMs (arXiv 2402.17764); BitNet b1.58 2B4T (arXiv 2504.12285)",
    },
    Architecture {
        name: "llama",
        recognised_by: "config.json with model_type llama, linear layers dense or BitLinear",
        source: "LLaMA (arXiv 2302.13971); Llama 2 (arXiv 2307.09288)",
    },
    Architecture {
        name: "llama2.c",
        recognised_by: "a .bin file of llama2.c, version 0",
        source: "github.com/karpathy/llama2.c",
    },
    Architecture {
        name: "mamba",
        recognised_by: "config.json with model_type mamba, or the authors' with layers Mamba1",
        source: "Mamba (arXiv 2312.00752)",
    },
    Architecture {
        name: "mamba-2",
        recognised_by: "config.json with model_type mamba2, or the authors' with layers Mamba2",
        source: "Transformers are SSMs (arXiv 2405.21060)",
    },
    Architecture {
        name: "rwkv-4",
        recognised_by: "tensors by BlinkDL's names, without ln_x; config.json with model_type rwkv (Hugging Face) or rwkv4",
        source: "RWKV: Reinventing RNNs for the Transformer Era (arXiv 2305.13048)",
    },
    Architecture {
        name: "rwkv-5",
        recognised_by: "tensors by BlinkDL's names, with ln_x; config.json with model_type rwkv5",
        source: "Eagle and Finch (arXiv 2404.05892): Eagle",
    },
    Architecture {
        name: "rwkv-6",
        recognised_by: "tensors by BlinkDL's names, with time_maa_x; config.json with model_type rwkv6",
        source: "Eagle and Finch (arXiv 2404.05892): Finch",
    },
    Architecture {
        name: "rwkv-7",
        recognised_by: "tensors by BlinkDL's names, with r_k; config.json with model_type rwkv7",
        source: "RWKV-7 Goose with Expressive Dynamic State Evolution (arXiv 2503.14456)",
    },
];
