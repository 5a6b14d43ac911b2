//! How many cycles a scheduler's description of a CPU gives the kernels' hot loops, also of ISA levels that this CPU
//! lacks. The loops are read from this program's own machine code, so that what is predicted is what runs.

use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::experiment::Experiment;
use crate::lab::Lab;
use crate::report::Section;

mod floor;
mod hot;
mod loops;
mod mca;
mod report;

use hot::{FORMS, Hot};
use loops::Program;
use mca::{Answer, Tool};

/// The experiment.
pub struct Predicted;

/// How it is run.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Ops whose loops are looked at.
    pub ops: Vec<String>,
    /// CPUs as `llvm-mca -mcpu` calls them.
    pub cpus: Vec<String>,
    /// Turns of a loop whose cycles are counted, after as many that are not.
    pub turns: usize,
    /// What all of it may take.
    pub limit_s: f64,
}

/// One prediction, or why there is none. Nothing here is determined: it changes with the compiler and with the tool.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Row {
    /// Something without which there is no prediction.
    Absent {
        /// What has none.
        subject: String,
        /// Why.
        reason: String,
        /// What may help.
        remedy: String,
    },
    /// A loop that was found.
    Loop(LoopRow),
    /// What the tool thinks of an instruction by itself.
    Instruction(InstructionRow),
    /// What is predicted for a loop on a CPU.
    Predicted(PredictedRow),
}

/// An innermost loop of a variant.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LoopRow {
    /// The op.
    pub op: String,
    /// The level.
    pub isa: String,
    /// Where the loop begins in the program.
    pub address: String,
    /// Instructions of a turn.
    pub instructions: usize,
    /// Those that name a vector register.
    pub vector_instructions: usize,
    /// Those that write a vector register to the stack.
    pub spills: usize,
    /// Weights that a turn reads.
    pub weights: usize,
    /// Tokens that it multiplies them with.
    pub tokens: usize,
    /// Whether it is the hot one for one token or for several.
    pub hot: bool,
}

/// What the tool thinks of an instruction by itself: how far its description of a CPU can be trusted.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct InstructionRow {
    /// The instruction.
    pub instruction: String,
    /// The CPU that was asked for.
    pub cpu: String,
    /// Whose description the tool used.
    pub description: String,
    /// Cycles for one of many that do not depend on each other.
    pub predicted_cycles: f64,
    /// The least that the CPU's documented widths allow, if they are known here.
    pub least_cycles: Option<f64>,
}

/// What is predicted for a loop on a CPU.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PredictedRow {
    /// The op.
    pub op: String,
    /// The level.
    pub isa: String,
    /// Where the loop begins in the program.
    pub address: String,
    /// Tokens that it multiplies weights with.
    pub tokens: usize,
    /// The CPU that was asked for.
    pub cpu: String,
    /// The tool and its version.
    pub tool: String,
    /// Whose description the tool used: what the names of its resources have in common.
    pub description: String,
    /// Weights of a turn.
    pub weights: usize,
    /// Cycles of a turn.
    pub predicted_cycles: f64,
    /// Cycles for 64 weights and all tokens.
    pub predicted_cycles_per_64_weights: f64,
    /// Micro-operations of a turn.
    pub predicted_uops: f64,
    /// What the tool says holds the loop up.
    pub predicted_bottleneck: String,
    /// The least cycles of a turn that the CPU's documented widths allow, if they are known here.
    pub least_cycles: Option<f64>,
    /// Which width that is.
    pub least_because: Option<String>,
}

impl Experiment for Predicted {
    const NAME: &'static str = "predicted";
    const QUESTION: &'static str = "How many cycles for 64 weights does a scheduling model predict for the hot loops \
                                    on Zen 4 and Zen 5?";
    type Config = Config;
    type Row = Row;

    fn check(config: &Config, _lab: &Lab) -> Result<(), String> {
        let known = || FORMS.iter().map(|form| form.op);
        if let Some(op) = config.ops.iter().find(|op| known().all(|known| known != op.as_str())) {
            let mut known: Vec<&str> = known().collect();
            known.dedup();
            return Err(format!("ops: '{op}' is none whose loops are known: expected some of {}", known.join(", ")));
        }
        let is_word = |cpu: &String| !cpu.is_empty() && cpu.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
        if let Some(cpu) = config.cpus.iter().find(|cpu| !is_word(cpu)) {
            return Err(format!("cpus: '{cpu}' is no name of a CPU, for example znver4"));
        }
        if !(1..=10_000).contains(&config.turns) {
            return Err(format!("turns = {}: expected 1 to 10000", config.turns));
        }
        if !(0.1..=3600.0).contains(&config.limit_s) {
            return Err(format!("limit_s = {}: expected 0.1 to 3600", config.limit_s));
        }
        Ok(())
    }

    fn run(config: &Config, _lab: &Lab, emit: &mut dyn FnMut(Row) -> Result<()>) -> Result<()> {
        let absent = |subject: &str, error: &anyhow::Error, remedy: &str| Row::Absent {
            subject: subject.to_string(),
            reason: format!("{error:#}"),
            remedy: remedy.to_string(),
        };
        let path = std::env::current_exe().context("this program's file is unknown")?;
        let file = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let program = match Program::read(&file) {
            Ok(program) => program,
            Err(error) => return emit(absent("loops", &error, "build for Linux on x86-64, without `strip`")),
        };
        let mut hot: Vec<Hot> = Vec::new();
        for form in FORMS.iter().filter(|form| config.ops.iter().any(|op| op == form.op)) {
            let found = form.find(&program);
            if found.is_empty() {
                let error = anyhow::anyhow!("no loop in this program is like it");
                let remedy = "see the table of forms in `harness/src/experiments/predicted/hot.rs`";
                emit(absent(&format!("{}@{} for {}", form.op, form.isa, form.tokens.name()), &error, remedy))?;
            }
            found.iter().try_for_each(|found| emit(Row::Loop(found.row())))?;
            hot.extend(found.into_iter().filter(|found| found.hot));
        }
        let remedy = "an `llvm-mca` of LLVM 20 or later on the path or named by the variable LLVM_MCA (Debian 13: \
                      `apt-get install llvm-22`, then `LLVM_MCA=llvm-mca-22`)";
        let tool = match Tool::find(Duration::from_secs_f64(config.limit_s)) {
            Ok(tool) => tool,
            Err(error) => return emit(absent("cycles", &error, remedy)),
        };
        for cpu in &config.cpus {
            match PROBES.iter().map(|probe| judge(&tool, probe, cpu, config.turns)).collect::<Result<Vec<_>>>() {
                Ok(rows) => rows.into_iter().try_for_each(|row| emit(Row::Instruction(row)))?,
                Err(error) => {
                    emit(absent(cpu, &error, remedy))?;
                    continue;
                }
            }
            for found in &hot {
                match schedule(&tool, found, cpu, config.turns) {
                    Ok(row) => emit(Row::Predicted(row))?,
                    Err(error) => {
                        // The others would fail alike, some of them slowly.
                        emit(absent(&format!("{}@{} on {cpu}", found.form.op, found.form.isa), &error, remedy))?;
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    fn report(config: &Config, rows: &[Row]) -> Section {
        report::section(config, rows)
    }
}

/// What the tool says of a loop.
fn schedule(tool: &Tool, hot: &Hot, cpu: &str, turns: usize) -> Result<PredictedRow> {
    let assembly = hot.body.assembly();
    // The difference is free of the first turns' start and the last ones' end.
    let (short, long) = (tool.schedule(&assembly, cpu, turns)?, tool.schedule(&assembly, cpu, 2 * turns)?);
    let per_turn = |short: u64, long: u64| long.saturating_sub(short) as f64 / turns as f64;
    let (cycles, uops) = (per_turn(short.cycles, long.cycles), per_turn(short.uops, long.uops));
    anyhow::ensure!(cycles > 0.0, "{} gives a loop no cycles", tool.version);
    let least = floor::of(cpu, &hot.body);
    Ok(PredictedRow {
        op: hot.form.op.to_string(),
        isa: hot.form.isa.to_string(),
        address: hot.address(),
        tokens: hot.tokens,
        cpu: cpu.to_string(),
        tool: tool.version.clone(),
        description: long.description.clone(),
        weights: hot.weights,
        predicted_cycles: cycles,
        predicted_cycles_per_64_weights: cycles / hot.weights as f64 * 64.0,
        predicted_uops: uops,
        predicted_bottleneck: bottleneck(&long, cycles, uops),
        least_cycles: least.map(|(cycles, _)| cycles),
        least_because: least.map(|(_, because)| because.to_string()),
    })
}

/// An instruction that loops live on.
struct Probe {
    name: &'static str,
    /// Before the number of the register that it writes.
    assembly: &'static str,
    /// Bytes of its vector.
    bytes: usize,
}

const PROBES: &[Probe] = &[
    Probe { name: "vpmaddubsw ymm", assembly: "vpmaddubsw %ymm0, %ymm1, %ymm", bytes: 32 },
    Probe { name: "vpshufb ymm", assembly: "vpshufb %ymm0, %ymm1, %ymm", bytes: 32 },
    Probe { name: "vpdpbusd zmm", assembly: "vpdpbusd %zmm0, %zmm1, %zmm", bytes: 64 },
    Probe { name: "vpermb zmm", assembly: "vpermb %zmm0, %zmm1, %zmm", bytes: 64 },
    Probe { name: "vpermi2b zmm", assembly: "vpermi2b %zmm0, %zmm1, %zmm", bytes: 64 },
    Probe { name: "load of a zmm", assembly: "vmovdqa64 (%rax), %zmm", bytes: 64 },
];

/// What the tool says of an instruction.
fn judge(tool: &Tool, probe: &Probe, cpu: &str, turns: usize) -> Result<InstructionRow> {
    // So many that a result is not waited for.
    let registers = 2..16;
    let count = registers.len() as f64;
    let assembly: String = registers.map(|register| format!("{}{register}\n", probe.assembly)).collect();
    let (short, long) = (tool.schedule(&assembly, cpu, turns)?, tool.schedule(&assembly, cpu, 2 * turns)?);
    Ok(InstructionRow {
        instruction: probe.name.to_string(),
        cpu: cpu.to_string(),
        predicted_cycles: long.cycles.saturating_sub(short.cycles) as f64 / turns as f64 / count,
        description: long.description,
        least_cycles: floor::of_some_pipes(cpu, probe.bytes),
    })
}

/// What keeps a loop busy for nine tenths of its cycles at least; `latency` where nothing does.
fn bottleneck(answer: &Answer, cycles: f64, uops: f64) -> String {
    let dispatch = ("dispatch", uops / answer.dispatch_width as f64);
    let resources = answer.resources.iter().map(|(name, busy)| (name.as_str(), *busy));
    let most = resources.fold(dispatch, |most, next| if next.1 > most.1 { next } else { most });
    if most.1 >= 0.9 * cycles { most.0.to_string() } else { "latency".to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bottleneck_is_what_is_busy_nearly_all_the_time() {
        let answer = |busy: f64| Answer {
            cycles: 1000,
            uops: 3000,
            dispatch_width: 6,
            description: "Zn4".to_string(),
            resources: vec![("Zn4FP0".to_string(), busy), ("Zn4Load".to_string(), 2.0)],
        };
        assert_eq!(bottleneck(&answer(9.5), 10.0, 30.0), "Zn4FP0");
        assert_eq!(bottleneck(&answer(8.0), 10.0, 30.0), "latency");
        assert_eq!(bottleneck(&answer(8.0), 10.0, 57.0), "dispatch");
    }
}
