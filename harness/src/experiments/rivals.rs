//! Our engine against other programs: tokens a second on the same machine in the same minutes.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use engines::{CacheFormat, Model};
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

/// What is said of a shape, with its name before it where it has one.
fn qualified(shape: &str, said: &str) -> String {
    if shape.is_empty() { said.to_string() } else { format!("{shape}: {said}") }
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
    /// What each is timed at.
    pub tests: Vec<Test>,
    /// Our engine, where all models are of one shape.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ours: Option<Ours>,
    /// The other programs, likewise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<Description>,
    /// Both by the shape of the model, where there are several: programs alternate within a shape.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shapes: Vec<Shape>,
}

/// Programs that run models of one shape.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shape {
    /// How reports call it; empty where it is the only one.
    pub name: String,
    /// Our engine.
    pub ours: Ours,
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
    /// How the key/value cache is kept: `f32` or `bf16`. Recurrent models have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<String>,
}

impl Ours {
    /// The cache as asked for, else `f32`.
    fn cache(&self) -> Result<CacheFormat, String> {
        self.cache.as_deref().map_or(Ok(CacheFormat::F32), compute::cache)
    }
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
    /// See [`Shape::name`].
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub shape: String,
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
    /// See [`Shape::name`].
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub shape: String,
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

    /// Who runs against whom: what the file says by shape, or the only one without a name.
    fn shapes(&self) -> Result<Vec<Shape>, String> {
        match (&self.ours, &self.shapes[..]) {
            (Some(ours), []) => Ok(vec![Shape { name: String::new(), ours: ours.clone(), peers: self.peers.clone() }]),
            (None, [_, ..]) if self.peers.is_empty() => Ok(self.shapes.clone()),
            _ => Err("expected either ours and peers, or shapes with ours and peers in each".to_string()),
        }
    }

    fn find(&self, peers: &[Description]) -> Result<Vec<Peer>, String> {
        let folder = peers::folder(&self.folder);
        let limit = Duration::try_from_secs_f64(self.limit_s).ok().filter(|limit| !limit.is_zero());
        let limit = limit.ok_or_else(|| format!("limit_s = {}: expected a number above 0", self.limit_s))?;
        peers.iter().map(|peer| peer.find(&folder, limit)).collect()
    }
}

impl Shape {
    fn check(&self, config: &Config) -> Result<(), String> {
        self.ours.cache().map_err(|error| format!("ours: cache: {error}"))?;
        for model in &self.ours.models {
            model::find(model).map_err(|error| format!("ours: {error:#}"))?;
        }
        let ours = self.ours.models.iter().map(|model| our_name(model));
        let names: Vec<String> = ours.chain(self.peers.iter().map(|peer| peer.name.clone())).collect();
        for (i, name) in names.iter().enumerate() {
            if names[..i].contains(name) || i >= self.ours.models.len() && is_ours(name) {
                return Err(format!("'{name}' is the name of more than one program"));
            }
        }
        config.find(&self.peers).map(drop).map_err(|error| format!("peers: {error}"))
    }

    fn programs(&self) -> usize {
        self.ours.models.len() + self.peers.len()
    }

    /// `mamba-2.8b: PROGRAM`, or the program alone where there is one shape.
    fn qualified(&self, program: &str) -> String {
        qualified(&self.name, program)
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
        config.works().map_err(|error| format!("tests: {error}"))?;
        let shapes = config.shapes()?;
        for (i, shape) in shapes.iter().enumerate() {
            if shapes[..i].iter().any(|other| other.name == shape.name) {
                return Err(format!("'{}' is the name of more than one shape", shape.name));
            }
            shape.check(config).map_err(|error| shape.qualified(&error))?;
        }
        Ok(())
    }

    fn run(config: &Config, lab: &Lab, emit: &mut dyn FnMut(Row) -> Result<()>) -> Result<()> {
        let shapes = config.shapes().map_err(anyhow::Error::msg)?;
        let works = config.works().map_err(anyhow::Error::msg)?;
        let threads = config.threads.resolve(lab.threads);
        let programs: usize = shapes.iter().map(Shape::programs).sum();
        let bar = lab.bar(programs * (1 + works.len() * threads.len() * config.blocks), "rivals");
        // First of all, so that a program that does not work is found before hours are spent.
        let mut found = Vec::new();
        for shape in &shapes {
            let peers = config.find(&shape.peers).map_err(anyhow::Error::msg)?;
            for peer in &peers {
                bar.set_message(format!("{}: first run", peer.name));
                lab.file("program", &peer.name, &peer.program)?;
                lab.file("model of a peer", &shape.qualified(&peer.name), &peer.model)?;
                emit(Row::Program(introduced(shape, peer, lab.threads)?))?;
                bar.inc(1);
            }
            found.push(peers);
        }
        for (shape, peers) in shapes.iter().zip(&found) {
            let cache = shape.ours.cache().map_err(anyhow::Error::msg)?;
            let settings = |threads| lab.settings(lab.isa, threads, cache);
            // Our models of one shape at a time: those of all need not fit.
            let mut ours = Vec::new();
            for name in &shape.ours.models {
                bar.set_message(format!("loading {name}"));
                let loaded = lab.model(name, &settings(lab.threads)?)?;
                emit(Row::Program(ourselves(shape, name, loaded.model.as_ref())))?;
                ours.push((our_name(name), loaded.model));
                bar.inc(1);
            }
            for &work in &works {
                for &threads in &threads {
                    let settings = settings(threads)?;
                    let mut contestants: Vec<Contestant<'_>> =
                        ours.iter().map(|(name, model)| Contestant::Ours(name, model.with(&settings))).collect();
                    contestants.extend(peers.iter().map(Contestant::Peer));
                    compete(&contestants, work, threads, config.blocks, |program, block, seconds| {
                        bar.set_message(format!("{} {}, {}", name(work), work.tokens(), shape.qualified(program)));
                        bar.inc(1);
                        emit(Row::Sample(sample(&shape.name, program, (work, threads), block, seconds)))
                    })?;
                }
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

/// Who is timed.
enum Contestant<'a> {
    Ours(&'a str, Arc<dyn Model>),
    Peer(&'a Peer),
}

impl Contestant<'_> {
    fn name(&self) -> &str {
        match self {
            Contestant::Ours(name, _) => name,
            Contestant::Peer(peer) => &peer.name,
        }
    }

    fn seconds(&self, work: Work, threads: usize) -> Result<f64> {
        match self {
            Contestant::Ours(_, model) => time(model.as_ref(), work).context("our engine"),
            Contestant::Peer(peer) => Ok(peer.time(work, threads)?.seconds),
        }
    }
}

/// Times every contestant once in each block, however long they take and however alike they are; `told` hears of each its
/// name, the block and the seconds.
fn compete(
    contestants: &[Contestant<'_>],
    work: Work,
    threads: usize,
    blocks: usize,
    mut told: impl FnMut(&str, usize, f64) -> Result<()>,
) -> Result<()> {
    let budget = Budget { sample_ms: 1.0, min_blocks: blocks, max_blocks: blocks, seconds: 1e9, precision: 0.0 };
    let mut done = vec![0; contestants.len()];
    contest(contestants.len(), &budget, |i| {
        let seconds = contestants[i].seconds(work, threads)?;
        told(contestants[i].name(), done[i], seconds)?;
        done[i] += 1;
        Ok(seconds)
    })?;
    Ok(())
}

fn sample(shape: &str, program: &str, (work, threads): (Work, usize), block: usize, seconds: f64) -> SampleRow {
    SampleRow {
        shape: shape.to_string(),
        program: program.to_string(),
        test: name(work).to_string(),
        tokens: work.tokens(),
        threads,
        block,
        tokens_per_s: Timed::once(work.tokens() as f64 / seconds),
    }
}

fn introduced(shape: &Shape, peer: &Peer, threads: usize) -> Result<ProgramRow> {
    let answer = peer.time(INTRODUCTION, threads)?;
    Ok(ProgramRow {
        shape: shape.name.clone(),
        program: peer.name.clone(),
        version: answer.version,
        model: answer.model,
        parameters: answer.parameters,
        model_bytes: peer.model_bytes,
    })
}

fn ourselves(shape: &Shape, name: &str, model: &dyn Model) -> ProgramRow {
    let facts = model.facts();
    ProgramRow {
        shape: shape.name.clone(),
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
    fn programs_are_given_at_once_or_by_shape() {
        let shapes = |text: &str| {
            let rest = "folder = 'peers'\nblocks = 2\nlimit_s = 1.0\ntests = []\n";
            toml::from_str::<Config>(&format!("{rest}{text}")).unwrap().shapes()
        };
        let names = |text: &str| shapes(text).map(|all| all.into_iter().map(|s| s.name).collect::<Vec<_>>());
        let by_name = |name: &str| format!("[[shapes]]\nname = '{name}'\nours = {{ models = ['m'] }}\npeers = []\n");
        assert_eq!(names("ours = { models = ['m'], cache = 'f32' }"), Ok(vec![String::new()]));
        assert_eq!(names(&[by_name("a"), by_name("b")].concat()), Ok(vec!["a".to_string(), "b".to_string()]));
        for bad in [String::new(), format!("ours = {{ models = ['m'] }}\n{}", by_name("a"))] {
            assert!(names(&bad).unwrap_err().contains("either ours and peers, or shapes"), "{bad}");
        }
        let cache = |ours: &str| shapes(ours).unwrap()[0].ours.cache();
        assert_eq!(cache("ours = { models = ['m'] }"), Ok(CacheFormat::F32));
        assert!(cache("ours = { models = ['m'], cache = 'f8' }").is_err());
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
