//! Flame graphs of what a command times.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::cli::UserError;

/// A flame graph in the making.
pub struct Profile {
    path: PathBuf,
    file: std::fs::File,
}

impl Profile {
    /// Opens the file first: a path that cannot be written should not surface after the measurement.
    ///
    /// # Errors
    /// [`UserError`] for a path that cannot be written.
    pub fn start(path: &Path) -> Result<Profile> {
        let file = std::fs::File::create(path)
            .map_err(|error| UserError::new(format!("cannot write {}: {error}", path.display())))?;
        Ok(Profile { path: path.to_path_buf(), file })
    }

    /// Begins to look at the stacks of all threads, 997 times a second.
    ///
    /// # Errors
    /// The system's timer cannot be had.
    pub fn sample(&self) -> Result<pprof::ProfilerGuard<'static>> {
        pprof::ProfilerGuardBuilder::default()
            .frequency(997)
            .blocklist(&["libc", "libgcc", "pthread", "vdso"])
            .build()
            .context("cannot start the profiler")
    }

    /// Draws what was sampled.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(self, guard: &pprof::ProfilerGuard<'_>) -> Result<()> {
        let report = guard.report().build().context("cannot read the profile")?;
        report.flamegraph(&self.file).with_context(|| format!("cannot write {}", self.path.display()))?;
        eprintln!("wrote the flame graph to {}", self.path.display());
        Ok(())
    }
}
