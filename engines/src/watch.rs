//! Being watched while computing: where each thread is inside a forward pass. Who watches brings the clock; the engines have
//! none.

use crate::Facts;
use crate::linear::Linear;
use std::fmt;

/// What a step of a forward pass computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StepKind {
    /// What is done token by token between products: embedding, residual additions, norms, quantisation, lookup tables.
    Vectors,
    /// The products of queries, keys and values.
    Qkv,
    /// Rotation, the cache, and attention.
    Attention,
    /// The product after attention, or after the scan.
    Output,
    /// The gated products of the feed-forward network, with the activation.
    GateUp,
    /// The product that closes it.
    Down,
    /// The products that enter a recurrent layer.
    Input,
    /// Products of low rank beside them.
    Adapters,
    /// What carries a recurrent layer's memory from token to token.
    Scan,
    /// Logits.
    Head,
}

impl StepKind {
    /// Every kind, in the order of a layer.
    pub const ALL: [StepKind; 10] = [
        StepKind::Vectors,
        StepKind::Qkv,
        StepKind::Attention,
        StepKind::Input,
        StepKind::Adapters,
        StepKind::Scan,
        StepKind::Output,
        StepKind::GateUp,
        StepKind::Down,
        StepKind::Head,
    ];

    /// Its name in tables and traces.
    pub const fn name(self) -> &'static str {
        match self {
            StepKind::Vectors => "vectors",
            StepKind::Qkv => "qkv",
            StepKind::Attention => "attention",
            StepKind::Input => "input",
            StepKind::Adapters => "adapters",
            StepKind::Scan => "scan",
            StepKind::Output => "output",
            StepKind::GateUp => "gate and up",
            StepKind::Down => "down",
            StepKind::Head => "head",
        }
    }
}

impl fmt::Display for StepKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A step of a forward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Step {
    /// What it computes.
    pub kind: StepKind,
    /// The layer, from 0; `None` after the last one.
    pub layer: Option<usize>,
}

/// Hears where threads are. Called from all of them at the same time, each under its own number: 0 for the calling thread,
/// then 1, 2, ...
pub trait Watch: Send + Sync {
    /// A thread begins its share of a step.
    fn begin(&self, thread: usize, step: Step);
    /// It has done its share; now it waits for the others, where the step ends with a barrier.
    fn done(&self, thread: usize);
    /// The others have done theirs.
    fn left(&self, thread: usize);
}

/// The least that a kind of step costs in one forward pass, all layers together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepCost {
    /// What is computed.
    pub kind: StepKind,
    /// Bytes of weights and cache that must be read.
    pub bytes: u64,
    /// Multiplications and additions of products and attention.
    pub operations: u64,
    /// Whether these are of eight-bit integers, and not of floats.
    pub integers: bool,
}

impl StepCost {
    /// Of products of these layers with `tokens` tokens.
    pub(crate) fn of_products(kind: StepKind, tokens: u64, linears: &mut dyn Iterator<Item = &Linear>) -> StepCost {
        let none = StepCost { kind, bytes: 0, operations: 0, integers: true };
        linears.fold(none, |cost, linear| StepCost {
            kind,
            bytes: cost.bytes + linear.bytes() as u64,
            operations: cost.operations + 2 * tokens * (linear.rows() * linear.cols()) as u64,
            integers: cost.integers && linear.multiplies_integers(),
        })
    }

    /// Of what is done token by token.
    pub(crate) fn of_vectors(facts: &Facts) -> StepCost {
        StepCost { kind: StepKind::Vectors, bytes: facts.other_bytes, operations: 0, integers: false }
    }

    /// Of one token's logits.
    pub(crate) fn of_head(facts: &Facts) -> StepCost {
        let Facts { head_bytes, head_operations, head_integers, .. } = *facts;
        StepCost { kind: StepKind::Head, bytes: head_bytes, operations: head_operations, integers: head_integers }
    }
}
