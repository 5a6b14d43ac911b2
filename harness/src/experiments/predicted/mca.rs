//! `llvm-mca`: where it is, what it is asked, what it answers.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

/// The environment variable that names the program.
pub(super) const ENVIRONMENT: &str = "LLVM_MCA";

/// The most that is read of an answer.
const MAX_BYTES: u64 = 64 << 20;

/// The program.
pub(super) struct Tool {
    program: OsString,
    /// When the last answer must be there.
    deadline: Instant,
    /// As it calls itself, for example `LLVM version 22.1.8`.
    pub(super) version: String,
}

/// What it says of a loop.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Answer {
    /// Cycles of all turns.
    pub(super) cycles: u64,
    /// Micro-operations of all turns.
    pub(super) uops: u64,
    /// Micro-operations that enter in a cycle.
    pub(super) dispatch_width: u64,
    /// Whose description of a CPU it comes from: what the names of all resources begin with, for example `Zn4`.
    pub(super) description: String,
    /// How busy each resource is in a turn, in cycles; its name is without the number of a copy.
    pub(super) resources: Vec<(String, f64)>,
}

impl Tool {
    /// The program that `LLVM_MCA` names, else `llvm-mca` on the path. All that it is asked must be answered within
    /// the limit.
    ///
    /// # Errors
    /// There is none, or it does not tell its version in time.
    pub(super) fn find(limit: Duration) -> Result<Tool> {
        let named = std::env::var_os(ENVIRONMENT).filter(|value| !value.is_empty());
        let program = named.unwrap_or_else(|| "llvm-mca".into());
        let deadline = Instant::now() + limit;
        let text = ask(&program, &["--version"], "", limit)?;
        let version = version(&text).with_context(|| format!("{} tells no version", program.display()))?;
        Ok(Tool { program, deadline, version })
    }

    /// Schedules some turns of a loop for a CPU.
    ///
    /// # Errors
    /// The program does not know the CPU or an instruction, takes too long, or answers in another way than expected.
    pub(super) fn schedule(&self, assembly: &str, cpu: &str, turns: usize) -> Result<Answer> {
        let (cpu, turns) = (format!("-mcpu={cpu}"), format!("-iterations={turns}"));
        let arguments = ["-mtriple=x86_64-unknown-linux-gnu", &cpu, &turns, "--json"];
        let left = self.deadline.saturating_duration_since(Instant::now());
        answer(&ask(&self.program, &arguments, assembly, left)?)
    }
}

/// The line of `--version` that has the version.
fn version(text: &str) -> Option<String> {
    let line = text.lines().find(|line| line.contains("LLVM version"))?;
    Some(line.trim().chars().take(80).collect())
}

/// Runs a program: its standard output.
fn ask(program: &OsString, arguments: &[&str], input: &str, limit: Duration) -> Result<String> {
    let shown = program.display();
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {shown}"))?;
    // Each pipe has a thread of its own, so that none fills up while another is waited for; they end with the program.
    let input = input.as_bytes().to_vec();
    let stdin = child.stdin.take();
    thread::spawn(move || stdin.map(|mut stdin| stdin.write_all(&input)));
    let output = drained(child.stdout.take());
    let errors = drained(child.stderr.take());
    let deadline = Instant::now() + limit;
    let status = loop {
        if let Some(status) = child.try_wait().with_context(|| format!("cannot wait for {shown}"))? {
            break status;
        }
        if Instant::now() > deadline {
            // Nothing more can be done about a program that does not even end so.
            let _ = child.kill().and_then(|()| child.wait());
            bail!("{shown} took more than {:.1} s", limit.as_secs_f64());
        }
        thread::sleep(Duration::from_millis(2));
    };
    // Children of the program may hold its pipes open: they are not waited for.
    let rest = || deadline.saturating_duration_since(Instant::now()).max(Duration::from_secs(1));
    let output = output.recv_timeout(rest()).unwrap_or_default();
    let errors = errors.recv_timeout(rest()).unwrap_or_default();
    let errors = String::from_utf8_lossy(&errors);
    // It goes on, as if for another CPU, after some of its errors.
    let complaint = errors.lines().find(|line| line.contains("error:") || line.contains("not a recognized processor"));
    let complaint = complaint.or_else(|| errors.lines().next().filter(|_| !status.success()));
    if let Some(complaint) = complaint {
        bail!("{shown} says: {}", complaint.trim().chars().take(200).collect::<String>());
    }
    ensure!(status.success(), "{shown} failed ({status})");
    String::from_utf8(output).with_context(|| format!("{shown} answers in something else than text"))
}

/// All that a pipe gives, as soon as it is closed.
fn drained(pipe: Option<impl Read + Send + 'static>) -> std::sync::mpsc::Receiver<Vec<u8>> {
    let (send, receive) = std::sync::mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let read = pipe.map(|pipe| pipe.take(MAX_BYTES).read_to_end(&mut bytes));
        // Nobody waits for it any more if the program took too long.
        let _ = send.send(if matches!(read, Some(Ok(_))) { bytes } else { Vec::new() });
    });
    receive
}

/// The parts of the answer that are read.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Document {
    code_regions: Vec<Region>,
    target_info: Target,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Region {
    instructions: Vec<serde_json::Value>,
    summary_view: Summary,
    resource_pressure_view: Pressures,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Summary {
    dispatch_width: u64,
    total_cycles: u64,
    #[serde(rename = "TotaluOps")]
    total_uops: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Pressures {
    resource_pressure_info: Vec<Pressure>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Pressure {
    instruction_index: usize,
    resource_index: usize,
    resource_usage: f64,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Target {
    resources: Vec<String>,
}

/// Reads what the program prints with `--json`.
fn answer(text: &str) -> Result<Answer> {
    let document: Document = serde_json::from_str(text).context("llvm-mca answers in an unknown form")?;
    let [region] = document.code_regions.as_slice() else {
        bail!("llvm-mca answers for {} loops instead of one", document.code_regions.len());
    };
    // The place after the last instruction is that of their sums.
    let sums = region.instructions.len();
    let pressures = region.resource_pressure_view.resource_pressure_info.iter();
    let resources = pressures.filter(|pressure| pressure.instruction_index == sums).map(|pressure| {
        let name = document.target_info.resources.get(pressure.resource_index);
        let name = name.context("llvm-mca names a resource that it does not list")?;
        // Copies of a resource have a dot and their number, as a byte, at the end.
        Ok((name.split('.').next().unwrap_or_default().to_string(), pressure.resource_usage))
    });
    let resources = resources.collect::<Result<Vec<_>>>()?;
    let Summary { dispatch_width, total_cycles: cycles, total_uops: uops } = region.summary_view;
    ensure!(dispatch_width > 0 && cycles > 0 && !resources.is_empty(), "llvm-mca answers without numbers");
    let names: Vec<&str> = document.target_info.resources.iter().map(String::as_str).collect();
    Ok(Answer { cycles, uops, dispatch_width, description: common(&names).to_string(), resources })
}

/// What all of the names begin with.
fn common<'a>(names: &[&'a str]) -> &'a str {
    let Some((first, others)) = names.split_first() else { return "" };
    others.iter().fold(first, |common, name| {
        let same = common.char_indices().zip(name.chars()).find(|((_, a), b)| a != b);
        &common[..same.map_or(common.len().min(name.len()), |((at, _), _)| at)]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As LLVM 22 answers for `vpdpbusd (%rax), %zmm1, %zmm2`, less what is not read.
    const ANSWER: &str = r#"{"CodeRegions": [{"Instructions": ["vpdpbusd"], "Name": "",
        "ResourcePressureView": {"ResourcePressureInfo": [
            {"InstructionIndex": 0, "ResourceIndex": 1, "ResourceUsage": 2},
            {"InstructionIndex": 1, "ResourceIndex": 1, "ResourceUsage": 2},
            {"InstructionIndex": 1, "ResourceIndex": 2, "ResourceUsage": 0.5}]},
        "SummaryView": {"BlockRThroughput": 1, "DispatchWidth": 6, "TotalCycles": 403, "TotaluOps": 100}}],
        "SimulationParameters": {"-mcpu": "znver4"},
        "TargetInfo": {"CPUName": "znver4", "Resources": ["Zn4AGU0", "Zn4FP0", "Zn4Load.\u0000", "Zn4Load.\u0001"]}}"#;

    #[test]
    fn an_answer_is_read() {
        let read = answer(ANSWER).unwrap();
        let resources = vec![("Zn4FP0".to_string(), 2.0), ("Zn4Load".to_string(), 0.5)];
        let description = "Zn4".to_string();
        assert_eq!(read, Answer { cycles: 403, uops: 100, dispatch_width: 6, description, resources });
    }

    #[test]
    fn an_answer_of_another_form_is_an_error() {
        for (part, other) in [
            ("SummaryView", "Summary"),
            ("403", "-1"),
            ("403", "0"),
            ("\"ResourceIndex\": 2", "\"ResourceIndex\": 99"),
            ("\"DispatchWidth\": 6", "\"DispatchWidth\": 0"),
            ("\"Instructions\": [\"vpdpbusd\"]", "\"Instructions\": [\"nop\", \"nop\"]"),
        ] {
            assert!(ANSWER.contains(part));
            let text = ANSWER.replace(part, other);
            assert!(answer(&text).is_err(), "{part} -> {other}");
        }
        for text in ["", "{}", "null", "[1]", "LLVM ERROR: out of memory", &ANSWER[..ANSWER.len() / 2]] {
            assert!(answer(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_version_is_the_line_that_names_it() {
        let text = "LLVM (http://llvm.org/):\n  LLVM version 22.1.8\n  Optimized build.\n";
        assert_eq!(version(text).as_deref(), Some("LLVM version 22.1.8"));
        assert_eq!(version("Usage: something else"), None);
    }

    #[cfg(unix)]
    #[test]
    fn a_program_that_hangs_or_fails_or_floods_ends_in_an_error() {
        let limit = Duration::from_millis(300);
        let run = |script: &str| ask(&"sh".into(), &["-c", script], "ret\n", limit);
        assert_eq!(run("cat").unwrap(), "ret\n");
        let error = |script: &str| format!("{:#}", run(script).unwrap_err());
        assert!(error("sleep 30").contains("took more than 0.3 s"));
        // Too late, or cut off after more than is read.
        assert!(run("yes").is_err());
        assert!(error("exit 3").contains("failed"));
        assert!(error("echo 'error: no such thing' >&2").contains("no such thing"));
        assert!(error("printf '\\377'").contains("something else than text"));
        assert!(format!("{:#}", ask(&"/no/such/tool".into(), &[], "", limit).unwrap_err()).contains("cannot run"));
        let started = Instant::now();
        // A child that outlives the program and holds its pipes.
        assert!(run("sleep 5 & echo left").is_ok());
        assert!(started.elapsed() < Duration::from_secs(4));
    }
}
