//! The part of a Hugging Face `config.json` that the equations need.

use serde_json::Value;
use std::path::Path;

/// What turns gate and up into the inner activation of the MLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// max(gate, 0)^2 * up: BitNet b1.58 2B4T.
    SquaredRelu,
    /// gate * sigmoid(gate) * up: Llama.
    Silu,
}

/// How linear layers are stored and computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Linears {
    /// y = W x + b, in full precision.
    Dense,
    /// Master weights, quantised on load: y = (q/a) W~^T + b with W~ = t * mean|W|.
    Online,
    /// Packed by Microsoft: y = ((q/a) t^T + b) * weight_scale.
    PackedMultiply,
    /// Packed by transformers' `BitLinear`: y = (q t^T) / (weight_scale * a) + b.
    PackedDivide,
}

/// Which elements of a head the rotary embedding turns together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pairs {
    /// (i, i + K/2): Hugging Face.
    HalfSplit,
    /// (2i, 2i + 1): llama2.c.
    Interleaved,
}

/// Sizes and constants of one model.
#[derive(Clone, Debug)]
pub struct Config {
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
    /// K.
    pub head_width: usize,
    /// V.
    pub vocab: usize,
    /// Positions.
    pub context: usize,
    /// Added to the mean square.
    pub eps: f64,
    /// The same inside a `BitLinear` with its own norm.
    pub linear_eps: f64,
    /// Base of the rotary frequencies.
    pub theta: f64,
    /// Rotary pairs.
    pub pairs: Pairs,
    /// The MLP's activation.
    pub gate: Gate,
    /// Whether the head is the embedding.
    pub tied: bool,
    /// Whether attention and MLP have a norm before their last product (BitNet).
    pub sub_norms: bool,
    /// The linear layers.
    pub linears: Linears,
}

impl Config {
    /// Reads `config.json` of a folder.
    ///
    /// # Panics
    /// On anything that the equations do not cover.
    pub fn open(folder: &Path) -> Config {
        let path = folder.join("config.json");
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let json: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Config::from_json(&json)
    }

    /// Reads the content of a `config.json`.
    ///
    /// # Panics
    /// On anything that the equations do not cover.
    pub fn from_json(json: &Value) -> Config {
        let number = |key: &str| json[key].as_u64().map(|n| n as usize);
        let need = |key: &str| number(key).unwrap_or_else(|| panic!("config.json lacks {key}"));
        let bitnet = match json["model_type"].as_str() {
            Some("bitnet") => true,
            Some("llama") => false,
            other => panic!("model_type {other:?}"),
        };
        let (width, heads) = (need("hidden_size"), need("num_attention_heads"));
        // transformers 5 moved the base into rope_parameters; published files have it at the top.
        let theta = json["rope_parameters"]["rope_theta"].as_f64().or(json["rope_theta"].as_f64());
        let quantisation = &json["quantization_config"];
        Config {
            width,
            inner: need("intermediate_size"),
            layers: need("num_hidden_layers"),
            heads,
            kv_heads: number("num_key_value_heads").unwrap_or(heads),
            head_width: number("head_dim").unwrap_or(width / heads),
            vocab: need("vocab_size"),
            context: need("max_position_embeddings"),
            eps: json["rms_norm_eps"].as_f64().unwrap_or(if bitnet { 1e-5 } else { 1e-6 }),
            linear_eps: quantisation["rms_norm_eps"].as_f64().unwrap_or(1e-6),
            theta: theta.unwrap_or(if bitnet { 500_000.0 } else { 10_000.0 }),
            pairs: Pairs::HalfSplit,
            gate: match json["hidden_act"].as_str() {
                Some("relu2") => Gate::SquaredRelu,
                Some("silu") => Gate::Silu,
                other => panic!("hidden_act {other:?}"),
            },
            tied: json["tie_word_embeddings"].as_bool().unwrap_or(false),
            sub_norms: bitnet,
            linears: match (quantisation["linear_class"].as_str(), quantisation["quantization_mode"].as_str()) {
                _ if quantisation.is_null() => Linears::Dense,
                (Some("autobitlinear"), Some("online")) => Linears::Online,
                (Some("autobitlinear"), Some("offline")) => Linears::PackedMultiply,
                (Some("bitlinear") | None, Some("offline") | None) => Linears::PackedDivide,
                other => panic!("quantization_config {other:?}"),
            },
        }
    }
}
