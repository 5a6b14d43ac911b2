//! What config.json says of a Mamba, in Hugging Face's words or in the authors'.

use crate::config::Keys;
use crate::{Error, Result, Token};

/// Everything that decides how a Mamba computes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Config {
    /// D.
    pub(crate) width: usize,
    /// E.
    pub(crate) inner: usize,
    /// L.
    pub(crate) layers: usize,
    /// N.
    pub(crate) states: usize,
    /// K of the convolution.
    pub(crate) taps: usize,
    /// R, the width of d.
    pub(crate) rank: usize,
    /// V.
    pub(crate) vocab: usize,
    /// Added to mean squares in norms.
    pub(crate) eps: f32,
    /// Whether the head is the embedding.
    pub(crate) tied: bool,
    /// Whether the input and output projections have biases.
    pub(crate) bias: bool,
    pub(crate) conv_bias: bool,
    pub(crate) bos: Option<Token>,
    pub(crate) eos: Option<Token>,
}

impl Config {
    /// From Hugging Face's `MambaConfig`.
    pub(crate) fn hugging_face(keys: &Keys<'_>) -> Result<Config> {
        if !["silu", "swish"].contains(&keys.text_or("hidden_act", "silu")?) {
            return Err(keys.wrong("hidden_act", "silu"));
        }
        let width = keys.size("hidden_size")?;
        let inner = match keys.get("intermediate_size") {
            Some(_) => keys.size("intermediate_size")?,
            None => expanded(keys, "expand", width)?,
        };
        let config = Config {
            width,
            inner,
            layers: keys.size("num_hidden_layers")?,
            states: keys.size_or("state_size", 16)?,
            taps: keys.size_or("conv_kernel", 4)?,
            rank: rank(keys, "time_step_rank", width)?,
            vocab: keys.size("vocab_size")?,
            eps: keys.positive_or("layer_norm_epsilon", 1e-5)? as f32,
            tied: keys.flag_or("tie_word_embeddings", true)?,
            bias: keys.flag_or("use_bias", false)?,
            conv_bias: keys.flag_or("use_conv_bias", true)?,
            bos: keys.token("bos_token_id"),
            eos: keys.token("eos_token_id"),
        };
        config.check(keys)
    }

    /// From the authors' `MambaConfig`; `layer` is its `ssm_cfg`.
    pub(crate) fn original(keys: &Keys<'_>, layer: &Keys<'_>) -> Result<Config> {
        let width = keys.size("d_model")?;
        let config = Config {
            width,
            inner: expanded(layer, "expand", width)?,
            layers: keys.size("n_layer")?,
            states: layer.size_or("d_state", 16)?,
            taps: layer.size_or("d_conv", 4)?,
            rank: rank(layer, "dt_rank", width)?,
            vocab: original_vocab(keys)?,
            eps: 1e-5,
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
        let Config { inner, states, taps, rank, eps, .. } = self;
        let wrong = |problem: String| Err(Error::format(keys.file(), problem));
        if inner >= 1 << 23 || states > 1 << 12 || taps > 1 << 8 || rank > inner {
            return wrong(format!(
                "inner width {inner}, {states} states, {taps} taps, rank {rank}: expected less than 2^23, at most 4096, 256 and the inner width"
            ));
        }
        if !(eps.is_finite() && eps > 0.0) {
            return wrong(format!("layer_norm_epsilon {eps}: expected a number above 0"));
        }
        Ok(self)
    }
}

/// What the authors' config says around the layers, of Mamba and Mamba-2 alike: layers of another kind are refused, and the
/// vocabulary is that of the padded table.
pub(in crate::models) fn original_vocab(keys: &Keys<'_>) -> Result<usize> {
    for key in ["d_intermediate", "attn_layer_idx"] {
        let none =
            keys.get(key).is_none_or(|value| value.as_u64() == Some(0) || value.as_array().is_some_and(Vec::is_empty));
        if !none {
            return Err(keys.wrong(key, "none: only Mamba layers can be run"));
        }
    }
    if !keys.flag_or("rms_norm", true)? {
        return Err(keys.wrong("rms_norm", "true"));
    }
    let multiple = keys.size_or("pad_vocab_size_multiple", 8)?;
    Ok(keys.size("vocab_size")?.next_multiple_of(multiple))
}

/// The inner width, so many times the model's.
pub(in crate::models) fn expanded(keys: &Keys<'_>, key: &str, width: usize) -> Result<usize> {
    let expand = keys.positive_or(key, 2.0)?;
    let inner = expand * width as f64;
    if inner.fract() != 0.0 || inner >= (1 << 23) as f64 {
        return Err(keys.wrong(key, &format!("a factor that makes {width} a whole width")));
    }
    Ok(inner as usize)
}

/// A width, or "auto": a sixteenth of the model's.
fn rank(keys: &Keys<'_>, key: &str, width: usize) -> Result<usize> {
    match keys.get(key).map(|value| value.as_str()) {
        None | Some(Some("auto")) => Ok(width.div_ceil(16)),
        Some(_) => keys.size(key),
    }
}
