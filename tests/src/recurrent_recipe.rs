//! Small random recurrent models written as they are published, so that promises need no download.

use crate::recipe::write_config;
use crate::tensors::{Tensor, Tensors};
use kernels::Rng;
use safetensors::Dtype;
use serde_json::{Value, json};
use std::path::Path;

/// Which model, by which names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Hugging Face's names.
    Mamba,
    /// Hugging Face's names.
    Mamba2,
    /// BlinkDL's names.
    Rwkv4,
    /// Hugging Face's names.
    Rwkv4HuggingFace,
    /// Version 5.0; BlinkDL's names, as all that follow.
    Rwkv5First,
    /// Version 5.1: the first with a gate.
    Rwkv5Gated,
    /// Version 5.2.
    Rwkv5,
    /// Version 6.
    Rwkv6,
    /// Version 7.
    Rwkv7,
}

/// What to write.
#[derive(Clone, Debug)]
pub struct RecurrentRecipe {
    /// What a failing promise calls it.
    pub name: &'static str,
    /// Which model.
    pub kind: Kind,
    /// Element type of everything: F32, BF16 or F16.
    pub store: Dtype,
    /// D (C in RWKV).
    pub width: usize,
    /// E, the inner channels of Mamba; the channel mix's in RWKV.
    pub inner: usize,
    /// L.
    pub layers: usize,
    /// V.
    pub vocab: usize,
    /// P in Mamba-2, N in RWKV-5 to 7: a head's channels.
    pub head_width: usize,
    /// N, numbers of state to a channel of Mamba.
    pub states: usize,
    /// G of Mamba-2.
    pub groups: usize,
    /// The least and the largest step of Mamba-2; unbounded where there is none.
    pub limits: Option<(f64, f64)>,
    /// K, taps of Mamba's convolution.
    pub taps: usize,
    /// R of Mamba's step size; RWKV-6 and 7 use it, and other ones close to it, for all products of low rank.
    pub rank: usize,
    /// Whether the head is the embedding (Mamba).
    pub tied: bool,
    /// Whether Mamba's projections have biases.
    pub bias: bool,
}

const BASE: RecurrentRecipe = RecurrentRecipe {
    name: "",
    kind: Kind::Mamba,
    store: Dtype::F32,
    width: 48,
    inner: 96,
    layers: 2,
    vocab: 97,
    head_width: 16,
    states: 16,
    groups: 1,
    limits: None,
    taps: 4,
    rank: 5,
    tied: true,
    bias: false,
};

/// One recipe for every form in which such models are published, with shapes that fit no block exactly.
pub const RECURRENT_RECIPES: &[RecurrentRecipe] = &[
    RecurrentRecipe { name: "mamba f32", ..BASE },
    RecurrentRecipe {
        name: "mamba bf16, odd widths, three taps, untied, biases",
        store: Dtype::BF16,
        width: 35,
        inner: 71,
        states: 11,
        taps: 3,
        rank: 3,
        tied: false,
        bias: true,
        ..BASE
    },
    RecurrentRecipe { name: "mamba f32, one layer, two taps", width: 33, inner: 66, layers: 1, taps: 2, ..BASE },
    RecurrentRecipe { name: "mamba2 f32", kind: Kind::Mamba2, ..BASE },
    RecurrentRecipe {
        name: "mamba2 bf16, three groups, odd widths, limited steps, three taps, untied, biases",
        kind: Kind::Mamba2,
        store: Dtype::BF16,
        width: 37,
        inner: 66,
        head_width: 11,
        states: 13,
        groups: 3,
        limits: Some((0.08, 0.4)),
        taps: 3,
        tied: false,
        bias: true,
        ..BASE
    },
    RecurrentRecipe {
        name: "mamba2 f32, two groups, heads of 64, two taps",
        kind: Kind::Mamba2,
        width: 64,
        inner: 128,
        head_width: 64,
        states: 32,
        groups: 2,
        taps: 2,
        ..BASE
    },
    RecurrentRecipe {
        name: "mamba2 f32, as many groups as heads, five taps",
        kind: Kind::Mamba2,
        width: 40,
        inner: 72,
        head_width: 9,
        states: 7,
        groups: 8,
        taps: 5,
        ..BASE
    },
    RecurrentRecipe { name: "rwkv4 f32", kind: Kind::Rwkv4, inner: 180, ..BASE },
    RecurrentRecipe {
        name: "rwkv4 bf16, odd widths",
        kind: Kind::Rwkv4,
        store: Dtype::BF16,
        width: 35,
        inner: 77,
        layers: 3,
        ..BASE
    },
    RecurrentRecipe { name: "rwkv4 by other names", kind: Kind::Rwkv4HuggingFace, inner: 192, ..BASE },
    RecurrentRecipe { name: "rwkv5.0 f32, heads of 8", kind: Kind::Rwkv5First, head_width: 8, ..BASE },
    RecurrentRecipe { name: "rwkv5.1 f32", kind: Kind::Rwkv5Gated, inner: 168, ..BASE },
    RecurrentRecipe {
        name: "rwkv5.1 bf16, heads of 9",
        kind: Kind::Rwkv5Gated,
        store: Dtype::BF16,
        width: 45,
        inner: 101,
        head_width: 9,
        layers: 3,
        ..BASE
    },
    RecurrentRecipe { name: "rwkv5.2 f32, heads of 8", kind: Kind::Rwkv5, head_width: 8, inner: 168, ..BASE },
    RecurrentRecipe {
        name: "rwkv5.2 bf16, heads of 64",
        kind: Kind::Rwkv5,
        store: Dtype::BF16,
        width: 128,
        inner: 200,
        head_width: 64,
        ..BASE
    },
    RecurrentRecipe { name: "rwkv6 f32, heads of 16", kind: Kind::Rwkv6, inner: 168, ..BASE },
    RecurrentRecipe {
        name: "rwkv6 bf16, heads of 12",
        kind: Kind::Rwkv6,
        store: Dtype::BF16,
        width: 36,
        inner: 91,
        head_width: 12,
        rank: 7,
        layers: 3,
        ..BASE
    },
    RecurrentRecipe { name: "rwkv7 f32, heads of 16", kind: Kind::Rwkv7, inner: 192, layers: 3, ..BASE },
    RecurrentRecipe {
        name: "rwkv7 bf16, heads of 20",
        kind: Kind::Rwkv7,
        store: Dtype::BF16,
        width: 60,
        inner: 133,
        head_width: 20,
        rank: 9,
        ..BASE
    },
    RecurrentRecipe {
        name: "rwkv7 f32, one head of 64",
        kind: Kind::Rwkv7,
        width: 64,
        inner: 256,
        head_width: 64,
        rank: 32,
        ..BASE
    },
];

/// How numbers of a tensor are drawn.
#[derive(Clone, Copy)]
enum Draw {
    /// Mean and standard deviation.
    Normal(f32, f32),
    /// From, to.
    Uniform(f32, f32),
    /// ln(1), ln(2), ... along the last extent, each with a little noise: how Mamba begins.
    Logarithms,
}

use Draw::{Normal, Uniform};

/// The tensors under way.
struct Writer<'a> {
    rng: Rng,
    store: Dtype,
    all: &'a mut Tensors,
}

impl Writer<'_> {
    fn put(&mut self, name: &str, shape: &[usize], draw: Draw) {
        let last = shape[shape.len() - 1];
        let mut value = |i: usize| match draw {
            Normal(mean, spread) => mean + spread * self.rng.normal(),
            Uniform(from, to) => from + (to - from) * self.rng.unit(),
            Draw::Logarithms => ((i % last + 1) as f32).ln() + 0.1 * self.rng.normal(),
        };
        let values: Vec<f32> = (0..shape.iter().product()).map(&mut value).collect();
        self.all.insert(name, Tensor::store(&values, shape.to_vec(), self.store));
    }

    /// A matrix whose product with numbers of size 1 has size about `gain`.
    fn matrix(&mut self, name: &str, rows: usize, cols: usize, gain: f32) {
        self.put(name, &[rows, cols], Normal(0.0, gain / (cols as f32).sqrt()));
    }

    /// The same stored the other way round, `[from, to]`.
    fn transposed(&mut self, name: &str, from: usize, to: usize, gain: f32) {
        self.put(name, &[from, to], Normal(0.0, gain / (from as f32).sqrt()));
    }

    fn gain(&mut self, name: &str, n: usize) {
        self.put(name, &[n], Normal(1.0, 0.1));
    }

    fn layer_norm(&mut self, name: &str, n: usize) {
        self.gain(&format!("{name}.weight"), n);
        self.put(&format!("{name}.bias"), &[n], Normal(0.0, 0.1));
    }
}

impl RecurrentRecipe {
    /// How many of the first blocks are a function of their input alone: later ones of RWKV-7 need the first one's values.
    pub fn blocks_alone(&self) -> usize {
        if self.kind == Kind::Rwkv7 { 1 } else { self.layers }
    }

    /// Writes the weights, and `config.json` where the form has one, and returns both.
    ///
    /// # Panics
    /// If the folder cannot be written.
    pub fn write(&self, folder: &Path, seed: u64) -> (Option<Value>, Tensors) {
        let (config, tensors) = (self.config(), self.tensors(seed));
        if let Some(config) = &config {
            write_config(folder, config);
        }
        tensors.save(&folder.join("model.safetensors"));
        (config, tensors)
    }

    /// `config.json`; none with BlinkDL's names.
    pub fn config(&self) -> Option<Value> {
        let dtype = match self.store {
            Dtype::BF16 => "bfloat16",
            Dtype::F16 => "float16",
            _ => "float32",
        };
        let mut config = json!({
            "hidden_size": self.width,
            "intermediate_size": self.inner,
            "num_hidden_layers": self.layers,
            "vocab_size": self.vocab,
            "layer_norm_epsilon": 1e-5,
            "torch_dtype": dtype,
            "bos_token_id": 0,
            "eos_token_id": 0,
        });
        let more = match self.kind {
            Kind::Mamba => json!({
                "architectures": ["MambaForCausalLM"],
                "model_type": "mamba",
                "time_step_rank": self.rank,
            }),
            Kind::Mamba2 => json!({
                "architectures": ["Mamba2ForCausalLM"],
                "model_type": "mamba2",
                "num_heads": self.inner / self.head_width,
                "head_dim": self.head_width,
                "n_groups": self.groups,
                "chunk_size": 16,
                "time_step_limit": match self.limits {
                    Some((least, largest)) => json!([least, largest]),
                    // Infinity is not a number in JSON.
                    None => json!([0.0, { "__float__": "Infinity" }]),
                },
            }),
            Kind::Rwkv4HuggingFace => json!({
                "architectures": ["RwkvForCausalLM"],
                "model_type": "rwkv",
                "attention_hidden_size": self.width,
                "context_length": 1024,
                "rescale_every": 6,
                "tie_word_embeddings": false,
            }),
            _ => return None,
        };
        config.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        if matches!(self.kind, Kind::Mamba | Kind::Mamba2) {
            let mamba = json!({
                "hidden_act": "silu",
                "state_size": self.states,
                "conv_kernel": self.taps,
                // Real models have a whole number here; what counts is intermediate_size.
                "expand": self.inner as f64 / self.width as f64,
                "use_bias": self.bias,
                "use_conv_bias": true,
                "residual_in_fp32": true,
                "tie_word_embeddings": self.tied,
            });
            config.as_object_mut().expect("an object").extend(mamba.as_object().expect("an object").clone());
        }
        Some(config)
    }

    /// Random weights of such sizes that logits spread by about 2 and states matter.
    pub fn tensors(&self, seed: u64) -> Tensors {
        let mut all = Tensors::default();
        let mut writer = Writer { rng: Rng::new(seed), store: self.store, all: &mut all };
        match self.kind {
            Kind::Mamba | Kind::Mamba2 => self.mamba(&mut writer),
            _ => self.rwkv(&mut writer),
        }
        all
    }

    fn mamba(&self, w: &mut Writer<'_>) {
        let (d, e, n) = (self.width, self.inner, self.states);
        w.matrix("backbone.embeddings.weight", self.vocab, d, 2.0);
        if !self.tied {
            w.matrix("lm_head.weight", self.vocab, d, 2.0);
        }
        w.gain("backbone.norm_f.weight", d);
        for layer in 0..self.layers {
            let name = |part: &str| format!("backbone.layers.{layer}.{part}");
            let mixer = |part: &str| format!("backbone.layers.{layer}.mixer.{part}");
            w.gain(&name("norm.weight"), d);
            let heads = e / self.head_width;
            let (rows, channels) = match self.kind {
                Kind::Mamba => (2 * e, e),
                _ => (2 * e + 2 * self.groups * n + heads, e + 2 * self.groups * n),
            };
            w.matrix(&mixer("in_proj.weight"), rows, d, 1.0);
            w.matrix(&mixer("out_proj.weight"), d, e, 1.0);
            if self.bias {
                w.put(&mixer("in_proj.bias"), &[rows], Normal(0.0, 0.2));
                w.put(&mixer("out_proj.bias"), &[d], Normal(0.0, 0.2));
            }
            w.put(&mixer("conv1d.weight"), &[channels, 1, self.taps], Normal(0.0, 1.5 / (self.taps as f32).sqrt()));
            w.put(&mixer("conv1d.bias"), &[channels], Normal(0.0, 0.2));
            // Steps of about 0.05 to 0.5.
            let step = Uniform(-3.0, -0.5);
            if self.kind == Kind::Mamba {
                w.matrix(&mixer("x_proj.weight"), self.rank + 2 * n, e, 1.5);
                w.matrix(&mixer("dt_proj.weight"), e, self.rank, 0.5);
                w.put(&mixer("dt_proj.bias"), &[e], step);
                w.put(&mixer("A_log"), &[e, n], Draw::Logarithms);
                w.gain(&mixer("D"), e);
            } else {
                w.put(&mixer("dt_bias"), &[heads], step);
                w.put(&mixer("A_log"), &[heads], Uniform(0.0, 2.5));
                w.gain(&mixer("D"), heads);
                w.gain(&mixer("norm.weight"), e);
            }
        }
    }

    fn rwkv(&self, w: &mut Writer<'_>) {
        let (c, f) = (self.width, self.inner);
        let hugging_face = self.kind == Kind::Rwkv4HuggingFace;
        let trunk = if hugging_face { "rwkv." } else { "" };
        let embedding = if hugging_face { "rwkv.embeddings.weight" } else { "emb.weight" };
        w.put(embedding, &[self.vocab, c], Normal(0.0, 0.5));
        w.matrix("head.weight", self.vocab, c, 2.0);
        w.layer_norm(&format!("{trunk}ln_out"), c);
        w.layer_norm(&format!("{trunk}blocks.0.{}", if hugging_face { "pre_ln" } else { "ln0" }), c);
        for layer in 0..self.layers {
            let block = format!("{trunk}blocks.{layer}");
            let (att, ffn) = if hugging_face { ("attention", "feed_forward") } else { ("att", "ffn") };
            let (att, ffn) = (format!("{block}.{att}"), format!("{block}.{ffn}"));
            w.layer_norm(&format!("{block}.ln1"), c);
            w.layer_norm(&format!("{block}.ln2"), c);
            for (name, gain) in [("receptance", 1.0), ("key", 1.0), ("value", 1.0), ("output", 0.7)] {
                w.matrix(&format!("{att}.{name}.weight"), c, c, gain);
            }
            w.matrix(&format!("{ffn}.key.weight"), f, c, 1.0);
            w.matrix(&format!("{ffn}.value.weight"), c, f, 0.7);
            if self.kind != Kind::Rwkv7 {
                w.matrix(&format!("{ffn}.receptance.weight"), c, c, 1.0);
            }
            self.time(w, &att, layer);
            let (mix, names): (&str, &[&str]) = match self.kind {
                Kind::Rwkv4HuggingFace => ("time_mix_", &["key", "receptance"]),
                Kind::Rwkv6 => ("time_maa_", &["k", "r"]),
                Kind::Rwkv7 => ("x_", &["k"]),
                _ => ("time_mix_", &["k", "r"]),
            };
            for name in names {
                w.put(&format!("{ffn}.{mix}{name}"), &[1, 1, c], Uniform(0.0, 1.0));
            }
        }
    }

    /// What time mixing has beside its four matrices.
    fn time(&self, w: &mut Writer<'_>, att: &str, layer: usize) {
        let (c, n, r) = (self.width, self.head_width, self.rank);
        let heads = c / n;
        let (mix, names): (&str, &[&str]) = match self.kind {
            Kind::Rwkv4 | Kind::Rwkv5First => ("time_mix_", &["k", "v", "r"]),
            Kind::Rwkv4HuggingFace => ("time_mix_", &["key", "value", "receptance"]),
            Kind::Rwkv5Gated | Kind::Rwkv5 => ("time_mix_", &["k", "v", "r", "g"]),
            Kind::Rwkv6 => ("time_maa_", &["x", "w", "k", "v", "r", "g"]),
            _ => ("x_", &["r", "w", "k", "v", "a", "g"]),
        };
        for name in names {
            w.put(&format!("{att}.{mix}{name}"), &[1, 1, c], Uniform(0.0, 1.0));
        }
        let name = |part: &str| format!("{att}.{part}");
        if !matches!(self.kind, Kind::Rwkv4 | Kind::Rwkv4HuggingFace) {
            assert_eq!(heads * n, c, "{}: whole heads", self.name);
            w.layer_norm(&name("ln_x"), c);
        }
        let decay = Uniform(-5.0, 0.0);
        match self.kind {
            Kind::Rwkv4 | Kind::Rwkv4HuggingFace => {
                w.put(&name("time_decay"), &[c], Uniform(-5.0, 1.0));
                w.put(&name("time_first"), &[c], Normal(-1.0, 0.5));
            }
            Kind::Rwkv5First | Kind::Rwkv5Gated => {
                w.put(&name("time_decay"), &[heads], decay);
                w.put(&name("time_first"), &[heads], Normal(-1.0, 0.5));
                if self.kind == Kind::Rwkv5Gated {
                    w.matrix(&name("gate.weight"), c, c, 1.0);
                }
            }
            Kind::Rwkv5 => {
                w.put(&name("time_decay"), &[heads, n], decay);
                w.put(&name("time_faaaa"), &[heads, n], Normal(0.3, 0.3));
                w.matrix(&name("gate.weight"), c, c, 1.0);
            }
            Kind::Rwkv6 => {
                w.transposed(&name("time_maa_w1"), c, 5 * r, 1.0);
                w.put(&name("time_maa_w2"), &[5, r, c], Normal(0.0, 0.3 / (r as f32).sqrt()));
                w.put(&name("time_decay"), &[1, 1, c], decay);
                w.transposed(&name("time_decay_w1"), c, r + 3, 1.0);
                w.transposed(&name("time_decay_w2"), r + 3, c, 0.7);
                w.put(&name("time_faaaa"), &[heads, n], Normal(0.3, 0.3));
                w.matrix(&name("gate.weight"), c, c, 1.0);
            }
            _ => {
                let mut low_rank = |letter: &str, rank: usize, base: Draw| {
                    w.put(&name(&format!("{letter}0")), &[1, 1, c], base);
                    w.transposed(&name(&format!("{letter}1")), c, rank, 1.0);
                    w.transposed(&name(&format!("{letter}2")), rank, c, 0.7);
                };
                low_rank("w", r, Uniform(-6.0, 0.0));
                low_rank("a", r + 1, Normal(0.0, 0.5));
                if layer > 0 {
                    low_rank("v", r + 2, Normal(0.5, 0.5));
                }
                w.transposed(&name("g1"), c, r + 3, 1.0);
                w.transposed(&name("g2"), r + 3, c, 2.0);
                w.put(&name("k_k"), &[1, 1, c], Normal(0.85, 0.1));
                w.put(&name("k_a"), &[1, 1, c], Normal(1.0, 0.1));
                w.put(&name("r_k"), &[heads, n], Normal(0.0, 0.1));
            }
        }
    }
}
