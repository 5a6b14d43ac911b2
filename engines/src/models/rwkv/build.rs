//! From a source of tensors to an RWKV.

use super::config::{Ranks, Version};
use super::{Config, Core, Layer, LayerNorm, Mixing, Rwkv};
use crate::linear::{Fan, Linear};
use crate::models::build::{Job, Loading, Sizes};
use crate::pass::{Net, Runner};
use crate::weights::Source;
use crate::weights::renamed::Renamed;
use crate::{Error, Result, Settings};
use std::ops::Range;
use std::sync::Arc;

/// A linear layer of a block.
struct Module {
    /// The tensor's name in its block.
    weight: &'static str,
    bias: Option<&'static str>,
    rows: usize,
    cols: usize,
    transposed: bool,
    plane: Option<(usize, usize)>,
    /// Which of its fan's inputs it reads.
    input: usize,
}

impl Module {
    const fn new(weight: &'static str, rows: usize, cols: usize, input: usize) -> Module {
        Module { weight, bias: None, rows, cols, transposed: false, plane: None, input }
    }

    /// A part of a product of low rank, stored the other way round.
    const fn low(weight: &'static str, rows: usize, cols: usize, input: usize) -> Module {
        Module { transposed: true, ..Module::new(weight, rows, cols, input) }
    }

    const fn with_bias(self, bias: &'static str) -> Module {
        Module { bias: Some(bias), ..self }
    }
}

/// A block's linear layers, fan by fan, in the order of [`Layer::fans`].
struct Modules {
    /// Empty, as `mix_up` and `adapters`, where there are none.
    mix_down: Vec<Module>,
    mix_up: Vec<Module>,
    time: Vec<Module>,
    adapters: Vec<Module>,
    output: Vec<Module>,
    up: Vec<Module>,
    down: Vec<Module>,
}

/// Mixes of version 6, in the order of `time_maa_w2`: w, k, v, r, g.
const PLANES: usize = 5;

impl Modules {
    fn new(config: &Config, index: usize) -> Modules {
        let Config { version, width, inner, ranks, .. } = *config;
        let Ranks { mix, decay, rate, value, gate } = ranks;
        // Inputs are in the order of `share_names`.
        let (r, g) = if version == Version::Six { (3, 4) } else { (0, 3) };
        let mut time = vec![
            Module::new("att.receptance.weight", width, width, r),
            Module::new("att.key.weight", width, width, 1),
            Module::new("att.value.weight", width, width, 2),
        ];
        let (mut mix_down, mut mix_up, mut adapters) = (Vec::new(), Vec::new(), Vec::new());
        if version.is_gated() {
            time.push(Module::new("att.gate.weight", width, width, g));
        }
        if version == Version::Six {
            mix_down.push(Module::low("att.time_maa_w1", PLANES * mix, width, 0));
            mix_up.extend((0..PLANES).map(|plane| Module {
                plane: Some((plane, PLANES)),
                ..Module::low("att.time_maa_w2", width, mix, plane)
            }));
            time.push(Module::low("att.time_decay_w1", decay, width, 0));
            adapters.push(Module::low("att.time_decay_w2", width, decay, 0).with_bias("att.time_decay"));
        }
        if version == Version::Seven {
            time.push(Module::low("att.w1", decay, width, 3));
            time.push(Module::low("att.a1", rate, width, 4));
            time.push(Module::low("att.g1", gate, width, 5));
            adapters.push(Module::low("att.w2", width, decay, 0).with_bias("att.w0"));
            adapters.push(Module::low("att.a2", width, rate, 1).with_bias("att.a0"));
            adapters.push(Module::low("att.g2", width, gate, 2));
            if index > 0 {
                time.push(Module::low("att.v1", value, width, 2));
                adapters.push(Module::low("att.v2", width, value, 3).with_bias("att.v0"));
            }
        }
        let mut up = vec![Module::new("ffn.key.weight", inner, width, 0)];
        if version != Version::Seven {
            up.push(Module::new("ffn.receptance.weight", width, width, 1));
        }
        Modules {
            mix_down,
            mix_up,
            time,
            adapters,
            output: vec![Module::new("att.output.weight", width, width, 0)],
            up,
            down: vec![Module::new("ffn.value.weight", width, inner, 0)],
        }
    }

    fn all(&self) -> impl Iterator<Item = &Module> {
        let Modules { mix_down, mix_up, time, adapters, output, up, down } = self;
        [mix_down, mix_up, time, adapters, output, up, down].into_iter().flatten()
    }
}

/// The vectors that say how far inputs move towards the row before: those of `time` and those of the channel mix.
fn share_names(version: Version) -> (&'static [&'static str], &'static [&'static str]) {
    match version {
        Version::Four | Version::FiveFirst => {
            (&["att.time_mix_r", "att.time_mix_k", "att.time_mix_v"], &["ffn.time_mix_k", "ffn.time_mix_r"])
        }
        Version::FiveGated | Version::Five => (
            &["att.time_mix_r", "att.time_mix_k", "att.time_mix_v", "att.time_mix_g"],
            &["ffn.time_mix_k", "ffn.time_mix_r"],
        ),
        Version::Six => (
            &["att.time_maa_w", "att.time_maa_k", "att.time_maa_v", "att.time_maa_r", "att.time_maa_g"],
            &["ffn.time_maa_k", "ffn.time_maa_r"],
        ),
        Version::Seven => (&["att.x_r", "att.x_k", "att.x_v", "att.x_w", "att.x_a", "att.x_g"], &["ffn.x_k"]),
    }
}

/// What a block has beside linear layers, norms and shares.
fn core_names(version: Version) -> &'static [&'static str] {
    const NORM: [&str; 2] = ["att.ln_x.weight", "att.ln_x.bias"];
    match version {
        Version::Four => &["att.time_decay", "att.time_first"],
        Version::FiveFirst | Version::FiveGated => &["att.time_decay", "att.time_first", NORM[0], NORM[1]],
        Version::Five => &["att.time_decay", "att.time_faaaa", NORM[0], NORM[1]],
        Version::Six => &["att.time_maa_x", "att.time_faaaa", NORM[0], NORM[1]],
        Version::Seven => &["att.k_k", "att.k_a", "att.r_k", NORM[0], NORM[1]],
    }
}

/// Builds the model that `config` describes from the tensors of `source`. `progress` hears how many numbers are ready, of how
/// many.
pub(crate) fn build(
    config: Config,
    source: &dyn Source,
    settings: &Settings,
    progress: &dyn Fn(u64, u64),
) -> Result<Runner<Rwkv>> {
    let renamed = Renamed { source, theirs: hugging_face, ours: blinkdl };
    let source = if config.hugging_face { &renamed } else { source };
    source.check_names(&|name| known(&config, name))?;
    let Config { version, width, layers, vocab, tied, .. } = config;
    // The small tensors first: a missing layer is found before the long work begins.
    let first_norm = norm(source, "blocks.0.ln0", width)?;
    let last_norm = norm(source, "ln_out", width)?;
    let vectors = (0..layers).map(|index| Vectors::read(&config, source, index)).collect::<Result<Vec<_>>>()?;
    let modules: Vec<Modules> = (0..layers).map(|index| Modules::new(&config, index)).collect();
    let jobs = jobs(&modules);
    let tables = (vocab * width) as u64 * if tied { 1 } else { 2 };
    let mut loading = Loading::new(source, settings, progress, Loading::numbers(&jobs) + tables);
    let outline = loading.outline(Sizes {
        architecture: version.architecture(),
        width,
        layers,
        vocab,
        context: None,
        embedding: "emb.weight",
        head: (!tied).then_some("head.weight"),
    })?;
    let mut linears = loading.linears(&jobs)?.into_iter();
    let layers = modules.iter().zip(vectors).map(|(modules, vectors)| vectors.with(modules, &mut linears)).collect();
    let mut model = Rwkv { outline, config, first_norm, layers, last_norm };
    let bytes = model.vector_numbers() as usize * size_of::<f32>();
    model.outline.vectors.resize(bytes);
    Ok(Runner::new(Arc::new(model), settings))
}

fn jobs(modules: &[Modules]) -> Vec<Job<'static>> {
    let layer = |(index, modules): (usize, &Modules)| {
        let job = |module: &Module| {
            let Module { weight, bias, rows, cols, transposed, plane, .. } = *module;
            let name = |rest: &str| format!("blocks.{index}.{rest}");
            Job {
                weight: name(weight),
                bias: bias.map(name),
                rows,
                cols,
                transposed,
                plane,
                unpacked: transposed,
                quantisation: None,
            }
        };
        modules.all().map(job).collect::<Vec<_>>()
    };
    modules.iter().enumerate().flat_map(layer).collect()
}

/// Numbers in the linear layers.
pub(crate) fn matrix_numbers(config: &Config) -> u64 {
    (0..config.layers)
        .flat_map(|i| Modules::new(config, i).all().map(|m| (m.rows * m.cols) as u64).collect::<Vec<_>>())
        .sum()
}

/// What a layer has beside its linear layers.
struct Vectors {
    norms: [LayerNorm; 2],
    /// Of version 6's `mix_down`.
    mix_share: Option<Vec<f32>>,
    time_shares: Vec<f32>,
    core: Core,
    channel_shares: Vec<f32>,
}

impl Vectors {
    fn read(config: &Config, source: &dyn Source, index: usize) -> Result<Vectors> {
        let Config { version, width, .. } = *config;
        let name = |rest: &str| format!("blocks.{index}.{rest}");
        let vector = |rest: &str| source.vector(&name(rest), width);
        // Shapes may be [H, N].
        let flat = |rest: &str| source.flat(&name(rest), width);
        let shares = |names: &[&str]| {
            let mut all = Vec::with_capacity(names.len() * width);
            for rest in names {
                let stored = vector(rest)?;
                // Versions 4 and 5 store what stays.
                let kept = version == Version::Four || version.is_five();
                all.extend(stored.into_iter().map(|m| if kept { 1.0 - m } else { m }));
            }
            Ok::<_, Error>(all)
        };
        let head_norm = || norm(source, &name("att.ln_x"), width);
        // One number to a head serves all its channels.
        let of_heads = |rest: &str| {
            let heads = source.vector(&name(rest), config.heads())?;
            Ok::<_, Error>(
                heads.into_iter().flat_map(|x| std::iter::repeat_n(x, config.head_width)).collect::<Vec<f32>>(),
            )
        };
        let bounded = |rest: &str, numbers: Vec<f32>| match numbers.iter().find(|x| **x > 80.0) {
            None => Ok(numbers),
            Some(bad) => {
                let problem = format!("{bad} has no usable exponential: expected at most 80");
                Err(source.wrong(&name(rest), problem))
            }
        };
        let map = |numbers: Vec<f32>, f: fn(f64) -> f64| numbers.into_iter().map(|x| f(f64::from(x)) as f32).collect();
        let decay = |numbers: Vec<f32>| -> Vec<f32> { map(numbers, |x| libm::exp(-libm::exp(x))) };
        let core = match version {
            Version::Four => Core::Four {
                decay: map(bounded("att.time_decay", vector("att.time_decay")?)?, |x| -libm::exp(x)),
                bonus: vector("att.time_first")?,
            },
            Version::FiveFirst | Version::FiveGated => Core::Matrix {
                decay: Some(decay(of_heads("att.time_decay")?)),
                bonus: map(bounded("att.time_first", of_heads("att.time_first")?)?, libm::exp),
                norm: head_norm()?,
            },
            Version::Five => Core::Matrix {
                decay: Some(decay(flat("att.time_decay")?)),
                bonus: flat("att.time_faaaa")?,
                norm: head_norm()?,
            },
            Version::Six => Core::Matrix { decay: None, bonus: flat("att.time_faaaa")?, norm: head_norm()? },
            Version::Seven => Core::Seven {
                removal: vector("att.k_k")?,
                replacement: vector("att.k_a")?,
                bonus: flat("att.r_k")?,
                norm: head_norm()?,
            },
        };
        let (time, channel) = share_names(version);
        Ok(Vectors {
            norms: [norm(source, &name("ln1"), width)?, norm(source, &name("ln2"), width)?],
            mix_share: (version == Version::Six).then(|| vector("att.time_maa_x")).transpose()?,
            time_shares: shares(time)?,
            core,
            channel_shares: shares(channel)?,
        })
    }

    /// The layer with its linear layers, the next of `linears`.
    fn with(self, modules: &Modules, linears: &mut impl Iterator<Item = Linear>) -> Layer {
        let mut fan = |modules: &[Module]| {
            let linears = linears.by_ref().take(modules.len()).collect();
            Fan::reading(linears, modules.iter().map(|module| module.input).collect())
        };
        let Vectors { norms, mix_share, time_shares, core, channel_shares } = self;
        // In the order of `Modules::all`.
        let mixing = mix_share.map(|share| {
            let down = fan(&modules.mix_down);
            Mixing { share, down, up: fan(&modules.mix_up) }
        });
        let time = fan(&modules.time);
        let adapters = (!modules.adapters.is_empty()).then(|| fan(&modules.adapters));
        let (output, up, down) = (fan(&modules.output), fan(&modules.up), fan(&modules.down));
        Layer { norms, mixing, time_shares, time, adapters, core, output, channel_shares, up, down }
    }
}

fn norm(source: &dyn Source, name: &str, width: usize) -> Result<LayerNorm> {
    let vector = |part: &str| source.vector(&format!("{name}.{part}"), width);
    Ok(LayerNorm { gain: vector("weight")?, bias: vector("bias")? })
}

/// Whether the model has a tensor of this name, or may carry it unused.
fn known(config: &Config, name: &str) -> bool {
    let norm_of = |rest: &str, norms: &[&str]| {
        let part = |norm: &&str| rest.strip_prefix(*norm).is_some_and(|part| [".weight", ".bias"].contains(&part));
        norms.iter().any(part)
    };
    if ["emb.weight", "head.weight"].contains(&name) || norm_of(name, &["ln_out"]) {
        return true;
    }
    let parts = name.strip_prefix("blocks.").and_then(|rest| rest.split_once('.'));
    let Some((index, rest)) = parts else { return false };
    let Some(index) = index.parse::<usize>().ok().filter(|index| *index < config.layers) else { return false };
    let (time, channel) = share_names(config.version);
    // Some files carry v0 to v2 in the first layer too.
    let unused = config.version == Version::Seven && ["att.v0", "att.v1", "att.v2"].contains(&rest);
    norm_of(rest, if index == 0 { &["ln0", "ln1", "ln2"] } else { &["ln1", "ln2"] })
        || [time, channel, core_names(config.version)].iter().any(|names| names.contains(&rest))
        || Modules::new(config, index).all().any(|module| module.weight == rest || module.bias == Some(rest))
        || unused
}

/// Parts of names: BlinkDL's and Hugging Face's.
const WORDS: [(&str, &str); 3] = [(".ln0.", ".pre_ln."), (".att.", ".attention."), (".ffn.", ".feed_forward.")];
const ENDS: [(&str, &str); 3] =
    [("time_mix_k", "time_mix_key"), ("time_mix_v", "time_mix_value"), ("time_mix_r", "time_mix_receptance")];

/// Hugging Face's name of a tensor.
fn hugging_face(name: &str) -> String {
    if name == "head.weight" {
        return name.to_string();
    }
    if name == "emb.weight" {
        return "rwkv.embeddings.weight".to_string();
    }
    let mut theirs = format!("rwkv.{name}");
    for (our, their) in WORDS {
        theirs = theirs.replace(our, their);
    }
    match ENDS.iter().find(|(our, _)| theirs.ends_with(our)) {
        Some((our, their)) => theirs.replace(our, their),
        None => theirs,
    }
}

/// BlinkDL's name of a tensor of Hugging Face's.
fn blinkdl(name: &str) -> String {
    let Some(rest) = name.strip_prefix("rwkv.") else { return name.to_string() };
    if rest == "embeddings.weight" {
        return "emb.weight".to_string();
    }
    let mut ours = rest.to_string();
    for (our, their) in WORDS {
        ours = ours.replace(their, our);
    }
    match ENDS.iter().find(|(_, their)| ours.ends_with(their)) {
        Some((our, their)) => ours.replace(their, our),
        None => ours,
    }
}

/// Between what the numbers of a synthetic vector lie: about those of small trained models.
pub(crate) fn synthetic_range(name: &str) -> Range<f32> {
    let rest = name.splitn(3, '.').nth(2).unwrap_or(name);
    match rest {
        "att.time_decay" => -5.0..0.0,
        "att.time_first" => -1.5..-0.5,
        "att.time_faaaa" => 0.0..0.6,
        "att.time_maa_w2" => -0.1..0.1,
        "att.w0" => -6.0..0.0,
        "att.a0" => -0.5..0.5,
        "att.v0" => 0.0..1.0,
        "att.k_k" => 0.7..1.0,
        "att.r_k" => -0.1..0.1,
        _ if rest.contains(".time_mix_") || rest.contains(".time_maa_") || rest.contains(".x_") => 0.0..1.0,
        _ if name.ends_with(".bias") => -0.1..0.1,
        _ => 0.75..1.25,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_both_ways() {
        for (ours, theirs) in [
            ("emb.weight", "rwkv.embeddings.weight"),
            ("head.weight", "head.weight"),
            ("ln_out.bias", "rwkv.ln_out.bias"),
            ("blocks.0.ln0.weight", "rwkv.blocks.0.pre_ln.weight"),
            ("blocks.3.att.time_mix_k", "rwkv.blocks.3.attention.time_mix_key"),
            ("blocks.3.ffn.time_mix_r", "rwkv.blocks.3.feed_forward.time_mix_receptance"),
            ("blocks.12.att.key.weight", "rwkv.blocks.12.attention.key.weight"),
        ] {
            assert_eq!((hugging_face(ours), blinkdl(theirs)), (theirs.to_string(), ours.to_string()));
        }
    }
}
