//! Our engine against other programs: tokens a second on the same machine in the same minutes.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use engines::{Model, Settings};
use serde::{Deserialize, Serialize};

use crate::contest::{Budget, contest};
use crate::experiment::Experiment;
use crate::lab::{Lab, Threads};
use crate::peers::{self, Description, Peer, Work};
use crate::quantity::Timed;
use crate::report::Section;
use crate::{compute, model, speed};

mod report;

/// The experiment.
pub struct Rivals;

/// How our engine is called among its rivals, the options of its model added.
const OURS: &str = "ryzanstein";

/// `ryzanstein+head=q8` for `NAME+head=q8`.
fn our_name(model: &str) -> String {
    let options = model.find('+').map_or("", |at| &model[at..]);
    format!("{OURS}{options}")
}

fn is_ours(program: &str) -> bool {
    program.strip_prefix(OURS).is_some_and(|rest| rest.is_empty() || rest.starts_with('+'))
}

/// The work of a peer's first run, which shows that it works and what it is.
const INTRODUCTION: Work = Work::Decode(1);

/// More blocks than these would take days.
const MOST_BLOCKS: usize = 1000;

/// How it is run.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the peers' programs and model files lie, in the repository or anywhere;
    /// [`RYZANSTEIN_PEERS`](peers::ENVIRONMENT) names another place.
    pub folder: PathBuf,
    /// Blocks of each test: every program once in each.
    pub blocks: usize,
    /// A run of a peer that takes longer is ended, and the experiment with it.
    pub limit_s: f64,
    /// Numbers of threads, the same for all.
    #[serde(default)]
    pub threads: Threads,
    /// Our engine.
    pub ours: Ours,
    /// What each is timed at.
    pub tests: Vec<Test>,
    /// The other programs.
    pub peers: Vec<Description>,
}

/// Our engine's part.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ours {
    /// Names in `models/`, folders, files, or `synthetic:SHAPE[:SEED]`, with options: models of the shape of the peers',
    /// each of which takes part.
    pub models: Vec<String>,
    /// How the key/value cache is kept: `f32` or `bf16`.
    pub cache: String,
}

/// One thing to time: either `prefill` or `decode`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Test {
    /// Read a prompt of so many tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefill: Option<usize>,
    /// Decode so many tokens from an empty state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decode: Option<usize>,
}

/// One measurement, or who is measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Row {
    /// A program that takes part.
    Program(ProgramRow),
    /// One run of one program.
    Sample(SampleRow),
}

/// A program that takes part.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ProgramRow {
    /// As in the configuration; ours is `ryzanstein` with the options of its model.
    pub program: String,
    /// What it calls its version or commit.
    pub version: String,
    /// The model, as it describes it.
    pub model: String,
    /// Numbers in the weights, as it counts them.
    pub parameters: u64,
    /// Length of the model file; of ours, what a decoded token reads of the weights at most.
    pub model_bytes: u64,
}

/// One run of one program.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SampleRow {
    /// See [`ProgramRow::program`].
    pub program: String,
    /// `prefill` or `decode`.
    pub test: String,
    /// Tokens of the prompt, or decoded.
    pub tokens: usize,
    /// Threads.
    pub threads: usize,
    /// The block in which every program ran once, from 0.
    pub block: usize,
    /// Tokens a second.
    pub tokens_per_s: Timed,
}

impl Test {
    fn work(self) -> Result<Work, String> {
        match (self.prefill, self.decode) {
            (Some(tokens @ 1..), None) => Ok(Work::Prefill(tokens)),
            (None, Some(tokens @ 1..)) => Ok(Work::Decode(tokens)),
            _ => Err("a test needs either prefill = TOKENS or decode = TOKENS, at least 1".to_string()),
        }
    }
}

impl Config {
    fn works(&self) -> Result<Vec<Work>, String> {
        self.tests.iter().map(|test| test.work()).collect()
    }

    fn peers(&self) -> Result<Vec<Peer>, String> {
        let folder = peers::folder(&self.folder);
        let limit = Duration::try_from_secs_f64(self.limit_s).ok().filter(|limit| !limit.is_zero());
        let limit = limit.ok_or_else(|| format!("limit_s = {}: expected a number above 0", self.limit_s))?;
        self.peers.iter().map(|peer| peer.find(&folder, limit)).collect()
    }

    fn settings(&self, lab: &Lab, threads: usize) -> Result<Settings> {
        let cache = compute::cache(&self.ours.cache).map_err(anyhow::Error::msg)?;
        lab.settings(lab.isa, threads, cache)
    }
}

impl Experiment for Rivals {
    const NAME: &'static str = "rivals";
    const QUESTION: &'static str =
        "How fast is our engine against other programs on the same machine at the same moment?";
    type Config = Config;
    type Row = Row;

    fn check(config: &Config, _lab: &Lab) -> Result<(), String> {
        config.threads.check()?;
        if !(1..=MOST_BLOCKS).contains(&config.blocks) {
            return Err(format!("blocks = {}: expected 1 to {MOST_BLOCKS}", config.blocks));
        }
        compute::cache(&config.ours.cache).map_err(|error| format!("ours: cache: {error}"))?;
        for model in &config.ours.models {
            model::find(model).map_err(|error| format!("ours: {error:#}"))?;
        }
        config.works().map_err(|error| format!("tests: {error}"))?;
        let ours = config.ours.models.iter().map(|model| our_name(model));
        let names: Vec<String> = ours.chain(config.peers.iter().map(|peer| peer.name.clone())).collect();
        for (i, name) in names.iter().enumerate() {
            if names[..i].contains(name) || i >= config.ours.models.len() && is_ours(name) {
                return Err(format!("'{name}' is the name of more than one program"));
            }
        }
        config.peers().map(drop).map_err(|error| format!("peers: {error}"))
    }

    fn run(config: &Config, lab: &Lab, emit: &mut dyn FnMut(Row) -> Result<()>) -> Result<()> {
        let peers = config.peers().map_err(anyhow::Error::msg)?;
        let works = config.works().map_err(anyhow::Error::msg)?;
        let threads = config.threads.resolve(lab.threads);
        let programs = config.ours.models.len() + peers.len();
        let bar = lab.bar(programs + works.len() * threads.len() * config.blocks * programs, "rivals");
        // First of all, so that a program that does not work is found before hours are spent.
        for peer in &peers {
            bar.set_message(format!("{}: first run", peer.name));
            lab.file("program", &peer.name, &peer.program)?;
            lab.file("model of a peer", &peer.name, &peer.model)?;
            emit(Row::Program(introduced(peer, lab.threads)?))?;
            bar.inc(1);
        }
        let mut ours = Vec::new();
        for name in &config.ours.models {
            bar.set_message(format!("loading {name}"));
            let loaded = lab.model(name, &config.settings(lab, lab.threads)?)?;
            emit(Row::Program(ourselves(name, loaded.model.as_ref())))?;
            ours.push((our_name(name), loaded.model));
            bar.inc(1);
        }
        // As many blocks as asked for, however long they take and however alike they are.
        let blocks = config.blocks;
        let budget = Budget { sample_ms: 1.0, min_blocks: blocks, max_blocks: blocks, seconds: 1e9, precision: 0.0 };
        for work in works {
            for &threads in &threads {
                let settings = config.settings(lab, threads)?;
                let models: Vec<Arc<dyn Model>> = ours.iter().map(|(_, model)| model.with(&settings)).collect();
                let mut done = vec![0; programs];
                contest(programs, &budget, |i| {
                    let (program, seconds) = match models.get(i) {
                        Some(model) => (&ours[i].0, time(model.as_ref(), work).context("our engine")?),
                        None => {
                            let peer = &peers[i - models.len()];
                            (&peer.name, peer.time(work, threads)?.seconds)
                        }
                    };
                    emit(Row::Sample(sample(program, work, threads, done[i], seconds)))?;
                    done[i] += 1;
                    bar.set_message(format!("{} {}, {program}", name(work), work.tokens()));
                    bar.inc(1);
                    Ok(seconds)
                })?;
            }
        }
        bar.finish_and_clear();
        Ok(())
    }

    fn report(config: &Config, rows: &[Row]) -> Section {
        report::section(config, rows)
    }
}

fn name(work: Work) -> &'static str {
    match work {
        Work::Prefill(_) => "prefill",
        Work::Decode(_) => "decode",
    }
}

fn sample(program: &str, work: Work, threads: usize, block: usize, seconds: f64) -> SampleRow {
    SampleRow {
        program: program.to_string(),
        test: name(work).to_string(),
        tokens: work.tokens(),
        threads,
        block,
        tokens_per_s: Timed::once(work.tokens() as f64 / seconds),
    }
}

fn introduced(peer: &Peer, threads: usize) -> Result<ProgramRow> {
    let answer = peer.time(INTRODUCTION, threads)?;
    Ok(ProgramRow {
        program: peer.name.clone(),
        version: answer.version,
        model: answer.model,
        parameters: answer.parameters,
        model_bytes: peer.model_bytes,
    })
}

fn ourselves(name: &str, model: &dyn Model) -> ProgramRow {
    let facts = model.facts();
    ProgramRow {
        program: our_name(name),
        version: env!("CARGO_PKG_VERSION").to_string(),
        model: format!("{name}: {}", facts.weights),
        parameters: facts.parameters,
        model_bytes: facts.linear_bytes + facts.head_bytes + facts.other_bytes,
    }
}

/// Seconds of our engine after one token that does not count: what ran before was another program, and has left none of
/// our weights in a cache. Peers warm themselves up by that or, some of them, by the whole prompt; ours gets the least.
fn time(model: &dyn Model, work: Work) -> Result<f64> {
    speed::decode(model, 0, 1)?;
    match work {
        Work::Prefill(tokens) => speed::prefill(model, tokens),
        Work::Decode(tokens) => Ok(speed::decode(model, 0, tokens)?.iter().sum()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_engine_is_called_by_the_options_of_its_model() {
        assert_eq!(our_name("synthetic:bitnet-2b-4t"), "ryzanstein");
        assert_eq!(our_name("m+layout=t5+head=q8"), "ryzanstein+layout=t5+head=q8");
        assert!(is_ours("ryzanstein") && is_ours("ryzanstein+head=q8") && !is_ours("ryzanstein-2") && !is_ours("x"));
    }

    #[test]
    fn a_test_reads_or_decodes_but_not_both() {
        let work = |text: &str| toml::from_str::<Test>(text).unwrap().work();
        assert_eq!(work("prefill = 128"), Ok(Work::Prefill(128)));
        assert_eq!(work("decode = 8"), Ok(Work::Decode(8)));
        for bad in ["", "decode = 0", "decode = 8\nprefill = 3"] {
            assert!(work(bad).unwrap_err().contains("either prefill"), "{bad}");
        }
    }
}
