//! `harness dataset`: which evaluation data there is, and having it here.

use std::path::PathBuf;

use anyhow::Result;
use clap::Subcommand;
use serde::Serialize;

use crate::dataset::{self, Card, fetch};
use crate::{output, table};

/// What may be said after `harness dataset`.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  harness dataset list                        which sets there are, and which of them are on this machine
  harness dataset fetch wikitext2             download WikiText-2; a broken download goes on where it ended
  harness perplexity --model M --dataset wikitext2-test

Files are kept under RYZANSTEIN_DATA, else under .data in the repository. A folder that holds them already can stand \
in for fetching: name it by RYZANSTEIN_DATA. Checksums are verified at every use.")]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// List the datasets and their texts
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Download datasets from their public homes, verifying checksums
    Fetch {
        /// Names of datasets (see `harness dataset list`)
        #[arg(required = true)]
        name: Vec<String>,
        /// Put the files under DIR (they go to DIR/FOLDER, as the card names it)
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
    /// Print where the verified files of a dataset are, one path a line
    Path {
        /// Name of a dataset
        name: String,
    },
}

/// Does what `args` ask.
///
/// # Errors
/// Unknown names, files that cannot be had, output that cannot be written.
pub fn run(args: Args) -> Result<()> {
    match args.action {
        Action::List { json } => list(json),
        Action::Fetch { name, dir } => fetch_all(&name, dir),
        Action::Path { name } => paths(&name),
    }
}

/// One dataset, as `list` prints it.
#[derive(Serialize)]
struct Line<'a> {
    name: &'a str,
    title: &'a str,
    license: &'a str,
    home: &'a str,
    bytes: u64,
    texts: Vec<&'a str>,
    /// Whether all files are on this machine.
    present: bool,
}

impl<'a> Line<'a> {
    fn new(card: &'a Card) -> Self {
        Line {
            name: &card.name,
            title: &card.title,
            license: &card.license,
            home: &card.home,
            bytes: card.files.values().map(|file| file.bytes).sum(),
            texts: card.texts.keys().map(String::as_str).collect(),
            present: card.files.keys().all(|file| card.locate(file).is_some()),
        }
    }
}

fn list(json: bool) -> Result<()> {
    let cards = dataset::list()?;
    let lines: Vec<Line> = cards.iter().map(Line::new).collect();
    if json {
        return output::json(&lines);
    }
    let header = ["dataset", "bytes", "here", "texts", "licence", "what"];
    let row = |line: &Line| {
        let here = if line.present { "yes" } else { "no" };
        let texts = if line.texts.is_empty() { "-".to_string() } else { line.texts.join(", ") };
        [line.name, &line.bytes.to_string(), here, &texts, line.license, line.title].map(str::to_string)
    };
    output::line(&table::plain(header, lines.iter().map(row)))
}

fn fetch_all(names: &[String], directory: Option<PathBuf>) -> Result<()> {
    // All names are looked up first: a misspelt one should not surface after a long download.
    let cards: Vec<Card> = names.iter().map(|name| dataset::find(name)).collect::<Result<_>>()?;
    let directory = match directory {
        Some(directory) => directory,
        None => dataset::directories().swap_remove(0),
    };
    for card in &cards {
        fetch::fetch(card, &directory, &mut |_, outcome| {
            let what = match outcome {
                fetch::Outcome::Present(_) => "already there",
                fetch::Outcome::Fetched(_) => "fetched",
            };
            eprintln!("{what}: {}", outcome.path().display());
            Ok(())
        })?;
        eprintln!("{}: {} ({})", card.name, card.title, card.license);
    }
    Ok(())
}

fn paths(name: &str) -> Result<()> {
    let card = dataset::find(name)?;
    for file in card.files.keys() {
        output::line(&card.path(file)?.display().to_string())?;
    }
    Ok(())
}
