//! From a source of tensors to a transformer.

use super::{Layer, Transformer};
use crate::config::Config;
use crate::linear::Fan;
use crate::models::build::{Job, Loading, Sizes};
use crate::pass::Runner;
use crate::rope::Rope;
use crate::weights::{Source, TernaryForm};
use crate::{Result, Settings};
use std::sync::Arc;

/// The linear layers of a block, in the order of their fans.
const MODULES: [&str; 7] = [
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
];

/// Builds the model that `config` describes from the tensors of `source`. `progress` hears how many numbers are ready, of how
/// many.
pub(crate) fn build(
    config: Config,
    source: &dyn Source,
    settings: &Settings,
    progress: &dyn Fn(u64, u64),
) -> Result<Runner<Transformer>> {
    source.check_names(&|name| known(&config, name))?;
    let (vocab, width) = (config.vocab, config.width);
    let vector = |name: String, width: usize| source.vector(&name, width);
    // The small tensors first: a missing layer is found before the long work begins.
    let norm = vector("model.norm.weight".to_string(), width)?;
    let mut norms = Vec::new();
    for index in 0..config.layers {
        let name = |rest: &str| format!("model.layers.{index}.{rest}.weight");
        let sub_norm = |rest: &str, width: usize| {
            if config.sub_norms { vector(name(rest), width).map(Some) } else { Ok(None) }
        };
        norms.push((
            vector(name("input_layernorm"), width)?,
            sub_norm("self_attn.attn_sub_norm", config.attention_width())?,
            vector(name("post_attention_layernorm"), width)?,
            sub_norm("mlp.ffn_sub_norm", config.inner)?,
        ));
    }
    let jobs = jobs(&config);
    let mut loading = Loading::new(source, settings, progress, Loading::numbers(&jobs) + config.table_numbers());
    let outline = loading.outline(Sizes {
        architecture: config.architecture,
        width,
        layers: config.layers,
        vocab,
        context: Some(config.context),
        embedding: "model.embed_tokens.weight",
        head: (!config.tied).then_some("lm_head.weight"),
    })?;
    let linears = loading.linears(&jobs)?;
    let mut linears = linears.into_iter();
    let mut fan = |count: usize| Fan::new(linears.by_ref().take(count).collect());
    let layers = norms.into_iter().map(|(attention_norm, attention_sub_norm, ffn_norm, ffn_sub_norm)| Layer {
        attention_norm,
        qkv: fan(3),
        attention_sub_norm,
        output: fan(1),
        ffn_norm,
        gate_up: fan(2),
        ffn_sub_norm,
        down: fan(1),
    });
    let layers = layers.collect();
    let rope = Rope::new(config.rope_theta, config.head_width, config.context);
    let mut model = Transformer { outline, config, layers, norm, rope };
    model.outline.vectors.resize(model.count_vectors() as usize * size_of::<f32>());
    Ok(Runner::new(Arc::new(model), settings))
}

/// Rows, columns and whether there is a bias, of each of [`MODULES`].
fn sizes(config: &Config) -> [(usize, usize, bool); 7] {
    let Config { width, inner, attention_bias, mlp_bias, .. } = *config;
    let (queries, keys) = (config.attention_width(), config.kv_width());
    [
        (queries, width, attention_bias),
        (keys, width, attention_bias),
        (keys, width, attention_bias),
        (width, queries, attention_bias),
        (inner, width, mlp_bias),
        (inner, width, mlp_bias),
        (width, inner, mlp_bias),
    ]
}

fn jobs(config: &Config) -> Vec<Job<'_>> {
    let layer = |index: usize| {
        MODULES.iter().zip(sizes(config)).map(move |(module, (rows, cols, bias))| {
            let name = format!("model.layers.{index}.{module}");
            let quantisation = config.ternary(&name);
            let bias = bias.then(|| format!("{name}.bias"));
            Job {
                weight: format!("{name}.weight"),
                bias,
                rows,
                cols,
                transposed: false,
                plane: None,
                unpacked: false,
                quantisation,
            }
        })
    };
    (0..config.layers).flat_map(layer).collect()
}

/// Whether the model has a tensor of this name, or may carry it unused.
fn known(config: &Config, name: &str) -> bool {
    // Old files keep the rotary frequencies; tied models may keep the head.
    if ["model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"].contains(&name)
        || name.ends_with("rotary_emb.inv_freq")
    {
        return true;
    }
    let parts = name.strip_prefix("model.layers.").and_then(|rest| rest.split_once('.'));
    let Some((index, rest)) = parts else { return false };
    if index.parse::<usize>().is_ok_and(|i| i >= config.layers || i.to_string() != index)
        || index.parse::<usize>().is_err()
    {
        return false;
    }
    let norms = ["input_layernorm.weight", "post_attention_layernorm.weight"];
    let sub_norms = ["self_attn.attn_sub_norm.weight", "mlp.ffn_sub_norm.weight"];
    if norms.contains(&rest) || config.sub_norms && sub_norms.contains(&rest) {
        return true;
    }
    let found = MODULES.iter().zip(sizes(config)).find(|(module, _)| rest.starts_with(**module));
    let Some((module, (.., bias))) = found else { return false };
    let quantisation = config.ternary(&format!("model.layers.{index}.{module}"));
    match &rest[module.len()..] {
        ".weight" => true,
        ".bias" => bias,
        ".weight_scale" => quantisation.is_some_and(|q| q.form != TernaryForm::Master),
        ".rms_norm.weight" => quantisation.is_some_and(|q| q.pre_norm.is_some()),
        _ => false,
    }
}

/// Numbers in the linear layers.
pub(crate) fn matrix_numbers(config: &Config) -> u64 {
    Loading::numbers(&jobs(config))
}
