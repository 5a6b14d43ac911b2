//! `experiment` and `report` from the outside: what a run leaves behind, and what is said of wrong input.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

/// One op at one shape: measured in a moment.
const TINY: &str = r#"
experiment = "kernels"

[config]
threads = [1]
scalar_operations = 1_000_000
others = 0
cases = [{ ops = ["norm/rms"], shapes = ["1x256x2"], working_sets = ["cache"] }]
budget = { sample_ms = 0.05, min_blocks = 6, max_blocks = 9, seconds = 0.01, precision = 0.5 }

[quick]
budget = { max_blocks = 7 }
"#;

fn harness(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_harness")).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Writes the file, runs it quickly with one thread, and gives the folder of the run.
fn run(folder: &Path, file: &str) -> (Output, std::path::PathBuf) {
    let (toml, out) = (folder.join("tiny.toml"), folder.join("run"));
    std::fs::write(&toml, file).unwrap();
    let arguments = ["experiment", toml.to_str().unwrap(), "--quick", "--threads", "1", "--out", out.to_str().unwrap()];
    (harness(&arguments), out)
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn a_run_leaves_manifest_rows_columns_figures_and_both_reports() {
    let folder = tempfile::tempdir().unwrap();
    let (output, run) = run(folder.path(), TINY);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let last = text(&output.stdout);
    assert_eq!(last.trim_end(), format!("report: {}", run.join("report.html").display()));

    let manifest: Value = serde_json::from_str(&read(&run.join("manifest.json"))).unwrap();
    assert_eq!(manifest["experiments"][0]["state"], "complete");
    assert_eq!(manifest["experiments"][0]["config"]["budget"]["max_blocks"], 7, "[quick] is merged over [config]");
    assert_eq!(manifest["experiments"][0]["config"]["budget"]["min_blocks"], 6);
    assert!(manifest["ceilings"]["bandwidths"].as_array().unwrap().len() >= 9);
    assert!(manifest["noise"][0]["ratio"]["median"].as_f64().unwrap() > 0.0);

    let high_water = |purpose: &str| {
        let reserved = manifest["memory"]["purposes"].as_array().unwrap().iter().find(|r| r["purpose"] == purpose);
        reserved.unwrap()["high_water_bytes"].as_u64().unwrap()
    };
    assert!(high_water("measuring") > 1 << 20 && high_water("cache") == 0, "{}", manifest["memory"]);
    assert!(manifest["memory"]["allocated"]["high_water_bytes"].as_u64().unwrap() >= high_water("measuring"));

    let rows = read(&run.join("rows/tiny.jsonl"));
    let rows: Vec<Value> = rows.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(manifest["experiments"][0]["rows"].as_u64().unwrap() as usize, rows.len());
    let speeds: Vec<&Value> = rows.iter().filter(|row| row["kind"] == "speed").collect();
    assert!(!speeds.is_empty() && speeds.iter().all(|row| row["share_of_ceiling"]["low"].as_f64().unwrap() <= 1.1));
    assert!(std::fs::metadata(run.join("rows/tiny.parquet")).unwrap().len() > 0);

    let (page, markdown) = (read(&run.join("report.html")), read(&run.join("report.md")));
    for needle in
        ["<svg ", "norm/rms", "Machine and method", "High-water marks", "cargo run --release -p harness -- experiment"]
    {
        assert!(page.contains(needle), "report.html lacks {needle}");
    }
    assert!(!page.contains("src=\"http") && !page.contains("<link"), "the page needs nothing else");
    assert!(markdown.contains("](figures/tiny-share.svg)") && run.join("figures/tiny-share.svg").exists());
}

#[test]
fn predictions_without_their_tool_say_how_to_get_it() {
    let folder = tempfile::tempdir().unwrap();
    let (toml, out) = (folder.path().join("loops.toml"), folder.path().join("run"));
    let file =
        "experiment = \"predicted\"\n[config]\nops = [\"ternary/i2\"]\ncpus = [\"znver4\"]\nturns = 9\nlimit_s = 9.0\n";
    std::fs::write(&toml, file).unwrap();
    let arguments = ["experiment", toml.to_str().unwrap(), "--quick", "--threads", "1", "--out", out.to_str().unwrap()];
    let mut command = Command::new(env!("CARGO_BIN_EXE_harness"));
    let output = command.args(arguments).env("LLVM_MCA", "/no/such/llvm-mca").output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let rows = read(&out.join("rows/loops.jsonl"));
    let last: Value = serde_json::from_str(rows.lines().last().unwrap()).unwrap();
    assert_eq!(last["kind"], "absent", "{rows}");
    let page = read(&out.join("report.md"));
    assert!(page.contains("## 2. Predicted cycles") && page.contains("There are no predictions for"), "{page}");
    if cfg!(all(target_arch = "x86_64", target_os = "linux")) {
        assert!(last["remedy"].as_str().unwrap().contains("LLVM_MCA"), "{rows}");
        // What is looked for in the machine code is there, also for a level that this CPU may lack.
        let hot = rows.lines().filter(|row| row.contains("\"isa\":\"avx512\"") && row.contains("\"hot\":true"));
        assert_eq!(hot.count(), 2, "{rows}");
    }
}

#[test]
fn the_same_rows_give_the_same_report_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let (_, run) = run(folder.path(), TINY);
    let files = ["report.html", "report.md", "figures/tiny-share.svg"];
    let before = files.map(|file| read(&run.join(file)));
    for file in files {
        std::fs::remove_file(run.join(file)).unwrap();
    }
    let output = harness(&["report", run.to_str().unwrap()]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(files.map(|file| read(&run.join(file))), before);
}

#[test]
fn a_run_that_was_killed_can_be_rendered_and_says_that_it_is_partial() {
    let folder = tempfile::tempdir().unwrap();
    let (_, run) = run(folder.path(), TINY);
    // As a run looks that is killed while it writes a row.
    let mut manifest: Value = serde_json::from_str(&read(&run.join("manifest.json"))).unwrap();
    manifest["duration_s"] = Value::Null;
    manifest["experiments"][0]["state"] = "running".into();
    std::fs::write(run.join("manifest.json"), manifest.to_string()).unwrap();
    let rows = read(&run.join("rows/tiny.jsonl"));
    std::fs::write(run.join("rows/tiny.jsonl"), &rows[..rows.len() - 9]).unwrap();
    let output = harness(&["report", run.to_str().unwrap()]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("partial"));
    let page = read(&run.join("report.md"));
    assert!(page.contains("This report is partial: tiny was not finished.") && page.contains("norm/rms"), "{page}");
}

#[test]
fn wrong_input_is_told_in_one_sentence_with_status_2() {
    let folder = tempfile::tempdir().unwrap();
    let wrong = |file: &str, needles: &[&str]| {
        let (output, run) = run(folder.path(), file);
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{told}");
        assert_eq!(told.lines().count(), 1, "{told}");
        for needle in needles {
            assert!(told.contains(needle), "'{told}' lacks '{needle}'");
        }
        assert!(!run.exists(), "nothing is measured");
    };
    wrong(&TINY.replace("others", "oters"), &["tiny.toml", "line 7", "unknown field `oters`", "`others`"]);
    wrong(&TINY.replace("sample_ms", "sample_mss"), &["tiny.toml", "line 9", "`sample_mss`", "`sample_ms`"]);
    wrong(&TINY.replace("max_blocks = 7", "max_block = 7"), &["tiny.toml", "[quick]", "`max_block`", "`max_blocks`"]);
    wrong(&TINY.replace("[quick]", "[quik]"), &["tiny.toml", "unknown field `quik`"]);
    wrong(&TINY.replace("\"kernels\"", "\"kernel\""), &["tiny.toml", "no experiment 'kernel'", "kernels"]);
    wrong(&TINY.replace("norm/rms", "norm/rmss"), &["tiny.toml", "no op 'norm/rmss'", "norm/rms"]);
    wrong(&TINY.replace("1x256x2", "1x256"), &["tiny.toml", "'1x256' is not a shape"]);
    wrong(&TINY.replace("1x256x2", "9x256x2"), &["tiny.toml", "norm/rms cannot compute 9x256x2", "1x256x2"]);
    wrong(&TINY.replace("threads = [1]", "threads = [0]"), &["tiny.toml", "threads"]);
    wrong("experiment = ", &["tiny.toml", "line 1"]);
    wrong("config = 1", &["tiny.toml", "expected experiment ="]);
    let output = harness(&["experiment", "kernells"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("did you mean 'kernels'?"), "{}", text(&output.stderr));
    let output = harness(&["experiment", "no/such/file.toml"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("no/such/file.toml"), "{}", text(&output.stderr));
}

#[test]
fn output_that_cannot_be_written_fails_before_anything_is_measured() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("run"), "a file").unwrap();
    let (output, _) = run(folder.path(), TINY);
    assert_eq!(output.status.code(), Some(1));
    let told = text(&output.stderr);
    assert!(told.contains("cannot make the folder") && told.contains("run"), "{told}");
    let output = harness(&["report", folder.path().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("is not the folder of a run"), "{}", text(&output.stderr));
}

/// `/dev/full` takes no byte: what a disk does that is full.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_told_with_the_file_that_could_not_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let run_folder = folder.path().join("run");
    std::fs::create_dir_all(run_folder.join("rows")).unwrap();
    std::os::unix::fs::symlink("/dev/full", run_folder.join("rows/tiny.jsonl")).unwrap();
    let (output, _) = run(folder.path(), TINY);
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("cannot append to") && told.contains("tiny.jsonl"), "{told}");
}

#[test]
fn info_and_list_are_json_where_asked() {
    for command in ["info", "list"] {
        let output = harness(&[command, "--json"]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        let value: Value = serde_json::from_slice(&output.stdout).unwrap();
        let key = if command == "info" { "ceilings" } else { "experiments" };
        assert!(value.get(key).is_some(), "{command} --json lacks {key}");
    }
}
