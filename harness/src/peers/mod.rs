//! Other programs that run language models: how they are asked to time themselves, and what they answer.
//!
//! A peer is a program of the user's own with a model file in its own format. It runs as a process of its own, one test
//! at a time, and its own stated time is taken, without loading. Nothing that it says is believed unseen: an answer to
//! another question than was asked, a number that cannot be, or a time longer than the program ran is an error.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::root;

mod llama_bench;
mod process;

/// The environment variable that names the folder with peers' programs and model files.
pub const ENVIRONMENT: &str = "RYZANSTEIN_PEERS";

/// No program decodes or reads faster than this, in tokens a second: whatever says so is wrong.
const MOST_TOKENS_PER_S: f64 = 1e9;

/// A way of asking and answering that one or more programs share.
pub struct Dialect {
    /// As it is called in configurations.
    pub name: &'static str,
    arguments: fn(&Question<'_>) -> Vec<OsString>,
    answer: fn(&Question<'_>, &str) -> Result<Answer, String>,
}

/// Every dialect.
pub const DIALECTS: &[Dialect] =
    &[Dialect { name: "llama-bench", arguments: llama_bench::arguments, answer: llama_bench::answer }];

/// What a sample does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Reads a prompt of so many tokens.
    Prefill(usize),
    /// Decodes so many tokens, one after the other, from an empty state.
    Decode(usize),
}

impl Work {
    /// Tokens of the prompt, or decoded.
    pub fn tokens(self) -> usize {
        match self {
            Work::Prefill(tokens) | Work::Decode(tokens) => tokens,
        }
    }
}

/// What a program is asked: one run that counts, after its own warm-up.
struct Question<'a> {
    model: &'a Path,
    work: Work,
    threads: usize,
}

/// What a program says.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Its version or commit, as it calls itself.
    pub version: String,
    /// The model, as it describes it.
    pub model: String,
    /// Numbers in the model's weights, as it counts them.
    pub parameters: u64,
    /// Seconds of the work, without loading.
    pub seconds: f64,
}

/// A peer as a configuration describes it. Paths that are not absolute lie in a folder of peers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Description {
    /// How reports call it: the program and the format of its weights.
    pub name: String,
    /// A name of [`DIALECTS`].
    pub dialect: String,
    /// The program.
    pub program: PathBuf,
    /// The model file.
    pub model: PathBuf,
    /// Arguments beside those of the dialect.
    #[serde(default)]
    pub arguments: Vec<String>,
}

/// A peer whose program and model file are there.
pub struct Peer {
    /// See [`Description::name`].
    pub name: String,
    /// The program.
    pub program: PathBuf,
    /// The model file.
    pub model: PathBuf,
    /// Its length.
    pub model_bytes: u64,
    arguments: Vec<String>,
    dialect: &'static Dialect,
    limit: Duration,
}

/// The folder of peers: what [`ENVIRONMENT`] names, else `configured` in the repository.
pub fn folder(configured: &Path) -> PathBuf {
    match std::env::var_os(ENVIRONMENT).filter(|value| !value.is_empty()) {
        Some(named) => PathBuf::from(named),
        None => root::root().join(configured),
    }
}

impl Description {
    /// The peer, if program and model file lie in `folder`; a run is ended after `limit`.
    ///
    /// # Errors
    /// A sentence for an unknown dialect, and for a program or a model file that is not there.
    pub fn find(&self, folder: &Path, limit: Duration) -> Result<Peer, String> {
        let name = &self.name;
        let dialect = DIALECTS.iter().find(|dialect| dialect.name == self.dialect).ok_or_else(|| {
            let known: Vec<&str> = DIALECTS.iter().map(|dialect| dialect.name).collect();
            format!("'{name}': there is no dialect '{}': expected one of {}", self.dialect, known.join(", "))
        })?;
        let file = |what: &str, path: &Path| {
            let path = folder.join(path);
            match std::fs::metadata(&path) {
                Ok(found) if found.is_file() => Ok((path, found.len())),
                _ => Err(format!(
                    "'{name}': there is no {what} {}: put it there as the head of the experiment's file says, or name \
                     the folder that holds it in {ENVIRONMENT}",
                    path.display()
                )),
            }
        };
        let (program, _) = file("program", &self.program)?;
        let (model, model_bytes) = file("model file", &self.model)?;
        let arguments = self.arguments.clone();
        Ok(Peer { name: name.clone(), program, model, model_bytes, arguments, dialect, limit })
    }
}

impl Peer {
    /// Lets the program time `work` once.
    ///
    /// # Errors
    /// A program that cannot be started, fails, does not end in time or gives an answer that cannot be true.
    pub fn time(&self, work: Work, threads: usize) -> Result<Answer> {
        let question = Question { model: &self.model, work, threads };
        let mut arguments = (self.dialect.arguments)(&question);
        arguments.extend(self.arguments.iter().map(OsString::from));
        let told = || format!("'{}', {}", self.name, process::line(&self.program, &arguments));
        let output = process::run(&self.program, &arguments, self.limit).with_context(told)?;
        let answer = (self.dialect.answer)(&question, &output.text).map_err(|why| {
            anyhow::anyhow!("no answer of the dialect {}: {why}; it printed {}", self.dialect.name, output.shown())
        });
        let answer = answer.with_context(told)?;
        believable(&answer, work, output.seconds).with_context(told)?;
        Ok(answer)
    }
}

/// Whether a program that ran for `ran` seconds can have been that fast.
fn believable(answer: &Answer, work: Work, ran: f64) -> Result<()> {
    let fastest = work.tokens() as f64 / MOST_TOKENS_PER_S;
    ensure!(
        answer.seconds.is_finite() && answer.seconds >= fastest && answer.seconds <= ran,
        "it says that {} tokens took {} s, but it ran for {ran:.3} s in all",
        work.tokens(),
        answer.seconds
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn description(dialect: &str) -> Description {
        let (program, model) = (PathBuf::from("program"), PathBuf::from("model.gguf"));
        Description { name: "a".to_string(), dialect: dialect.to_string(), program, model, arguments: Vec::new() }
    }

    #[test]
    fn what_is_not_there_is_named_with_what_to_do_next() {
        let folder = tempfile::tempdir().unwrap();
        let find = |d: &Description| d.find(folder.path(), Duration::from_secs(1)).map(|peer| peer.model_bytes);
        assert!(find(&description("lama")).unwrap_err().contains("no dialect 'lama': expected one of llama-bench"));
        let missing = find(&description("llama-bench")).unwrap_err();
        assert!(missing.contains("no program /") && missing.contains(ENVIRONMENT), "{missing}");
        std::fs::write(folder.path().join("program"), "").unwrap();
        let missing = find(&description("llama-bench")).unwrap_err();
        assert!(missing.contains("no model file /") && missing.contains("model.gguf"), "{missing}");
        std::fs::write(folder.path().join("model.gguf"), "abc").unwrap();
        assert_eq!(find(&description("llama-bench")), Ok(3));
    }

    #[test]
    fn a_time_that_cannot_be_is_not_believed() {
        let answer = |seconds| Answer { version: String::new(), model: String::new(), parameters: 1, seconds };
        assert!(believable(&answer(0.5), Work::Decode(8), 1.0).is_ok());
        for seconds in [1.5, 0.0, -1.0, 1e-12, f64::NAN, f64::INFINITY] {
            assert!(believable(&answer(seconds), Work::Decode(8), 1.0).is_err(), "{seconds}");
        }
    }
}
