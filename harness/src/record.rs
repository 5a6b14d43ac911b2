//! What a run leaves behind: a folder with its manifest, its rows and its report.
//!
//! ```text
//! manifest.json        who the numbers are; written first, and again after each experiment
//! rows/NAME.jsonl      one row a line, flushed as it comes: a run that is killed leaves a readable folder
//! rows/NAME.parquet    the same rows as columns, written when the experiment is complete
//! figures/*.svg  report.html  report.md
//! ```

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::ceilings::Ceilings;
use crate::machine::{Compiler, Machine};
use crate::memory::MemoryStats;
use crate::quantity::Timed;

mod columns;

/// The version of the folder's form.
pub const FORMAT: u32 = 1;

/// Who the numbers are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: u32,
    /// The project's version.
    pub version: String,
    /// The commit of the working tree; absent outside a repository.
    pub commit: Option<String>,
    /// Whether the tree held nothing but that commit; absent outside a repository.
    pub tree_clean: Option<bool>,
    /// Whether this was a quick run: shorter, and not meant to be quoted.
    pub quick: bool,
    /// The seed of everything random.
    pub seed: u64,
    /// The most threads that were used.
    pub threads: usize,
    /// The highest ISA level that was used.
    pub isa: String,
    /// When it started, UTC.
    pub started: String,
    /// How long it took; absent while it runs and after it was killed.
    pub duration_s: Option<f64>,
    /// The CPU and its surroundings.
    pub machine: Machine,
    /// The compiler and its flags.
    pub compiler: Compiler,
    /// The ceilings that were measured.
    pub ceilings: Ceilings,
    /// What an A/A comparison showed.
    pub noise: Vec<Noise>,
    /// What the process took of memory up to when this was written; absent in runs from before it was kept.
    #[serde(default)]
    pub memory: Option<MemoryStats>,
    /// Texts and weights that were read.
    pub inputs: Vec<Input>,
    /// The experiments, in order.
    pub experiments: Vec<Planned>,
}

/// An A/A comparison: the same work timed as two contestants. What it shows of a difference is noise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Noise {
    /// What was timed.
    pub case: String,
    /// Threads at the same time.
    pub threads: usize,
    /// Time of the one over time of the other; the truth is 1.
    pub ratio: Timed,
    /// 95 % of single samples lay within this share of their median.
    pub spread: f64,
}

/// A text, weights or a program that a run read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Input {
    /// `model` or `dataset`; `program` and `model of a peer` for files of the user's own.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its checksum; absent for synthetic weights, which follow from their name.
    pub sha256: Option<String>,
}

/// An experiment of the run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Planned {
    /// The name of its file, without `.toml`.
    pub name: String,
    /// Which experiment it is.
    pub experiment: String,
    /// Its whole configuration, defaults and `[quick]` included.
    pub config: Value,
    /// How far it came.
    pub state: State,
    /// Why it failed.
    pub failure: Option<String>,
    /// How long it took.
    pub duration_s: Option<f64>,
    /// Rows written.
    pub rows: usize,
}

/// How far an experiment came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Not begun.
    Pending,
    /// Begun.
    Running,
    /// Done.
    Complete,
    /// Ended by an error.
    Failed,
}

impl Manifest {
    /// Whether every experiment ran to its end.
    pub fn is_complete(&self) -> bool {
        self.duration_s.is_some() && self.experiments.iter().all(|e| e.state == State::Complete)
    }
}

/// The folder of a run.
#[derive(Clone, Debug)]
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    /// Makes the folder of a new run.
    ///
    /// # Errors
    /// It cannot be written, or it already holds a run.
    pub fn create(path: &Path) -> Result<Folder> {
        if path.join("manifest.json").exists() {
            bail!("{} already holds a run: name another folder with --out", path.display());
        }
        let folder = Folder { path: path.to_path_buf() };
        for part in [path.to_path_buf(), folder.rows(), folder.figures()] {
            std::fs::create_dir_all(&part).with_context(|| format!("cannot make the folder {}", part.display()))?;
        }
        Ok(folder)
    }

    /// The folder of a run that was made before, and its manifest.
    ///
    /// # Errors
    /// There is none, or its manifest cannot be read.
    pub fn open(path: &Path) -> Result<(Folder, Manifest)> {
        let file = path.join("manifest.json");
        let text = std::fs::read_to_string(&file).with_context(|| {
            format!("{} is not the folder of a run: cannot read {}", path.display(), file.display())
        })?;
        let form: Value = serde_json::from_str(&text).with_context(|| format!("{} is not JSON", file.display()))?;
        let format = form.get("format").and_then(Value::as_u64);
        if format != Some(u64::from(FORMAT)) {
            let found = format.map_or("none".to_string(), |format| format.to_string());
            bail!("{}: expected format {FORMAT}, found {found}", file.display());
        }
        let manifest = serde_json::from_value(form).with_context(|| format!("{} is not a manifest", file.display()))?;
        Ok((Folder { path: path.to_path_buf() }, manifest))
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn rows(&self) -> PathBuf {
        self.path.join("rows")
    }

    fn figures(&self) -> PathBuf {
        self.path.join("figures")
    }

    /// Writes the manifest, whole or not at all.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write_manifest(&self, manifest: &Manifest) -> Result<()> {
        let text = serde_json::to_string_pretty(manifest).context("the manifest cannot be written as JSON")?;
        self.write("manifest.json", &(text + "\n"))
    }

    /// Writes one of the folder's files, whole or not at all.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.path.join(name);
        let unfinished = self.path.join(format!("{name}.unfinished"));
        let written = File::create(&unfinished)
            .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
            .and_then(|()| std::fs::rename(&unfinished, &path));
        written.with_context(|| format!("cannot write {}", path.display()))
    }

    /// Writes the figures in place of those of an earlier report.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn write_figures(&self, figures: &[(String, String)]) -> Result<()> {
        let folder = self.figures();
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
        for entry in std::fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?.flatten()
        {
            let path = entry.path();
            if path.extension().is_some_and(|extension| extension == "svg") {
                std::fs::remove_file(&path).with_context(|| format!("cannot replace {}", path.display()))?;
            }
        }
        figures.iter().try_for_each(|(name, svg)| self.write(&format!("figures/{name}.svg"), svg))
    }

    /// Opens the file that an experiment's rows are appended to.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn row_file(&self, name: &str) -> Result<RowFile> {
        let path = self.rows().join(format!("{name}.jsonl"));
        let file = File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(RowFile { path, file, rows: 0 })
    }

    /// Reads an experiment's rows. A last line that was cut off when a run was killed is left out.
    ///
    /// # Errors
    /// The file exists but cannot be read, or a whole line of it is not JSON.
    pub fn read_rows(&self, name: &str) -> Result<Vec<Value>> {
        let path = self.rows().join(format!("{name}.jsonl"));
        match std::fs::metadata(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            // Reading a device could go on for ever; whatever else is wrong is told by reading.
            Ok(data) if !data.is_file() => bail!("{} is not a file", path.display()),
            _ => {}
        }
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let row = |(i, line): (usize, &str)| {
            serde_json::from_str(line).with_context(|| format!("{}, line {}: not JSON", path.display(), i + 1))
        };
        whole.lines().enumerate().map(row).collect()
    }

    /// Writes an experiment's rows as columns.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_columns(&self, name: &str) -> Result<()> {
        let path = self.rows().join(format!("{name}.parquet"));
        columns::write(&path, &self.read_rows(name)?).with_context(|| format!("cannot write {}", path.display()))
    }
}

/// The file that rows are appended to as they come.
#[derive(Debug)]
pub struct RowFile {
    path: PathBuf,
    file: File,
    rows: usize,
}

impl RowFile {
    /// Appends a row; it is with the operating system when this returns.
    ///
    /// # Errors
    /// It cannot be written: the disk is full, for example.
    pub fn append(&mut self, row: &Value) -> Result<()> {
        let line = format!("{row}\n");
        self.file.write_all(line.as_bytes()).with_context(|| format!("cannot append to {}", self.path.display()))?;
        self.rows += 1;
        Ok(())
    }

    /// How many rows were appended.
    pub fn rows(&self) -> usize {
        self.rows
    }
}

/// The determined numbers of a row, by the path of their field, and the row's identity: everything in it that is plainly
/// text, a truth value or a whole number. `None` for a row without determined numbers.
pub fn determined(row: &Value) -> Option<(String, BTreeMap<String, Value>)> {
    let mut found = BTreeMap::new();
    let mut identity = Vec::new();
    for (name, value) in row.as_object()? {
        match value {
            Value::Object(fields) if fields.len() == 1 && fields.contains_key("exact") => {
                found.insert(name.clone(), fields["exact"].clone());
            }
            Value::String(text) => identity.push(format!("{name}={text}")),
            Value::Bool(truth) => identity.push(format!("{name}={truth}")),
            Value::Number(number) if !number.is_f64() => identity.push(format!("{name}={number}")),
            _ => {}
        }
    }
    (!found.is_empty()).then(|| (identity.join(" "), found))
}

/// The commit of a working tree and whether the tree holds nothing else; `None` outside a repository or without git.
pub fn commit(root: &Path) -> Option<(String, bool)> {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").arg("-C").arg(root).args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_string())
    };
    let commit = git(&["rev-parse", "HEAD"])?;
    Some((commit, git(&["status", "--porcelain"])?.is_empty()))
}

/// A moment as `2026-11-21T02:05:18Z`.
pub fn timestamp(moment: SystemTime) -> String {
    let seconds = moment.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (year, month, day) = date(seconds / 86400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Year, month and day of a number of days after 1970-01-01 in the Gregorian calendar (Hinnant, "chrono-compatible
/// low-level date algorithms": eras of 400 years that start in March).
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    #[test]
    fn moments_are_written_in_utc() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_795_226_718, "2026-11-21T02:05:18Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
        ] {
            assert_eq!(timestamp(UNIX_EPOCH + Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn rows_survive_a_run_that_is_killed_while_writing() {
        let folder = tempfile::tempdir().unwrap();
        let run = Folder::create(&folder.path().join("run")).unwrap();
        let mut file = run.row_file("x").unwrap();
        file.append(&json!({"a": 1})).unwrap();
        file.append(&json!({"a": 2.5})).unwrap();
        assert_eq!(file.rows(), 2);
        std::fs::OpenOptions::new()
            .append(true)
            .open(run.path().join("rows/x.jsonl"))
            .unwrap()
            .write_all(b"{\"a\": 3")
            .unwrap();
        assert_eq!(run.read_rows("x").unwrap(), [json!({"a": 1}), json!({"a": 2.5})]);
        assert_eq!(run.read_rows("never begun").unwrap(), Vec::<Value>::new());
        std::fs::write(run.path().join("rows/y.jsonl"), "{}\nnonsense\n").unwrap();
        assert!(run.read_rows("y").unwrap_err().to_string().contains("y.jsonl, line 2"));
    }

    #[test]
    fn a_folder_that_holds_no_run_is_refused_and_one_that_does_is_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let error = Folder::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains("is not the folder of a run"), "{error}");
        std::fs::write(folder.path().join("manifest.json"), "{\"format\": 99}").unwrap();
        assert!(Folder::open(folder.path()).unwrap_err().to_string().contains("expected format 1, found 99"));
        assert!(Folder::create(folder.path()).unwrap_err().to_string().contains("already holds a run"));
        let file = folder.path().join("manifest.json/below");
        assert!(Folder::create(&file).unwrap_err().to_string().contains("cannot make the folder"));
    }

    /// Runs from before machines told their memory nodes and manifests what was taken of memory.
    #[test]
    fn manifests_of_committed_runs_can_still_be_read() {
        let mut read = 0;
        for entry in std::fs::read_dir(crate::root::root().join("reports")).unwrap().flatten() {
            if entry.path().join("manifest.json").exists() {
                let (_, manifest) = Folder::open(&entry.path()).unwrap();
                assert!(manifest.is_complete(), "{}", entry.path().display());
                read += 1;
            }
        }
        assert!(read > 0, "no committed run was found");
    }

    #[test]
    fn determined_numbers_are_found_by_their_form() {
        let row = json!({"op": "a/b", "rows": 3, "speed": {"median": 1.0, "low": 1.0, "high": 1.0, "n": 1},
            "share": 0.5, "digest": {"exact": "0f"}, "bits": {"exact": 1.25}});
        let (identity, found) = determined(&row).unwrap();
        assert_eq!(identity, "op=a/b rows=3");
        assert_eq!(
            found.into_iter().collect::<Vec<_>>(),
            [("bits".to_string(), json!(1.25)), ("digest".to_string(), json!("0f"))]
        );
        assert_eq!(determined(&json!({"op": "a/b"})), None);
    }
}
