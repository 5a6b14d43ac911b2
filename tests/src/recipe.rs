//! Small random models written in every published form, so that promises need no download.

use crate::reference::pack;
use crate::tensors::{Tensor, Tensors};
use half::{bf16, f16};
use kernels::Rng;
use ndarray::Array2;
use safetensors::Dtype;
use serde_json::{Value, json};
use std::path::Path;

/// How linear layers are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Full precision, no quantisation.
    Dense,
    /// Master weights that are quantised on load.
    Online,
    /// uint8 of the autobitlinear class: `weight_scale` multiplies.
    Packed,
    /// uint8 of the bitlinear class: `weight_scale` divides; with or without a norm inside each layer.
    BitLinear {
        /// Whether each layer has `rms_norm.weight`.
        rms_norm: bool,
    },
}

/// What to write.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// What a failing promise calls it.
    pub name: &'static str,
    /// BitNet (sub-norms, squared ReLU) or Llama (SiLU).
    pub bitnet: bool,
    /// Linear layers.
    pub form: Form,
    /// Element type of everything that is not packed: F32, BF16 or F16.
    pub store: Dtype,
    /// D.
    pub width: usize,
    /// E.
    pub inner: usize,
    /// L.
    pub layers: usize,
    /// H.
    pub heads: usize,
    /// Key/value heads.
    pub kv_heads: usize,
    /// K; written to the config where it is not D / H.
    pub head_width: usize,
    /// V.
    pub vocab: usize,
    /// Whether the head is the embedding.
    pub tied: bool,
    /// Whether attention's projections have biases.
    pub attention_bias: bool,
    /// Whether the MLP's projections have biases.
    pub mlp_bias: bool,
    /// Files that the weights are spread over.
    pub shards: usize,
}

/// Positions of every model written here.
pub const CONTEXT: usize = 160;

const BASE: Recipe = Recipe {
    name: "",
    bitnet: true,
    form: Form::Online,
    store: Dtype::F32,
    width: 96,
    inner: 160,
    layers: 2,
    heads: 6,
    kv_heads: 2,
    head_width: 16,
    vocab: 97,
    tied: true,
    attention_bias: false,
    mlp_bias: false,
    shards: 1,
};

/// One recipe for every form in which such models are published, with shapes that fit no block exactly.
pub const RECIPES: &[Recipe] = &[
    Recipe { name: "bitnet online bf16", store: Dtype::BF16, ..BASE },
    Recipe {
        name: "bitnet online f32, untied, five heads to one",
        width: 80,
        inner: 112,
        heads: 5,
        kv_heads: 1,
        tied: false,
        ..BASE
    },
    Recipe {
        name: "bitnet packed",
        form: Form::Packed,
        store: Dtype::BF16,
        width: 64,
        inner: 176,
        heads: 4,
        kv_heads: 4,
        vocab: 131,
        ..BASE
    },
    Recipe {
        name: "bitnet packed with biases, sharded",
        form: Form::Packed,
        store: Dtype::BF16,
        heads: 3,
        kv_heads: 3,
        head_width: 32,
        attention_bias: true,
        shards: 3,
        ..BASE
    },
    Recipe { name: "bitnet in full precision (bf16)", form: Form::Dense, store: Dtype::BF16, ..BASE },
    Recipe {
        name: "bitnet in full precision (f32), untied",
        form: Form::Dense,
        width: 72,
        inner: 132,
        heads: 9,
        kv_heads: 3,
        head_width: 8,
        tied: false,
        ..BASE
    },
    Recipe {
        name: "llama bitlinear",
        bitnet: false,
        form: Form::BitLinear { rms_norm: false },
        store: Dtype::BF16,
        tied: false,
        ..BASE
    },
    Recipe {
        name: "llama bitlinear with norms and biases",
        bitnet: false,
        form: Form::BitLinear { rms_norm: true },
        store: Dtype::BF16,
        width: 80,
        inner: 144,
        heads: 4,
        kv_heads: 1,
        head_width: 20,
        attention_bias: true,
        mlp_bias: true,
        ..BASE
    },
    Recipe {
        name: "llama online with biases",
        bitnet: false,
        store: Dtype::BF16,
        attention_bias: true,
        mlp_bias: true,
        ..BASE
    },
    Recipe {
        name: "llama f16, seven heads to one, biases",
        bitnet: false,
        form: Form::Dense,
        store: Dtype::F16,
        width: 84,
        inner: 100,
        heads: 7,
        kv_heads: 1,
        head_width: 12,
        attention_bias: true,
        mlp_bias: true,
        tied: false,
        ..BASE
    },
    Recipe {
        name: "llama bf16, heads wider than the model, sharded",
        bitnet: false,
        form: Form::Dense,
        store: Dtype::BF16,
        width: 72,
        inner: 90,
        heads: 6,
        kv_heads: 3,
        head_width: 20,
        tied: false,
        shards: 2,
        ..BASE
    },
    Recipe {
        name: "llama f32, tied, one layer of odd width",
        bitnet: false,
        form: Form::Dense,
        layers: 1,
        width: 35,
        inner: 51,
        heads: 2,
        kv_heads: 2,
        head_width: 18,
        vocab: 33,
        ..BASE
    },
];

impl Recipe {
    /// Writes `config.json` and the weights, and returns them.
    ///
    /// # Panics
    /// If the folder cannot be written.
    pub fn write(&self, folder: &Path, seed: u64) -> (Value, Tensors) {
        let (config, tensors) = (self.config(), self.tensors(seed));
        write_config(folder, &config);
        if self.shards == 1 {
            tensors.save(&folder.join("model.safetensors"));
        } else {
            tensors.save_sharded(folder, self.shards);
        }
        (config, tensors)
    }

    /// Whether activations are quantised.
    pub fn is_quantised(&self) -> bool {
        self.form != Form::Dense
    }

    /// `config.json`.
    pub fn config(&self) -> Value {
        let mut config = json!({
            "architectures": [if self.bitnet { "BitNetForCausalLM" } else { "LlamaForCausalLM" }],
            "model_type": if self.bitnet { "bitnet" } else { "llama" },
            "hidden_act": if self.bitnet { "relu2" } else { "silu" },
            "hidden_size": self.width,
            "intermediate_size": self.inner,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "max_position_embeddings": CONTEXT,
            "vocab_size": self.vocab,
            "rms_norm_eps": if self.bitnet { 1e-5 } else { 1e-6 },
            "rope_theta": if self.bitnet { 500_000.0 } else { 10_000.0 },
            "tie_word_embeddings": self.tied,
            "attention_bias": self.attention_bias,
            "mlp_bias": self.mlp_bias,
            "torch_dtype": match self.store { Dtype::BF16 => "bfloat16", Dtype::F16 => "float16", _ => "float32" },
            "bos_token_id": 0,
            "eos_token_id": 0,
        });
        if self.head_width * self.heads != self.width {
            config["head_dim"] = json!(self.head_width);
        }
        let (class, mode) = match self.form {
            Form::Dense => return config,
            Form::Online => ("autobitlinear", "online"),
            Form::Packed => ("autobitlinear", "offline"),
            Form::BitLinear { .. } => ("bitlinear", "offline"),
        };
        config["quantization_config"] =
            json!({ "quant_method": "bitnet", "linear_class": class, "quantization_mode": mode });
        if self.form == (Form::BitLinear { rms_norm: true }) {
            config["quantization_config"]["use_rms_norm"] = json!(true);
            config["quantization_config"]["rms_norm_eps"] = json!(1e-6);
        }
        config
    }

    /// Random weights of such sizes that logits spread by about 2.
    pub fn tensors(&self, seed: u64) -> Tensors {
        let (d, e) = (self.width, self.inner);
        let (queries, keys) = (self.heads * self.head_width, self.kv_heads * self.head_width);
        let mut rng = Rng::new(seed);
        let mut all = Tensors::default();
        all.insert(
            "model.embed_tokens.weight",
            self.random(&mut rng, vec![self.vocab, d], 0.0, 2.0 / (d as f32).sqrt()),
        );
        if !self.tied {
            all.insert("lm_head.weight", self.random(&mut rng, vec![self.vocab, d], 0.0, 2.0 / (d as f32).sqrt()));
        }
        all.insert("model.norm.weight", self.random(&mut rng, vec![d], 1.0, 0.1));
        for layer in 0..self.layers {
            let mut gain = |name: &str, n: usize, all: &mut Tensors| {
                let gain = self.random(&mut rng, vec![n], 1.0, 0.1);
                all.insert(&format!("model.layers.{layer}.{name}.weight"), gain);
            };
            gain("input_layernorm", d, &mut all);
            gain("post_attention_layernorm", d, &mut all);
            if self.bitnet {
                gain("self_attn.attn_sub_norm", queries, &mut all);
                gain("mlp.ffn_sub_norm", e, &mut all);
            }
            let linears = [
                ("self_attn.q_proj", queries, d, self.attention_bias),
                ("self_attn.k_proj", keys, d, self.attention_bias),
                ("self_attn.v_proj", keys, d, self.attention_bias),
                ("self_attn.o_proj", d, queries, self.attention_bias),
                ("mlp.gate_proj", e, d, self.mlp_bias),
                ("mlp.up_proj", e, d, self.mlp_bias),
                ("mlp.down_proj", d, e, self.mlp_bias),
            ];
            for (name, rows, cols, bias) in linears {
                self.linear(&mut rng, &format!("model.layers.{layer}.{name}"), rows, cols, &mut all);
                if bias {
                    let bias = self.random(&mut rng, vec![rows], 0.0, 0.3);
                    all.insert(&format!("model.layers.{layer}.{name}.bias"), bias);
                }
            }
        }
        all
    }

    fn linear(&self, rng: &mut Rng, name: &str, rows: usize, cols: usize, all: &mut Tensors) {
        let size = 1.0 / (cols as f32).sqrt();
        let weight = format!("{name}.weight");
        let divide = match self.form {
            Form::Dense | Form::Online => {
                all.insert(&weight, self.random(rng, vec![rows, cols], 0.0, size));
                return;
            }
            Form::Packed => false,
            Form::BitLinear { .. } => true,
        };
        let ternary = Array2::from_shape_simple_fn((rows, cols), || rng.below(3) as f64 - 1.0);
        let packed = Tensor { shape: vec![rows.div_ceil(4), cols], dtype: Dtype::U8, bytes: pack(&ternary) };
        all.insert(&weight, packed);
        let scale = size * (1.0 + 0.2 * rng.unit());
        let scale = if divide { 1.0 / scale } else { scale };
        all.insert(&format!("{name}.weight_scale"), Tensor::store(&[scale], vec![1], self.store));
        if self.form == (Form::BitLinear { rms_norm: true }) {
            all.insert(&format!("{name}.rms_norm.weight"), self.random(rng, vec![cols], 1.0, 0.1));
        }
    }

    fn random(&self, rng: &mut Rng, shape: Vec<usize>, mean: f32, spread: f32) -> Tensor {
        let count = shape.iter().product();
        let values: Vec<f32> = (0..count).map(|_| mean + spread * rng.normal()).collect();
        Tensor::store(&values, shape, self.store)
    }
}

/// Writes `config.json`.
///
/// # Panics
/// If the folder cannot be written.
pub fn write_config(folder: &Path, config: &Value) {
    let text = serde_json::to_string_pretty(config).expect("JSON");
    std::fs::write(folder.join("config.json"), text).expect("a folder that can be written");
}

impl Tensor {
    /// Rounds `values` to an element type: F32, BF16 or F16.
    ///
    /// # Panics
    /// On another type, or if the shape has another number of elements.
    pub fn store(values: &[f32], shape: Vec<usize>, dtype: Dtype) -> Tensor {
        assert_eq!(shape.iter().product::<usize>(), values.len(), "elements of {shape:?}");
        let bytes = match dtype {
            Dtype::F32 => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Dtype::BF16 => values.iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes()).collect(),
            Dtype::F16 => values.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()).collect(),
            other => panic!("weights of {other:?}"),
        };
        Tensor { shape, dtype, bytes }
    }
}
