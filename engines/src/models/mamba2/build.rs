//! From a source of tensors to a Mamba-2.

use super::{Config, Layer, Mamba2, Vectors};
use crate::linear::Fan;
use crate::models::build::{Job, Loading, Sizes};
use crate::models::mamba::build::{Module, a_log, conv_rows, embedding_name, jobs_of, known_name};
use crate::pass::{Net, Runner};
use crate::weights::Source;
use crate::{Result, Settings};
use std::sync::Arc;

/// The linear layers of a block.
fn modules(config: &Config) -> [Module; 2] {
    let (width, inner) = (config.width, config.inner());
    [("in_proj", inner + config.channels() + config.heads, width, config.bias), ("out_proj", width, inner, config.bias)]
}

/// Builds the model that `config` describes from the tensors of `source`. `progress` hears how many numbers are ready, of how
/// many.
pub(crate) fn build(
    config: Config,
    source: &dyn Source,
    settings: &Settings,
    progress: &dyn Fn(u64, u64),
) -> Result<Runner<Mamba2>> {
    let embedding = embedding_name(source);
    source.check_names(&|name| name == embedding || known(&config, name))?;
    let Config { width, heads, taps, layers, vocab, tied, .. } = config;
    // The small tensors first: a missing layer is found before the long work begins.
    let norm = source.vector("backbone.norm_f.weight", width)?;
    let mut vectors = Vec::new();
    for index in 0..layers {
        let name = |rest: &str| format!("backbone.layers.{index}.{rest}");
        let vector = |rest: &str, width: usize| source.vector(&name(rest), width);
        let conv_bias = config.conv_bias.then(|| vector("mixer.conv1d.bias", config.channels())).transpose()?;
        let decays = a_log(source, &name("mixer.A_log"), heads)?;
        vectors.push(Vectors {
            norm: vector("norm.weight", width)?,
            conv: conv_rows(source, &name("mixer.conv1d.weight"), config.channels(), taps)?,
            conv_bias,
            dt_bias: vector("mixer.dt_bias", heads)?,
            decays: decays.into_iter().map(|a| -libm::exp(f64::from(a)) as f32).collect(),
            skip: vector("mixer.D", heads)?,
            gated_norm: vector("mixer.norm.weight", config.inner())?,
        });
    }
    let jobs = jobs(&config);
    let tables = (vocab * width) as u64 * if tied { 1 } else { 2 };
    let mut loading = Loading::new(source, settings, progress, Loading::numbers(&jobs) + tables);
    let outline = loading.outline(Sizes {
        architecture: "mamba-2",
        width,
        layers,
        vocab,
        context: None,
        embedding,
        head: (!tied).then_some("lm_head.weight"),
    })?;
    let mut linears = loading.linears(&jobs)?.into_iter();
    let mut fan = || Fan::new(linears.by_ref().take(1).collect());
    // Fields are evaluated in the order of the jobs.
    let layers = vectors.into_iter().map(|vectors| Layer { vectors, input: fan(), output: fan() }).collect();
    let mut model = Mamba2 { outline, config, layers, norm };
    let bytes = model.vector_numbers() as usize * size_of::<f32>();
    model.outline.vectors.resize(bytes);
    Ok(Runner::new(Arc::new(model), settings))
}

fn jobs(config: &Config) -> Vec<Job<'static>> {
    jobs_of(config.layers, &modules(config))
}

/// Numbers in the linear layers.
pub(crate) fn matrix_numbers(config: &Config) -> u64 {
    Loading::numbers(&jobs(config))
}

/// Whether the model has a tensor of this name, or may carry it unused.
fn known(config: &Config, name: &str) -> bool {
    known_name(name, config.layers, &modules(config), |part| {
        ["conv1d.weight", "dt_bias", "A_log", "D", "norm.weight"].contains(&part)
            || config.conv_bias && part == "conv1d.bias"
    })
}
