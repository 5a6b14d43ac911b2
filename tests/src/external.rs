//! Fixtures and datasets that lie outside the repository: found by an environment variable, or beside the checkout.
//!
//! A test that needs them and does not find them passes, after one line on the real standard error, which the test
//! harness does not capture: a run without fixtures looks different from a run with them.

use std::io::Write;
use std::path::{Path, PathBuf};

/// Names the directory of golden fixtures; empty means that there are none.
pub const FIXTURES: &str = "RYZANSTEIN_FIXTURES";

/// Names the directory of datasets; empty means that there are none.
pub const DATA: &str = "RYZANSTEIN_DATA";

/// The directory of golden fixtures: [`FIXTURES`], else `shared/fixtures` beside the checkout.
///
/// # Panics
/// If the environment variable names something that is not a directory.
pub fn fixtures() -> Result<PathBuf, String> {
    find(FIXTURES, "shared/fixtures")
}

/// The directory of datasets: [`DATA`], else `shared/datasets` beside the checkout.
///
/// # Panics
/// If the environment variable names something that is not a directory.
pub fn datasets() -> Result<PathBuf, String> {
    find(DATA, "shared/datasets")
}

/// The fixture or dataset `name`, or `None` after a visible line that says which promise was not checked.
pub fn or_skip(promise: &str, directory: Result<PathBuf, String>, name: &str) -> Option<PathBuf> {
    match directory {
        Ok(directory) if directory.join(name).exists() => Some(directory.join(name)),
        Ok(directory) => skip(promise, &format!("{name} not found in {}", directory.display())),
        Err(why) => skip(promise, &why),
    }
}

/// Says on the real standard error, where the test harness does not capture it, that a promise was not checked.
pub fn skip<T>(promise: &str, why: &str) -> Option<T> {
    // A closed standard error is no reason to fail.
    let _ = std::io::stderr().write_all(format!("SKIPPED: {promise}: {why}\n").as_bytes());
    None
}

/// A figure that a promise measured, shown with `--nocapture`.
pub fn report(promise: &str, figure: &str) {
    println!("{promise}: {figure}");
}

/// The checkout's root.
pub fn checkout() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the checkout")
}

fn find(variable: &str, beside: &str) -> Result<PathBuf, String> {
    let what = beside.rsplit('/').next().unwrap_or(beside);
    if let Some(path) = std::env::var_os(variable) {
        if path.is_empty() {
            return Err(format!("{what} switched off by an empty {variable}"));
        }
        let path = PathBuf::from(path);
        assert!(path.is_dir(), "{variable} names {}, which is not a directory", path.display());
        return Ok(path);
    }
    checkout()
        .ancestors()
        .skip(1)
        .map(|parent| parent.join(beside))
        .find(|path| path.is_dir())
        .ok_or_else(|| format!("{what} not found at ../{beside} beside the checkout, and {variable} is not set"))
}
