//! Every op on every ISA: first checked against the scalar specification, then timed and held to the machine's ceilings.

use anyhow::{Result, bail};
use kernels::probe::{Probe, Shape, Tolerance};
use kernels::{Isa, Kernels};
use serde::{Deserialize, Serialize};

use crate::ceilings;
use crate::checksum;
use crate::contest::Budget;
use crate::experiment::Experiment;
use crate::lab::{Lab, Threads};
use crate::machine::Machine;
use crate::quantity::{Determined, Timed, determined};
use crate::report::{Section, format};

mod bench;
mod report;

/// The experiment.
pub struct KernelSpeeds;

/// How it is run.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// For each case.
    pub budget: Budget,
    /// For cases that name none.
    #[serde(default)]
    pub threads: Threads,
    /// The scalar variant of a case with more operations than this is checked, but not timed: one call would use up the
    /// time of many others.
    pub scalar_operations: u64,
    /// How many of their own shapes (those that cost most) to time of ops that no case names, in cache.
    pub others: usize,
    /// What to time.
    #[serde(default)]
    pub cases: Vec<Case>,
}

/// Every combination of these is timed.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// Names of ops.
    pub ops: Vec<String>,
    /// Shapes: `ROWSxCOLUMNSxTOKENS`.
    pub shapes: Vec<ShapeText>,
    /// Where the data lies.
    pub working_sets: Vec<WorkingSet>,
    /// Numbers of threads, each computing its own case on its own data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threads: Option<Threads>,
    /// Whether the ops are contestants of the same blocks, so that they can be compared with the first of them.
    #[serde(default)]
    pub together: bool,
    /// Whether the shapes are contestants of the same blocks, so that batches of several tokens can be compared with the
    /// first shape.
    #[serde(default)]
    pub batches: bool,
}

/// A shape as text in a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ShapeText(pub Shape);

impl TryFrom<String> for ShapeText {
    type Error = String;

    fn try_from(text: String) -> Result<ShapeText, String> {
        text.parse().map(ShapeText)
    }
}

impl From<ShapeText> for String {
    fn from(shape: ShapeText) -> String {
        shape.0.to_string()
    }
}

/// Where a case's data lies when it is computed again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum WorkingSet {
    /// Each thread computes one case again and again: data stays in the nearest cache that holds it.
    Cache,
    /// Each thread walks through as many cases as half of its level 2 cache holds.
    L2,
    /// Each thread walks through as many cases as half of its share of the level 3 cache holds, more than level 2 does.
    L3,
    /// Each thread walks through so many cases that none is in a cache when its turn comes again.
    Memory,
}

impl WorkingSet {
    /// Every place, nearest first.
    pub const ALL: [WorkingSet; 4] = [WorkingSet::Cache, WorkingSet::L2, WorkingSet::L3, WorkingSet::Memory];

    /// As in a configuration: `cache`, `l2`, `l3` or `memory`.
    pub fn name(self) -> &'static str {
        match self {
            WorkingSet::Cache => "cache",
            WorkingSet::L2 => "l2",
            WorkingSet::L3 => "l3",
            WorkingSet::Memory => "memory",
        }
    }

    /// As in a sentence.
    pub fn told(self) -> &'static str {
        match self {
            WorkingSet::Cache => "in cache",
            WorkingSet::L2 => "in level 2 cache",
            WorkingSet::L3 => "in level 3 cache",
            WorkingSet::Memory => "from memory",
        }
    }

    /// Cases of so many bytes that each of `threads` threads walks through; `None` where the place cannot hold one, or
    /// this machine has no such place.
    fn instances(self, machine: &Machine, threads: usize, bytes: u64) -> Option<usize> {
        let fitting = |room: u64| (bytes > 0 && bytes <= room).then(|| (room / bytes) as usize);
        let private = machine.cache_bytes(2)?;
        match self {
            WorkingSet::Cache => Some(1),
            WorkingSet::L2 => fitting(private / 2),
            WorkingSet::L3 => {
                let room = machine.cache_bytes(3)? / 2 / threads as u64;
                // Whole cases fill at least half of the room, which level 2 must not hold.
                fitting(room).filter(|_| room >= 4 * private)
            }
            WorkingSet::Memory => Some(ceilings::memory_bytes(machine, threads).div_ceil(bytes.max(1)).max(1) as usize),
        }
    }
}

/// One measurement.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Row {
    /// What an ISA's table holds for an op.
    Variant(VariantRow),
    /// A variant's results held to the scalar ones.
    Check(CheckRow),
    /// A variant's speed.
    Speed(Box<SpeedRow>),
    /// What cannot be timed on this machine.
    Left(LeftRow),
}

/// A combination that was not timed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LeftRow {
    /// The op.
    pub op: String,
    /// R.
    pub rows: usize,
    /// C.
    pub columns: usize,
    /// T.
    pub tokens: usize,
    /// Where the data should have lain.
    pub working_set: WorkingSet,
    /// Threads at the same time.
    pub threads: usize,
    /// Why.
    pub reason: String,
}

/// What an ISA's table holds for an op.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct VariantRow {
    /// The op.
    pub op: String,
    /// The level.
    pub isa: String,
    /// `own`, `inherited` or `not_tested`: by choice of the run, or because the CPU lacks the level.
    pub status: Status,
    /// The level whose code this one runs, where that is known.
    pub code_of: Option<String>,
    /// What the op stands for, if others are judged against it.
    #[serde(default)]
    pub comparator: Option<String>,
}

impl VariantRow {
    /// `own`, `= avx2` or `not tested`.
    pub fn told(&self) -> String {
        match (self.status, &self.code_of) {
            (Status::Own, _) => "own".to_string(),
            (Status::Inherited, Some(level)) => format!("= {level}"),
            (Status::Inherited, None) => "inherited".to_string(),
            (Status::NotTested, _) => "not tested".to_string(),
        }
    }
}

/// Whether a variant is an ISA's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Code of its own.
    Own,
    /// The code of the level below.
    Inherited,
    /// The CPU lacks the level, or the run was told to stay below it.
    NotTested,
}

/// A variant's results held to the scalar ones.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CheckRow {
    /// The op.
    pub op: String,
    /// The level.
    pub isa: String,
    /// R.
    pub rows: usize,
    /// C.
    pub columns: usize,
    /// T.
    pub tokens: usize,
    /// How far results may differ; 0 stands for the same bits.
    pub tolerance: f64,
    /// Numbers that were compared.
    pub elements: Determined<usize>,
    /// Numbers whose bits differ.
    pub differing: Determined<usize>,
    /// The largest difference.
    pub largest_difference: Determined<f64>,
    /// The beginning of the SHA-256 of the results' bits.
    pub digest: Determined<String>,
}

/// A variant's speed, with all that it is held to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SpeedRow {
    /// The op.
    pub op: String,
    /// The level.
    pub isa: String,
    /// R.
    pub rows: usize,
    /// C.
    pub columns: usize,
    /// T.
    pub tokens: usize,
    /// Where the data lay.
    pub working_set: WorkingSet,
    /// Threads at the same time, each with its own data.
    pub threads: usize,
    /// What each thread walked through.
    pub walked_bytes: u64,
    /// Bytes that one call must move at least.
    pub work_bytes: u64,
    /// Operations that one call must do at least.
    pub work_operations: u64,
    /// Which arithmetic peak it is held to.
    pub arithmetic: String,
    /// One call, in microseconds.
    pub call_us: Timed,
    /// Bytes moved, 10^9 a second, all threads together.
    pub gb_per_s: Timed,
    /// Operations done, 10^9 a second, all threads together.
    pub gops: Timed,
    /// How the bandwidth ceiling was measured, in the same blocks.
    pub ceiling_by: String,
    /// The bandwidth ceiling, 10^9 bytes a second.
    pub ceiling_gb_per_s: Timed,
    /// The arithmetic ceiling, 10^9 operations a second.
    pub ceiling_gops: Timed,
    /// Which of the two is the lower for this case: `bandwidth` or `arithmetic`.
    pub bound: String,
    /// The least possible time by these ceilings over the time taken, within blocks.
    pub share_of_ceiling: Timed,
    /// How many times as fast as scalar, within blocks; absent for scalar itself and where scalar was not timed.
    pub speedup_over_scalar: Option<Timed>,
    /// The level below whose own variant this one was compared with.
    pub below: Option<String>,
    /// How many times as fast as that, within blocks.
    pub speedup_over_below: Option<Timed>,
    /// The op that it was timed together with, on the same level.
    #[serde(default)]
    pub rival: Option<String>,
    /// How many times as fast as that, within blocks.
    #[serde(default)]
    pub speedup_over_rival: Option<Timed>,
    /// Tokens of the smaller batch that it was timed together with, on the same level.
    #[serde(default)]
    pub batch_of: Option<usize>,
    /// A call's time over that of the smaller batch, within blocks.
    #[serde(default)]
    pub time_over_batch_of: Option<Timed>,
}

impl SpeedRow {
    /// The shape.
    pub fn shape(&self) -> Shape {
        Shape::new(self.rows, self.columns, self.tokens)
    }
}

/// A combination that is timed.
struct Combination<'a> {
    /// At least one: ops at shapes.
    entrants: Vec<(&'a Probe, Shape)>,
    working_set: WorkingSet,
    threads: usize,
}

impl Combination<'_> {
    fn told(&self) -> String {
        let entrants: Vec<String> =
            self.entrants.iter().map(|(probe, shape)| format!("{} {shape}", probe.name)).collect();
        format!("{}, {}, {}", entrants.join(", "), self.working_set.name(), threads_told(self.threads))
    }

    fn is(&self, other: &Combination<'_>) -> bool {
        let names =
            |c: &Combination<'_>| c.entrants.iter().map(|(probe, shape)| (probe.name, *shape)).collect::<Vec<_>>();
        (self.working_set, self.threads) == (other.working_set, other.threads) && names(self) == names(other)
    }
}

fn threads_told(count: usize) -> String {
    format::count(count, "thread", "threads")
}

impl Experiment for KernelSpeeds {
    const NAME: &'static str = "kernels";
    const QUESTION: &'static str = "Does every kernel variant compute what the scalar specification computes, how fast is \
                                    it, and how far is it from what the machine can do?";
    type Config = Config;
    type Row = Row;

    fn check(config: &Config, lab: &Lab) -> Result<(), String> {
        config.budget.check().map_err(|error| format!("budget: {error}"))?;
        config.threads.check()?;
        for case in &config.cases {
            case.threads.as_ref().map_or(Ok(()), Threads::check)?;
            // Ops that are timed together are in memory together.
            let ops = if case.together { case.ops.len().max(1) } else { 1 };
            let shapes = if case.batches { case.shapes.len().max(1) } else { 1 };
            let share = 8 * (ops * shapes) as u64;
            let most = lab.machine.memory_bytes.unwrap_or(8 << 30) / share;
            for name in &case.ops {
                let probe = Probe::find(lab.ops(), name).ok_or_else(|| {
                    let names: Vec<&str> = lab.ops().iter().map(|op| op.name).collect();
                    format!("there is no op '{name}': expected one of {}", names.join(", "))
                })?;
                for ShapeText(shape) in &case.shapes {
                    let admitted = (probe.admit)(*shape);
                    if admitted != *shape {
                        return Err(format!(
                            "{name} cannot compute {shape}; the nearest shape that it can is {admitted}"
                        ));
                    }
                    if (probe.work)(shape).bytes == 0 {
                        return Err(format!("{name} has nothing to do at {shape}: expected sizes above 0"));
                    }
                    if (probe.work)(shape).bytes > most {
                        return Err(format!(
                            "{name} at {shape} would not fit: at most {} of this machine's memory",
                            format::bytes(most)
                        ));
                    }
                }
            }
        }
        Ok(())
    }

    fn run(config: &Config, lab: &Lab, emit: &mut dyn FnMut(Row) -> Result<()>) -> Result<()> {
        for probe in lab.ops() {
            variants(probe, lab).into_iter().try_for_each(|row| emit(Row::Variant(row)))?;
        }
        let combinations = combinations(config, lab);
        let bar = lab.bar(combinations.len(), "kernels");
        let mut checked: Vec<(&str, Shape)> = Vec::new();
        for combination in combinations {
            bar.set_message(combination.told());
            bar.inc(1);
            let combination = present(combination, emit)?;
            if combination.entrants.is_empty() {
                continue;
            }
            let Some(instances) = bench::instances(&combination, lab) else {
                let place = combination.working_set.told();
                let reason = format!("this machine has no room for them {place}");
                let mut entrants = combination.entrants.iter();
                entrants.try_for_each(|entrant| emit(Row::Left(left(&combination, *entrant, reason.clone()))))?;
                continue;
            };
            for (probe, shape) in &combination.entrants {
                if !checked.contains(&(probe.name, *shape)) {
                    checked.push((probe.name, *shape));
                    check(probe, *shape, lab)?.into_iter().try_for_each(|row| emit(Row::Check(row)))?;
                }
            }
            let rows = bench::speeds(&combination, &instances, config, lab)?;
            rows.into_iter().try_for_each(|row| emit(Row::Speed(Box::new(row))))?;
        }
        bar.finish_and_clear();
        Ok(())
    }

    fn report(config: &Config, rows: &[Row]) -> Section {
        report::section(config, rows)
    }
}

/// What every level's table holds for an op.
pub fn variants(probe: &Probe, lab: &Lab) -> Vec<VariantRow> {
    let own = probe.own_tables();
    let row = |isa: Isa| {
        let (status, code_of) = match Kernels::for_isa(isa).filter(|_| isa <= lab.isa) {
            None => (Status::NotTested, None),
            Some(table) => {
                let address = (probe.variant)(table);
                let origin = own.iter().find(|o| (probe.variant)(o) == address).map(|o| o.isa()).unwrap_or(isa);
                (if origin == isa { Status::Own } else { Status::Inherited }, Some(origin.name().to_string()))
            }
        };
        let comparator = probe.comparator.map(str::to_string);
        VariantRow { op: probe.name.to_string(), isa: isa.name().to_string(), status, code_of, comparator }
    };
    Isa::ALL.into_iter().map(row).collect()
}

/// The levels with a variant of their own that the run may use, lowest first.
fn own_tables(probe: &Probe, lab: &Lab) -> Vec<&'static Kernels> {
    probe.own_tables().into_iter().filter(|table| table.isa() <= lab.isa).collect()
}

/// A combination without the ops whose code this machine lacks; they are emitted as left out.
fn present<'a>(combination: Combination<'a>, emit: &mut dyn FnMut(Row) -> Result<()>) -> Result<Combination<'a>> {
    let mut entrants = Vec::with_capacity(combination.entrants.len());
    for &(probe, shape) in &combination.entrants {
        match (probe.missing)() {
            None => entrants.push((probe, shape)),
            Some(reason) => emit(Row::Left(left(&combination, (probe, shape), reason.to_string())))?,
        }
    }
    Ok(Combination { entrants, ..combination })
}

fn left(combination: &Combination<'_>, (probe, shape): (&Probe, Shape), reason: String) -> LeftRow {
    LeftRow {
        op: probe.name.to_string(),
        rows: shape.r,
        columns: shape.c,
        tokens: shape.t,
        working_set: combination.working_set,
        threads: combination.threads,
        reason,
    }
}

fn combinations<'a>(config: &Config, lab: &'a Lab) -> Vec<Combination<'a>> {
    let mut combinations: Vec<Combination<'a>> = Vec::new();
    let mut add = |combination: Combination<'a>| {
        if !combinations.iter().any(|known| known.is(&combination)) {
            combinations.push(combination);
        }
    };
    for case in &config.cases {
        let probes: Vec<&Probe> = case.ops.iter().filter_map(|name| Probe::find(lab.ops(), name)).collect();
        let shapes: Vec<Shape> = case.shapes.iter().map(|shape| shape.0).collect();
        for probes in probes.chunks(if case.together { probes.len().max(1) } else { 1 }) {
            for shapes in shapes.chunks(if case.batches { shapes.len().max(1) } else { 1 }) {
                let entrants: Vec<(&Probe, Shape)> =
                    shapes.iter().flat_map(|shape| probes.iter().map(|probe| (*probe, *shape))).collect();
                for &working_set in &case.working_sets {
                    for threads in case.threads.as_ref().unwrap_or(&config.threads).resolve(lab.threads) {
                        add(Combination { entrants: entrants.clone(), working_set, threads });
                    }
                }
            }
        }
    }
    for probe in lab.ops() {
        if config.cases.iter().any(|case| case.ops.iter().any(|name| name == probe.name)) {
            continue;
        }
        let mut shapes: Vec<Shape> = (probe.shapes)().into_iter().filter(|s| (probe.work)(s).bytes > 0).collect();
        shapes.sort_by_key(|shape| std::cmp::Reverse((probe.work)(shape).bytes + (probe.work)(shape).operations));
        shapes.dedup();
        for shape in shapes.into_iter().take(config.others) {
            add(Combination { entrants: vec![(probe, shape)], working_set: WorkingSet::Cache, threads: 1 });
        }
    }
    combinations
}

/// Holds every variant of a shape to the scalar one, on fresh cases from the same seed.
fn check(probe: &Probe, shape: Shape, lab: &Lab) -> Result<Vec<CheckRow>> {
    let run = |table: &Kernels| {
        let mut case = (probe.case)(&shape, lab.seed);
        case.run(table);
        case.output()
    };
    let tables = own_tables(probe, lab);
    let Some((scalar, _)) = tables.split_first() else { return Ok(Vec::new()) };
    let expected = run(scalar);
    let mut rows = Vec::with_capacity(tables.len());
    for table in tables {
        let found = run(table);
        let isa = table.isa();
        if found.len() != expected.len() {
            bail!("{}@{isa} at {shape} gave {} numbers where scalar gave {}", probe.name, found.len(), expected.len());
        }
        let pairs = || expected.iter().zip(&found).enumerate();
        let differing = pairs().filter(|(_, (a, b))| a.to_bits() != b.to_bits()).count();
        let distance = |a: f32, b: f32| if a.to_bits() == b.to_bits() { 0.0 } else { f64::from((a - b).abs()) };
        let largest = pairs().map(|(i, (a, b))| (i, distance(*a, *b))).fold((0, 0.0), |worst, next| {
            // A difference that is not a number is the worst of all.
            if next.1 > worst.1 || next.1.is_nan() { next } else { worst }
        });
        let (tolerance, broken) = match probe.tolerance {
            Tolerance::Exact => (0.0, differing > 0),
            Tolerance::Absolute(most, _) => (f64::from(most), largest.1.is_nan() || largest.1 > f64::from(most)),
        };
        if broken {
            let i = largest.0;
            bail!(
                "{}@{isa} at {shape} differs from scalar in {differing} of {} numbers, most at {i}: expected {}, found {}",
                probe.name,
                expected.len(),
                expected[i],
                found[i]
            );
        }
        rows.push(CheckRow {
            op: probe.name.to_string(),
            isa: isa.name().to_string(),
            rows: shape.r,
            columns: shape.c,
            tokens: shape.t,
            tolerance,
            elements: determined(found.len()),
            differing: determined(differing),
            largest_difference: determined(largest.1),
            digest: determined(digest(&found)),
        });
    }
    Ok(rows)
}

/// The first 16 hexadecimal digits of the SHA-256 of the numbers' bits, least significant byte first.
fn digest(numbers: &[f32]) -> String {
    let bits: Vec<u8> = numbers.iter().flat_map(|number| number.to_bits().to_le_bytes()).collect();
    let mut digits = checksum::of_bytes(&bits);
    digits.truncate(16);
    digits
}
