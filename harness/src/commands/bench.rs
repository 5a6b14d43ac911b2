//! `harness bench`: tokens per second of reading and of generating, as llama-bench measures them.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use clap::ValueEnum;
use engines::{CacheFormat, DensePacking, Facts, Loaded, Model, Packing, Settings, State};
use kernels::Isa;
use kernels::ternary::Layout;
use serde::Serialize;

use crate::cli::UserError;
use crate::compute::{at_least_one, cache, default_threads, isa, settings, threads};
use crate::profile::Profile;
use crate::quantity::Timed;
use crate::{model, output, progress, speed, stats, table};

mod breakdown;

/// What may be said after `harness bench`.
#[derive(clap::Args)]
#[command(after_help = "\
Tests are pp P (read a prompt of P tokens) and tg N (generate N tokens one by one), each after D tokens of context. \
All combinations of layouts, heads, threads, ISA levels and tests are interleaved: each repetition runs every one of them once, in turn \
forwards and backwards, after a first run that does not count. So a machine that slows down for a while does not favour \
one of them. Mean and standard deviation are llama-bench's; the median comes with the interval that covers the true \
median with 95 % probability (from 6 repetitions on; below, it is the range of what was seen).

Examples:
  harness bench --model synthetic:bitnet-2b-4t -p 512 -n 128 -t 1,2
  harness bench --model bitnet-5m -p 128,512 -n 64 -d 0,1024 --isa scalar,avx2,avx512 -r 10 -o json
  harness bench --model synthetic:bitnet-2b-4t --layout i2,t5 --head stored,q8,q4 -p 0 -n 32
  harness bench --model synthetic:bitnet-2b-4t -p 0 -n 32 --breakdown --trace trace.json
  harness bench --model bitnet-5m -n 256 -p 0 --profile decode.svg")]
pub struct Args {
    /// A name in models/, a folder, a file, or synthetic:SHAPE or synthetic:SHAPE:SEED
    #[arg(long, short = 'm', value_name = "MODEL")]
    model: String,
    /// Prompt lengths to read; 0 for none
    #[arg(long, short = 'p', value_name = "P,...", value_delimiter = ',', default_value = "512")]
    prompt: Vec<usize>,
    /// Numbers of tokens to generate; 0 for none
    #[arg(long, short = 'n', value_name = "N,...", value_delimiter = ',', default_value = "128")]
    generate: Vec<usize>,
    /// Tokens of context before the test
    #[arg(long, short = 'd', value_name = "D,...", value_delimiter = ',', default_value = "0")]
    depth: Vec<usize>,
    /// Numbers of threads [default: one for each physical core]
    #[arg(long, short = 't', value_name = "T,...", value_delimiter = ',', value_parser = threads)]
    threads: Vec<usize>,
    /// ISA levels [default: RYZANSTEIN_ISA, else the best that this CPU has]
    #[arg(long, value_name = "LEVEL,...", value_delimiter = ',', value_parser = isa)]
    isa: Vec<Isa>,
    /// How the key/value cache is kept: f32 or bf16
    #[arg(long, value_name = "FORMAT", default_value = "f32", value_parser = cache)]
    cache: CacheFormat,
    /// How ternary weights are packed; the model is loaded once for each
    #[arg(long, value_name = "LAYOUT,...", value_delimiter = ',', default_value = "i2")]
    layout: Vec<Layout>,
    /// How the head is packed: stored (as in the files), or rounded to q8 or q4; with every layout
    #[arg(long, value_name = "FORMAT,...", value_delimiter = ',', default_value = "stored")]
    head: Vec<DensePacking>,
    /// How dense linear layers are packed: stored, q8 or q4
    #[arg(long, value_name = "FORMAT", default_value_t = DensePacking::Stored)]
    dense: DensePacking,
    /// Repetitions of every test
    #[arg(long, short = 'r', value_name = "N", default_value = "5", value_parser = at_least_one)]
    repetitions: usize,
    /// How to print
    #[arg(long, short = 'o', value_name = "FORMAT", default_value = "md", conflicts_with = "json")]
    output: Format,
    /// The same as -o json
    #[arg(long)]
    json: bool,
    /// Print where the time goes instead: time, bytes and share of the ceilings of each kind of step
    #[arg(long)]
    breakdown: bool,
    /// Write the steps of every thread for chrome://tracing or Perfetto (one combination only)
    #[arg(long, value_name = "FILE.json")]
    trace: Option<PathBuf>,
    /// Write a flame graph of the timed runs (slows them a little)
    #[arg(long, value_name = "FILE.svg")]
    profile: Option<PathBuf>,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A Markdown table
    Md,
    /// An array of objects
    Json,
    /// A header and a line for each test
    Csv,
}

/// One test of one configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Test {
    /// Read so many tokens at once.
    Prompt(usize),
    /// Read so many tokens one by one.
    Generate(usize),
}

/// What is timed: a model on a CPU setting, after a depth, in a test.
struct Case {
    model: Arc<dyn Model>,
    settings: Settings,
    isa: Isa,
    threads: usize,
    /// Index of the depth's state.
    at: usize,
    depth: usize,
    test: Test,
}

impl Case {
    /// Seconds of one run.
    fn seconds(&self, states: &[State]) -> Result<f64> {
        let mut state = states[self.at].clone();
        match self.test {
            Test::Prompt(tokens) => speed::prefill_from(&*self.model, &mut state, tokens),
            Test::Generate(tokens) => Ok(speed::decode_from(&*self.model, &mut state, tokens)?.iter().sum()),
        }
    }

    /// Tokens per second of one run.
    fn run(&self, states: &[State]) -> Result<f64> {
        let (Test::Prompt(tokens) | Test::Generate(tokens)) = self.test;
        Ok(tokens as f64 / self.seconds(states)?)
    }

    fn name(&self) -> String {
        let depth = if self.depth == 0 { String::new() } else { format!(" @ d{}", self.depth) };
        match self.test {
            Test::Prompt(tokens) => format!("pp{tokens}{depth}"),
            Test::Generate(tokens) => format!("tg{tokens}{depth}"),
        }
    }
}

/// A line of the result.
#[derive(Clone, Debug, Serialize)]
struct Row {
    model: String,
    architecture: String,
    weights: String,
    /// Bytes of weights that a token must read.
    model_bytes: u64,
    parameters: u64,
    isa: String,
    threads: usize,
    cache: String,
    test: String,
    depth: usize,
    mean_tokens_per_s: f64,
    sd_tokens_per_s: f64,
    tokens_per_s: Timed,
    samples: Vec<f64>,
}

/// Does what `args` ask.
///
/// # Errors
/// An unknown model, tests that its context cannot hold, a profile that cannot be written.
pub fn run(args: Args) -> Result<()> {
    let profile = args.profile.as_deref().map(Profile::start).transpose()?;
    let isas: Vec<Option<Isa>> =
        if args.isa.is_empty() { vec![None] } else { args.isa.iter().copied().map(Some).collect() };
    let counts = if args.threads.is_empty() { vec![default_threads()] } else { args.threads.clone() };
    let widest = counts.iter().copied().max();
    let best = isas.iter().copied().max().flatten();
    let with_heads = |layout: &Layout| {
        let packing = Packing { ternary: *layout, dense: args.dense, head: DensePacking::Stored };
        args.head.iter().map(|head| Packing { head: *head, ..packing }).collect::<Vec<_>>()
    };
    let packings = args.layout.iter().flat_map(with_heads);
    let load = |packing| model::load(&args.model, &settings(best, widest, args.cache, packing)?);
    let loaded: Vec<Loaded> = packings.map(load).collect::<Result<_>>()?;
    let first = &*loaded[0].model;
    let tests = tests(&args, &first.facts())?;

    // Speed does not depend on the numbers in a state, so one serves every configuration.
    let states: Vec<State> = args.depth.iter().map(|depth| speed::at_depth(first, *depth)).collect::<Result<_>>()?;
    let mut cases = Vec::new();
    for loaded in &loaded {
        for isa in &isas {
            for threads in &counts {
                let settings = settings(*isa, Some(*threads), args.cache, Packing::default())?;
                let model = loaded.model.with(&settings);
                for (at, depth) in args.depth.iter().copied().enumerate() {
                    for test in tests.iter().copied() {
                        let (isa, threads) = (settings.cpu.kernels().isa(), *threads);
                        let (model, settings) = (model.clone(), settings.clone());
                        cases.push(Case { model, settings, isa, threads, at, depth, test });
                    }
                }
            }
        }
    }
    if args.breakdown || args.trace.is_some() {
        return broken_down(&args, &cases, &states);
    }
    let sampler = profile.as_ref().map(Profile::sample).transpose()?;
    let samples = interleave(&cases, &states, args.repetitions)?;
    if let (Some(profile), Some(sampler)) = (profile, sampler) {
        profile.write(&sampler)?;
    }
    let rows: Vec<Row> = cases
        .iter()
        .zip(samples)
        .map(|(case, samples)| row(&loaded[0].name, args.cache, case, samples))
        .collect::<Result<_>>()?;
    match if args.json { Format::Json } else { args.output } {
        Format::Json => output::json(&rows),
        Format::Csv => output::text(&csv(&rows)),
        Format::Md => output::line(&markdown(&rows)),
    }
}

/// Where the time goes, printed or written as a trace or both.
fn broken_down(args: &Args, cases: &[Case], states: &[State]) -> Result<()> {
    let trace = args.trace.as_ref().map(|path| {
        if cases.len() > 1 {
            return Err(UserError::new(format!("{} combinations: a trace shows one", cases.len())));
        }
        File::create(path)
            .map(|file| (file, path))
            .map_err(|error| UserError::new(format!("cannot write {}: {error}", path.display())))
    });
    let trace = trace.transpose()?;
    let found = breakdown::measure(cases, states, args.repetitions)?;
    if let (Some((file, path)), [only]) = (trace, &found[..]) {
        only.trace(file, path)?;
    }
    match (args.breakdown, args.json || args.output == Format::Json) {
        (false, _) => Ok(()),
        (true, true) => output::json(&found),
        (true, false) => output::text(&found.iter().map(breakdown::Breakdown::text).collect::<Vec<_>>().join("\n")),
    }
}

/// The tests that were asked for, each of which the model can hold.
fn tests(args: &Args, facts: &Facts) -> Result<Vec<Test>> {
    let prompts = args.prompt.iter().filter(|n| **n > 0).map(|n| Test::Prompt(*n));
    let texts = args.generate.iter().filter(|n| **n > 0).map(|n| Test::Generate(*n));
    let tests: Vec<Test> = prompts.chain(texts).collect();
    if tests.is_empty() {
        return Err(UserError::new("nothing to measure: expected -p or -n above 0"));
    }
    for depth in &args.depth {
        for test in &tests {
            let (Test::Prompt(tokens) | Test::Generate(tokens)) = test;
            if depth.checked_add(*tokens).is_none_or(|needed| !facts.holds(needed)) {
                let context = facts.context.unwrap_or(usize::MAX);
                return Err(UserError::new(format!(
                    "{tokens} tokens after {depth} do not fit: the model's context holds {context}"
                )));
            }
        }
    }
    Ok(tests)
}

/// Tokens per second of every case: `repetitions` samples each, taken in turn after one run that does not count.
fn interleave(cases: &[Case], states: &[State], repetitions: usize) -> Result<Vec<Vec<f64>>> {
    let mut samples = vec![Vec::with_capacity(repetitions); cases.len()];
    let bar = progress::count((cases.len() * (repetitions + 1)) as u64, "timing runs");
    for repetition in 0..=repetitions {
        for step in 0..cases.len() {
            let case = if repetition % 2 == 0 { step } else { cases.len() - 1 - step };
            let rate = cases[case].run(states)?;
            if repetition > 0 {
                samples[case].push(rate);
            }
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    Ok(samples)
}

fn row(name: &str, cache: CacheFormat, case: &Case, samples: Vec<f64>) -> Result<Row> {
    let facts = case.model.facts();
    let n = samples.len() as f64;
    let mean = samples.iter().sum::<f64>() / n;
    let squares: f64 = samples.iter().map(|x| (x - mean).powi(2)).sum();
    let sd = if samples.len() < 2 { 0.0 } else { (squares / (n - 1.0)).sqrt() };
    let tokens_per_s = stats::median(&samples).with_context(|| format!("{} took no time", case.name()))?;
    Ok(Row {
        model: name.to_string(),
        architecture: facts.architecture.to_string(),
        weights: facts.weights.clone(),
        model_bytes: facts.linear_bytes + facts.head_bytes + facts.other_bytes,
        parameters: facts.parameters,
        isa: case.isa.name().to_string(),
        threads: case.threads,
        cache: cache.to_string(),
        test: case.name(),
        depth: case.depth,
        mean_tokens_per_s: mean,
        sd_tokens_per_s: sd,
        tokens_per_s,
        samples,
    })
}

/// Mebibytes with two digits, as llama-bench writes sizes.
fn mib(bytes: u64) -> String {
    format!("{:.2} MiB", bytes as f64 / 1048576.0)
}

fn markdown(rows: &[Row]) -> String {
    let header =
        ["model", "weights", "size", "params", "isa", "threads", "cache", "test", "t/s", "median [95 % interval]"];
    let cells = |row: &Row| {
        let Timed { median, low, high, .. } = row.tokens_per_s;
        [
            row.model.clone(),
            row.weights.clone(),
            mib(row.model_bytes),
            format!("{:.2} M", row.parameters as f64 / 1e6),
            row.isa.clone(),
            row.threads.to_string(),
            row.cache.clone(),
            row.test.clone(),
            format!("{:.2} ± {:.2}", row.mean_tokens_per_s, row.sd_tokens_per_s),
            format!("{median:.2} [{low:.2}, {high:.2}]"),
        ]
    };
    table::markdown(header, rows.iter().map(cells))
}

fn csv(rows: &[Row]) -> String {
    let mut text = "model,architecture,weights,model_bytes,parameters,isa,threads,cache,test,depth,repetitions,\
                    mean_tokens_per_s,sd_tokens_per_s,median_tokens_per_s,low_tokens_per_s,high_tokens_per_s\n"
        .to_string();
    for row in rows {
        let Timed { median, low, high, n } = row.tokens_per_s;
        let cells = [
            quoted(&row.model),
            quoted(&row.architecture),
            quoted(&row.weights),
            row.model_bytes.to_string(),
            row.parameters.to_string(),
            row.isa.clone(),
            row.threads.to_string(),
            row.cache.clone(),
            row.test.clone(),
            row.depth.to_string(),
            n.to_string(),
            row.mean_tokens_per_s.to_string(),
            row.sd_tokens_per_s.to_string(),
            median.to_string(),
            low.to_string(),
            high.to_string(),
        ];
        text.push_str(&cells.join(","));
        text.push('\n');
    }
    text
}

/// A cell of CSV (RFC 4180).
fn quoted(cell: &str) -> String {
    if cell.contains([',', '"', '\n']) { format!("\"{}\"", cell.replace('"', "\"\"")) } else { cell.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_of_csv_are_quoted_where_they_must_be() {
        assert_eq!(quoted("ternary i2"), "ternary i2");
        assert_eq!(quoted("a \"b\", c"), "\"a \"\"b\"\", c\"");
    }
}
