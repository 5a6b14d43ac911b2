//! From a source of tensors to a Mamba.

use super::{Config, Layer, Mamba};
use crate::linear::Fan;
use crate::models::build::{Job, Loading, Sizes};
use crate::pass::{Net, Runner};
use crate::weights::Source;
use crate::{Result, Settings};
use kernels::scan::selective;
use std::ops::Range;
use std::sync::Arc;

/// A linear layer of a block, its rows, its columns and whether there is a bias.
pub(in crate::models) type Module = (&'static str, usize, usize, bool);

/// The linear layers of a block.
fn modules(config: &Config) -> [Module; 4] {
    let Config { width, inner, states, rank, bias, .. } = *config;
    [
        ("in_proj", 2 * inner, width, bias),
        ("x_proj", rank + 2 * states, inner, false),
        ("dt_proj", inner, rank, true),
        ("out_proj", width, inner, bias),
    ]
}

/// Builds the model that `config` describes from the tensors of `source`. `progress` hears how many numbers are ready, of how
/// many.
pub(crate) fn build(
    config: Config,
    source: &dyn Source,
    settings: &Settings,
    progress: &dyn Fn(u64, u64),
) -> Result<Runner<Mamba>> {
    let embedding = embedding_name(source);
    source.check_names(&|name| name == embedding || known(&config, name))?;
    let Config { width, inner, states, taps, layers, vocab, tied, .. } = config;
    // The small tensors first: a missing layer is found before the long work begins.
    let norm = source.vector("backbone.norm_f.weight", width)?;
    let mut vectors = Vec::new();
    for index in 0..layers {
        let name = |rest: &str| format!("backbone.layers.{index}.{rest}");
        let conv = conv_rows(source, &name("mixer.conv1d.weight"), inner, taps)?;
        let conv_bias = config.conv_bias.then(|| source.vector(&name("mixer.conv1d.bias"), inner)).transpose()?;
        let a_log = a_log(source, &name("mixer.A_log"), inner * states)?;
        let mut decays = vec![0.0; selective::packed_len(inner, states)];
        selective::pack_decays(&a_log, states, &mut decays);
        let skip = source.vector(&name("mixer.D"), inner)?;
        vectors.push((source.vector(&name("norm.weight"), width)?, conv, conv_bias, decays, skip));
    }
    let jobs = jobs(&config);
    let tables = (vocab * width) as u64 * if tied { 1 } else { 2 };
    let mut loading = Loading::new(source, settings, progress, Loading::numbers(&jobs) + tables);
    let outline = loading.outline(Sizes {
        architecture: "mamba",
        width,
        layers,
        vocab,
        context: None,
        embedding,
        head: (!tied).then_some("lm_head.weight"),
    })?;
    let mut linears = loading.linears(&jobs)?.into_iter();
    let mut fan = || Fan::new(linears.by_ref().take(1).collect());
    let layers = vectors.into_iter().map(|(norm, conv, conv_bias, decays, skip)| {
        let (input, adapters, dt, output) = (fan(), fan(), fan(), fan());
        Layer { norm, input, conv, conv_bias, adapters, dt, decays, skip, output }
    });
    let layers = layers.collect();
    let mut model = Mamba { outline, config, layers, norm };
    let bytes = model.vector_numbers() as usize * size_of::<f32>();
    model.outline.vectors.resize(bytes);
    Ok(Runner::new(Arc::new(model), settings))
}

/// What a source calls the embedding: the authors' files say "embedding".
pub(in crate::models) fn embedding_name(source: &dyn Source) -> &'static str {
    match source.shape("backbone.embedding.weight") {
        Some(_) => "backbone.embedding.weight",
        None => "backbone.embeddings.weight",
    }
}

/// The weights of a convolution `[K, W]`; files hold `[W, 1, K]`.
pub(in crate::models) fn conv_rows(source: &dyn Source, name: &str, width: usize, taps: usize) -> Result<Vec<f32>> {
    let stored = source.flat(name, width * taps)?;
    Ok((0..taps).flat_map(|j| stored.chunks_exact(taps).map(move |channel| channel[j])).collect())
}

/// Logarithms of decays, small enough that the decays are numbers.
pub(in crate::models) fn a_log(source: &dyn Source, name: &str, len: usize) -> Result<Vec<f32>> {
    let a_log = source.flat(name, len)?;
    match a_log.iter().find(|a| **a > 80.0) {
        None => Ok(a_log),
        Some(bad) => {
            let problem = format!("{bad} is the logarithm of no usable decay: expected at most 80");
            Err(source.wrong(name, problem))
        }
    }
}

fn jobs(config: &Config) -> Vec<Job<'static>> {
    jobs_of(config.layers, &modules(config))
}

/// What to load of any Mamba's layers.
pub(in crate::models) fn jobs_of(layers: usize, modules: &[Module]) -> Vec<Job<'static>> {
    let job = |index: usize, (module, rows, cols, bias): Module| {
        let name = format!("backbone.layers.{index}.mixer.{module}");
        let bias = bias.then(|| format!("{name}.bias"));
        Job {
            weight: format!("{name}.weight"),
            bias,
            rows,
            cols,
            transposed: false,
            plane: None,
            unpacked: false,
            quantisation: None,
        }
    };
    (0..layers).flat_map(|index| modules.iter().map(move |module| job(index, *module))).collect()
}

/// Numbers in the linear layers.
pub(crate) fn matrix_numbers(config: &Config) -> u64 {
    Loading::numbers(&jobs(config))
}

/// Whether the model has a tensor of this name, or may carry it unused.
fn known(config: &Config, name: &str) -> bool {
    known_name(name, config.layers, &modules(config), |part| {
        ["conv1d.weight", "A_log", "D"].contains(&part) || config.conv_bias && part == "conv1d.bias"
    })
}

/// The same for any Mamba, whose layers hold linear layers, as [`modules`] gives them, and what is `beside` them.
pub(in crate::models) fn known_name(
    name: &str,
    layers: usize,
    modules: &[Module],
    beside: impl Fn(&str) -> bool,
) -> bool {
    if ["backbone.norm_f.weight", "lm_head.weight"].contains(&name) {
        return true;
    }
    let parts = name.strip_prefix("backbone.layers.").and_then(|rest| rest.split_once('.'));
    let Some((index, rest)) = parts else { return false };
    if !index.parse::<usize>().is_ok_and(|index| index < layers) {
        return false;
    }
    let Some(part) = rest.strip_prefix("mixer.") else { return rest == "norm.weight" };
    beside(part)
        || modules.iter().any(|(module, .., bias)| match part.strip_prefix(module) {
            Some(".weight") => true,
            Some(".bias") => *bias,
            _ => false,
        })
}

/// Between what the numbers of a synthetic vector lie: steps between 0.001 and 0.1, as the authors initialise them, and decays
/// between 1 and 16.
pub(in crate::models) fn synthetic_range(name: &str) -> Range<f32> {
    match name.rsplit('.').next() {
        Some("A_log") => 0.0..2.77,
        Some("dt_bias") => -6.9..-2.25,
        Some("bias") if name.ends_with("dt_proj.bias") => -6.9..-2.25,
        Some("bias") => -0.1..0.1,
        _ if name.ends_with("conv1d.weight") => -0.5..0.5,
        _ => 0.75..1.25,
    }
}
