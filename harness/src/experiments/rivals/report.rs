//! The rivals experiment's section.

use super::{Config, ProgramRow, Row, SampleRow, Shape, is_ours, qualified};
use crate::peers;
use crate::quantity::Timed;
use crate::report::figures::{Axis, Look, Point, Scale, Series};
use crate::report::{Chart, Figure, Part, Section, Table, format};
use crate::stats;

/// Models whose numbers of parameters differ by more than this share are told to be different models. Programs that count
/// a tied head twice differ by less.
const SAME_MODEL: f64 = 0.2;

/// The samples of one test on one number of threads.
struct Contest<'a> {
    test: &'a str,
    tokens: usize,
    threads: usize,
    samples: Vec<&'a SampleRow>,
}

impl Contest<'_> {
    fn name(&self) -> String {
        format!("{} {}", self.test, self.tokens)
    }

    fn of<'a>(&'a self, program: &'a str) -> impl Iterator<Item = &'a SampleRow> {
        self.samples.iter().copied().filter(move |row| row.program == program)
    }

    fn speed(&self, program: &str) -> Option<Timed> {
        let samples: Vec<f64> = self.of(program).map(|row| row.tokens_per_s.median).collect();
        stats::median(&samples)
    }

    /// How many times as fast one program is as another, within blocks in which both ran.
    fn ratio(&self, program: &str, other: &str) -> Option<Timed> {
        let (mut its, mut others) = (Vec::new(), Vec::new());
        for row in self.of(other) {
            if let Some(own) = self.of(program).find(|own| own.block == row.block) {
                its.push(own.tokens_per_s.median);
                others.push(row.tokens_per_s.median);
            }
        }
        stats::paired_ratio(&its, &others)
    }
}

/// What is told of one shape.
struct Told<'a> {
    shape: &'a str,
    programs: Vec<&'a ProgramRow>,
    contests: Vec<Contest<'a>>,
}

/// Rows by shape, each as it was first heard of.
fn by_shape(rows: &[Row]) -> Vec<Told<'_>> {
    let mut all = Vec::<Told<'_>>::new();
    for row in rows {
        let (Row::Program(ProgramRow { shape, .. }) | Row::Sample(SampleRow { shape, .. })) = row;
        let at = all.iter().position(|told| told.shape == shape).unwrap_or_else(|| {
            all.push(Told { shape, programs: Vec::new(), contests: Vec::new() });
            all.len() - 1
        });
        all[at].add(row);
    }
    for told in &mut all {
        // Ours first, the others as they were introduced.
        told.programs.sort_by_key(|row| !is_ours(&row.program));
    }
    all
}

impl<'a> Told<'a> {
    fn add(&mut self, row: &'a Row) {
        let row = match row {
            Row::Program(row) => return self.programs.push(row),
            Row::Sample(row) => row,
        };
        let same = |c: &&mut Contest<'_>| (c.test, c.tokens, c.threads) == (&row.test, row.tokens, row.threads);
        match self.contests.iter_mut().find(same) {
            Some(contest) => contest.samples.push(row),
            None => self.contests.push(Contest {
                test: &row.test,
                tokens: row.tokens,
                threads: row.threads,
                samples: vec![row],
            }),
        }
    }

    fn parts(&self) -> Vec<Part> {
        let mut parts = Vec::new();
        parts.extend(different_models(&self.programs).map(|text| Part::Text(qualified(self.shape, &text))));
        if !self.programs.is_empty() {
            parts.push(Part::Table(program_table(self)));
        }
        if !self.contests.is_empty() {
            parts.push(Part::Table(speed_table(self)));
            parts.push(Part::Figure(figure(self)));
        }
        parts
    }
}

pub(super) fn section(config: &Config, rows: &[Row]) -> Section {
    let all = by_shape(rows);
    Section {
        title: "Rivals".to_string(),
        findings: all.iter().flat_map(findings).collect(),
        method: method(config),
        parts: all.iter().flat_map(Told::parts).collect(),
        limits: vec![
            "Each program is as its user built it, and reads weights in its own format: formats of other sizes, and heads \
             of other precision, are part of what is compared."
                .to_string(),
            "Speed alone: whether the programs compute the same is not looked at here, and random weights would not show \
             it."
                .to_string(),
            "One sequence at a time, from an empty state.".to_string(),
        ],
    }
}

/// Our models with their shapes, and how the cache is kept where the configuration says so.
fn ours(config: &Config) -> String {
    let Ok(shapes) = config.shapes() else { return String::new() };
    let tell = |shape: &Shape| {
        let models = format::list(&shape.ours.models.iter().map(|model| format!("`{model}`")).collect::<Vec<_>>());
        shape.ours.cache.as_ref().map_or(models.clone(), |cache| format!("{models}, with a cache of {cache}"))
    };
    format::list(&shapes.iter().map(tell).collect::<Vec<_>>())
}

fn method(config: &Config) -> Vec<String> {
    vec![
        format!(
            "Blocks alternate: in each of the {} of a test every program runs once, in an order that is turned round \
             from block to block and moves on by one program after every two. A prefill reads a prompt of random tokens \
             into an empty state; a decode reads tokens one after the other from an empty state. Ours is {}, in this \
             process; each run is preceded by one token that does not count.",
            format::integer(config.blocks as u64),
            ours(config),
        ),
        format!(
            "A peer is started anew for each run, with one repetition after its own warm-up (one token, or the whole \
             prompt). Its speed is the one it states, without loading; an answer to another question than was asked, or a \
             time longer than the program ran, would have ended the experiment, and so would a run of more than {} s. \
             Ratios are taken within blocks; medians and intervals are of these.",
            format::number(config.limit_s, 3),
        ),
        format!(
            "The programs and model files of the peers are the user's own; `{}` or the configuration says where they \
             lie, and their checksums stand under provenance.",
            peers::ENVIRONMENT
        ),
    ]
}

fn findings(told: &Told<'_>) -> Vec<String> {
    let Told { shape, programs, contests } = told;
    let mut findings = Vec::new();
    for peer in programs.iter().filter(|row| !is_ours(&row.program)) {
        for own in programs.iter().filter(|row| is_ours(&row.program)) {
            let ratios: Vec<String> = contests
                .iter()
                .filter_map(|contest| {
                    let ratio = contest.ratio(&own.program, &peer.program)?;
                    let threads = format::count(contest.threads, "thread", "threads");
                    Some(format!("{} as fast at {} on {threads}", format::ratio(&ratio, 3), contest.name()))
                })
                .collect();
            if !ratios.is_empty() {
                let against = if shape.is_empty() { "Against".to_string() } else { format!("{shape}: against") };
                findings.push(format!("{against} {}, `{}` is {}.", peer.program, own.program, format::list(&ratios)));
            }
        }
    }
    findings
}

/// What to say where the models have so different numbers of parameters that they cannot be the same.
fn different_models(programs: &[&ProgramRow]) -> Option<String> {
    let ours = programs.iter().find(|row| is_ours(&row.program))?;
    let differs = |row: &&&ProgramRow| (row.parameters as f64 / ours.parameters as f64 - 1.0).abs() > SAME_MODEL;
    let others: Vec<String> = programs.iter().filter(differs).map(|row| row.program.clone()).collect();
    (!others.is_empty()).then(|| {
        format!(
            "Not the same model: its number of parameters differs from ours by more than {} in {}.",
            format::percent(SAME_MODEL),
            format::list(&others)
        )
    })
}

fn program_table(told: &Told<'_>) -> Table {
    let caption = "Programs: what they call their version and their model, and the length of the model file (ours: what \
                   a decoded token reads of the weights at most).";
    let caption = qualified(told.shape, caption);
    let mut table = Table::new(caption, &["<program", "<version", "<model", ">parameters", ">model bytes"]);
    for row in &told.programs {
        table.row(vec![
            row.program.clone(),
            format!("`{}`", row.version),
            row.model.clone(),
            format::integer(row.parameters),
            format::integer(row.model_bytes),
        ]);
    }
    table
}

fn speed_table(told: &Told<'_>) -> Table {
    let Told { shape, programs, contests } = told;
    let caption = "Speeds, and how many times as fast as each other program ours is within the same blocks.";
    let peers: Vec<&&ProgramRow> = programs.iter().filter(|row| !is_ours(&row.program)).collect();
    let ratios = peers.iter().map(|peer| format!(">× {}", peer.program));
    let titles: Vec<String> = ["<test", ">threads", "<program", ">tokens/s", ">n"].map(String::from).into();
    let titles: Vec<String> = titles.into_iter().chain(ratios).collect();
    let mut table = Table::new(qualified(shape, caption), &titles.iter().map(String::as_str).collect::<Vec<_>>());
    for contest in contests {
        for program in programs {
            let Some(speed) = contest.speed(&program.program) else { continue };
            let mut row = vec![
                contest.name(),
                contest.threads.to_string(),
                format!("`{}`", program.program),
                format::timed(&speed, 3),
                speed.n.to_string(),
            ];
            let ratio = |peer: &&ProgramRow| match is_ours(&program.program) {
                true => contest.ratio(&program.program, &peer.program),
                false => None,
            };
            row.extend(peers.iter().map(|peer| ratio(peer).map_or("–".to_string(), |ratio| format::ratio(&ratio, 3))));
            table.grouped_row(2, row);
        }
    }
    table
}

fn figure(told: &Told<'_>) -> Figure {
    let Told { shape, programs, contests } = told;
    let name =
        |contest: &Contest<'_>| format!("{}, {}", contest.name(), format::count(contest.threads, "thread", "threads"));
    let series = programs.iter().enumerate().map(|(look, program)| {
        let points = contests
            .iter()
            .enumerate()
            .filter_map(|(i, contest)| contest.speed(&program.program).map(|speed| Point::new(speed, i as f64)));
        Series { name: program.program.clone(), look: Look::Marks(look), points: points.collect() }
    });
    Figure {
        name: figure_name(shape),
        caption: qualified(shape, "Tokens a second by test and program, with 95 % intervals."),
        chart: Chart {
            x: Axis { label: "tokens a second".to_string(), scale: Scale::Log },
            y: Axis { label: String::new(), scale: Scale::Names(contests.iter().map(name).collect()) },
            series: series.collect(),
        },
    }
}

/// Lower case, digits and hyphens; the experiment's name stands before it.
fn figure_name(shape: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    if shape.is_empty() { "rivals".to_string() } else { shape.chars().map(plain).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiments::rivals::{OURS, Ours, sample};
    use crate::lab::Threads;
    use crate::peers::Work;

    fn config() -> Config {
        Config {
            folder: "peers".into(),
            blocks: 3,
            limit_s: 60.0,
            threads: Threads::default(),
            tests: Vec::new(),
            ours: Some(Ours { models: vec!["m".to_string()], cache: Some("f32".to_string()) }),
            peers: Vec::new(),
            shapes: Vec::new(),
        }
    }

    fn program(program: &str, parameters: u64) -> Row {
        let (version, model) = ("abc".to_string(), "2B".to_string());
        let (shape, program) = (String::new(), program.to_string());
        Row::Program(ProgramRow { shape, program, version, model, parameters, model_bytes: 1000 })
    }

    fn row(program: &str, block: usize, tokens_per_s: f64) -> Row {
        Row::Sample(sample("", program, (Work::Decode(32), 2), block, 32.0 / tokens_per_s))
    }

    /// The same row of a named shape.
    fn of_shape(name: &str, row: Row) -> Row {
        match row {
            Row::Program(row) => Row::Program(ProgramRow { shape: name.to_string(), ..row }),
            Row::Sample(row) => Row::Sample(SampleRow { shape: name.to_string(), ..row }),
        }
    }

    fn tables(section: &Section) -> Vec<&Table> {
        let mut tables = Vec::new();
        for part in &section.parts {
            if let Part::Table(table) = part {
                tables.push(table);
            }
        }
        tables
    }

    #[test]
    fn ratios_are_taken_within_blocks() {
        // The machine slows down from block to block; the ratio does not change.
        let mut rows = vec![program("other", 1000), program(OURS, 1000)];
        for (block, slow) in [1.0, 2.0, 4.0].into_iter().enumerate() {
            rows.extend([row(OURS, block, 64.0 / slow), row("other", block, 32.0 / slow)]);
        }
        let found = section(&config(), &rows);
        assert_eq!(
            found.findings,
            ["Against other, `ryzanstein` is 2.00× [2.00, 2.00] as fast at decode 32 on two threads."]
        );
        let speeds = tables(&found)[1];
        assert_eq!(
            speeds.rows()[0],
            ["decode 32", "2", "`ryzanstein`", "32.0 [16.0, 64.0]", "3", "2.00× [2.00, 2.00]"]
        );
        assert_eq!(speeds.rows()[1], ["", "", "`other`", "16.0 [8.00, 32.0]", "3", "–"]);
        assert_eq!(tables(&found)[0].rows()[0][0], OURS, "ours comes first");
        let Part::Figure(figure) = &found.parts[2] else { panic!("a figure comes last") };
        crate::report::figures::svg(&figure.chart).unwrap();
    }

    #[test]
    fn a_run_cut_short_is_told_as_far_as_it_came() {
        assert!(section(&config(), &[]).parts.is_empty());
        let begun = [program("other", 1000), program(OURS, 1000), row("other", 0, 5.0)];
        let found = section(&config(), &begun);
        assert!(found.findings.is_empty());
        assert_eq!(tables(&found)[1].rows()[0][4..], ["1", "–"], "nothing of ours");
        // Of the second block only one ran.
        let more = [program("other", 1000), program(OURS, 1000), row(OURS, 0, 10.0), row("other", 0, 5.0)];
        let more = [&more[..], &[row("other", 1, 50.0)]].concat();
        assert_eq!(tables(&section(&config(), &more))[1].rows()[0][5], "2.00× [2.00, 2.00]");
    }

    #[test]
    fn each_shape_has_its_own_tables_findings_and_figure() {
        let mut rows = Vec::new();
        for (shape, parameters) in [("a-1.5b", 1000), ("B", 9000)] {
            let all =
                [program("other", parameters), program(OURS, parameters), row(OURS, 0, 64.0), row("other", 0, 32.0)];
            rows.extend(all.map(|row| of_shape(shape, row)));
        }
        let found = section(&config(), &rows);
        assert_eq!(found.findings.len(), 2);
        assert!(found.findings[0].starts_with("a-1.5b: against other, `ryzanstein` is 2.00×"), "{:?}", found.findings);
        let captions: Vec<&str> = tables(&found).iter().map(|table| &*table.caption).collect();
        assert!(captions[1].starts_with("a-1.5b: Speeds") && captions[3].starts_with("B: Speeds"), "{captions:?}");
        assert_eq!(tables(&found)[3].rows().len(), 2);
        let figures = found.parts.iter().filter_map(|part| match part {
            Part::Figure(figure) => Some(&*figure.name),
            _ => None,
        });
        assert_eq!(figures.collect::<Vec<_>>(), ["a-1-5b", "b"]);
    }

    #[test]
    fn different_models_are_told_apart() {
        let text =
            |parameters| section(&config(), &[program(OURS, 1000), program("other", parameters)]).parts[0].clone();
        assert!(matches!(text(1010), Part::Table(_)));
        let Part::Text(told) = text(2000) else { panic!("a text comes first") };
        assert!(told.contains("Not the same model") && told.ends_with("in other."), "{told}");
    }
}
