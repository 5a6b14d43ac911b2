//! What config.json says of a Mamba-2, in Hugging Face's words or in the authors'.

use crate::config::Keys;
use crate::models::mamba::config::{expanded, original_vocab};
use crate::{Error, Result, Token};
use serde_json::Value;

/// Everything that decides how a Mamba-2 computes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Config {
    /// D.
    pub(crate) width: usize,
    /// L.
    pub(crate) layers: usize,
    /// H.
    pub(crate) heads: usize,
    /// P.
    pub(crate) head_width: usize,
    /// G; divides H.
    pub(crate) groups: usize,
    /// N.
    pub(crate) states: usize,
    /// K of the convolution.
    pub(crate) taps: usize,
    /// V.
    pub(crate) vocab: usize,
    /// Added to mean squares in norms.
    pub(crate) eps: f32,
    /// The least and the largest step; the latter may be infinite.
    pub(crate) limits: [f32; 2],
    /// Whether the head is the embedding.
    pub(crate) tied: bool,
    /// Whether the input and output projections have biases.
    pub(crate) bias: bool,
    pub(crate) conv_bias: bool,
    pub(crate) bos: Option<Token>,
    pub(crate) eos: Option<Token>,
}

impl Config {
    /// From Hugging Face's `Mamba2Config`.
    pub(crate) fn hugging_face(keys: &Keys<'_>) -> Result<Config> {
        if !["silu", "swish"].contains(&keys.text_or("hidden_act", "silu")?) {
            return Err(keys.wrong("hidden_act", "silu"));
        }
        if !keys.flag_or("rms_norm", true)? {
            return Err(keys.wrong("rms_norm", "true"));
        }
        let config = Config {
            width: keys.size("hidden_size")?,
            layers: keys.size("num_hidden_layers")?,
            heads: keys.size_or("num_heads", 128)?,
            head_width: keys.size_or("head_dim", 64)?,
            groups: keys.size_or("n_groups", 8)?,
            states: keys.size_or("state_size", 128)?,
            taps: keys.size_or("conv_kernel", 4)?,
            vocab: keys.size("vocab_size")?,
            eps: keys.positive_or("layer_norm_epsilon", 1e-5)? as f32,
            limits: limits(keys, "time_step_limit")?,
            tied: keys.flag_or("tie_word_embeddings", false)?,
            bias: keys.flag_or("use_bias", false)?,
            conv_bias: keys.flag_or("use_conv_bias", true)?,
            bos: keys.token("bos_token_id"),
            eos: keys.token("eos_token_id"),
        };
        let inner = config.heads.saturating_mul(config.head_width);
        if keys.get("intermediate_size").is_some() {
            if keys.size("intermediate_size")? != inner {
                return Err(keys.wrong("intermediate_size", &format!("num_heads times head_dim, {inner}")));
            }
        } else if expanded(keys, "expand", config.width)? != inner {
            let expected = format!("num_heads times head_dim, {inner}, over hidden_size, {}", config.width);
            return Err(keys.wrong("expand", &expected));
        }
        config.check(keys)
    }

    /// From the authors' `MambaConfig`; `layer` is its `ssm_cfg`.
    pub(crate) fn original(keys: &Keys<'_>, layer: &Keys<'_>) -> Result<Config> {
        let width = keys.size("d_model")?;
        let inner = expanded(layer, "expand", width)?;
        if layer.get("d_ssm").is_some() && layer.size("d_ssm")? != inner {
            return Err(
                layer.wrong("d_ssm", &format!("all {inner} channels: no gated layer beside the scan can be run"))
            );
        }
        if !layer.flag_or("rmsnorm", true)? {
            return Err(layer.wrong("rmsnorm", "true"));
        }
        for key in ["norm_before_gate", "D_has_hdim"] {
            if layer.flag_or(key, false)? {
                return Err(layer.wrong(key, "false"));
            }
        }
        if !["silu", "swish"].contains(&layer.text_or("activation", "swish")?) {
            return Err(layer.wrong("activation", "swish"));
        }
        let head_width = layer.size_or("headdim", 64)?;
        if !inner.is_multiple_of(head_width) {
            return Err(layer.wrong("headdim", &format!("a divisor of the inner width {inner}")));
        }
        let config = Config {
            width,
            layers: keys.size("n_layer")?,
            heads: inner / head_width,
            head_width,
            groups: layer.size_or("ngroups", 1)?,
            states: layer.size_or("d_state", 128)?,
            taps: layer.size_or("d_conv", 4)?,
            vocab: original_vocab(keys)?,
            eps: 1e-5,
            limits: limits(layer, "dt_limit")?,
            tied: keys.flag_or("tie_embeddings", true)?,
            bias: layer.flag_or("bias", false)?,
            conv_bias: layer.flag_or("conv_bias", true)?,
            bos: None,
            eos: None,
        };
        config.check(keys)
    }

    /// What must hold between the numbers.
    fn check(self, keys: &Keys<'_>) -> Result<Config> {
        let Config { heads, head_width, groups, states, taps, eps, .. } = self;
        let wrong = |problem: String| Err(Error::format(keys.file(), problem));
        if !heads.is_multiple_of(groups) {
            return wrong(format!("{heads} heads in {groups} groups: expected a multiple"));
        }
        if states > 1 << 12 || taps > 1 << 8 {
            return wrong(format!("{states} states and {taps} taps: expected at most 4096 and 256"));
        }
        let channels = heads.saturating_mul(head_width).saturating_add(2 * groups * states);
        if channels >= 1 << 23 {
            return wrong(format!("{channels} channels to convolve: expected less than 2^23"));
        }
        if !(eps.is_finite() && eps > 0.0) {
            return wrong(format!("layer_norm_epsilon {eps}: expected a number above 0"));
        }
        Ok(self)
    }
}

/// The least and the largest step. Infinity, which is no number of JSON, comes as null, as a string or as an object.
fn limits(keys: &Keys<'_>, key: &str) -> Result<[f32; 2]> {
    let Some(value) = keys.get(key) else { return Ok([0.0, f32::INFINITY]) };
    let number = |value: &Value| {
        let value = value.get("__float__").unwrap_or(value);
        match value.as_str() {
            Some("Infinity" | "+Infinity" | "inf" | "+inf") => Some(f32::INFINITY),
            Some(_) => None,
            None if value.is_null() => Some(f32::INFINITY),
            None => value.as_f64().map(|x| x as f32),
        }
    };
    let found = match value.as_array().map(Vec::as_slice) {
        Some([least, largest]) => number(least).zip(number(largest)),
        _ => None,
    };
    match found {
        Some((least, largest)) if least.is_finite() && 0.0 <= least && least <= largest => Ok([least, largest]),
        _ => Err(keys.wrong(key, "two numbers from 0 on in order, the second perhaps Infinity")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn base() -> Value {
        json!({"model_type": "mamba2", "hidden_size": 64, "num_heads": 8, "head_dim": 16, "n_groups": 2, "expand": 2,
            "num_hidden_layers": 2, "vocab_size": 100})
    }

    fn parse(json: &Value) -> Result<Config> {
        Config::hugging_face(&Keys::new("config.json", json))
    }

    fn authors(more: &Value, layer: &Value) -> Result<Config> {
        let mut json = json!({"d_model": 64, "n_layer": 2, "vocab_size": 100, "pad_vocab_size_multiple": 16});
        json.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json["ssm_cfg"] = layer.clone();
        let keys = Keys::new("config.json", &json);
        Config::original(&keys, &keys.object("ssm_cfg").unwrap().unwrap())
    }

    #[test]
    fn defaults_are_those_of_both_programs() {
        let config = parse(&base()).unwrap();
        assert_eq!((config.states, config.taps, config.limits), (128, 4, [0.0, f32::INFINITY]));
        assert!(!config.tied && !config.bias && config.conv_bias);
        let config = authors(&json!({}), &json!({"layer": "Mamba2", "headdim": 32})).unwrap();
        assert_eq!((config.heads, config.groups, config.states, config.vocab), (4, 1, 128, 112));
        assert!(config.tied);
    }

    #[test]
    fn infinity_is_understood_however_it_is_spelled() {
        for infinity in [json!({"__float__": "Infinity"}), json!("Infinity"), json!("inf"), Value::Null] {
            let mut json = base();
            json["time_step_limit"] = json!([0.25, infinity]);
            assert_eq!(parse(&json).unwrap().limits, [0.25, f32::INFINITY]);
        }
        let config = authors(&json!({}), &json!({"dt_limit": [0.0, 0.5]})).unwrap();
        assert_eq!(config.limits, [0.0, 0.5]);
    }

    #[test]
    fn what_cannot_be_run_is_refused_in_words() {
        for (key, value, says) in [
            ("n_groups", json!(3), "8 heads in 3 groups"),
            ("num_heads", json!(9), "expand is 2: expected num_heads times head_dim, 144, over hidden_size, 64"),
            ("intermediate_size", json!(64), "intermediate_size is 64: expected num_heads times head_dim, 128"),
            ("state_size", json!(5000), "5000 states"),
            ("rms_norm", json!(false), "rms_norm is false"),
            ("hidden_act", json!("gelu"), "hidden_act is \"gelu\""),
            ("time_step_limit", json!([0.5, 0.25]), "time_step_limit is [0.5,0.25]"),
            ("time_step_limit", json!([0.5]), "time_step_limit is [0.5]"),
            ("time_step_limit", json!([-1.0, 1.0]), "time_step_limit is [-1.0,1.0]"),
        ] {
            let mut json = base();
            json[key] = value;
            let error = parse(&json).unwrap_err().to_string();
            assert!(error.starts_with("config.json: ") && error.contains(says), "{key}: {error}");
        }
        for (key, value, says) in [
            ("d_ssm", json!(64), "d_ssm is 64: expected all 128 channels"),
            ("rmsnorm", json!(false), "rmsnorm is false"),
            ("D_has_hdim", json!(true), "D_has_hdim is true"),
            ("norm_before_gate", json!(true), "norm_before_gate is true"),
            ("headdim", json!(24), "headdim is 24: expected a divisor of the inner width 128"),
            ("activation", json!("relu"), "activation is \"relu\""),
        ] {
            let mut layer = json!({});
            layer[key] = value;
            let error = authors(&json!({}), &layer).unwrap_err().to_string();
            assert!(error.contains(says), "{key}: {error}");
        }
        let error = authors(&json!({"attn_layer_idx": [3]}), &json!({})).unwrap_err().to_string();
        assert!(error.contains("attn_layer_idx is [3]: expected none: only Mamba layers can be run"), "{error}");
    }
}
