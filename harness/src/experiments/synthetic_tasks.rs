//! What tells architectures apart: finding what followed a token when it stood here before (induction heads), and repeating
//! symbols that stood among noise (selective copying), at the length that a model was trained on and at longer ones.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use engines::{CacheFormat, Loaded, Segment, State, Want};
use serde::{Deserialize, Serialize};

use crate::experiment::Experiment;
use crate::lab::Lab;
use crate::model;
use crate::quantity::{Determined, determined};
use crate::report::Section;
use crate::stats;

mod report;
mod task;

pub use task::{Instance, SYMBOLS, Task};

/// About how many tokens are read in one call: short instances are read side by side, which changes no bit.
const BATCH_TOKENS: usize = 2048;

/// The experiment.
pub struct SyntheticTasks;

/// How it is run.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Instances of every task and length.
    pub instances: usize,
    /// What is asked of whom.
    pub tasks: BTreeMap<Task, Asked>,
}

/// What is asked of whom.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// Answers to an instance.
    pub items: usize,
    /// Tokens in which the answers stand, ascending; those beyond a model's context are left out for it.
    pub lengths: Vec<usize>,
    /// Models trained for the task: names in `models/`, or folders.
    pub models: Vec<String>,
}

/// How well a model does a task at a length.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// The task.
    pub task: Task,
    /// Answers to an instance.
    pub items: usize,
    /// As in the configuration.
    pub model: String,
    /// The architecture.
    pub architecture: String,
    /// The longest length that it was trained on, as its card says.
    pub trained: Option<u64>,
    /// Tokens in which the answers stand.
    pub length: usize,
    /// Numbers in the weights.
    pub parameters: Determined<u64>,
    /// Bytes that the sequence's state holds at the end of the instance.
    pub held_bytes: Determined<u64>,
    /// Instances.
    pub instances: Determined<usize>,
    /// Share of instances whose answers are all right.
    pub solved: Determined<f64>,
    /// Lower end of its 95 % interval.
    pub solved_low: Determined<f64>,
    /// Upper end of its interval.
    pub solved_high: Determined<f64>,
    /// Share of answers that are right.
    pub right: Determined<f64>,
    /// Lower end of its 95 % interval, an instance taken as one draw.
    pub right_low: Determined<f64>,
    /// Upper end of its interval.
    pub right_high: Determined<f64>,
}

impl Experiment for SyntheticTasks {
    const NAME: &'static str = "synthetic-tasks";
    const QUESTION: &'static str = "Which architecture finds what stood in a text, or repeats what stood among noise, and does it still in texts \
         longer than those it was trained on?";
    type Config = Config;
    type Row = Row;

    fn check(config: &Config, _lab: &Lab) -> Result<(), String> {
        if config.instances == 0 {
            return Err("instances = 0: expected at least 1".to_string());
        }
        for (task, asked) in &config.tasks {
            let wrong = |problem: String| format!("tasks.{}: {problem}", task.name());
            if asked.lengths.is_empty() || !asked.lengths.is_sorted_by(|a, b| a < b) {
                return Err(wrong(format!("lengths = {:?}: expected at least one, ascending", asked.lengths)));
            }
            task.check(asked.lengths[0], asked.items).map_err(wrong)?;
            for name in &asked.models {
                model::find(name).map_err(|error| wrong(format!("models: {error:#}")))?;
            }
        }
        Ok(())
    }

    fn run(config: &Config, lab: &Lab, emit: &mut dyn FnMut(Row) -> Result<()>) -> Result<()> {
        let settings = lab.settings(lab.isa, lab.threads, CacheFormat::F32)?;
        let steps = config.tasks.values().map(|asked| asked.models.len() * asked.lengths.len()).sum();
        let bar = lab.bar(steps, "synthetic tasks");
        for (&task, asked) in &config.tasks {
            for name in &asked.models {
                let loaded = lab.model(name, &settings)?;
                let trained = model::find(name)?.1.map(|card| card.training.context);
                for &length in &asked.lengths {
                    bar.set_message(format!("{name}: {length} tokens"));
                    if loaded.model.facts().holds(length + asked.items) {
                        let score = score(&loaded, task, lab.seed, config.instances, length, asked.items)?;
                        emit(row(name, trained, &loaded, task, length, &score))?;
                    }
                    bar.inc(1);
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

/// How many answers of a number of instances were right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Score {
    /// Answers to an instance.
    pub items: usize,
    /// Right answers of each instance.
    pub right: Vec<usize>,
}

impl Score {
    /// Instances whose answers are all right.
    pub fn solved(&self) -> usize {
        self.right.iter().filter(|right| **right == self.items).count()
    }

    /// Share of answers that are right.
    pub fn share_right(&self) -> f64 {
        self.right.iter().sum::<usize>() as f64 / (self.right.len() * self.items) as f64
    }
}

/// Has a model answer the first `instances` instances of a seed, each by the likeliest token (the first of equals).
///
/// # Errors
/// A model of too few tokens, and whatever it finds wrong.
pub fn score(loaded: &Loaded, task: Task, seed: u64, instances: usize, length: usize, items: usize) -> Result<Score> {
    let (model, name) = (&loaded.model, &loaded.name);
    ensure!(
        model.vocab() >= task.vocab(),
        "{name} knows {} tokens where {} has {}",
        model.vocab(),
        task.name(),
        task.vocab()
    );
    let side_by_side = (BATCH_TOKENS / length).max(1);
    let mut right = Vec::with_capacity(instances);
    let all: Vec<usize> = (0..instances).collect();
    for indices in all.chunks(side_by_side) {
        let asked: Vec<Instance> = indices.iter().map(|index| task.instance(seed, *index, length, items)).collect();
        let mut states: Vec<State> = asked.iter().map(|_| model.start(0)).collect();
        let segments = states.iter_mut().zip(&asked);
        let mut segments: Vec<Segment<'_>> =
            segments.map(|(state, instance)| Segment { state, tokens: &instance.tokens, want: Want::All }).collect();
        let logits = model.forward(&mut segments)?;
        for (logits, Instance { answers, .. }) in logits.iter().zip(&asked) {
            let first = logits.rows() - items;
            let hits =
                answers.iter().enumerate().filter(|(i, answer)| likeliest(logits.row(first + i)) == **answer as usize);
            right.push(hits.count());
        }
    }
    Ok(Score { items, right })
}

/// The place of the largest, the first of equals.
fn likeliest(logits: &[f32]) -> usize {
    (1..logits.len()).fold(0, |best, i| if logits[i] > logits[best] { i } else { best })
}

fn row(name: &str, trained: Option<u64>, loaded: &Loaded, task: Task, length: usize, score: &Score) -> Row {
    let facts = loaded.model.facts();
    let (items, instances) = (score.items, score.right.len());
    let tokens = if task == Task::Copying { length + items } else { length };
    let (solved, right) = (score.solved() as f64 / instances as f64, score.share_right());
    let (solved_low, solved_high) = stats::wilson(solved, instances);
    let (right_low, right_high) = stats::wilson(right, instances);
    Row {
        task,
        items,
        model: name.to_string(),
        architecture: facts.architecture.to_string(),
        trained,
        length,
        parameters: determined(facts.parameters),
        held_bytes: determined(facts.cache_bytes_per_position * tokens as u64 + facts.state_bytes),
        instances: determined(instances),
        solved: determined(solved),
        solved_low: determined(solved_low),
        solved_high: determined(solved_high),
        right: determined(right),
        right_low: determined(right_low),
        right_high: determined(right_high),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_is_solved_when_every_answer_is_right() {
        let score = Score { items: 4, right: vec![4, 3, 0, 4] };
        assert_eq!((score.solved(), score.share_right()), (2, 11.0 / 16.0));
    }

    #[test]
    fn the_first_of_equal_logits_is_the_answer() {
        assert_eq!(likeliest(&[0.0, 2.0, 2.0, -1.0]), 1);
        assert_eq!(likeliest(&[-1.0]), 0);
    }
}
