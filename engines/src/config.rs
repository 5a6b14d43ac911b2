//! What config.json says: strict wherever a wrong guess would change the numbers.

use crate::weights::TernaryForm;
use crate::{Error, Result, Token};
use kernels::activation::Gate;
use kernels::rope::Pairs;
use serde_json::Value;

/// Everything that decides how a transformer computes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Config {
    /// A name in `ARCHITECTURES`.
    pub(crate) architecture: &'static str,
    /// D.
    pub(crate) width: usize,
    /// E.
    pub(crate) inner: usize,
    /// L.
    pub(crate) layers: usize,
    /// Query heads, H.
    pub(crate) heads: usize,
    /// Key/value heads; divides H.
    pub(crate) kv_heads: usize,
    /// K, even.
    pub(crate) head_width: usize,
    /// V.
    pub(crate) vocab: usize,
    /// Positions.
    pub(crate) context: usize,
    /// Added to mean squares in norms.
    pub(crate) eps: f32,
    /// Base of the rotary angles.
    pub(crate) rope_theta: f64,
    pub(crate) pairs: Pairs,
    pub(crate) gate: Gate,
    /// Whether the head is the embedding.
    pub(crate) tied: bool,
    /// Whether the inputs of the output and down projections are normalised (BitNet).
    pub(crate) sub_norms: bool,
    /// Whether q, k, v and o have biases.
    pub(crate) attention_bias: bool,
    /// Whether gate, up and down have biases.
    pub(crate) mlp_bias: bool,
    pub(crate) quantisation: Option<Quantisation>,
    pub(crate) bos: Option<Token>,
    pub(crate) eos: Option<Token>,
}

/// How linear layers are quantised.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Quantisation {
    pub(crate) form: TernaryForm,
    /// The eps of a norm before each layer's quantiser, where there is one.
    pub(crate) pre_norm: Option<f32>,
    /// Modules that stay dense: names that a layer's name begins or ends with.
    pub(crate) skip: Vec<String>,
}

/// Sizes are bounded so that products of two cannot overflow; memory is bounded by the files' sizes.
const MAX_SIZE: usize = 1 << 24;

/// Parses config.json, called `file` in errors. Python writes Infinity, which is not JSON: it comes as a string.
pub(crate) fn json(bytes: &[u8], file: &str) -> Result<Value> {
    let parsed = serde_json::from_slice(bytes);
    parsed
        .or_else(|e| serde_json::from_slice(&quoted_infinities(bytes)).map_err(|_| e))
        .map_err(|e| Error::format(file, format!("not JSON: {e}")))
}

/// The same text with quotes around every Infinity that is not inside a string.
fn quoted_infinities(mut text: &[u8]) -> Vec<u8> {
    const WORD: &[u8] = b"Infinity";
    let mut out = Vec::with_capacity(text.len());
    let (mut inside, mut escaped) = (false, false);
    while let [byte, rest @ ..] = text {
        if !inside && text.starts_with(WORD) {
            out.extend([b"\"", WORD, b"\""].concat());
            text = &text[WORD.len()..];
            continue;
        }
        inside ^= *byte == b'"' && !escaped;
        escaped = inside && *byte == b'\\' && !escaped;
        out.push(*byte);
        text = rest;
    }
    out
}

/// Reads keys of one object, naming the file in every error.
pub(crate) struct Keys<'a> {
    file: &'a str,
    object: &'a Value,
}

impl<'a> Keys<'a> {
    /// Of `object`, in the file of this name.
    pub(crate) fn new(file: &'a str, object: &'a Value) -> Keys<'a> {
        Keys { file, object }
    }

    /// The file's name.
    pub(crate) fn file(&self) -> &'a str {
        self.file
    }

    pub(crate) fn wrong(&self, key: &str, expected: &str) -> Error {
        let problem = match self.object.get(key) {
            None => format!("{key} is missing: expected {expected}"),
            Some(value) => format!("{key} is {}: expected {expected}", shorten(&value.to_string())),
        };
        Error::format(self.file, problem)
    }

    /// The value, unless it is absent or null.
    pub(crate) fn get(&self, key: &str) -> Option<&'a Value> {
        self.object.get(key).filter(|value| !value.is_null())
    }

    pub(crate) fn size(&self, key: &str) -> Result<usize> {
        let value = self.get(key).and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok());
        value.filter(|n| (1..=MAX_SIZE).contains(n)).ok_or_else(|| self.wrong(key, "a whole number from 1 to 2^24"))
    }

    pub(crate) fn size_or(&self, key: &str, default: usize) -> Result<usize> {
        if self.get(key).is_some() { self.size(key) } else { Ok(default) }
    }

    pub(crate) fn positive_or(&self, key: &str, default: f64) -> Result<f64> {
        let Some(value) = self.get(key) else { return Ok(default) };
        value.as_f64().filter(|x| x.is_finite() && *x > 0.0).ok_or_else(|| self.wrong(key, "a number above 0"))
    }

    pub(crate) fn flag_or(&self, key: &str, default: bool) -> Result<bool> {
        let Some(value) = self.get(key) else { return Ok(default) };
        value.as_bool().ok_or_else(|| self.wrong(key, "true or false"))
    }

    pub(crate) fn text_or(&self, key: &str, default: &'a str) -> Result<&'a str> {
        let Some(value) = self.get(key) else { return Ok(default) };
        value.as_str().ok_or_else(|| self.wrong(key, "a string"))
    }

    /// The first of a list, or the number itself.
    pub(crate) fn token(&self, key: &str) -> Option<Token> {
        let value = self.get(key)?;
        Token::try_from(value.as_array().and_then(|list| list.first()).unwrap_or(value).as_u64()?).ok()
    }

    pub(crate) fn object(&self, key: &str) -> Result<Option<Keys<'a>>> {
        match self.get(key) {
            None => Ok(None),
            Some(object) if object.is_object() => Ok(Some(Keys { file: self.file, object })),
            Some(_) => Err(self.wrong(key, "an object")),
        }
    }
}

/// The first hundred characters.
fn shorten(text: &str) -> String {
    let mut short: String = text.chars().take(100).collect();
    if short.len() < text.len() {
        short.push_str("...");
    }
    short
}

impl Config {
    /// From Hugging Face's `BitNetConfig` or `LlamaConfig`.
    pub(crate) fn parse(keys: &Keys<'_>) -> Result<Config> {
        let bitnet = match keys.text_or("model_type", "")? {
            "bitnet" => true,
            "llama" => false,
            _ => return Err(keys.wrong("model_type", "bitnet or llama")),
        };
        let heads = keys.size("num_attention_heads")?;
        let width = keys.size("hidden_size")?;
        let gate = match keys.text_or("hidden_act", if bitnet { "relu2" } else { "silu" })? {
            "silu" | "swish" => Gate::SwiGlu,
            "relu2" => Gate::SquaredReluGlu,
            _ => return Err(keys.wrong("hidden_act", "silu or relu2")),
        };
        let head_width = if keys.get("head_dim").is_some() {
            keys.size("head_dim")?
        } else if width.is_multiple_of(heads) {
            width / heads
        } else {
            return Err(keys.wrong("num_attention_heads", &format!("a divisor of hidden_size {width}, or head_dim")));
        };
        let config = Config {
            architecture: if bitnet { "bitnet-b1.58" } else { "llama" },
            width,
            inner: keys.size("intermediate_size")?,
            layers: keys.size("num_hidden_layers")?,
            heads,
            kv_heads: keys.size_or("num_key_value_heads", heads)?,
            head_width,
            vocab: keys.size("vocab_size")?,
            context: keys.size("max_position_embeddings")?,
            eps: keys.positive_or("rms_norm_eps", if bitnet { 1e-5 } else { 1e-6 })? as f32,
            rope_theta: rope_theta(keys, if bitnet { 500_000.0 } else { 10_000.0 })?,
            pairs: Pairs::HalfSplit,
            gate,
            tied: keys.flag_or("tie_word_embeddings", false)?,
            sub_norms: bitnet,
            attention_bias: keys.flag_or("attention_bias", false)?,
            mlp_bias: keys.flag_or("mlp_bias", false)?,
            quantisation: keys.object("quantization_config")?.map(|keys| quantisation(&keys)).transpose()?,
            bos: keys.token("bos_token_id"),
            eos: keys.token("eos_token_id"),
        };
        config.check(keys.file())?;
        Ok(config)
    }

    /// What must hold between the numbers, wherever they come from.
    pub(crate) fn check(&self, file: &str) -> Result<()> {
        let Config { heads, kv_heads, head_width, .. } = self;
        if !heads.is_multiple_of(*kv_heads) {
            let problem = format!("{heads} attention heads over {kv_heads} key/value heads: expected a multiple");
            return Err(Error::format(file, problem));
        }
        if !head_width.is_multiple_of(2) {
            return Err(Error::format(file, format!("head width {head_width}: expected an even number")));
        }
        for (name, size) in
            [("attention", heads.saturating_mul(*head_width)), ("hidden", self.width), ("inner", self.inner)]
        {
            // The bound of the ternary product's 32-bit sums.
            if size >= 1 << 23 {
                return Err(Error::format(file, format!("{name} width {size}: expected less than 2^23")));
            }
        }
        if !(self.eps.is_finite() && self.eps > 0.0) {
            return Err(Error::format(file, format!("rms_norm_eps {}: expected a number above 0", self.eps)));
        }
        Ok(())
    }

    /// Numbers in the embedding and the head.
    pub(crate) fn table_numbers(&self) -> u64 {
        (self.vocab * self.width) as u64 * if self.tied { 1 } else { 2 }
    }

    /// H K, the width of all queries together.
    pub(crate) fn attention_width(&self) -> usize {
        self.heads * self.head_width
    }

    /// The width of all keys (or values) together.
    pub(crate) fn kv_width(&self) -> usize {
        self.kv_heads * self.head_width
    }

    /// How the linear layer `module` is stored, if it is ternary.
    pub(crate) fn ternary(&self, module: &str) -> Option<&Quantisation> {
        let quantisation = self.quantisation.as_ref()?;
        let skipped = quantisation.skip.iter().any(|skip| module.starts_with(skip) || module.ends_with(skip));
        (!skipped).then_some(quantisation)
    }
}

/// The base of the angles: at the top level (older files) or in `rope_parameters` (newer ones). Scaled angles are refused.
fn rope_theta(keys: &Keys<'_>, default: f64) -> Result<f64> {
    let mut theta = keys.positive_or("rope_theta", default)?;
    for key in ["rope_parameters", "rope_scaling"] {
        let Some(rope) = keys.object(key)? else { continue };
        let kind = rope.text_or("rope_type", rope.text_or("type", "default")?)?;
        if kind != "default" {
            return Err(keys.wrong(key, "rope_type default (scaled rotary angles are not supported)"));
        }
        theta = rope.positive_or("rope_theta", theta)?;
        let partial = rope.positive_or("partial_rotary_factor", 1.0)?;
        if partial != 1.0 {
            return Err(keys.wrong(key, "partial_rotary_factor 1"));
        }
    }
    if keys.positive_or("partial_rotary_factor", 1.0)? != 1.0 {
        return Err(keys.wrong("partial_rotary_factor", "1"));
    }
    Ok(theta)
}

fn quantisation(keys: &Keys<'_>) -> Result<Quantisation> {
    if keys.text_or("quant_method", "")? != "bitnet" {
        return Err(keys.wrong("quant_method", "bitnet"));
    }
    let online = match keys.text_or("quantization_mode", "offline")? {
        "online" => true,
        "offline" => false,
        _ => return Err(keys.wrong("quantization_mode", "online or offline")),
    };
    let form = match keys.text_or("linear_class", "bitlinear")? {
        "bitlinear" => TernaryForm::Divided,
        "autobitlinear" if online => TernaryForm::Master,
        "autobitlinear" => TernaryForm::Multiplied,
        _ => return Err(keys.wrong("linear_class", "bitlinear or autobitlinear")),
    };
    let pre_norm = match keys.flag_or("use_rms_norm", false)? {
        true => Some(keys.positive_or("rms_norm_eps", 1e-6)? as f32),
        false => None,
    };
    let mut skip = Vec::new();
    if let Some(list) = keys.get("modules_to_not_convert") {
        let wrong = || keys.wrong("modules_to_not_convert", "a list of names");
        for name in list.as_array().ok_or_else(wrong)? {
            skip.push(name.as_str().filter(|name| !name.is_empty()).ok_or_else(wrong)?.to_string());
        }
    }
    Ok(Quantisation { form, pre_norm, skip })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn base() -> Value {
        json!({"model_type": "bitnet", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 100, "max_position_embeddings": 32})
    }

    fn parse(json: &Value) -> Result<Config> {
        Config::parse(&Keys::new("config.json", json))
    }

    #[test]
    fn defaults_are_those_of_the_model_class() {
        let config = parse(&base()).unwrap();
        assert_eq!((config.head_width, config.eps, config.rope_theta), (16, 1e-5, 500_000.0));
        assert!(config.sub_norms && !config.tied && config.gate == Gate::SquaredReluGlu);
        let mut llama = base();
        llama["model_type"] = json!("llama");
        let config = parse(&llama).unwrap();
        assert_eq!((config.eps, config.rope_theta, config.gate), (1e-6, 10_000.0, Gate::SwiGlu));
        assert!(!config.sub_norms && config.quantisation.is_none());
    }

    #[test]
    fn every_published_class_is_told_apart() {
        for (class, mode, form) in [
            (json!("autobitlinear"), "online", TernaryForm::Master),
            (json!("autobitlinear"), "offline", TernaryForm::Multiplied),
            (json!("bitlinear"), "offline", TernaryForm::Divided),
            (Value::Null, "offline", TernaryForm::Divided),
        ] {
            let mut json = base();
            json["quantization_config"] = json!({"quant_method": "bitnet", "linear_class": class, "quantization_mode": mode, "use_rms_norm": true});
            let quantisation = parse(&json).unwrap().quantisation.unwrap();
            assert_eq!((quantisation.form, quantisation.pre_norm), (form, Some(1e-6)));
        }
    }

    #[test]
    fn wrong_values_are_named_with_what_was_expected() {
        for (key, value, says) in [
            ("hidden_size", json!(0), "hidden_size is 0: expected a whole number"),
            ("hidden_size", json!(1e30), "hidden_size is 1e+30"),
            ("hidden_size", json!(63), "divisor of hidden_size 63"),
            ("num_hidden_layers", json!(-1), "num_hidden_layers is -1"),
            ("num_key_value_heads", json!(3), "4 attention heads over 3"),
            ("head_dim", json!(15), "head width 15"),
            ("model_type", json!("gpt2"), "model_type is \"gpt2\": expected bitnet or llama"),
            ("hidden_act", json!("gelu"), "hidden_act is \"gelu\""),
            ("rope_scaling", json!({"rope_type": "llama3", "factor": 8}), "rope_scaling is {\"rope_type\":\"llama3\""),
            ("rope_theta", json!("big"), "rope_theta is \"big\""),
            ("rms_norm_eps", json!(1e-60), "rms_norm_eps 0"),
            ("tie_word_embeddings", json!("yes"), "tie_word_embeddings is \"yes\": expected true or false"),
            ("quantization_config", json!({"quant_method": "gptq"}), "quant_method is \"gptq\""),
            ("quantization_config", json!([]), "quantization_config is []: expected an object"),
        ] {
            let mut json = base();
            json[key] = value;
            let error = parse(&json).unwrap_err().to_string();
            assert!(error.starts_with("config.json: ") && error.contains(says), "{key}: {error}");
        }
        let mut json = base();
        json.as_object_mut().unwrap().remove("vocab_size");
        assert!(parse(&json).unwrap_err().to_string().contains("vocab_size is missing"));
    }

    #[test]
    fn rope_parameters_override_the_top_level() {
        let mut json = base();
        json["rope_theta"] = json!(1.0e4);
        json["rope_parameters"] = json!({"rope_theta": 2.0e5, "rope_type": "default"});
        assert_eq!(parse(&json).unwrap().rope_theta, 2.0e5);
    }

    #[test]
    fn infinity_may_be_written_as_python_does() {
        let text = br#"{"a\"Infinity": [0.0, Infinity], "b": "Infinity \\", "c": Infinity}"#;
        let expected = json!({"a\"Infinity": [0.0, "Infinity"], "b": "Infinity \\", "c": "Infinity"});
        assert_eq!(super::json(text, "file").unwrap(), expected);
        let error = super::json(b"{\"a\": Infinite}", "file").unwrap_err().to_string();
        assert!(error.starts_with("file: not JSON: expected value"), "{error}");
    }

    #[test]
    fn skipped_modules_stay_dense() {
        let mut json = base();
        json["quantization_config"] = json!({"quant_method": "bitnet", "modules_to_not_convert": ["mlp.down_proj"]});
        let config = parse(&json).unwrap();
        assert!(config.ternary("model.layers.0.mlp.up_proj").is_some());
        assert!(config.ternary("model.layers.0.mlp.down_proj").is_none());
    }
}
