//! Long texts: what a token costs far behind the lengths that a model was trained on, whether a memory of more than a
//! window is worth anything there, and whether what recurrent models remember stays within bounds.
//!
//! A text is cut into streams that follow each other; each is read from an empty state to its end, without a reset. The
//! same tokens are read once more in windows of the length of training, each from an empty state, so that text which is
//! hard by chance does not look like a model that fails: the difference is taken token by token.

use anyhow::{Context as _, Result, ensure};
use engines::{CacheFormat, Facts, Loaded};
use serde::{Deserialize, Serialize};

use crate::cli::UserError;
use crate::dataset::{self, Text};
use crate::experiment::Experiment;
use crate::lab::Lab;
use crate::quantity::{Determined, determined};
use crate::report::Section;
use crate::score::{self, Score, Window};
use crate::{difference, model};

mod report;
mod stream;

/// The experiment.
pub struct LongContext;

/// How it is run.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Names in `models/`, folders or files, all of one tokenizer.
    pub models: Vec<String>,
    /// What is read.
    pub texts: Vec<Passage>,
    /// Positions, ascending: costs are told for those between each and the next, states after each; the last is the
    /// length of a stream. A model reads as far as its context holds.
    pub depths: Vec<usize>,
    /// Streams of a text, at most.
    pub streams: usize,
    /// Positions to the windows in which the same tokens are read for comparison: those of training.
    pub window: usize,
    /// How often blocks are drawn again for the interval of a difference.
    pub resamples: usize,
}

/// A text or a part of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Passage {
    /// The text.
    pub dataset: String,
    /// Its bytes from..to, where not all of it is read: of texts that models were trained on, what was held out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<[usize; 2]>,
}

/// One measurement.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Row {
    /// A text that is not on this machine.
    Absent {
        /// The text.
        dataset: String,
        /// How to get it.
        remedy: String,
    },
    /// A model.
    Model(ModelRow),
    /// Costs of the tokens at some positions.
    Band(BandRow),
    /// A part of what a recurrent model remembers at some depth.
    State(StateRow),
    /// That everything was a number.
    Finite(FiniteRow),
}

/// A model.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ModelRow {
    /// As in the configuration.
    pub model: String,
    /// The architecture.
    pub architecture: String,
    /// Positions that the model can tell apart; none where there is no limit.
    pub context: Option<usize>,
    /// How far it reads a stream.
    pub reads: Determined<usize>,
    /// Tokens to a window in training, where its card says so.
    pub trained_context: Option<Determined<u64>>,
    /// Bytes of memory that do not grow.
    pub state_bytes: Determined<u64>,
}

/// Costs of the tokens at some positions of all streams. Errors take runs of tokens as independent; the interval, of
/// 95 %, comes from runs drawn again.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BandRow {
    /// The model.
    pub model: String,
    /// The text.
    pub dataset: String,
    /// The first position, counted from 1.
    pub from: usize,
    /// The last position.
    pub to: usize,
    /// Streams.
    pub streams: usize,
    /// Tokens at these positions.
    pub tokens: Determined<usize>,
    /// Their mean cost.
    pub nats_per_token: Determined<f64>,
    /// Its standard error.
    pub nats_per_token_error: Determined<f64>,
    /// The mean cost of the same tokens in short windows.
    pub short_nats_per_token: Determined<f64>,
    /// Nats a token in the stream less those in short windows.
    pub difference_nats: Determined<f64>,
    /// Lower end of its interval.
    pub difference_low: Determined<f64>,
    /// Upper end of its interval.
    pub difference_high: Determined<f64>,
}

/// A part of what a recurrent model remembers at some depth, over all layers and streams.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StateRow {
    /// The model.
    pub model: String,
    /// The text.
    pub dataset: String,
    /// Its name, for example `ssm`.
    pub part: String,
    /// Tokens read.
    pub depth: usize,
    /// Numbers, of all layers and streams together.
    pub numbers: Determined<u64>,
    /// The root of their mean square.
    pub rms: Determined<f64>,
    /// The greatest of them, without its sign.
    pub greatest: Determined<f64>,
    /// The layer that holds it, from 0.
    pub greatest_layer: Determined<usize>,
}

/// That everything was a number: neither NaN nor infinite. Anything else ends the run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FiniteRow {
    /// The model.
    pub model: String,
    /// The text.
    pub dataset: String,
    /// Logits that were looked at.
    pub logits: Determined<u64>,
    /// Numbers of states that were looked at, each as often as states were.
    pub state_numbers: Determined<u64>,
}

impl Config {
    /// The length of a stream.
    fn positions(&self) -> usize {
        self.depths.last().copied().unwrap_or(0)
    }

    /// The depths that a model reaches.
    ///
    /// # Errors
    /// Not even the first.
    fn reached(&self, name: &str, facts: &Facts) -> Result<&[usize]> {
        let count = self.depths.iter().take_while(|depth| facts.holds(**depth)).count();
        let (first, most) = (self.depths[0], facts.context.unwrap_or(usize::MAX));
        if count == 0 || !facts.holds(self.window) {
            return Err(UserError::new(format!(
                "{name} has {most} positions: choose a first depth (now {first}) and a window (now {}) within them, \
                 or leave the model out",
                self.window
            )));
        }
        Ok(&self.depths[..count])
    }
}

impl Experiment for LongContext {
    const NAME: &'static str = "long-context";
    const QUESTION: &'static str = "What does a token cost far behind the lengths that the models were trained on, is \
                                    it worth remembering more than such a length, and do recurrent states stay within \
                                    bounds?";
    type Config = Config;
    type Row = Row;

    fn check(config: &Config, _lab: &Lab) -> Result<(), String> {
        for (name, value, least) in [
            ("streams", config.streams, 1),
            ("window", config.window, 1),
            ("resamples", config.resamples, 100),
            ("models: their number", config.models.len(), 1),
            ("texts: their number", config.texts.len(), 1),
        ] {
            if value < least {
                return Err(format!("{name} = {value}: expected at least {least}"));
            }
        }
        if config.depths.first().is_none_or(|first| *first == 0) || !config.depths.is_sorted_by(|a, b| a < b) {
            return Err(format!("depths = {:?}: expected at least one, ascending, none of them 0", config.depths));
        }
        for (i, name) in config.models.iter().enumerate() {
            model::find(name).map_err(|error| format!("models: {error:#}"))?;
            if config.models[..i].contains(name) {
                return Err(format!("models: {name} stands there twice"));
            }
        }
        for (i, Passage { dataset, bytes }) in config.texts.iter().enumerate() {
            dataset::is_present(dataset).map_err(|error| format!("texts: {error:#}"))?;
            if let Some([from, to]) = bytes.filter(|[from, to]| from >= to) {
                return Err(format!("texts: {dataset}: bytes = [{from}, {to}]: expected the first below the second"));
            }
            if config.texts[..i].iter().any(|other| other.dataset == *dataset) {
                return Err(format!("texts: {dataset} stands there twice"));
            }
        }
        Ok(())
    }

    fn run(config: &Config, lab: &Lab, emit: &mut dyn FnMut(Row) -> Result<()>) -> Result<()> {
        let bar = lab.bar(config.models.len() * (2 * config.texts.len() + 1), "long context");
        let settings = lab.settings(lab.isa, lab.threads, CacheFormat::F32)?;
        let mut models: Vec<(&str, Loaded)> = Vec::new();
        for name in &config.models {
            bar.set_message(format!("loading {name}"));
            models.push((name, lab.model(name, &settings)?));
            bar.inc(1);
        }
        let tokenizer = difference::tokenizer(&models)?;
        for (name, loaded) in &models {
            config.reached(name, &loaded.model.facts())?;
        }
        for (name, loaded) in &models {
            emit(Row::Model(model_row(config, name, loaded)?))?;
        }
        for passage in &config.texts {
            let dataset = &passage.dataset;
            if !dataset::is_present(dataset)? {
                emit(Row::Absent { dataset: dataset.clone(), remedy: dataset::remedy(dataset)? })?;
                bar.inc(2 * models.len() as u64);
                continue;
            }
            let text = lab.text(dataset)?;
            for (name, _) in &models {
                unseen(name, passage, &text)?;
            }
            let tokens = tokenizer.encode(part(passage, &text)?)?;
            let mut streams = score::cut(&tokens, tokenizer.bos(), config.positions(), usize::MAX);
            streams.retain(|stream| stream.targets.len() == config.positions());
            streams.truncate(config.streams);
            if streams.is_empty() {
                return Err(UserError::new(format!(
                    "texts: what is read of {dataset} has {} tokens, too few for a stream of {}: read more of it, or \
                     choose a longer text or lesser depths",
                    tokens.len(),
                    config.positions()
                )));
            }
            for (name, loaded) in &models {
                let depths = config.reached(name, &loaded.model.facts())?;
                bar.set_message(format!("{name} reads {dataset} without a reset"));
                let long = stream::read(name, &*loaded.model, &streams, depths)
                    .with_context(|| format!("{name} on the text {dataset}"))?;
                bar.inc(1);
                bar.set_message(format!("{name} reads {dataset} in windows of {}", config.window));
                let short = short(config, loaded, &streams, depths[depths.len() - 1])?;
                bar.inc(1);
                for row in bands(config, (name, dataset), &long.nats, &short, depths, lab.seed)? {
                    emit(Row::Band(row))?;
                }
                for state in long.states {
                    emit(Row::State(state.row(name, dataset)))?;
                }
                emit(Row::Finite(FiniteRow {
                    model: name.to_string(),
                    dataset: dataset.clone(),
                    logits: determined(long.logits),
                    state_numbers: determined(long.state_numbers),
                }))?;
            }
        }
        bar.finish_and_clear();
        Ok(())
    }

    fn report(config: &Config, rows: &[Row]) -> Section {
        report::section(config, rows)
    }
}

fn model_row(config: &Config, name: &str, loaded: &Loaded) -> Result<ModelRow> {
    let facts = loaded.model.facts();
    let reached = config.reached(name, &facts)?;
    Ok(ModelRow {
        model: name.to_string(),
        architecture: facts.architecture.to_string(),
        context: facts.context,
        reads: determined(reached[reached.len() - 1]),
        trained_context: model::find(name)?.1.map(|card| determined(card.training.context)),
        state_bytes: determined(facts.state_bytes),
    })
}

/// Refuses to read what a model was trained on.
fn unseen(name: &str, passage: &Passage, text: &Text) -> Result<()> {
    let Some([from, to]) = model::find(name)?.1.and_then(|card| card.held_out(&text.sha256)) else { return Ok(()) };
    let [first, last] = passage.bytes.unwrap_or([0, text.text.len()]).map(|at| at as u64);
    if from <= first && last <= to {
        return Ok(());
    }
    Err(UserError::new(format!(
        "texts: {name} was trained on {}, except the bytes from {from} to {to}: read `bytes = [{from}, {to}]` of it",
        passage.dataset
    )))
}

/// What is read of a text.
fn part<'t>(passage: &Passage, text: &'t Text) -> Result<&'t str> {
    let Some([from, to]) = passage.bytes else { return Ok(&text.text) };
    text.text.get(from..to).ok_or_else(|| {
        UserError::new(format!(
            "texts: {}: bytes = [{from}, {to}]: expected places within its {} bytes, and none within a character",
            passage.dataset,
            text.text.len()
        ))
    })
}

/// What the first `positions` tokens of each stream cost in short windows.
fn short(config: &Config, loaded: &Loaded, streams: &[Window], positions: usize) -> Result<Vec<Vec<f32>>> {
    let bos = loaded.tokenizer.as_ref().and_then(|tokenizer| tokenizer.bos());
    let windows: Vec<Window> = streams
        .iter()
        .flat_map(|Window { inputs, targets }| {
            let begun = Window { inputs: inputs[..positions].to_vec(), targets: targets[..positions].to_vec() };
            begun.cut(bos, config.window)
        })
        .collect();
    let nats = score::score_windows(loaded, &windows, &mut |_, _, _| {})?;
    Ok(nats.chunks(positions).map(<[f32]>::to_vec).collect())
}

/// Costs by position.
fn bands(
    config: &Config,
    (model, dataset): (&str, &str),
    long: &[Vec<f32>],
    short: &[Vec<f32>],
    depths: &[usize],
    seed: u64,
) -> Result<Vec<BandRow>> {
    let starts = std::iter::once(0).chain(depths.iter().copied());
    let row = |(start, &end): (usize, &usize)| {
        let (long, short) = (band(long, start, end), band(short, start, end));
        ensure!(
            end > config.window || long.nats == short.nats,
            "{model} gives other costs for tokens {} to {end} of {dataset} when they are read together with others: a \
             kernel is wrong",
            start + 1
        );
        let difference = difference::in_nats(&long, &short, config.resamples, seed)?;
        let mean = long.mean();
        Ok(BandRow {
            model: model.to_string(),
            dataset: dataset.to_string(),
            from: start + 1,
            to: end,
            streams: long.windows.len(),
            tokens: determined(long.tokens),
            nats_per_token: determined(mean.mean),
            nats_per_token_error: determined(mean.error),
            short_nats_per_token: determined(short.nats_per_token()),
            difference_nats: determined(difference.mean),
            difference_low: determined(difference.low),
            difference_high: determined(difference.high),
        })
    };
    starts.zip(depths).map(row).collect()
}

/// The tokens from..to of each stream as a score of their own. Bytes are not asked for.
fn band(streams: &[Vec<f32>], from: usize, to: usize) -> Score {
    let nats: Vec<f32> = streams.iter().flat_map(|nats| nats[from..to].iter().copied()).collect();
    let len = to - from;
    let windows = (0..streams.len()).map(|i| i * len..(i + 1) * len).collect();
    Score { bytes: 0, tokens: nats.len(), nats, windows }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Machine;
    use kernels::Isa;

    fn config() -> Config {
        let text = r#"
            models = ["dense-5m", "bitnet-5m"]
            texts = [{ dataset = "almanac" }]
            depths = [4, 8, 24]
            streams = 3
            window = 8
            resamples = 100
        "#;
        toml::from_str(text).unwrap()
    }

    fn lab(isa: Isa, threads: usize) -> Lab {
        Lab::new(Machine::read(), threads, isa, 0, true)
    }

    fn run(config: &Config, lab: &Lab) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        LongContext::run(config, lab, &mut |row| {
            rows.push(row);
            Ok(())
        })?;
        Ok(rows)
    }

    #[test]
    fn values_that_make_no_sense_are_refused_with_their_field() {
        let says = |change: fn(&mut Config)| {
            let mut config = config();
            change(&mut config);
            LongContext::check(&config, &lab(Isa::Scalar, 1)).unwrap_err()
        };
        assert_eq!(LongContext::check(&config(), &lab(Isa::Scalar, 1)), Ok(()));
        assert!(says(|c| c.depths = vec![8, 8]).contains("depths = [8, 8]: expected at least one, ascending"));
        assert!(says(|c| c.depths = vec![0, 8]).contains("none of them 0"));
        assert!(says(|c| c.models.push("dense-5m".to_string())).contains("dense-5m stands there twice"));
        assert!(says(|c| c.models = vec!["dense-6m".to_string()]).contains("did you mean 'dense-5m'"));
        assert!(says(|c| c.texts.push(c.texts[0].clone())).contains("almanac stands there twice"));
        assert!(says(|c| c.texts[0].bytes = Some([9, 9])).contains("bytes = [9, 9]: expected the first below"));
        assert_eq!(says(|c| c.texts.clear()), "texts: their number = 0: expected at least 1");
        assert_eq!(says(|c| c.window = 0), "window = 0: expected at least 1");
    }

    #[test]
    fn what_cannot_be_read_is_refused_with_what_to_do() {
        let says = |change: fn(&mut Config)| {
            let mut config = config();
            change(&mut config);
            run(&config, &lab(Isa::best(), 1)).unwrap_err().to_string()
        };
        let told = says(|c| c.texts[0].bytes = Some([0, 40]));
        assert!(told.contains("too few for a stream of 24") && told.contains("lesser depths"), "{told}");
        assert!(says(|c| c.texts[0].bytes = Some([0, 1 << 30])).contains("expected places within its"));
        let told = says(|c| c.depths = vec![4096]);
        assert!(told.contains("dense-5m has 2048 positions") && told.contains("leave the model out"), "{told}");
        assert!(says(|c| c.window = 4096).contains("a window (now 4096)"));
        assert!(says(|c| c.models.push("synthetic:rwkv7-tiny".to_string())).contains("has no tokenizer"));
    }

    #[test]
    fn only_what_was_held_out_is_read_of_a_text_that_was_trained_on() {
        let sum = "bf5b273d9246268f96663c43c00a1055ae2e42c2262be32f7e43b48dd123451a";
        let text = Text { name: "war-and-peace".to_string(), text: "x".repeat(3_293_492), sha256: sum.to_string() };
        let passage = |bytes| Passage { dataset: text.name.clone(), bytes };
        assert!(unseen("dense-5m", &passage(Some([3_113_779, 3_274_726])), &text).is_ok());
        for bytes in [None, Some([3_113_778, 3_274_726]), Some([3_200_000, 3_274_727])] {
            let told = unseen("dense-5m+head=q8", &passage(bytes), &text).unwrap_err().to_string();
            assert!(told.contains("dense-5m+head=q8 was trained on war-and-peace"), "{told}");
            assert!(told.contains("read `bytes = [3113779, 3274726]`"), "{told}");
        }
    }

    #[test]
    fn every_level_and_number_of_threads_gives_the_same_rows() {
        let rows = |isa, threads| serde_json::to_string(&run(&config(), &lab(isa, threads)).unwrap()).unwrap();
        let first = rows(Isa::Scalar, 1);
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
            assert_eq!(rows(isa, 2), first, "{isa}");
        }
    }

    #[test]
    fn bands_cover_every_token_once_and_differ_only_beyond_the_window() {
        let rows = run(&config(), &lab(Isa::best(), 1)).unwrap();
        let bands = rows.iter().filter_map(|row| match row {
            Row::Band(row) if row.model == "dense-5m" => Some(row),
            _ => None,
        });
        let bands: Vec<&BandRow> = bands.collect();
        let places: Vec<_> = bands.iter().map(|row| (row.from, row.to, row.streams, row.tokens.exact)).collect();
        assert_eq!(places, [(1, 4, 3, 12), (5, 8, 3, 12), (9, 24, 3, 48)]);
        assert!(bands[..2].iter().all(|row| row.difference_nats.exact == 0.0));
        assert_ne!(bands[2].difference_nats.exact, 0.0);
        let sum = bands[2].short_nats_per_token.exact + bands[2].difference_nats.exact;
        assert!((sum - bands[2].nats_per_token.exact).abs() < 1e-9);
        let finite = rows.iter().find_map(|row| match row {
            Row::Finite(row) => Some(row),
            _ => None,
        });
        assert_eq!(finite.unwrap().logits.exact, 3 * 24 * 4096);
    }
}
