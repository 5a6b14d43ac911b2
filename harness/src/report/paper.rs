//! The paper: sections set between abstract, set-up and provenance.

use serde_json::Value;

use super::{Figure, Part, Section, Table, format};
use crate::ceilings::Place;
use crate::memory::MemoryStats;
use crate::record::{Manifest, Planned, State};

/// A paper, ready to be written down in some form.
#[derive(Clone, Debug, PartialEq)]
pub struct Paper {
    /// The title.
    pub title: String,
    /// The line under it.
    pub subtitle: String,
    /// The body, top to bottom.
    pub blocks: Vec<Block>,
}

/// A piece of a paper. Texts may hold `code` between backticks.
#[derive(Clone, Debug, PartialEq)]
pub enum Block {
    /// A heading of level 2 or 3.
    Heading(u8, String),
    /// A paragraph.
    Paragraph(String),
    /// A question that the following answers.
    Question(String),
    /// Something that the reader must know before reading on.
    Warning(String),
    /// The abstract's paragraphs.
    Abstract(Vec<String>),
    /// Items.
    List(Vec<String>),
    /// Lines to be typed or read as they stand.
    Code(String),
    /// A table.
    Table(Table),
    /// A figure.
    Figure(Figure),
}

/// A section with the experiment that it belongs to and its question.
#[derive(Clone, Debug)]
pub struct Chapter<'a> {
    /// As planned and as it went.
    pub planned: &'a Planned,
    /// The experiment's question.
    pub question: &'a str,
    /// What its rows say; `None` where there are no rows, or none that can be read (then the reason).
    pub section: Result<Section, String>,
}

/// Composes the paper of a run.
pub fn compose(manifest: &Manifest, chapters: &[Chapter<'_>]) -> Paper {
    let machine = &manifest.machine;
    let mut blocks = warnings(manifest);
    blocks.push(Block::Abstract(abstract_of(manifest, chapters)));
    let mut number = 1;
    let mut heading = |title: &str| {
        number += 1;
        Block::Heading(2, format!("{}. {title}", number - 1))
    };
    blocks.push(heading("Machine and method"));
    blocks.extend(set_up(manifest));
    for chapter in chapters {
        let title = chapter.section.as_ref().map_or(chapter.planned.name.as_str(), |section| &section.title);
        blocks.push(heading(title));
        blocks.extend(body(chapter));
    }
    blocks.push(heading("Reproduction and provenance"));
    blocks.extend(provenance(manifest));
    Paper {
        title: format!("Language-model kernels and models on {}", machine.cpu),
        subtitle: format!(
            "Ryzanstein {}, {}, {}",
            manifest.version,
            manifest.started.split('T').next().unwrap_or_default(),
            commit(manifest)
        ),
        blocks,
    }
}

fn commit(manifest: &Manifest) -> String {
    match (&manifest.commit, manifest.tree_clean) {
        (Some(commit), Some(true)) => format!("commit {}", short(commit)),
        (Some(commit), _) => format!("commit {} with uncommitted changes", short(commit)),
        (None, _) => "outside version control".to_string(),
    }
}

fn short(commit: &str) -> &str {
    commit.get(..12).unwrap_or(commit)
}

fn warnings(manifest: &Manifest) -> Vec<Block> {
    let mut warnings = Vec::new();
    let missing: Vec<String> = manifest
        .experiments
        .iter()
        .filter(|e| e.state != State::Complete)
        .map(|e| match e.state {
            State::Failed => format!("{} failed", e.name),
            State::Pending => format!("{} was not begun", e.name),
            _ => format!("{} was not finished", e.name),
        })
        .collect();
    if !missing.is_empty() {
        warnings.push(Block::Warning(format!("This report is partial: {}.", format::list(&missing))));
    }
    if manifest.quick {
        let text = "This was a quick run: small sizes and few repetitions, to show that everything works. Its speeds are \
                    not meant to be quoted.";
        warnings.push(Block::Warning(text.to_string()));
    }
    if manifest.tree_clean == Some(false) {
        let text =
            "The working tree held changes that are in no commit, so these numbers cannot be traced to a source.";
        warnings.push(Block::Warning(text.to_string()));
    }
    warnings
}

fn abstract_of(manifest: &Manifest, chapters: &[Chapter<'_>]) -> Vec<String> {
    let machine = &manifest.machine;
    let cores = machine.cores.unwrap_or(machine.threads);
    let mut opening = format!(
        "This run of the experiments {} measures {} with {}{}, on ISA levels up to {} and on up to {}.",
        format::list(&chapters.iter().map(|c| format!("`{}`", c.planned.name)).collect::<Vec<_>>()),
        machine.cpu,
        format::count(cores, "core", "cores"),
        machine.memory_bytes.map(|bytes| format!(" and {} of memory", format::bytes(bytes))).unwrap_or_default(),
        manifest.isa,
        format::count(manifest.threads, "thread", "threads"),
    );
    if let Some(bandwidth) = manifest.ceilings.bandwidth(Place::Memory, manifest.threads) {
        opening += &format!(
            " In the same run the machine read memory at {} GB/s in {} streams a thread",
            format::number(bandwidth.gb_per_s.median, 3),
            bandwidth.streams
        );
        if let Some(peak) = manifest.ceilings.peak("int8", manifest.threads) {
            opening += &format!(
                " and reached {} int8 operations a second",
                format::number(peak.gops.median / 1e3, 3) + " · 10¹²"
            );
        }
        opening.push('.');
    }
    let findings = chapters.iter().filter_map(|c| c.section.as_ref().ok()).map(|section| {
        let first: Vec<&str> = section.findings.iter().take(3).map(String::as_str).collect();
        first.join(" ")
    });
    std::iter::once(opening).chain(findings.filter(|text| !text.is_empty())).collect()
}

fn set_up(manifest: &Manifest) -> Vec<Block> {
    let text = "Every timed number is the median of interleaved samples with a distribution-free interval that covers the \
                true median with 95 % confidence (with fewer than six samples: the whole range). Contestants run in turn \
                within blocks, forwards and backwards, and ratios are taken within blocks, so that drift cancels. Numbers \
                without an interval are determined: they follow from seed, data and weights and are the same on every \
                machine.";
    let mut blocks = vec![Block::Paragraph(text.to_string()), Block::Table(machine_table(manifest))];
    if !manifest.ceilings.bandwidths.is_empty() {
        blocks.push(Block::Table(bandwidth_table(manifest)));
    }
    if !manifest.ceilings.peaks.is_empty() {
        blocks.push(Block::Table(peak_table(manifest)));
    }
    if !manifest.noise.is_empty() {
        blocks.push(Block::Table(noise_table(manifest)));
    }
    blocks
}

fn machine_table(manifest: &Manifest) -> Table {
    let machine = &manifest.machine;
    let mut table = Table::new("Who the numbers are.", &["<what", "<value"]);
    let mut row = |what: &str, value: String| table.row(vec![what.to_string(), value]);
    let unknown = || "unknown".to_string();
    row("CPU", machine.cpu.clone());
    if let Some(model) = &machine.cpu_model {
        row("model", model.clone());
    }
    row("architecture", machine.architecture.clone());
    let cores = machine.cores.map_or_else(unknown, |cores| cores.to_string());
    row("cores, threads available", format!("{cores}, {}", machine.threads));
    let caches: Vec<String> = machine
        .caches
        .iter()
        .map(|c| {
            format!(
                "level {}: {} for {}",
                c.level,
                format::bytes(c.bytes),
                format::count(c.shared_by, "thread", "threads")
            )
        })
        .collect();
    row("caches", if caches.is_empty() { unknown() } else { caches.join("; ") });
    row("memory", machine.memory_bytes.map_or_else(unknown, format::bytes));
    // Runs of old do not tell the next two.
    if let Some(bytes) = machine.page_bytes {
        let huge = machine.huge_pages.as_deref().unwrap_or("not told");
        row("page, transparent huge pages", format!("{}, {huge}", format::bytes(bytes)));
    }
    if !machine.memory_nodes.is_empty() {
        row("memory nodes", machine.memory_nodes.len().to_string());
    }
    row("features", if machine.features.is_empty() { unknown() } else { machine.features.join(" ") });
    row("best ISA level", machine.isa.clone());
    row("frequency governor", machine.governor.clone().unwrap_or_else(|| "not told".to_string()));
    row("boost", machine.boost.map_or("not told", |on| if on { "on" } else { "off" }).to_string());
    row("virtual machine", machine.virtualised.map_or("not told", |yes| if yes { "yes" } else { "no" }).to_string());
    row("system", machine.system.clone());
    let flags = if manifest.compiler.flags.is_empty() { "none" } else { &manifest.compiler.flags };
    row("compiler", manifest.compiler.version.clone());
    row("target, level, extra flags", format!("{}, {}, {flags}", manifest.compiler.target, manifest.compiler.level));
    row("threads used, highest ISA used, seed", format!("{}, {}, {}", manifest.threads, manifest.isa, manifest.seed));
    row("started", manifest.started.clone());
    row("duration", manifest.duration_s.map_or_else(|| "never ended".to_string(), format::duration));
    table
}

/// Read bandwidths: a line for a place and number of threads, a column for each number of streams.
pub fn bandwidth_table(manifest: &Manifest) -> Table {
    let bandwidths = &manifest.ceilings.bandwidths;
    let mut streams: Vec<usize> = bandwidths.iter().map(|b| b.streams).collect();
    streams.sort_unstable();
    streams.dedup();
    let titles: Vec<String> = ["<where".to_string(), ">threads".to_string(), ">read by each".to_string()]
        .into_iter()
        .chain(streams.iter().map(|s| format!(">{}, GB/s", format::count(*s, "stream", "streams"))))
        .collect();
    let caption = "Read bandwidth, all threads together, each reading its own data in so many sequential streams side by \
                   side. The highest of a line is the ceiling of that place.";
    let mut table = Table::new(caption, &titles.iter().map(String::as_str).collect::<Vec<_>>());
    let mut seen = Vec::new();
    for b in bandwidths {
        if seen.contains(&(b.place, b.threads)) {
            continue;
        }
        seen.push((b.place, b.threads));
        let cell = |streams: &usize| {
            let found = bandwidths.iter().find(|o| (o.place, o.threads, o.streams) == (b.place, b.threads, *streams));
            found.map_or("–".to_string(), |o| format::timed(&o.gb_per_s, 3))
        };
        let mut cells = vec![b.place.name().to_string(), b.threads.to_string(), format::bytes(b.working_set_bytes)];
        cells.extend(streams.iter().map(cell));
        table.row(cells);
    }
    table
}

/// Arithmetic peaks.
pub fn peak_table(manifest: &Manifest) -> Table {
    let caption = "Arithmetic peaks, all threads together: independent multiply-adds in registers, with the best \
                   instruction of each ISA level. A multiply-add counts as two operations.";
    let mut table = Table::new(caption, &["<arithmetic", "<ISA", ">threads", ">GOPS"]);
    for p in &manifest.ceilings.peaks {
        table.row(vec![p.arithmetic.clone(), p.isa.clone(), p.threads.to_string(), format::timed(&p.gops, 3)]);
    }
    table
}

fn noise_table(manifest: &Manifest) -> Table {
    let caption = "A/A comparison: the same work timed as two contestants. The ratio's distance from 1 and the spread of \
                   single samples (95 % of them lie within it) are what this machine's noise can make of no difference.";
    let mut table = Table::new(caption, &["<case", ">threads", ">ratio", ">spread", ">samples"]);
    for n in &manifest.noise {
        let spread = format::percent(n.spread);
        table.row(vec![
            n.case.clone(),
            n.threads.to_string(),
            format::ratio(&n.ratio, 4),
            spread,
            n.ratio.n.to_string(),
        ]);
    }
    table
}

fn body(chapter: &Chapter<'_>) -> Vec<Block> {
    let mut blocks = vec![Block::Question(chapter.question.to_string())];
    let planned = chapter.planned;
    match planned.state {
        State::Complete => {}
        State::Pending => blocks.push(Block::Warning("This experiment was not begun.".to_string())),
        State::Running => {
            let text = "This experiment was not finished: what follows shows the rows that it had written.";
            blocks.push(Block::Warning(text.to_string()));
        }
        State::Failed => blocks.push(Block::Warning(format!(
            "This experiment failed: {}. What follows shows the rows that it had written.",
            planned.failure.as_deref().unwrap_or("the reason was not recorded")
        ))),
    }
    let section = match &chapter.section {
        Ok(section) => section,
        Err(reason) => {
            blocks.push(Block::Paragraph(reason.clone()));
            return blocks;
        }
    };
    if !section.findings.is_empty() {
        blocks.push(Block::List(section.findings.clone()));
    }
    if !section.method.is_empty() {
        blocks.push(Block::Heading(3, "Method".to_string()));
        blocks.extend(section.method.iter().cloned().map(Block::Paragraph));
    }
    if !section.parts.is_empty() {
        blocks.push(Block::Heading(3, "Results".to_string()));
    }
    blocks.extend(section.parts.iter().cloned().map(|part| match part {
        Part::Text(text) => Block::Paragraph(text),
        Part::Table(table) => Block::Table(table),
        Part::Figure(figure) => Block::Figure(Figure { name: format!("{}-{}", planned.name, figure.name), ..figure }),
    }));
    if !section.limits.is_empty() {
        blocks.push(Block::Heading(3, "Limits".to_string()));
        blocks.push(Block::List(section.limits.clone()));
    }
    blocks
}

fn provenance(manifest: &Manifest) -> Vec<Block> {
    let names: Vec<&str> = manifest.experiments.iter().map(|e| e.name.as_str()).collect();
    let mut commands = String::new();
    if let Some(commit) = &manifest.commit {
        commands += &format!("git checkout {commit}\n");
    }
    let quick = if manifest.quick { " --quick" } else { "" };
    commands += &format!(
        "cargo run --release -p harness -- experiment {}{quick} --threads {} --isa {} --seed {}",
        names.join(" "),
        manifest.threads,
        manifest.isa,
        manifest.seed
    );
    let mut blocks = vec![
        Block::Paragraph("Everything was measured by these commands:".to_string()),
        Block::Code(commands),
        Block::Paragraph(
            "`harness report FOLDER` writes this report again from the folder's rows without measuring; the same rows give \
             the same bytes. The rows are in `rows/` as JSON lines and as Parquet, the machine and the configuration in \
             `manifest.json`."
                .to_string(),
        ),
    ];
    let caption = "Texts, weights and other programs that were used. Synthetic weights follow from their name.";
    let mut table = Table::new(caption, &["<kind", "<name", "<SHA-256"]);
    for input in &manifest.inputs {
        let sum = input.sha256.clone().map_or("–".to_string(), |sum| format!("`{sum}`"));
        table.row(vec![input.kind.clone(), input.name.clone(), sum]);
    }
    if !table.is_empty() {
        blocks.push(Block::Table(table));
    }
    if let Some(memory) = &manifest.memory {
        blocks.push(Block::Table(memory_table(memory)));
    }
    let mut table =
        Table::new("The experiments of this run.", &["<name", "<experiment", "<state", ">rows", ">duration"]);
    for e in &manifest.experiments {
        let state = match e.state {
            State::Pending => "not begun",
            State::Running => "not finished",
            State::Complete => "complete",
            State::Failed => "failed",
        };
        let duration = e.duration_s.map_or("–".to_string(), format::duration);
        table.row(vec![e.name.clone(), e.experiment.clone(), state.to_string(), e.rows.to_string(), duration]);
    }
    blocks.push(Block::Table(table));
    for e in &manifest.experiments {
        blocks.push(Block::Heading(3, format!("Configuration of {}", e.name)));
        blocks.push(Block::Code(configuration(&e.config)));
    }
    blocks
}

/// High-water marks of memory by purpose.
fn memory_table(memory: &MemoryStats) -> Table {
    let caption = "High-water marks of the process's memory over the whole run. Weights count packed matrices of models and \
                   of measured operations; mapped files count by their length and are no part of the sum. The mark of \
                   the sum is less than the sum of the marks where purposes had theirs at different times.";
    let mut table = Table::new(caption, &["<purpose", ">at most"]);
    for [purpose, _, most] in memory.lines() {
        table.row(vec![purpose, most]);
    }
    table
}

/// A configuration as TOML; as JSON should TOML be unable to hold it.
fn configuration(config: &Value) -> String {
    let text = toml::to_string_pretty(config).or_else(|_| serde_json::to_string_pretty(config).map_err(drop));
    text.unwrap_or_default().trim_end().to_string()
}
