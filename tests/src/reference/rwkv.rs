//! What RWKV has in every version: two mixes a layer, each of the current and the previous token.
//!
//! ```text
//! x = ln0(embedding[token])
//! each layer: x += time_mix(ln1(x)), x += channel_mix(ln2(x))
//! logits = head ln_out(x)
//! ```
//!
//! A mix of a token's h and the previous token's p at the same place is h + (p - h) share. Versions 4 and 5 store
//! 1 - share as `time_mix_*`, version 6 stores the share as `time_maa_*`, version 7 as `x_*`.
//!
//! Source: RWKV, arXiv 2305.13048, section 3; layer norms with epsilon 1e-5.

use super::recurrent::{Part, Recurrent, layers, sigmoid};
use crate::tensors::Tensors;
use ndarray::{Array1, Array2, ArrayD, ArrayView1, Axis};

/// The two mixes of one layer, in some version.
pub trait Mixes: Sized {
    /// What the layer remembers.
    type Memory;

    /// Before the first token.
    fn start(&self) -> Self::Memory;

    /// What time mixing adds, given h = ln1(x). `first` is what version 7 hands from its first layer to the others.
    fn time_mix(&self, h: &Array1<f64>, memory: &mut Self::Memory, first: &mut Option<Array1<f64>>) -> Array1<f64>;

    /// What channel mixing adds, given h = ln2(x).
    fn channel_mix(&self, h: &Array1<f64>, memory: &mut Self::Memory) -> Array1<f64>;

    /// The memory in the order in which the published program keeps it.
    fn states(memory: &Self::Memory) -> Vec<ArrayD<f64>>;
}

/// RWKV with the mixes of some version.
#[derive(Debug)]
pub struct Rwkv<M> {
    /// `[V, C]`.
    embedding: Array2<f64>,
    input_norm: LayerNorm,
    /// ln1, ln2 and the mixes.
    layers: Vec<(LayerNorm, LayerNorm, M)>,
    output_norm: LayerNorm,
    /// `[V, C]`.
    head: Array2<f64>,
    /// Whether states are to be shaped as transformers does it: one tensor for all layers, layers last, and the channel
    /// mix's first.
    pub(super) stacked: bool,
}

impl<M: Mixes> Rwkv<M> {
    /// Takes weights by BlinkDL's names.
    pub(super) fn read(tensors: &Tensors, mixes: impl Fn(&Part<'_>) -> M) -> Rwkv<M> {
        let part = Part::new(tensors, String::new());
        let layer = |index: usize| {
            let part = Part::new(tensors, format!("blocks.{index}."));
            (LayerNorm::read(&part, "ln1"), LayerNorm::read(&part, "ln2"), mixes(&part))
        };
        Rwkv {
            embedding: part.matrix("emb.weight"),
            input_norm: LayerNorm::read(&part, "blocks.0.ln0"),
            layers: (0..layers(tensors, "blocks.", ".ln1.weight")).map(layer).collect(),
            output_norm: LayerNorm::read(&part, "ln_out"),
            head: part.matrix("head.weight"),
            stacked: false,
        }
    }
}

impl<M: Mixes> Recurrent for Rwkv<M> {
    type Memory = M::Memory;

    fn vocab(&self) -> usize {
        self.head.nrows()
    }

    fn start(&self) -> Vec<M::Memory> {
        self.layers.iter().map(|(_, _, mixes)| mixes.start()).collect()
    }

    fn embed(&self, token: u32) -> Array1<f64> {
        self.input_norm.apply(self.embedding.row(token as usize))
    }

    fn layer(
        &self,
        index: usize,
        x: &Array1<f64>,
        memory: &mut M::Memory,
        first: &mut Option<Array1<f64>>,
    ) -> Array1<f64> {
        let (ln1, ln2, mixes) = &self.layers[index];
        let x = x + mixes.time_mix(&ln1.apply(x.view()), memory, first);
        let change = mixes.channel_mix(&ln2.apply(x.view()), memory);
        x + change
    }

    fn finish(&self, x: &Array1<f64>) -> (Array1<f64>, Array1<f64>) {
        let normed = self.output_norm.apply(x.view());
        let logits = self.head.dot(&normed);
        (normed, logits)
    }

    fn states(&self, memory: &[M::Memory]) -> Vec<(String, ArrayD<f64>)> {
        let layers: Vec<Vec<ArrayD<f64>>> = memory.iter().map(M::states).collect();
        if !self.stacked {
            let all = layers.into_iter().flatten().enumerate();
            return all.map(|(index, state)| (format!("state.{index:02}"), state)).collect();
        }
        let kinds = layers[0].len();
        let tensor = |index: usize| {
            let kind = (index + kinds - 1) % kinds;
            let columns: Vec<_> = layers.iter().map(|layer| layer[kind].view()).collect();
            (format!("state.{index}"), ndarray::stack(Axis(1), &columns).expect("states of one shape"))
        };
        (0..kinds).map(tensor).collect()
    }
}

/// (x - mean) / sqrt(variance + 1e-5) * gain + bias.
#[derive(Debug)]
struct LayerNorm {
    gain: Array1<f64>,
    bias: Array1<f64>,
}

impl LayerNorm {
    fn read(part: &Part<'_>, name: &str) -> LayerNorm {
        LayerNorm { gain: part.vector(&format!("{name}.weight")), bias: part.vector(&format!("{name}.bias")) }
    }

    fn apply(&self, x: ArrayView1<'_, f64>) -> Array1<f64> {
        standardise(x, 1e-5) * &self.gain + &self.bias
    }
}

/// (x - mean) / sqrt(variance + eps).
pub fn standardise(x: ArrayView1<'_, f64>, eps: f64) -> Array1<f64> {
    let mean = x.sum() / x.len() as f64;
    let variance = x.mapv(|x| (x - mean).powi(2)).sum() / x.len() as f64;
    x.mapv(|x| (x - mean) / (variance + eps).sqrt())
}

/// A layer norm of each head for itself: `ln_x`.
#[derive(Debug)]
pub(super) struct GroupNorm {
    gain: Array1<f64>,
    bias: Array1<f64>,
    eps: f64,
}

impl GroupNorm {
    pub(super) fn read(part: &Part<'_>, eps: f64) -> GroupNorm {
        GroupNorm { gain: part.vector("att.ln_x.weight"), bias: part.vector("att.ln_x.bias"), eps }
    }

    /// y `[H, N]` to `[C]`.
    pub(super) fn apply(&self, mut y: Array2<f64>) -> Array1<f64> {
        for mut head in y.outer_iter_mut() {
            let standard = standardise(head.view(), self.eps);
            head.assign(&standard);
        }
        flat(y) * &self.gain + &self.bias
    }
}

/// h + (p - h) share.
pub(super) fn mix(h: &Array1<f64>, previous: &Array1<f64>, share: &Array1<f64>) -> Array1<f64> {
    h + &((previous - h) * share)
}

/// `[C]` as `[H, N]`.
pub(super) fn heads(x: Array1<f64>, heads: usize) -> Array2<f64> {
    let width = x.len() / heads;
    x.into_shape_with_order((heads, width)).expect("C = H N")
}

/// `[H, N]` as `[C]`.
pub(super) fn flat(x: Array2<f64>) -> Array1<f64> {
    let count = x.len();
    x.into_shape_with_order(count).expect("elements in order")
}

/// The channel mix of versions 4 to 6: sigmoid(Wr mix_r) * Wv relu(Wk mix_k)^2.
#[derive(Debug)]
pub(super) struct ChannelMix {
    key_share: Array1<f64>,
    receptance_share: Array1<f64>,
    /// `[F, C]`.
    key: Array2<f64>,
    /// `[C, C]`.
    receptance: Array2<f64>,
    /// `[C, F]`.
    value: Array2<f64>,
}

impl ChannelMix {
    /// `share` reads the previous token's share that is stored under k or r.
    pub(super) fn read(part: &Part<'_>, share: impl Fn(&str) -> Array1<f64>) -> ChannelMix {
        ChannelMix {
            key_share: share("k"),
            receptance_share: share("r"),
            key: part.matrix("ffn.key.weight"),
            receptance: part.matrix("ffn.receptance.weight"),
            value: part.matrix("ffn.value.weight"),
        }
    }

    /// What it adds; h becomes the previous token's.
    pub(super) fn apply(&self, h: &Array1<f64>, previous: &mut Array1<f64>) -> Array1<f64> {
        let k = self.key.dot(&mix(h, previous, &self.key_share)).mapv(squared_relu);
        let r = self.receptance.dot(&mix(h, previous, &self.receptance_share)).mapv(sigmoid);
        previous.assign(h);
        r * self.value.dot(&k)
    }
}

/// max(x, 0)^2.
pub(super) fn squared_relu(x: f64) -> f64 {
    x.max(0.0).powi(2)
}
