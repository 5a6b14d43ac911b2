//! `harness report`: writes the report of a run again, without measuring.

use std::path::PathBuf;

use anyhow::Result;

use crate::record::Folder;
use crate::{output, report};

/// What `report` may be told.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The folder of a run
    folder: PathBuf,
}

/// Renders the report again.
///
/// # Errors
/// The folder holds no run, its rows cannot be read, or the report cannot be written.
pub fn run(args: Args) -> Result<()> {
    let (folder, manifest) = Folder::open(&args.folder)?;
    report::render(&folder)?;
    if !manifest.is_complete() {
        eprintln!("the run is partial: the report shows what there is");
    }
    output::line(&format!("report: {}", folder.path().join("report.html").display()))
}
