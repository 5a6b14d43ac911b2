//! Reports: a paper made of a manifest and rows, and of nothing else. The same rows give the same bytes.
//!
//! An experiment describes its [`Section`] as data; [`paper`] sets the sections between abstract, set-up and provenance;
//! [`html`] and [`md`] write the paper down; [`figures`] draws charts.

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
