//! Tiny models in every published form, as config.json and safetensors bytes.

use engines::{CacheFormat, Cpu, Model, Packing, Result, Settings, load_from_memory};
use half::{bf16, f16};
use kernels::{Isa, Rng};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// A tensor's type, shape and bytes.
pub(crate) type Tensor = (Dtype, Vec<usize>, Vec<u8>);

/// How linear layers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Plain(Dtype),
    Master(Dtype),
    Multiplied,
    Divided,
}

/// What a tiny model is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recipe {
    pub(crate) bitnet: bool,
    pub(crate) form: Form,
    pub(crate) bias: bool,
    pub(crate) pre_norm: bool,
    pub(crate) tied: bool,
    pub(crate) kv_heads: usize,
    pub(crate) seed: u64,
}

impl Default for Recipe {
    fn default() -> Recipe {
        Recipe { bitnet: true, form: Form::Multiplied, bias: false, pre_norm: false, tied: true, kv_heads: 2, seed: 1 }
    }
}

pub(crate) const WIDTH: usize = 48;
pub(crate) const INNER: usize = 80;
pub(crate) const LAYERS: usize = 2;
pub(crate) const HEADS: usize = 4;
pub(crate) const HEAD_WIDTH: usize = 16;
pub(crate) const VOCAB: usize = 72;
pub(crate) const CONTEXT: usize = 700;

/// A model's files.
#[derive(Clone)]
pub(crate) struct Tiny {
    pub(crate) config: Value,
    pub(crate) tensors: BTreeMap<String, Tensor>,
}

/// Numbers in a format.
pub(crate) fn stored(values: &[f32], dtype: Dtype) -> Vec<u8> {
    match dtype {
        Dtype::F32 => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Dtype::BF16 => values.iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes()).collect(),
        Dtype::F16 => values.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()).collect(),
        other => panic!("{other} is not a format of floats"),
    }
}

/// Absmean quantisation, plainly: the ternary weights and mean|W|.
pub(crate) fn absmean(weights: &[f32]) -> (Vec<i8>, f32) {
    let mean = weights.iter().map(|w| f64::from(w.abs())).sum::<f64>() / weights.len() as f64;
    let scale = 1.0 / mean as f32;
    (weights.iter().map(|w| (w * scale).round_ties_even().clamp(-1.0, 1.0) as i8).collect(), mean as f32)
}

/// Four row blocks to a byte.
pub(crate) fn packed(ternary: &[i8], rows: usize, cols: usize) -> Vec<u8> {
    let quarter = rows / 4;
    let mut bytes = vec![0; quarter * cols];
    for r in 0..rows {
        for c in 0..cols {
            bytes[r % quarter * cols + c] |= ((ternary[r * cols + c] + 1) as u8) << (2 * (r / quarter));
        }
    }
    bytes
}

impl Tiny {
    pub(crate) fn new(recipe: Recipe) -> Tiny {
        let mut rng = Rng::new(recipe.seed);
        let mut tiny = Tiny { config: config(recipe), tensors: BTreeMap::new() };
        let mut normal = |count: usize, scale: f32| -> Vec<f32> { (0..count).map(|_| rng.normal() * scale).collect() };
        let float = match recipe.form {
            Form::Plain(dtype) | Form::Master(dtype) => dtype,
            _ => Dtype::F32,
        };
        let gains = |values: Vec<f32>| -> Vec<f32> { values.iter().map(|x| 1.0 + 0.2 * x).collect() };
        tiny.put("model.embed_tokens.weight", float, &[VOCAB, WIDTH], &normal(VOCAB * WIDTH, 1.0));
        if !recipe.tied {
            tiny.put("lm_head.weight", float, &[VOCAB, WIDTH], &normal(VOCAB * WIDTH, 0.3));
        }
        tiny.put("model.norm.weight", float, &[WIDTH], &gains(normal(WIDTH, 1.0)));
        let (queries, keys) = (HEADS * HEAD_WIDTH, recipe.kv_heads * HEAD_WIDTH);
        for layer in 0..LAYERS {
            let name = |rest: &str| format!("model.layers.{layer}.{rest}");
            let mut norms = vec![("input_layernorm", WIDTH), ("post_attention_layernorm", WIDTH)];
            if recipe.bitnet {
                norms.extend([("self_attn.attn_sub_norm", queries), ("mlp.ffn_sub_norm", INNER)]);
            }
            for (norm, width) in norms {
                tiny.put(&name(&format!("{norm}.weight")), float, &[width], &gains(normal(width, 1.0)));
            }
            for (module, rows, cols) in [
                ("self_attn.q_proj", queries, WIDTH),
                ("self_attn.k_proj", keys, WIDTH),
                ("self_attn.v_proj", keys, WIDTH),
                ("self_attn.o_proj", WIDTH, queries),
                ("mlp.gate_proj", INNER, WIDTH),
                ("mlp.up_proj", INNER, WIDTH),
                ("mlp.down_proj", WIDTH, INNER),
            ] {
                let weights = normal(rows * cols, 1.0 / (cols as f32).sqrt());
                tiny.put_linear(&name(module), recipe.form, rows, cols, &weights);
                if recipe.bias {
                    tiny.put(&name(&format!("{module}.bias")), Dtype::F32, &[rows], &normal(rows, 0.1));
                }
                if recipe.pre_norm {
                    let gains = gains(normal(cols, 1.0));
                    tiny.put(&name(&format!("{module}.rms_norm.weight")), Dtype::F32, &[cols], &gains);
                }
            }
        }
        tiny
    }

    pub(crate) fn put(&mut self, name: &str, dtype: Dtype, shape: &[usize], values: &[f32]) {
        self.tensors.insert(name.to_string(), (dtype, shape.to_vec(), stored(values, dtype)));
    }

    fn put_linear(&mut self, module: &str, form: Form, rows: usize, cols: usize, weights: &[f32]) {
        let name = format!("{module}.weight");
        if let Form::Plain(dtype) | Form::Master(dtype) = form {
            return self.put(&name, dtype, &[rows, cols], weights);
        }
        let (ternary, mean) = absmean(weights);
        self.tensors.insert(name.clone(), (Dtype::U8, vec![rows / 4, cols], packed(&ternary, rows, cols)));
        let scale = if form == Form::Divided { 1.0 / mean } else { mean };
        self.put(&format!("{name}_scale"), Dtype::F32, &[1], &[scale]);
    }

    /// The safetensors file of all tensors.
    pub(crate) fn weights(&self) -> Vec<u8> {
        self.weights_of(|_| true)
    }

    /// That of some of them.
    pub(crate) fn weights_of(&self, choose: impl Fn(&str) -> bool) -> Vec<u8> {
        let views = self.tensors.iter().filter(|(name, _)| choose(name));
        let views = views.map(|(name, (dtype, shape, bytes))| {
            (name.as_str(), TensorView::new(*dtype, shape.clone(), bytes).expect("bytes fit the shape"))
        });
        safetensors::serialize(views, None).expect("tensors can be written")
    }

    /// Writes the two files into a folder.
    pub(crate) fn write(&self, folder: &Path) {
        std::fs::write(folder.join("config.json"), self.config.to_string()).unwrap();
        std::fs::write(folder.join("model.safetensors"), self.weights()).unwrap();
    }

    pub(crate) fn load(&self, settings: &Settings) -> Result<Arc<dyn Model>> {
        load_from_memory(self.config.to_string().as_bytes(), &self.weights(), settings)
    }
}

fn config(recipe: Recipe) -> Value {
    let mut config = json!({
        "model_type": if recipe.bitnet { "bitnet" } else { "llama" },
        "hidden_size": WIDTH, "intermediate_size": INNER, "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS, "num_key_value_heads": recipe.kv_heads, "head_dim": HEAD_WIDTH,
        "vocab_size": VOCAB, "max_position_embeddings": CONTEXT, "tie_word_embeddings": recipe.tied,
        "attention_bias": recipe.bias, "mlp_bias": recipe.bias,
    });
    let (class, mode) = match recipe.form {
        Form::Plain(_) => return config,
        Form::Master(_) => ("autobitlinear", "online"),
        Form::Multiplied => ("autobitlinear", "offline"),
        Form::Divided => ("bitlinear", "offline"),
    };
    config["quantization_config"] = json!({"quant_method": "bitnet", "linear_class": class,
        "quantization_mode": mode, "use_rms_norm": recipe.pre_norm});
    config
}

/// Settings of one thread and the best kernels, unless told otherwise.
pub(crate) fn settings() -> Settings {
    on(Isa::best(), 1)
}

pub(crate) fn on(isa: Isa, threads: usize) -> Settings {
    Settings { cpu: Cpu::new(isa, threads).unwrap(), cache: CacheFormat::F32, packing: Packing::default() }
}

/// Tokens from a seed.
pub(crate) fn tokens(count: usize, vocab: usize, seed: u64) -> Vec<u32> {
    let mut rng = Rng::new(seed);
    (0..count).map(|_| rng.below(vocab) as u32).collect()
}
