//! From a source of tensors to a transformer.

use super::{Layer, Transformer, Weights};
use crate::config::{Config, Quantisation};
use crate::linear::{self, Fan, Linear};
use crate::rope::Rope;
use crate::team::lock;
use crate::weights::dense::Dense;
use crate::weights::{Source, TernaryForm};
use crate::{Cpu, DensePacking, Error, Packing, Result, Settings};
use kernels::grouped::{self, GroupedMatrix};
use kernels::memory::{Purpose, Reservation};
use std::ops::Range;
use std::sync::{Arc, Mutex};

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

/// One of them.
struct Job<'a> {
    /// `model.layers.I.MODULE`.
    name: String,
    rows: usize,
    cols: usize,
    bias: bool,
    quantisation: Option<&'a Quantisation>,
}

/// Builds the model that `config` describes from the tensors of `source`. `progress` hears how many numbers are ready, of how
/// many.
pub(crate) fn build(
    config: Config,
    source: &dyn Source,
    settings: &Settings,
    progress: &dyn Fn(u64, u64),
) -> Result<Transformer> {
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
    let matrices: u64 = jobs.iter().map(|job| (job.rows * job.cols) as u64).sum();
    let tables = (vocab * width) as u64 * if config.tied { 1 } else { 2 };
    let mut done = Progress { report: progress, done: 0, total: matrices + tables };
    done.add(0);
    let table = |name: &str| checked_table(source, name, vocab, width, &settings.cpu);
    let embedding = table("model.embed_tokens.weight")?;
    let head = if config.tied { embedding.clone() } else { table("lm_head.weight")? };
    let head_name = if config.tied { "model.embed_tokens.weight" } else { "lm_head.weight" };
    let head = match settings.packing.head {
        DensePacking::Stored => linear::Weights::Dense(head),
        DensePacking::Grouped(layout) => {
            // Pieces of whole tiles, for all threads.
            const ROWS: usize = 1024;
            let parts = in_parallel(&settings.cpu, vocab.div_ceil(ROWS), |i| {
                rounded(source, head_name, &head, i * ROWS..vocab.min((i + 1) * ROWS), layout)
            })?;
            linear::Weights::Grouped(GroupedMatrix::stack(&parts))
        }
    };
    done.add(tables);

    let mut linears = Vec::with_capacity(jobs.len());
    for batch in jobs.chunks((4 * settings.cpu.threads()).max(MODULES.len())) {
        linears.extend(in_parallel(&settings.cpu, batch.len(), |i| linear(source, &batch[i], settings.packing))?);
        done.add(batch.iter().map(|job| (job.rows * job.cols) as u64).sum());
    }
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
    let head = Linear { weights: head.spread_over_nodes(), bias: None, pre_norm: None };
    let mut weights =
        Weights { config, embedding, layers, norm, head, rope, vectors: Reservation::new(Purpose::Weights, 0) };
    weights.count_vectors();
    Ok(Transformer::new(Arc::new(weights), settings))
}

/// Counts what is ready.
struct Progress<'a> {
    report: &'a dyn Fn(u64, u64),
    done: u64,
    total: u64,
}

impl Progress<'_> {
    fn add(&mut self, count: u64) {
        self.done += count;
        (self.report)(self.done, self.total);
    }
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
            Job { name, rows, cols, bias, quantisation }
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

/// The embedding or the head, every number finite.
fn checked_table(source: &dyn Source, name: &str, rows: usize, cols: usize, cpu: &Cpu) -> Result<Dense> {
    const ROWS: usize = 1024;
    let table = source.dense(name, rows, cols)?;
    let bad = in_parallel(cpu, rows.div_ceil(ROWS), |i| Ok(table.not_finite(i * ROWS..rows.min((i + 1) * ROWS))))?;
    match bad.into_iter().flatten().next() {
        None => Ok(table),
        Some(bad) => Err(not_finite(source, name, bad)),
    }
}

fn not_finite(source: &dyn Source, name: &str, (row, column, value): (usize, usize, f32)) -> Error {
    Error::tensor(source.place(), name, format!("the number at row {row}, column {column} is {value}"))
}

/// Rows of a dense matrix, rounded in groups.
fn rounded(
    source: &dyn Source,
    name: &str,
    dense: &Dense,
    rows: Range<usize>,
    layout: grouped::Layout,
) -> Result<GroupedMatrix> {
    GroupedMatrix::from_rows(rows.len(), dense.cols(), layout, |r, out| dense.row(rows.start + r, out))
        .map_err(|problem| Error::tensor(source.place(), name, problem.after_rows(rows.start)))
}

/// One linear layer.
fn linear(source: &dyn Source, job: &Job<'_>, packing: Packing) -> Result<Linear> {
    let Job { rows, cols, .. } = *job;
    let name = format!("{}.weight", job.name);
    let bias = job.bias.then(|| source.vector(&format!("{}.bias", job.name), rows)).transpose()?;
    let Some(quantisation) = job.quantisation else {
        let dense = source.dense(&name, rows, cols)?;
        if let Some(bad) = dense.not_finite(0..rows) {
            return Err(not_finite(source, &name, bad));
        }
        let weights = match packing.dense {
            DensePacking::Stored => linear::Weights::Dense(dense),
            DensePacking::Grouped(layout) => linear::Weights::Grouped(rounded(source, &name, &dense, 0..rows, layout)?),
        };
        return Ok(Linear { weights: weights.spread_over_nodes(), bias, pre_norm: None });
    };
    let (matrix, factor) = source.ternary(&name, rows, cols, quantisation.form)?;
    let matrix = if matrix.layout() == packing.ternary { matrix } else { matrix.to_layout(packing.ternary) };
    // This form multiplies what comes after the bias.
    let bias = match quantisation.form {
        TernaryForm::Multiplied => bias.map(|b| b.iter().map(|b| (f64::from(*b) * factor) as f32).collect()),
        _ => bias,
    };
    let pre_norm = match quantisation.pre_norm {
        Some(eps) => Some((source.vector(&format!("{}.rms_norm.weight", job.name), cols)?, eps)),
        None => None,
    };
    let weights = linear::Weights::Ternary { matrix, factor }.spread_over_nodes();
    Ok(Linear { weights, bias, pre_norm })
}

/// `make(0..count)` on all threads; the error, if any, is that of the lowest index that was reached.
fn in_parallel<T: Send>(cpu: &Cpu, count: usize, make: impl Fn(usize) -> Result<T> + Sync) -> Result<Vec<T>> {
    let slots: Vec<Mutex<Option<Result<T>>>> = (0..count).map(|_| Mutex::new(None)).collect();
    cpu.team(|member| {
        member.phase(count, |i| {
            let made = make(i);
            *lock(&slots[i]) = Some(made);
            Ok(())
        })
    })?;
    let missing = || Err(Error::Thread("an item was never made".to_string()));
    slots.iter().map(|slot| lock(slot).take().unwrap_or_else(missing)).collect()
}
