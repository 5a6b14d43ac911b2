//! Mamba: selective state spaces.
//!
//! Width H, E inner channels, N numbers of state to a channel, R the rank of the step size, K taps of the convolution. Each
//! layer does, for a token's x `[H]`:
//!
//! ```text
//! (u, z) = W_in rms(x)                          [E], [E]
//! c      = silu(sum_j W_conv[:, j] u_(t-K+1+j) + b_conv)
//! (d, B, C) = W_x c                             [R], [N], [N]
//! dt     = softplus(W_dt d + b_dt)              [E]
//! S      = exp(dt A) S + (dt c) B^T             [E, N], with A = -exp(A_log)
//! y      = (S C + D c) silu(z)
//! x     += W_out y
//! ```
//!
//! Source: Mamba, arXiv 2312.00752, algorithm 2 and section 3.4; B is discretised by Euler's rule, as the published program
//! does, and not by the zero-order hold of the paper's equation 4.

use super::recurrent::{Part, Recurrent, layers, silu, softplus};
use super::rms_norm;
use crate::tensors::Tensors;
use ndarray::{Array1, Array2, ArrayD, Axis, s};
use serde_json::Value;

/// Mamba-1 by Hugging Face's names.
#[derive(Debug)]
pub struct Mamba {
    frame: Frame,
    layers: Vec<Layer>,
}

#[derive(Debug)]
struct Layer {
    norm: Array1<f64>,
    /// `[2E, H]`.
    input: Array2<f64>,
    input_bias: Option<Array1<f64>>,
    convolution: Convolution,
    /// `[R + 2N, E]`.
    select: Array2<f64>,
    /// `[E, R]`.
    step: Array2<f64>,
    step_bias: Array1<f64>,
    /// A `[E, N]`.
    decay: Array2<f64>,
    /// D `[E]`.
    skip: Array1<f64>,
    /// `[H, E]`.
    output: Array2<f64>,
    output_bias: Option<Array1<f64>>,
}

/// What one layer of Mamba remembers.
#[derive(Clone, Debug)]
pub struct Memory {
    /// The last K inputs of the convolution, `[C, K]`, the newest last.
    pub(super) window: Array2<f64>,
    /// S.
    pub(super) state: ArrayD<f64>,
}

impl Mamba {
    /// Takes a model from `config.json` and its tensors.
    pub fn from_tensors(config: &Value, tensors: &Tensors) -> Mamba {
        let layer = |index: usize| {
            let part = Part::new(tensors, format!("backbone.layers.{index}."));
            Layer {
                norm: part.vector("norm.weight"),
                input: part.matrix("mixer.in_proj.weight"),
                input_bias: part.optional("mixer.in_proj.bias"),
                convolution: Convolution::read(&part),
                select: part.matrix("mixer.x_proj.weight"),
                step: part.matrix("mixer.dt_proj.weight"),
                step_bias: part.vector("mixer.dt_proj.bias"),
                decay: part.matrix("mixer.A_log").mapv(|a| -a.exp()),
                skip: part.vector("mixer.D"),
                output: part.matrix("mixer.out_proj.weight"),
                output_bias: part.optional("mixer.out_proj.bias"),
            }
        };
        let count = layers(tensors, "backbone.layers.", ".norm.weight");
        Mamba { frame: Frame::read(config, tensors), layers: (0..count).map(layer).collect() }
    }
}

impl Layer {
    /// What the layer adds to x.
    fn mix(&self, x: &Array1<f64>, memory: &mut Memory, eps: f64) -> Array1<f64> {
        let (inner, rank) = self.step.dim();
        let states = self.decay.ncols();
        let both = linear(&self.input, self.input_bias.as_ref(), &norm(x, &self.norm, eps));
        let (u, z) = both.view().split_at(Axis(0), inner);
        let c = self.convolution.apply(&u.to_owned(), &mut memory.window);

        let selected = self.select.dot(&c);
        let d = selected.slice(s![..rank]);
        let b = selected.slice(s![rank..rank + states]);
        let read = selected.slice(s![rank + states..]);
        let dt = (self.step.dot(&d) + &self.step_bias).mapv(softplus);

        let mut y = Array1::zeros(inner);
        for e in 0..inner {
            for n in 0..states {
                let s = &mut memory.state[[e, n]];
                *s = (dt[e] * self.decay[[e, n]]).exp() * *s + dt[e] * c[e] * b[n];
                y[e] += *s * read[n];
            }
            y[e] = (y[e] + self.skip[e] * c[e]) * silu(z[e]);
        }
        linear(&self.output, self.output_bias.as_ref(), &y)
    }
}

impl Recurrent for Mamba {
    type Memory = Memory;

    fn vocab(&self) -> usize {
        self.frame.head.nrows()
    }

    fn start(&self) -> Vec<Memory> {
        let memory = |layer: &Layer| Memory {
            window: Array2::zeros(layer.convolution.taps.dim()),
            state: ArrayD::zeros(layer.decay.shape()),
        };
        self.layers.iter().map(memory).collect()
    }

    fn embed(&self, token: u32) -> Array1<f64> {
        self.frame.embedding.row(token as usize).to_owned()
    }

    fn layer(&self, index: usize, x: &Array1<f64>, memory: &mut Memory, _: &mut Option<Array1<f64>>) -> Array1<f64> {
        x + self.layers[index].mix(x, memory, self.frame.eps)
    }

    fn finish(&self, x: &Array1<f64>) -> (Array1<f64>, Array1<f64>) {
        self.frame.finish(x)
    }

    fn states(&self, memory: &[Memory]) -> Vec<(String, ArrayD<f64>)> {
        states(memory)
    }
}

/// What Mamba has around its layers, in both versions.
#[derive(Debug)]
pub(super) struct Frame {
    /// `[V, H]`.
    pub(super) embedding: Array2<f64>,
    norm: Array1<f64>,
    /// `[V, H]`.
    pub(super) head: Array2<f64>,
    /// Added to the mean square of every norm.
    pub(super) eps: f64,
}

impl Frame {
    pub(super) fn read(config: &Value, tensors: &Tensors) -> Frame {
        let part = Part::new(tensors, String::new());
        let embedding = part.matrix("backbone.embeddings.weight");
        let head = if part.has("lm_head.weight") { part.matrix("lm_head.weight") } else { embedding.clone() };
        let eps = config["layer_norm_epsilon"].as_f64().unwrap_or(1e-5);
        Frame { embedding, norm: part.vector("backbone.norm_f.weight"), head, eps }
    }

    /// The final norm, and logits.
    pub(super) fn finish(&self, x: &Array1<f64>) -> (Array1<f64>, Array1<f64>) {
        let normed = norm(x, &self.norm, self.eps);
        let logits = self.head.dot(&normed);
        (normed, logits)
    }
}

/// A causal convolution of each channel for itself, and SiLU.
#[derive(Debug)]
pub(super) struct Convolution {
    /// `[C, K]`; the last tap meets the current token.
    pub(super) taps: Array2<f64>,
    bias: Option<Array1<f64>>,
}

impl Convolution {
    pub(super) fn read(part: &Part<'_>) -> Convolution {
        let [channels, 1, taps] = *part.shape("mixer.conv1d.weight") else { panic!("conv1d.weight is not [C, 1, K]") };
        let weight = part.vector("mixer.conv1d.weight").into_shape_with_order((channels, taps));
        Convolution { taps: weight.expect("C K elements"), bias: part.optional("mixer.conv1d.bias") }
    }

    /// Puts u `[C]` into the window and gives the convolution's output `[C]`.
    pub(super) fn apply(&self, u: &Array1<f64>, window: &mut Array2<f64>) -> Array1<f64> {
        for j in 1..window.ncols() {
            let newer = window.column(j).to_owned();
            window.column_mut(j - 1).assign(&newer);
        }
        let last = window.ncols() - 1;
        window.column_mut(last).assign(u);
        let mut sum = (&*window * &self.taps).sum_axis(Axis(1));
        if let Some(bias) = &self.bias {
            sum += bias;
        }
        sum.mapv(silu)
    }
}

/// W x + b.
pub(super) fn linear(weight: &Array2<f64>, bias: Option<&Array1<f64>>, x: &Array1<f64>) -> Array1<f64> {
    match bias {
        Some(bias) => weight.dot(x) + bias,
        None => weight.dot(x),
    }
}

/// RMS norm of one token.
pub(super) fn norm(x: &Array1<f64>, gain: &Array1<f64>, eps: f64) -> Array1<f64> {
    rms_norm(&x.clone().insert_axis(Axis(0)), gain, eps).remove_axis(Axis(0))
}

/// `state.conv.NN` and `state.ssm.NN` of each layer.
pub(super) fn states(memory: &[Memory]) -> Vec<(String, ArrayD<f64>)> {
    let windows = memory.iter().enumerate().map(|(i, m)| (format!("state.conv.{i:02}"), m.window.clone().into_dyn()));
    let states = memory.iter().enumerate().map(|(i, m)| (format!("state.ssm.{i:02}"), m.state.clone()));
    windows.chain(states).collect()
}
