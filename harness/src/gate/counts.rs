//! Instruction counts of the kernels, by `cargo bench -p kernels --bench counts` under valgrind.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Instructions executed by each benchmark.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// The compiler whose code was counted.
    pub compiler: String,
    /// Instructions, by the benchmark's function and id.
    pub instructions: BTreeMap<String, u64>,
}

/// Why nothing can be counted on this machine; `None` where everything that is needed is installed.
pub fn missing(root: &Path) -> Option<String> {
    if !root.join("kernels/benches/counts.rs").is_file() {
        return Some(format!("there is no source tree at {}", root.display()));
    }
    // Whether it starts is what matters: the runner refuses to be called by hand.
    let absent = |program: &&str| {
        let run = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        run.is_err()
    };
    ["cargo", "valgrind", "iai-callgrind-runner"].iter().find(|program| absent(program)).map(|program| {
        format!("{program} is not installed (the runner: `cargo install iai-callgrind-runner --version 0.16.1`)")
    })
}

/// Counts the instructions of every benchmark of the source tree at `root`; takes minutes.
///
/// # Errors
/// Benchmarks that do not compile or run, or answers of another form than expected.
pub fn count(root: &Path, compiler: &str) -> Result<Counts> {
    // A place of its own, so that no earlier run is compared with and nothing is left behind.
    let home = std::env::temp_dir().join(format!("ryzanstein-counts-{}", std::process::id()));
    let output = Command::new("cargo")
        .args(["bench", "--quiet", "-p", "kernels", "--bench", "counts", "--", "--output-format=json"])
        .current_dir(root)
        .env("IAI_CALLGRIND_HOME", &home)
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run cargo");
    // What remains would only take room.
    let _ = std::fs::remove_dir_all(&home);
    let output = output?;
    ensure!(output.status.success(), "cargo bench -p kernels --bench counts failed: {}", output.status);
    let instructions = parse(&String::from_utf8_lossy(&output.stdout))?;
    Ok(Counts { compiler: compiler.to_string(), instructions })
}

/// The counts in iai-callgrind's JSON summaries (schema version 6), one a line.
fn parse(lines: &str) -> Result<BTreeMap<String, u64>> {
    let mut counts = BTreeMap::new();
    for line in lines.lines().filter(|line| line.starts_with('{')) {
        let summary: Value = serde_json::from_str(line).context("a summary of iai-callgrind is not JSON")?;
        let text = |key: &str| summary[key].as_str().map(str::to_string);
        let function = text("function_name").context("a summary of iai-callgrind names no function")?;
        let name = match text("id") {
            Some(id) => format!("{function} {id}"),
            None => function,
        };
        let instructions =
            instructions(&summary).with_context(|| format!("iai-callgrind counted no instructions of {name}"))?;
        if counts.insert(name.clone(), instructions).is_some() {
            bail!("iai-callgrind counted {name} twice");
        }
    }
    ensure!(!counts.is_empty(), "iai-callgrind counted nothing");
    Ok(counts)
}

/// The total of the event `Ir` (instructions executed) in the profile that callgrind made.
fn instructions(summary: &Value) -> Option<u64> {
    let profiles = summary["profiles"].as_array()?;
    let callgrind = profiles.iter().find(|profile| profile["tool"] == "Callgrind")?;
    // Left is this run; Right would be an earlier one.
    callgrind["summaries"]["total"]["summary"]["Callgrind"]["Ir"]["metrics"]["Left"]["Int"].as_u64()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As iai-callgrind 0.16.1 prints it, but for what is not read here.
    fn summary(id: &str, count: &str) -> String {
        format!(
            r#"{{"function_name":"scalar","id":"{id}","profiles":[{{"tool":"Callgrind","summaries":{{"parts":[],"total":{{"regressions":[],"summary":{{"Callgrind":{{"Dr":{{"diffs":null,"metrics":{{"Left":{{"Int":5}}}}}},"Ir":{{"diffs":null,"metrics":{{"Left":{{"Int":{count}}}}}}}}}}}}}}}}}]}}"#
        )
    }

    #[test]
    fn counts_are_read_from_the_summaries_and_nothing_else() {
        let lines = format!("Gnuplot not found\n{}\n{}\n", summary("a", "403"), summary("b", "803"));
        let counts = parse(&lines).unwrap();
        assert_eq!(counts, BTreeMap::from([("scalar a".to_string(), 403), ("scalar b".to_string(), 803)]));
    }

    #[test]
    fn an_answer_of_another_form_is_an_error() {
        assert!(parse("").is_err());
        assert!(parse("{\"function_name\": \"f\"}").is_err());
        assert!(parse(&summary("a", "\"many\"")).is_err());
        assert!(parse(&format!("{}\n{}", summary("a", "1"), summary("a", "1"))).is_err());
        assert!(parse("{not json").is_err());
    }

    #[test]
    fn a_folder_without_sources_says_so() {
        let folder = tempfile::tempdir().unwrap();
        assert!(missing(folder.path()).unwrap().contains("no source tree"));
    }
}
