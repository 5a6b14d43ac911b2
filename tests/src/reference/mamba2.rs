//! Mamba-2: state spaces with one decay to a head, token by token (the paper computes the same in chunks).
//!
//! Width H, E = heads P inner channels, G groups that share B and C, N numbers of state to a channel. Each layer does, for a
//! token's x `[H]`:
//!
//! ```text
//! (z, xBC, dt) = W_in rms(x)                    [E], [E + 2GN], [heads]
//! (u, B, C)    = silu(conv(xBC))                [heads, P], [G, N], [G, N]
//! dt           = clamp(softplus(dt + dt_bias), the config's limits)
//! S_h          = exp(dt_h A_h) S_h + dt_h u_h B_g^T      [P, N], with A = -exp(A_log) and g = h / (heads / G)
//! y_h          = S_h C_g + D_h u_h
//! x           += W_out rms_groups(y silu(z))    the norm over each E / G channels, after the gate
//! ```
//!
//! Source: Transformers are SSMs, arXiv 2405.21060, sections 5 to 7. With several groups, programs differ: this follows the
//! authors' program; the plain path of transformers norms all E channels at once, whatever G. Of one group all say the
//! same, and golden files have one.

use super::mamba::{Convolution, Frame, Memory, linear, norm, states};
use super::recurrent::{Part, Recurrent, layers, silu, softplus};
use crate::tensors::Tensors;
use ndarray::{Array1, Array2, ArrayD, IxDyn, s};
use serde_json::Value;

/// Mamba-2 by Hugging Face's names.
#[derive(Debug)]
pub struct Mamba2 {
    frame: Frame,
    /// G.
    groups: usize,
    /// The least and the largest dt.
    limits: (f64, f64),
    layers: Vec<Layer>,
}

#[derive(Debug)]
struct Layer {
    norm: Array1<f64>,
    /// `[2E + 2GN + heads, H]`.
    input: Array2<f64>,
    input_bias: Option<Array1<f64>>,
    convolution: Convolution,
    /// `[heads]`.
    step_bias: Array1<f64>,
    /// A `[heads]`.
    decay: Array1<f64>,
    /// D `[heads]`.
    skip: Array1<f64>,
    /// `[E]`.
    gated_norm: Array1<f64>,
    /// `[H, E]`.
    output: Array2<f64>,
    output_bias: Option<Array1<f64>>,
}

/// Heads, P and N.
struct Sizes {
    heads: usize,
    width: usize,
    states: usize,
}

impl Mamba2 {
    /// Takes a model from `config.json` and its tensors.
    pub fn from_tensors(config: &Value, tensors: &Tensors) -> Mamba2 {
        let layer = |index: usize| {
            let part = Part::new(tensors, format!("backbone.layers.{index}."));
            Layer {
                norm: part.vector("norm.weight"),
                input: part.matrix("mixer.in_proj.weight"),
                input_bias: part.optional("mixer.in_proj.bias"),
                convolution: Convolution::read(&part),
                step_bias: part.vector("mixer.dt_bias"),
                decay: part.vector("mixer.A_log").mapv(|a| -a.exp()),
                skip: part.vector("mixer.D"),
                gated_norm: part.vector("mixer.norm.weight"),
                output: part.matrix("mixer.out_proj.weight"),
                output_bias: part.optional("mixer.out_proj.bias"),
            }
        };
        let count = layers(tensors, "backbone.layers.", ".norm.weight");
        // Infinity is not a number in JSON: it comes as an object or as null.
        let limit = &config["time_step_limit"];
        Mamba2 {
            frame: Frame::read(config, tensors),
            groups: config["n_groups"].as_u64().expect("config.json has n_groups") as usize,
            limits: (limit[0].as_f64().unwrap_or(0.0), limit[1].as_f64().unwrap_or(f64::INFINITY)),
            layers: (0..count).map(layer).collect(),
        }
    }

    fn sizes(&self, layer: &Layer) -> Sizes {
        let (heads, inner, channels) = (layer.decay.len(), layer.gated_norm.len(), layer.convolution.taps.nrows());
        Sizes { heads, width: inner / heads, states: (channels - inner) / (2 * self.groups) }
    }

    /// What the layer adds to x.
    fn mix(&self, layer: &Layer, x: &Array1<f64>, memory: &mut Memory) -> Array1<f64> {
        let (Sizes { heads, width, states }, groups) = (self.sizes(layer), self.groups);
        let (inner, channels) = (heads * width, heads * width + 2 * groups * states);
        let all = linear(&layer.input, layer.input_bias.as_ref(), &norm(x, &layer.norm, self.frame.eps));
        let z = all.slice(s![..inner]);
        let convolved = layer.convolution.apply(&all.slice(s![inner..inner + channels]).to_owned(), &mut memory.window);
        let u = convolved.slice(s![..inner]);
        let b = convolved.slice(s![inner..inner + groups * states]);
        let c = convolved.slice(s![inner + groups * states..]);
        let dt = (&all.slice(s![inner + channels..]) + &layer.step_bias).mapv(softplus);
        let dt = dt.mapv(|dt| dt.clamp(self.limits.0, self.limits.1));

        let mut y = Array1::zeros(inner);
        for h in 0..heads {
            let group = h / (heads / groups);
            let decay = (dt[h] * layer.decay[h]).exp();
            for p in 0..width {
                let e = h * width + p;
                for n in 0..states {
                    let s = &mut memory.state[[h, p, n]];
                    *s = decay * *s + dt[h] * u[e] * b[group * states + n];
                    y[e] += *s * c[group * states + n];
                }
                y[e] = (y[e] + layer.skip[h] * u[e]) * silu(z[e]);
            }
        }
        for group in 0..groups {
            let channels = s![group * (inner / groups)..(group + 1) * (inner / groups)];
            let normed =
                norm(&y.slice(channels).to_owned(), &layer.gated_norm.slice(channels).to_owned(), self.frame.eps);
            y.slice_mut(channels).assign(&normed);
        }
        linear(&layer.output, layer.output_bias.as_ref(), &y)
    }
}

impl Recurrent for Mamba2 {
    type Memory = Memory;

    fn vocab(&self) -> usize {
        self.frame.head.nrows()
    }

    fn start(&self) -> Vec<Memory> {
        let memory = |layer: &Layer| {
            let Sizes { heads, width, states } = self.sizes(layer);
            Memory {
                window: Array2::zeros(layer.convolution.taps.dim()),
                state: ArrayD::zeros(IxDyn(&[heads, width, states])),
            }
        };
        self.layers.iter().map(memory).collect()
    }

    fn embed(&self, token: u32) -> Array1<f64> {
        self.frame.embedding.row(token as usize).to_owned()
    }

    fn layer(&self, index: usize, x: &Array1<f64>, memory: &mut Memory, _: &mut Option<Array1<f64>>) -> Array1<f64> {
        x + self.mix(&self.layers[index], x, memory)
    }

    fn finish(&self, x: &Array1<f64>) -> (Array1<f64>, Array1<f64>) {
        self.frame.finish(x)
    }

    fn states(&self, memory: &[Memory]) -> Vec<(String, ArrayD<f64>)> {
        states(memory)
    }
}
