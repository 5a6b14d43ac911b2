//! A plain f64 forward pass of BitNet b1.58, Llama, and Llama with BitLinear: one step a line, no cache, no batching.
//! Recurrent models have a file each, and their equations there; [`open`] reads any model.
//!
//! Sources: Llama, arXiv 2302.13971; RMSNorm, arXiv 1910.07467; RoPE, arXiv 2104.09864; grouped queries,
//! arXiv 2305.13245; BitNet b1.58, arXiv 2402.17764, with sub-norms and squared ReLU as in BitNet b1.58 2B4T,
//! arXiv 2504.12285.

mod config;
mod linear;
mod llama2c;
mod mamba;
mod mamba2;
mod pieces;
mod quantise;
mod recurrent;
mod rwkv;
mod rwkv4;
mod rwkv5;
mod rwkv6;
mod rwkv7;

pub use config::{Config, Gate, Linears, Pairs};
pub use mamba::Mamba;
pub use mamba2::Mamba2;
pub use pieces::Pieces;
pub use quantise::{LEVELS, absmax, absmean, pack, unpack};
pub use recurrent::{Oracle, Recurrent, Run, Step};
pub use rwkv::{Mixes, Rwkv, standardise};
pub use rwkv4::Rwkv4;
pub use rwkv5::Rwkv5;
pub use rwkv6::Rwkv6;
pub use rwkv7::Rwkv7;

use crate::tensors::Tensors;
use linear::Linear;
use ndarray::{Array1, Array2, ArrayView1, Axis, s};
use std::path::Path;

/// A model: configuration and weights, all f64.
#[derive(Debug)]
pub struct Reference {
    /// Sizes and constants.
    pub config: Config,
    /// Activation levels: 127, but for negative controls.
    pub levels: f64,
    /// `[V, D]`.
    embedding: Array2<f64>,
    blocks: Vec<Block>,
    /// `[D]`.
    norm: Array1<f64>,
    /// `[V, D]`.
    head: Array2<f64>,
}

#[derive(Debug)]
struct Block {
    attention_norm: Array1<f64>,
    query: Linear,
    key: Linear,
    value: Linear,
    attention_sub_norm: Option<Array1<f64>>,
    output: Linear,
    mlp_norm: Array1<f64>,
    gate: Linear,
    up: Linear,
    mlp_sub_norm: Option<Array1<f64>>,
    down: Linear,
}

/// What one pass over T tokens leaves.
#[derive(Debug)]
pub struct Pass {
    /// The embedding output, then the output of each block, `[T, D]`.
    pub hidden: Vec<Array2<f64>>,
    /// After the final norm, `[T, D]`.
    pub normed: Array2<f64>,
    /// `[T, V]`.
    pub logits: Array2<f64>,
}

impl Reference {
    /// Reads a Hugging Face folder.
    ///
    /// # Panics
    /// On anything unexpected: the oracle reads only files that are known to be good.
    pub fn open(folder: &Path) -> Reference {
        Reference::from_tensors(Config::open(folder), &Tensors::of_model(folder))
    }

    /// Takes weights by their Hugging Face names.
    pub fn from_tensors(config: Config, tensors: &Tensors) -> Reference {
        let (d, e, k) = (config.width, config.inner, config.head_width);
        let (queries, keys) = (config.heads * k, config.kv_heads * k);
        let vector = |name: &str| Array1::from(tensors.tensor(name).f64s());
        let table = |name: &str| {
            Array2::from_shape_vec((config.vocab, d), tensors.tensor(name).f64s()).expect("a table [V, D]")
        };
        let block = |index: usize| {
            let linear = |name: &str, rows: usize, cols: usize| {
                Linear::read(tensors, &config, &format!("model.layers.{index}.{name}"), rows, cols)
            };
            let gain = |name: &str| vector(&format!("model.layers.{index}.{name}.weight"));
            Block {
                attention_norm: gain("input_layernorm"),
                query: linear("self_attn.q_proj", queries, d),
                key: linear("self_attn.k_proj", keys, d),
                value: linear("self_attn.v_proj", keys, d),
                attention_sub_norm: config.sub_norms.then(|| gain("self_attn.attn_sub_norm")),
                output: linear("self_attn.o_proj", d, queries),
                mlp_norm: gain("post_attention_layernorm"),
                gate: linear("mlp.gate_proj", e, d),
                up: linear("mlp.up_proj", e, d),
                mlp_sub_norm: config.sub_norms.then(|| gain("mlp.ffn_sub_norm")),
                down: linear("mlp.down_proj", d, e),
            }
        };
        let embedding = table("model.embed_tokens.weight");
        Reference {
            blocks: (0..config.layers).map(block).collect(),
            norm: vector("model.norm.weight"),
            head: if config.tied { embedding.clone() } else { table("lm_head.weight") },
            embedding,
            levels: LEVELS,
            config,
        }
    }

    /// Runs the model over a whole sequence that starts at position 0.
    pub fn run(&self, tokens: &[u32]) -> Pass {
        let mut x =
            Array2::from_shape_fn((tokens.len(), self.config.width), |(t, i)| self.embedding[[tokens[t] as usize, i]]);
        let mut hidden = vec![x.clone()];
        for index in 0..self.blocks.len() {
            x = self.block(index, &x);
            hidden.push(x.clone());
        }
        let normed = rms_norm(&x, &self.norm, self.config.eps);
        let logits = normed.dot(&self.head.t());
        Pass { hidden, normed, logits }
    }

    /// Block `index` on x `[T, D]` at positions 0..T.
    pub fn block(&self, index: usize, x: &Array2<f64>) -> Array2<f64> {
        let (block, eps) = (&self.blocks[index], self.config.eps);
        let x = x + &self.attention(block, &rms_norm(x, &block.attention_norm, eps));
        let inner = self.inner(block, &rms_norm(&x, &block.mlp_norm, eps));
        x + block.down.apply(&inner, self.levels)
    }

    /// The codes that block `index` quantises the inputs of its query and down projections to, given its input x.
    pub fn codes(&self, index: usize, x: &Array2<f64>) -> (Array2<f64>, Array2<f64>) {
        let (block, eps) = (&self.blocks[index], self.config.eps);
        let h = rms_norm(x, &block.attention_norm, eps);
        let x = x + &self.attention(block, &h);
        (block.query.codes(&h), block.down.codes(&self.inner(block, &rms_norm(&x, &block.mlp_norm, eps))))
    }

    /// Multi-head causal attention on normalised h `[T, D]`.
    fn attention(&self, block: &Block, h: &Array2<f64>) -> Array2<f64> {
        let Config { heads, kv_heads, head_width: k, .. } = self.config;
        let queries = self.rope(block.query.apply(h, self.levels));
        let keys = self.rope(block.key.apply(h, self.levels));
        let values = block.value.apply(h, self.levels);
        let mut out = Array2::zeros(queries.dim());
        for head in 0..heads {
            // Several query heads share one key/value head.
            let shared = head / (heads / kv_heads);
            let query = queries.slice(s![.., head * k..(head + 1) * k]);
            let key = keys.slice(s![.., shared * k..(shared + 1) * k]);
            let value = values.slice(s![.., shared * k..(shared + 1) * k]);
            let mut scores = query.dot(&key.t()) / (k as f64).sqrt();
            for (t, mut row) in scores.outer_iter_mut().enumerate() {
                row.slice_mut(s![t + 1..]).fill(f64::NEG_INFINITY);
                let weights = softmax(row.view());
                row.assign(&weights);
            }
            out.slice_mut(s![.., head * k..(head + 1) * k]).assign(&scores.dot(&value));
        }
        if let Some(gain) = &block.attention_sub_norm {
            out = rms_norm(&out, gain, self.config.eps);
        }
        block.output.apply(&out, self.levels)
    }

    /// The input `[T, E]` of the down projection.
    fn inner(&self, block: &Block, h: &Array2<f64>) -> Array2<f64> {
        let activation = |gate: f64| match self.config.gate {
            Gate::SquaredRelu => gate.max(0.0).powi(2),
            Gate::Silu => gate / (1.0 + (-gate).exp()),
        };
        let inner = block.gate.apply(h, self.levels).mapv(activation) * block.up.apply(h, self.levels);
        match &block.mlp_sub_norm {
            Some(gain) => rms_norm(&inner, gain, self.config.eps),
            None => inner,
        }
    }

    /// Rotates the heads of x `[T, H K]` by position (RoFormer, eq. 34).
    fn rope(&self, mut x: Array2<f64>) -> Array2<f64> {
        let k = self.config.head_width;
        for (position, mut token) in x.outer_iter_mut().enumerate() {
            for head in 0..token.len() / k {
                for pair in 0..k / 2 {
                    let (a, b) = match self.config.pairs {
                        Pairs::HalfSplit => (head * k + pair, head * k + pair + k / 2),
                        Pairs::Interleaved => (head * k + 2 * pair, head * k + 2 * pair + 1),
                    };
                    let angle = position as f64 * self.config.theta.powf(-2.0 * pair as f64 / k as f64);
                    let (sin, cos) = angle.sin_cos();
                    (token[a], token[b]) = (token[a] * cos - token[b] * sin, token[b] * cos + token[a] * sin);
                }
            }
        }
        x
    }
}

/// Epsilon of the norm of each head (`ln_x`) in published models of RWKV-5 to 7.
pub const GROUP_NORM_EPS: f64 = 64e-5;

/// Reads any model: a Hugging Face folder, or one that holds only `model.safetensors` with BlinkDL's names, whose version
/// is what its tensors say. `eps` is that of `ln_x` in RWKV-5 to 7, which no file says.
///
/// # Panics
/// On anything unexpected: the oracle reads only files that are known to be good.
pub fn open(folder: &Path, eps: f64) -> Box<dyn Oracle> {
    let tensors = Tensors::of_model(folder);
    let has = |name: &str| tensors.get(&format!("blocks.0.att.{name}")).is_some();
    let path = folder.join("config.json");
    let json = match std::fs::read_to_string(&path) {
        Ok(text) => serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display())),
        Err(_) => serde_json::Value::Null,
    };
    // Of RWKV-4 to 7 by their author's names, a config says nothing that the tensors do not.
    match json["model_type"].as_str().filter(|kind| !["rwkv4", "rwkv5", "rwkv6", "rwkv7"].contains(kind)) {
        Some("mamba") => Box::new(Mamba::from_tensors(&json, &tensors)),
        Some("mamba2") => Box::new(Mamba2::from_tensors(&json, &tensors)),
        Some("rwkv") => Box::new(Rwkv4::from_tensors(&tensors)),
        Some(_) => Box::new(Reference::from_tensors(Config::from_json(&json), &tensors)),
        None if has("r_k") => Box::new(Rwkv7::from_tensors(&tensors, eps)),
        None if has("time_maa_x") => Box::new(Rwkv6::from_tensors(&tensors, eps)),
        None if has("ln_x.weight") => Box::new(Rwkv5::from_tensors(&tensors, eps)),
        None => Box::new(Rwkv4::from_tensors(&tensors)),
    }
}

/// x / sqrt(mean(x^2) + eps) * gain, for each row of x `[T, D]` (arXiv 1910.07467, eq. 4).
pub fn rms_norm(x: &Array2<f64>, gain: &Array1<f64>, eps: f64) -> Array2<f64> {
    let root = x.map_axis(Axis(1), |row| (row.mapv(|v| v * v).mean().unwrap_or(0.0) + eps).sqrt());
    x / &root.insert_axis(Axis(1)) * gain
}

/// exp(x - max x) / sum.
pub fn softmax(x: ArrayView1<'_, f64>) -> Array1<f64> {
    let max = x.fold(f64::NEG_INFINITY, |max, value| max.max(*value));
    let e = x.mapv(|value| (value - max).exp());
    let sum = e.sum();
    e / sum
}
