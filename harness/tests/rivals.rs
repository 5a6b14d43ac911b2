//! `experiment rivals` from the outside, with peers that only pretend: what is recorded, and what is said of programs
//! that are not there, fail or answer nonsense.

#![cfg(unix)]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

const FILE: &str = r#"
experiment = "rivals"
only_by_name = true

[config]
folder = "peers"
blocks = 3
limit_s = 5.0
threads = [1]
ours = { models = ["synthetic:bitnet-tiny"], cache = "f32" }
tests = [{ prefill = 8 }, { decode = 4 }]

[[config.peers]]
name = "pretender"
dialect = "llama-bench"
program = "bench"
model = "m.gguf"
arguments = ["-ctk", "f16"]
"#;

/// Says that it handles a token in a millisecond.
const GOOD: &str = r#"
echo "$@" >> "$0.calls"
while [ $# -gt 0 ]; do
    case $1 in -t) t=$2 ;; -p) p=$2 ;; -n) n=$2 ;; esac
    shift
done
k=$((p + n))
sleep 0.05
printf '[{"build_commit": "abc", "build_number": 7, "model_type": "tiny", "model_n_params": 1195200, "n_threads": %s,
"n_prompt": %s, "n_gen": %s, "avg_ts": 1000.0, "samples_ns": [%s000000]}]\n' "$t" "$p" "$n" "$k"
"#;

struct Stage {
    folder: TempDir,
}

impl Stage {
    fn new(script: &str) -> Stage {
        let stage = Stage { folder: tempfile::tempdir().unwrap() };
        std::fs::write(stage.path("rivals.toml"), FILE).unwrap();
        std::fs::write(stage.path("m.gguf"), "weights").unwrap();
        std::fs::write(stage.path("bench"), format!("#!/bin/sh\n{script}")).unwrap();
        std::fs::set_permissions(stage.path("bench"), PermissionsExt::from_mode(0o755)).unwrap();
        stage
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn run(&self) -> Output {
        harness(
            &[self.path("rivals.toml").to_str().unwrap(), "--quick", "-t", "1"],
            &self.path("run"),
            self.folder.path(),
        )
    }

    fn rows(&self) -> Vec<Value> {
        let rows = std::fs::read_to_string(self.path("run/rows/rivals.jsonl")).unwrap();
        rows.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn report(&self) -> String {
        std::fs::read_to_string(self.path("run/report.md")).unwrap()
    }
}

fn harness(arguments: &[&str], out: &Path, peers: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_harness"));
    command.arg("experiment").args(arguments).arg("--out").arg(out).env("RYZANSTEIN_PEERS", peers).output().unwrap()
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn every_program_runs_once_in_each_block_and_the_report_compares_them() {
    let stage = Stage::new(GOOD);
    let output = stage.run();
    assert!(output.status.success(), "{}", told(&output));
    let rows = stage.rows();
    assert_eq!(rows.len(), 2 + 2 * 3 * 2);
    assert_eq!((&rows[0]["program"], &rows[0]["version"]), (&"pretender".into(), &"abc (7)".into()));
    assert_eq!(rows[0]["model_bytes"], 7);
    let samples: Vec<&Value> = rows.iter().filter(|row| row["kind"] == "sample" && row["test"] == "decode").collect();
    let order: Vec<&str> = samples.iter().map(|row| row["program"].as_str().unwrap()).collect();
    let (a, b) = ("ryzanstein", "pretender");
    assert_eq!(order, [a, b, b, a, b, a]);
    let theirs = samples.iter().filter(|row| row["program"] == b);
    assert!(theirs.clone().all(|row| (row["tokens_per_s"]["median"].as_f64().unwrap() - 1000.0).abs() < 1e-6));
    assert_eq!(theirs.map(|row| row["block"].as_u64().unwrap()).collect::<Vec<_>>(), [0, 1, 2]);
    let calls = std::fs::read_to_string(stage.path("bench.calls")).unwrap();
    assert_eq!(calls.lines().count(), 1 + 2 * 3);
    assert!(calls.lines().all(|line| line.ends_with("-r 1 -o json -ctk f16")), "{calls}");
    let report = stage.report();
    for needle in [
        "Against pretender",
        "| pretender | `abc (7)` | tiny | 1,195,200 | 7 |",
        "1,000 [1,000, 1,000]",
        "model of a peer",
    ] {
        assert!(report.contains(needle), "the report lacks '{needle}': {report}");
    }
}

/// The same experiment by shape: a name and our model for each.
fn by_shape(shapes: &[(&str, &str)]) -> String {
    let (head, peer) = FILE.split_once("[[config.peers]]").unwrap();
    let mut file: String =
        head.lines().filter(|line| !line.starts_with("ours")).map(|line| format!("{line}\n")).collect();
    for (name, model) in shapes {
        let ours = format!("ours = {{ models = [\"{model}\"] }}");
        file += &format!("[[config.shapes]]\nname = \"{name}\"\n{ours}\n[[config.shapes.peers]]{peer}");
    }
    file
}

#[test]
fn each_shape_has_its_own_programs_blocks_and_table() {
    let stage = Stage::new(GOOD);
    let shapes = [("bitnet", "synthetic:bitnet-tiny"), ("rwkv-7", "synthetic:rwkv7-tiny+dense=q8")];
    std::fs::write(stage.path("rivals.toml"), by_shape(&shapes)).unwrap();
    let output = stage.run();
    assert!(output.status.success(), "{}", told(&output));
    let rows = stage.rows();
    assert_eq!(rows.len(), 2 * (2 + 2 * 3 * 2));
    for (shape, own) in [("bitnet", "ryzanstein"), ("rwkv-7", "ryzanstein+dense=q8")] {
        let of = |program: &str| rows.iter().filter(|row| row["shape"] == shape && row["program"] == program).count();
        assert_eq!((of(own), of("pretender")), (1 + 2 * 3, 1 + 2 * 3), "{shape}");
    }
    for needle in ["bitnet: against pretender, `ryzanstein` is", "rwkv-7: Speeds", "figures/rivals-rwkv-7.svg"] {
        assert!(stage.report().contains(needle), "the report lacks '{needle}': {}", stage.report());
    }
    for (shapes, needle) in [
        ([shapes[0], shapes[0]], "'bitnet' is the name of more than one shape"),
        ([shapes[0], ("b", "synthetic:none")], "b: ours: "),
    ] {
        std::fs::write(stage.path("rivals.toml"), by_shape(&shapes)).unwrap();
        let output = stage.run();
        assert!(output.status.code() == Some(2) && told(&output).contains(needle), "{}", told(&output));
    }
}

#[test]
fn what_was_measured_before_a_program_fails_is_kept_and_reported() {
    let stage =
        Stage::new(&format!("[ $(cat \"$0.calls\" 2>/dev/null | wc -l) -ge 4 ] && echo no luck >&2 && exit 9\n{GOOD}"));
    let output = stage.run();
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
    for needle in ["rivals: 'pretender', ", "-p 0 -n 4", "exit status: 9", "no luck"] {
        assert!(told(&output).contains(needle), "'{}' lacks '{needle}'", told(&output));
    }
    let prefills = stage.rows().iter().filter(|row| row["test"] == "prefill").count();
    assert_eq!(prefills, 6);
    assert!(stage.report().contains("partial") && stage.report().contains("Against pretender"), "{}", stage.report());
}

#[test]
fn a_program_that_answers_nonsense_is_quoted_before_anything_is_timed() {
    let fails = |script: &str, needles: &[&str]| {
        let stage = Stage::new(script);
        let output = stage.run();
        assert_eq!(output.status.code(), Some(1), "{}", told(&output));
        for needle in needles {
            assert!(told(&output).contains(needle), "'{}' lacks '{needle}'", told(&output));
        }
        assert!(stage.rows().is_empty());
    };
    fails("echo '| model | t/s |'", &["'pretender', ", "no answer of the dialect llama-bench", "'| model | t/s |'"]);
    let boast = GOOD.replace("1000.0", "0.001").replace("%s000000]", "%s000000000000]");
    fails(&boast, &["it says that 1 tokens took 1000 s, but it ran for"]);
}

#[test]
fn what_is_not_there_is_told_in_one_sentence_with_status_2() {
    let folder = tempfile::tempdir().unwrap();
    // The repository's own file, on a machine where nothing was prepared for it.
    let output = harness(&["rivals"], &folder.path().join("run"), &folder.path().join("nowhere"));
    assert_eq!((output.status.code(), told(&output).lines().count()), (Some(2), 1), "{}", told(&output));
    for needle in
        ["rivals.toml: peers: 'llama.cpp TQ2_0': there is no program /", "nowhere/llama.cpp", "RYZANSTEIN_PEERS"]
    {
        assert!(told(&output).contains(needle), "'{}' lacks '{needle}'", told(&output));
    }
    let output = harness(&["rivals-recurrent"], &folder.path().join("run"), &folder.path().join("nowhere"));
    let told_of = "rivals-recurrent.toml: mamba-130m: peers: 'llama.cpp Q8_0': there is no program /";
    assert!(output.status.code() == Some(2) && told(&output).contains(told_of), "{}", told(&output));
    let stage = Stage::new(GOOD);
    std::fs::remove_file(stage.path("m.gguf")).unwrap();
    let output = stage.run();
    assert_eq!(output.status.code(), Some(2));
    assert!(told(&output).contains("there is no model file /") && !stage.path("run").exists(), "{}", told(&output));
    let wrong = [
        ("blocks = 3", "blocks = 0", "expected 1 to"),
        ("limit_s = 5.0", "limit_s = -1", "limit_s = -1"),
        ("decode = 4", "decode = 0", "tests: "),
        ("bitnet-tiny", "bitnet-tiny+layout=i9", "i9"),
        ("pretender", "ryzanstein", "more than one program"),
        ("llama-bench", "lama", "no dialect 'lama'"),
    ];
    let stage = Stage::new(GOOD);
    for (from, to, needle) in wrong {
        std::fs::write(stage.path("rivals.toml"), FILE.replace(from, to)).unwrap();
        let output = stage.run();
        assert_eq!((output.status.code(), told(&output).lines().count()), (Some(2), 1), "{}", told(&output));
        assert!(told(&output).contains(needle), "'{}' lacks '{needle}'", told(&output));
    }
}

#[test]
fn it_is_left_out_where_everything_runs_and_that_is_said() {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("experiments")).unwrap();
    std::fs::write(root.path().join("experiments/rivals.toml"), FILE).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_harness"));
    let output = command.arg("experiment").env("RYZANSTEIN_ROOT", root.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(
        told(&output).contains("rivals: left out") && told(&output).contains("experiment rivals"),
        "{}",
        told(&output)
    );
}
