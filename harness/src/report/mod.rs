//! Reports: a paper made of a manifest and rows, and of nothing else. The same rows give the same bytes.
//!
//! An experiment describes its [`Section`] as data; [`paper`] sets the sections between abstract, set-up and provenance;
//! [`html`] and [`md`] write the paper down; [`figures`] draws charts.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::experiment::Entry;
use crate::record::{Folder, Manifest, Planned};

use paper::{Block, Chapter};

pub mod figures;
pub mod format;
pub mod html;
pub mod md;
pub mod paper;
pub mod table;

pub use figures::Chart;
pub use table::Table;

/// What an experiment has to say. Texts may hold `code` between backticks; nothing else is markup.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Section {
    /// The heading.
    pub title: String,
    /// What was found, one sentence each, the most important first: it is quoted in the abstract.
    pub findings: Vec<String>,
    /// How it was measured, in paragraphs.
    pub method: Vec<String>,
    /// Results in reading order.
    pub parts: Vec<Part>,
    /// What the results do not show.
    pub limits: Vec<String>,
}

/// A part of a section's results.
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    /// A paragraph.
    Text(String),
    /// A table.
    Table(Table),
    /// A figure.
    Figure(Figure),
}

/// A chart with its caption.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// The file's stem in `figures/`: lower case, digits and hyphens.
    pub name: String,
    /// What it shows and how to read it.
    pub caption: String,
    /// The chart.
    pub chart: Chart,
}

/// Everything that a report is made of, as text.
#[derive(Clone, Debug, PartialEq)]
pub struct Rendered {
    /// `report.html`.
    pub html: String,
    /// `report.md`.
    pub md: String,
    /// Name and SVG of each figure.
    pub figures: Vec<(String, String)>,
}

/// Renders a report: a pure function of manifest and rows. `rows` holds those of each experiment, in the manifest's order.
///
/// # Errors
/// A figure that cannot be drawn.
pub fn rendered(manifest: &Manifest, rows: &[Vec<Value>]) -> Result<Rendered> {
    let chapters: Vec<Chapter<'_>> = manifest.experiments.iter().zip(rows).map(|(p, rows)| chapter(p, rows)).collect();
    let paper = paper::compose(manifest, &chapters);
    let mut figures = BTreeMap::new();
    for block in &paper.blocks {
        if let Block::Figure(figure) = block {
            let svg = figures::svg(&figure.chart).with_context(|| format!("figure {}", figure.name))?;
            figures.insert(figure.name.clone(), svg);
        }
    }
    let (html, md) = (html::page(&paper, &figures), md::page(&paper));
    Ok(Rendered { html, md, figures: figures.into_iter().collect() })
}

fn chapter<'a>(planned: &'a Planned, rows: &[Value]) -> Chapter<'a> {
    match Entry::find(&planned.experiment) {
        None => {
            let reason = format!("This version knows no experiment called {}.", planned.experiment);
            Chapter { planned, question: "", section: Err(reason) }
        }
        Some(entry) => {
            let section = entry.report(&planned.config, rows);
            let section = section.map_err(|error| format!("The rows cannot be read by this version: {error:#}."));
            Chapter { planned, question: entry.question, section }
        }
    }
}

/// Writes the report of a run's folder from its manifest and rows.
///
/// # Errors
/// They cannot be read, or the report cannot be written.
pub fn render(folder: &Folder) -> Result<()> {
    let (_, manifest) = Folder::open(folder.path())?;
    let rows: Vec<Vec<Value>> =
        manifest.experiments.iter().map(|planned| folder.read_rows(&planned.name)).collect::<Result<_>>()?;
    let report = rendered(&manifest, &rows)?;
    folder.write_figures(&report.figures)?;
    folder.write("report.md", &report.md)?;
    folder.write("report.html", &report.html)
}
