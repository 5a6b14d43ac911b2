//! What building any model takes: linear layers and tables, checked and packed on all threads, with progress.

use crate::config::Quantisation;
use crate::linear::{self, Linear};
use crate::pass::Outline;
use crate::team::lock;
use crate::weights::dense::Dense;
use crate::weights::{Source, TernaryForm};
use crate::{Cpu, DensePacking, Error, Packing, Result, Settings};
use kernels::grouped::{self, GroupedMatrix};
use kernels::memory::{Purpose, Reservation};
use std::ops::Range;
use std::sync::Mutex;

/// A linear layer to load.
pub(crate) struct Job<'a> {
    /// The tensor's name.
    pub(crate) weight: String,
    /// That of its bias.
    pub(crate) bias: Option<String>,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    /// Whether the tensor is `[cols, rows]`.
    pub(crate) transposed: bool,
    /// Which of how many matrices `[cols, rows]` of the tensor it is, where there are several.
    pub(crate) plane: Option<(usize, usize)>,
    /// Whether it stays as it is stored, however dense weights are packed.
    pub(crate) unpacked: bool,
    pub(crate) quantisation: Option<&'a Quantisation>,
}

/// What is around the layers of a model.
pub(crate) struct Sizes<'a> {
    pub(crate) architecture: &'static str,
    pub(crate) width: usize,
    pub(crate) layers: usize,
    pub(crate) vocab: usize,
    pub(crate) context: Option<usize>,
    /// The embedding's name.
    pub(crate) embedding: &'a str,
    /// The head's, unless it is the embedding.
    pub(crate) head: Option<&'a str>,
}

/// A load under way.
pub(crate) struct Loading<'a> {
    pub(crate) source: &'a dyn Source,
    settings: &'a Settings,
    report: &'a dyn Fn(u64, u64),
    done: u64,
    total: u64,
}

impl<'a> Loading<'a> {
    /// Of `total` numbers in matrices and tables; `report` hears how many are ready, of how many.
    pub(crate) fn new(
        source: &'a dyn Source,
        settings: &'a Settings,
        report: &'a dyn Fn(u64, u64),
        total: u64,
    ) -> Loading<'a> {
        report(0, total);
        Loading { source, settings, report, done: 0, total }
    }

    /// Numbers in the matrices of some layers.
    pub(crate) fn numbers(jobs: &[Job<'_>]) -> u64 {
        jobs.iter().map(|job| (job.rows * job.cols) as u64).sum()
    }

    fn add(&mut self, count: u64) {
        self.done += count;
        (self.report)(self.done, self.total);
    }

    /// The embedding and the head.
    pub(crate) fn outline(&mut self, sizes: Sizes<'_>) -> Result<Outline> {
        let Sizes { architecture, width, layers, vocab, context, embedding: name, head } = sizes;
        let cpu = &self.settings.cpu;
        let table = |name: &str| checked_table(self.source, name, vocab, width, cpu);
        let embedding = table(name)?;
        let (tied, head_name) = (head.is_none(), head.unwrap_or(name));
        let head = if tied { embedding.clone() } else { table(head_name)? };
        let head = match self.settings.packing.head {
            DensePacking::Stored => linear::Weights::Dense(head),
            DensePacking::Grouped(layout) => {
                // Pieces of whole tiles, for all threads.
                const ROWS: usize = 1024;
                let parts = in_parallel(cpu, vocab.div_ceil(ROWS), |i| {
                    rounded(self.source, head_name, &head, i * ROWS..vocab.min((i + 1) * ROWS), layout)
                })?;
                linear::Weights::Grouped(GroupedMatrix::stack(&parts))
            }
        };
        self.add((vocab * width) as u64 * if tied { 1 } else { 2 });
        let head = Linear { weights: head.spread_over_nodes(), bias: None, pre_norm: None };
        let vectors = Reservation::new(Purpose::Weights, 0);
        Ok(Outline { architecture, width, layers, vocab, context, tied, embedding, head, vectors })
    }

    /// The linear layers, in order.
    pub(crate) fn linears(&mut self, jobs: &[Job<'_>]) -> Result<Vec<Linear>> {
        let mut linears = Vec::with_capacity(jobs.len());
        let Settings { cpu, packing, .. } = self.settings;
        for batch in jobs.chunks((4 * cpu.threads()).max(8)) {
            linears.extend(in_parallel(cpu, batch.len(), |i| linear(self.source, &batch[i], *packing))?);
            self.add(Loading::numbers(batch));
        }
        Ok(linears)
    }
}

/// One linear layer.
fn linear(source: &dyn Source, job: &Job<'_>, packing: Packing) -> Result<Linear> {
    let Job { rows, cols, ref weight, .. } = *job;
    let bias = job.bias.as_ref().map(|name| source.vector(name, rows)).transpose()?;
    let Some(quantisation) = job.quantisation else {
        let dense = match job.plane {
            Some((plane, planes)) => source.plane_transposed(weight, (plane, planes), rows, cols)?,
            None if job.transposed => source.dense_transposed(weight, rows, cols)?,
            None => source.dense(weight, rows, cols)?,
        };
        if let Some(bad) = dense.not_finite(0..rows) {
            return Err(not_finite(source, weight, bad));
        }
        let weights = match packing.dense {
            DensePacking::Grouped(layout) if !job.unpacked => {
                linear::Weights::Grouped(rounded(source, weight, &dense, 0..rows, layout)?)
            }
            DensePacking::Stored | DensePacking::Grouped(_) => linear::Weights::Dense(dense),
        };
        return Ok(Linear { weights: weights.spread_over_nodes(), bias, pre_norm: None });
    };
    let (matrix, factor) = source.ternary(weight, rows, cols, quantisation.form)?;
    let matrix = if matrix.layout() == packing.ternary { matrix } else { matrix.to_layout(packing.ternary) };
    // This form multiplies what comes after the bias.
    let bias = match quantisation.form {
        TernaryForm::Multiplied => bias.map(|b| b.iter().map(|b| (f64::from(*b) * factor) as f32).collect()),
        _ => bias,
    };
    let pre_norm = match quantisation.pre_norm {
        Some(eps) => {
            let module = weight.strip_suffix(".weight").unwrap_or(weight);
            Some((source.vector(&format!("{module}.rms_norm.weight"), cols)?, eps))
        }
        None => None,
    };
    let weights = linear::Weights::Ternary { matrix, factor }.spread_over_nodes();
    Ok(Linear { weights, bias, pre_norm })
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
    source.wrong(name, format!("the number at row {row}, column {column} is {value}"))
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
        .map_err(|problem| source.wrong(name, problem.after_rows(rows.start).to_string()))
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
