//! Writing results to standard output, where the reader may stop listening at any time.

use std::io::{self, Write};

use anyhow::{Context, Result};

/// Writes `text` to standard output as it stands and flushes it.
///
/// # Errors
/// A closed pipe is an error like any other here, so that work stops; [`crate::cli::exit_code`] then stays quiet about
/// it, as a reader such as `head` means no harm.
pub fn text(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("cannot write to standard output")
}

/// Writes `line` and a line break.
///
/// # Errors
/// As [`text`].
pub fn line(line: &str) -> Result<()> {
    text(&format!("{line}\n"))
}

/// Writes `value` as indented JSON and a line break.
///
/// # Errors
/// As [`text`]; also a value that JSON cannot hold.
pub fn json(value: &impl serde::Serialize) -> Result<()> {
    line(&serde_json::to_string_pretty(value).context("cannot write the result as JSON")?)
}

/// Whether the error's cause is a reader that closed the pipe.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>()).any(|e| e.kind() == io::ErrorKind::BrokenPipe)
}
