//! What the plain references of recurrent models share: they read one token after another, and what they remember has a
//! fixed size.

use super::{Pass, Reference};
use crate::golden::argmax;
use crate::tensors::Tensors;
use ndarray::{Array1, Array2, ArrayD};

/// A model in f64 that anything else is held to.
pub trait Oracle: Send + Sync {
    /// V.
    fn vocab(&self) -> usize;

    /// Reads a whole sequence from its start.
    fn run(&self, tokens: &[u32]) -> Run;

    /// One block alone on x `[T, D]`, the outputs of the one before for the first T tokens.
    fn block(&self, index: usize, x: &Array2<f64>) -> Array2<f64>;

    /// The `count` best tokens after a prompt, each read before the next is chosen, and the logits `[count, V]` from which
    /// each was taken.
    fn greedy(&self, prompt: &[u32], count: usize) -> (Vec<u32>, Array2<f64>) {
        let mut tokens = prompt.to_vec();
        let mut rows = Vec::new();
        for _ in 0..count {
            let logits = self.run(&tokens).pass.logits;
            rows.push(logits.row(tokens.len() - 1).to_owned());
            tokens.push(argmax(rows[rows.len() - 1].view()).0 as u32);
        }
        (tokens.split_off(prompt.len()), stack(rows.iter()))
    }
}

/// What a sequence leaves behind.
#[derive(Debug)]
pub struct Run {
    /// Hidden states and logits.
    pub pass: Pass,
    /// What the model remembers after the last token, named and shaped as in golden files, without `main.`; none for
    /// transformers.
    pub states: Vec<(String, ArrayD<f64>)>,
}

impl Oracle for Reference {
    fn vocab(&self) -> usize {
        self.config.vocab
    }

    fn run(&self, tokens: &[u32]) -> Run {
        Run { pass: self.run(tokens), states: Vec::new() }
    }

    fn block(&self, index: usize, x: &Array2<f64>) -> Array2<f64> {
        self.block(index, x)
    }
}

/// A model that reads one token at a time.
pub trait Recurrent {
    /// What one layer remembers.
    type Memory;

    /// V.
    fn vocab(&self) -> usize;

    /// What every layer remembers before the first token.
    fn start(&self) -> Vec<Self::Memory>;

    /// The embedding output of a token.
    fn embed(&self, token: u32) -> Array1<f64>;

    /// One layer on x, the output of the one before, after those tokens that `memory` has seen. `first` is what the first
    /// layer of RWKV-7 hands to the others of the same token: none before the first layer.
    fn layer(
        &self,
        index: usize,
        x: &Array1<f64>,
        memory: &mut Self::Memory,
        first: &mut Option<Array1<f64>>,
    ) -> Array1<f64>;

    /// The final norm of the last layer's output, and the logits.
    fn finish(&self, x: &Array1<f64>) -> (Array1<f64>, Array1<f64>);

    /// Reads one token after those that `memory` has seen.
    fn step(&self, token: u32, memory: &mut [Self::Memory]) -> Step {
        let mut hidden = vec![self.embed(token)];
        let mut first = None;
        for (index, memory) in memory.iter_mut().enumerate() {
            hidden.push(self.layer(index, &hidden[index], memory, &mut first));
        }
        let (normed, logits) = self.finish(&hidden[hidden.len() - 1]);
        Step { hidden, normed, logits }
    }

    /// The memory as golden files name and shape it.
    fn states(&self, memory: &[Self::Memory]) -> Vec<(String, ArrayD<f64>)>;
}

/// What one token leaves.
#[derive(Debug)]
pub struct Step {
    /// The embedding output, then the output of each layer, `[D]`.
    pub hidden: Vec<Array1<f64>>,
    /// After the final norm, `[D]`.
    pub normed: Array1<f64>,
    /// `[V]`.
    pub logits: Array1<f64>,
}

impl<M: Recurrent + Send + Sync> Oracle for M {
    fn vocab(&self) -> usize {
        Recurrent::vocab(self)
    }

    fn run(&self, tokens: &[u32]) -> Run {
        let mut memory = self.start();
        let steps: Vec<Step> = tokens.iter().map(|token| self.step(*token, &mut memory)).collect();
        let stages = steps[0].hidden.len();
        let pass = Pass {
            hidden: (0..stages).map(|stage| stack(steps.iter().map(|step| &step.hidden[stage]))).collect(),
            normed: stack(steps.iter().map(|step| &step.normed)),
            logits: stack(steps.iter().map(|step| &step.logits)),
        };
        Run { pass, states: self.states(&memory) }
    }

    fn block(&self, index: usize, x: &Array2<f64>) -> Array2<f64> {
        let mut memory = self.start().swap_remove(index);
        let rows: Vec<Array1<f64>> =
            x.outer_iter().map(|x| self.layer(index, &x.to_owned(), &mut memory, &mut None)).collect();
        stack(rows.iter())
    }

    fn greedy(&self, prompt: &[u32], count: usize) -> (Vec<u32>, Array2<f64>) {
        let mut memory = self.start();
        let mut tokens = prompt.to_vec();
        let mut rows = Vec::new();
        for read in 0..prompt.len() + count - 1 {
            let logits = self.step(tokens[read], &mut memory).logits;
            if read + 1 >= prompt.len() {
                tokens.push(argmax(logits.view()).0 as u32);
                rows.push(logits);
            }
        }
        (tokens.split_off(prompt.len()), stack(rows.iter()))
    }
}

/// Rows of a matrix.
fn stack<'a>(rows: impl Iterator<Item = &'a Array1<f64>>) -> Array2<f64> {
    let views: Vec<_> = rows.map(|row| row.view()).collect();
    ndarray::stack(ndarray::Axis(0), &views).expect("rows of one length")
}

/// The tensors whose names begin alike.
pub(super) struct Part<'a> {
    tensors: &'a Tensors,
    prefix: String,
}

impl<'a> Part<'a> {
    pub(super) fn new(tensors: &'a Tensors, prefix: String) -> Part<'a> {
        Part { tensors, prefix }
    }

    /// All elements, whatever the extents: files write `[C]` also as `[1, 1, C]`.
    pub(super) fn vector(&self, name: &str) -> Array1<f64> {
        Array1::from(self.tensors.tensor(&self.name(name)).f64s())
    }

    /// The same, where a file may lack it.
    pub(super) fn optional(&self, name: &str) -> Option<Array1<f64>> {
        self.tensors.get(&self.name(name)).map(|tensor| Array1::from(tensor.f64s()))
    }

    /// A tensor of two extents.
    pub(super) fn matrix(&self, name: &str) -> Array2<f64> {
        crate::golden::matrix(self.tensors.tensor(&self.name(name)))
    }

    /// The extents of a tensor.
    pub(super) fn shape(&self, name: &str) -> &'a [usize] {
        &self.tensors.tensor(&self.name(name)).shape
    }

    /// Whether there is such a tensor.
    pub(super) fn has(&self, name: &str) -> bool {
        self.tensors.get(&self.name(name)).is_some()
    }

    fn name(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }
}

/// How many layers have tensors `{before}0{after}`, `{before}1{after}`, ...
pub(super) fn layers(tensors: &Tensors, before: &str, after: &str) -> usize {
    (0..).take_while(|layer| tensors.get(&format!("{before}{layer}{after}")).is_some()).count()
}

/// 1 / (1 + exp(-x)).
pub(super) fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// x sigmoid(x).
pub(super) fn silu(x: f64) -> f64 {
    x * sigmoid(x)
}

/// ln(1 + exp(x)), written so that it neither overflows nor loses small results.
pub(super) fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}
