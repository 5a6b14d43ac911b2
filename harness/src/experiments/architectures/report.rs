//! The architectures experiment's section.

use super::{Config, DifferenceRow, MemoryRow, ModelRow, Row, SpeedRow};
use crate::experiments::perplexity::ScoreRow;
use crate::report::figures::{Axis, Extent, Look, Point, Scale, Series};
use crate::report::{Chart, Figure, Part, Section, Table, format};

/// The rows, by kind.
#[derive(Default)]
struct Rows<'a> {
    absent: Vec<(&'a str, &'a str)>,
    models: Vec<&'a ModelRow>,
    memories: Vec<&'a MemoryRow>,
    scores: Vec<&'a ScoreRow>,
    differences: Vec<&'a DifferenceRow>,
    speeds: Vec<&'a SpeedRow>,
}

impl<'a> Rows<'a> {
    fn of(rows: &'a [Row]) -> Rows<'a> {
        let mut by_kind = Rows::default();
        for row in rows {
            match row {
                Row::Absent { dataset, remedy } => by_kind.absent.push((dataset, remedy)),
                Row::Model(row) => by_kind.models.push(row),
                Row::Memory(row) => by_kind.memories.push(row),
                Row::Score(row) => by_kind.scores.push(row),
                Row::Difference(row) => by_kind.differences.push(row),
                Row::Speed(row) => by_kind.speeds.push(row),
            }
        }
        by_kind
    }

    /// The texts that were read, in order.
    fn texts(&self) -> Vec<&'a str> {
        let mut texts: Vec<&str> = Vec::new();
        for row in &self.scores {
            if !texts.contains(&row.dataset.as_str()) {
                texts.push(&row.dataset);
            }
        }
        texts
    }

    fn score(&self, model: &str, text: &str) -> Option<&'a ScoreRow> {
        self.scores.iter().copied().find(|row| row.model == model && row.dataset == text)
    }

    fn difference(&self, model: &str, text: &str) -> Option<&'a DifferenceRow> {
        self.differences.iter().copied().find(|row| row.model == model && row.dataset == text)
    }

    fn speed(&self, model: &str) -> Option<&'a SpeedRow> {
        self.speeds.iter().copied().find(|row| row.model == model)
    }
}

/// What stands where nothing was measured.
const NOTHING: &str = "–";

pub(super) fn section(config: &Config, rows: &[Row]) -> Section {
    let rows = Rows::of(rows);
    let mut parts = Vec::new();
    for (dataset, remedy) in &rows.absent {
        parts.push(Part::Text(format!(
            "The text `{dataset}` is not on this machine and was left out: `{remedy}` gets it."
        )));
    }
    if !rows.models.is_empty() {
        parts.push(Part::Table(comparison(&rows)));
        parts.push(Part::Text(budgets(&rows)));
    }
    parts.extend(figures(&rows).into_iter().map(Part::Figure));
    if !rows.scores.is_empty() {
        parts.push(Part::Table(score_table(&rows)));
    }
    if !rows.memories.is_empty() {
        parts.push(Part::Table(memory_table(config, &rows)));
    }
    if !rows.speeds.is_empty() {
        parts.push(Part::Table(speed_table(&rows)));
    }
    Section {
        title: "Architectures".to_string(),
        findings: findings(&rows),
        method: method(config),
        parts,
        limits: vec![
            "One training run of each architecture at one size and on a few million bytes: another seed, budget or \
             size may order them differently, and nothing here says what they would be at a thousand times the size."
                .to_string(),
            "Weights of a few megabytes lie in the caches, where bytes cost less than from memory; the bandwidth that \
             speeds are held to is that of as many bytes, so it is a cache's."
                .to_string(),
        ],
    }
}

fn method(config: &Config) -> Vec<String> {
    vec![
        format!(
            "All models have one tokenizer, so they predict the same tokens: windows of {} that follow each other \
             without overlap, the first {} tokens of a text at most. Standard errors take windows (or, where these \
             are few, runs of tokens) as independent. Differences are taken token by token from the first model, and \
             their intervals from windows that are drawn again ({} times).",
            config.context,
            format::integer(config.max_tokens as u64),
            format::integer(config.resamples as u64),
        ),
        format!(
            "Bytes that a token must move are those of all weights (of the embedding one row) and of what the \
             sequence remembers: a cache ({}) is read whole, a recurrent memory read and written. Speed is measured \
             on all threads, all models in the same blocks: a decode sample reads {} tokens one after the other from \
             a state that has read {}, and counts all but the first, for which the weights of another model lie in \
             the caches; a prefill sample reads a prompt of {} tokens up to the logits of its last. Ratios are taken \
             within blocks. In the same blocks as many threads read as many bytes as a decoded token of each model \
             moves, in 1, 8 and 16 streams; the share of the bandwidth is of the fastest.",
            config.cache, config.decode.steps, config.decode.depth, config.prefill,
        ),
    ]
}

fn findings(rows: &Rows<'_>) -> Vec<String> {
    let mut findings = Vec::new();
    for model in &rows.models {
        let name = model.model.as_str();
        let texts = rows.texts().into_iter();
        let compared = texts.filter_map(|text| rows.score(name, text).zip(rows.difference(name, text))).next();
        let Some((score, difference)) = compared else { continue };
        let mut text = format!(
            "On `{}` the model `{name}` ({}) needs {} bits a byte, {} than `{}` ({} bits a byte).",
            score.dataset,
            model.architecture,
            format::with_error(score.bits_per_byte.exact, score.bits_per_byte_error.exact, 4),
            format::more_or_less(difference.relative_difference.exact),
            difference.reference,
            signed(difference, 3),
        );
        if let Some((speed, reference)) = rows.speed(name).zip(rows.speed(&difference.reference)) {
            text += &format!(
                " After {} tokens, a token moves {} instead of {}; it decodes {} as fast and reads a prompt {} as \
                 fast.",
                format::integer(speed.depth as u64),
                format::bytes(speed.moved_bytes),
                format::bytes(reference.moved_bytes),
                format::ratio(&speed.decode_over_reference, 3),
                format::ratio(&speed.prefill_over_reference, 3),
            );
        }
        findings.push(text);
    }
    findings
}

/// A difference in bits a byte with its interval.
fn signed(row: &DifferenceRow, digits: usize) -> String {
    format::interval(row.difference_bits_per_byte.exact, row.difference_low.exact, row.difference_high.exact, digits)
}

/// The one table that compares architectures.
fn comparison(rows: &Rows<'_>) -> Table {
    let texts = rows.texts();
    let depth =
        rows.speeds.first().map_or(String::new(), |row| format!(" after {}", format::integer(row.depth as u64)));
    let mut titles = vec!["<model".to_string(), "<architecture".to_string(), ">parameters".to_string()];
    titles.extend(texts.iter().map(|text| format!(">bits a byte, {text}")));
    titles.push(format!(">bytes a token{depth}"));
    titles.extend(
        [">decode, tokens/s", ">× first", ">prompt, tokens/s", ">× first", ">of the bandwidth"].map(String::from),
    );
    let titles: Vec<&str> = titles.iter().map(String::as_str).collect();
    let caption = "Architectures of like size: how well they predict (with standard errors over windows; less is \
                   better), what a decoded token moves, and how fast they run on all threads (with 95 % intervals).";
    let mut table = Table::new(caption, &titles);
    for model in &rows.models {
        let mut cells =
            vec![format!("`{}`", model.model), model.architecture.clone(), format::integer(model.parameters.exact)];
        cells.extend(texts.iter().map(|text| {
            rows.score(&model.model, text).map_or(NOTHING.to_string(), |row| {
                format::with_error(row.bits_per_byte.exact, row.bits_per_byte_error.exact, 4)
            })
        }));
        cells.extend(match rows.speed(&model.model) {
            Some(row) => [
                format::bytes(row.moved_bytes),
                format::timed(&row.decode_tokens_per_s, 3),
                over(row, row.decode_over_reference.median),
                format::timed(&row.prefill_tokens_per_s, 3),
                over(row, row.prefill_over_reference.median),
                format::timed_percent(&row.share_of_bandwidth),
            ],
            None => [NOTHING; 6].map(String::from),
        });
        table.row(cells);
    }
    table
}

/// A ratio to the first model, which has none to itself.
fn over(row: &SpeedRow, ratio: f64) -> String {
    if row.model == row.reference { NOTHING.to_string() } else { format::number(ratio, 3) }
}

/// What the models were trained on, as far as their cards say it.
fn budgets(rows: &Rows<'_>) -> String {
    let told: Vec<(&str, u64)> =
        rows.models.iter().filter_map(|row| Some((row.model.as_str(), row.trained_tokens?.exact))).collect();
    let unknown: Vec<String> =
        rows.models.iter().filter(|row| row.trained_tokens.is_none()).map(|row| format!("`{}`", row.model)).collect();
    let mut text = match told.first() {
        Some((_, tokens)) if told.iter().all(|(_, other)| other == tokens) => {
            format!("Their cards say that each was trained on {} tokens.", format::integer(*tokens))
        }
        Some(_) => {
            let each: Vec<String> =
                told.iter().map(|(name, tokens)| format!("`{name}` on {}", format::integer(*tokens))).collect();
            format!("They were not trained on equally many tokens: {}.", format::list(&each))
        }
        None => String::new(),
    };
    if !unknown.is_empty() {
        text += &format!(" No card says what {} had of training.", format::list(&unknown));
    }
    text.trim_start().to_string()
}

fn score_table(rows: &Rows<'_>) -> Table {
    let caption = "How well models predict, and the difference from the first, token by token, with 95 % intervals.";
    let mut table = Table::new(
        caption,
        &["<text", "<model", ">tokens", ">bits a byte", ">nats a token", ">difference, bits a byte", ">relative"],
    );
    for text in rows.texts() {
        for row in rows.scores.iter().filter(|row| row.dataset == text) {
            let difference = rows.difference(&row.model, text);
            table.grouped_row(
                1,
                vec![
                    text.to_string(),
                    format!("`{}`", row.model),
                    format::integer(row.tokens.exact as u64),
                    format::with_error(row.bits_per_byte.exact, row.bits_per_byte_error.exact, 4),
                    format::with_error(row.nats_per_token.exact, row.nats_per_token_error.exact, 4),
                    difference.map_or(NOTHING.to_string(), |row| signed(row, 3)),
                    difference.map_or(NOTHING.to_string(), |row| {
                        format!("{} %", format::number(row.relative_difference.exact * 100.0, 3))
                    }),
                ],
            );
        }
    }
    table
}

fn memory_table(config: &Config, rows: &Rows<'_>) -> Table {
    let mut titles = vec!["<model".to_string(), "<weights".to_string(), ">weights a token".to_string()];
    for depth in &config.depths {
        let depth = format::integer(*depth as u64);
        titles.extend([format!(">held after {depth}"), format!(">moved by token {depth}")]);
    }
    let titles: Vec<&str> = titles.iter().map(String::as_str).collect();
    let caption = "What a token reads of the weights, what a sequence holds in memory after so many tokens, and what \
                   its last token moves, weights included.";
    let mut table = Table::new(caption, &titles);
    for model in &rows.models {
        let mut cells =
            vec![format!("`{}`", model.model), model.weights.clone(), format::bytes(model.weight_bytes.exact)];
        for depth in &config.depths {
            let row = rows.memories.iter().find(|row| row.model == model.model && row.depth == *depth);
            cells.extend(match (row, model.context) {
                (Some(row), _) => [format::bytes(row.held_bytes.exact), format::bytes(row.moved_bytes.exact)],
                (None, Some(context)) => [format!("context {}", format::integer(context as u64)), NOTHING.to_string()],
                (None, None) => [NOTHING; 2].map(String::from),
            });
        }
        table.row(cells);
    }
    table
}

fn speed_table(rows: &Rows<'_>) -> Table {
    let caption = "Speeds against the first model, within blocks, and the bandwidth that they are held to.";
    let mut table = Table::new(
        caption,
        &[
            "<model",
            "<on",
            ">decode, ms a token",
            ">decode, × first",
            ">prompt, × first",
            ">bandwidth, GB/s",
            "<by",
            ">n",
        ],
    );
    for row in &rows.speeds {
        table.row(vec![
            format!("`{}`", row.model),
            format!("{} × {}", row.isa, row.threads),
            format::timed(&row.decode_tokens_per_s.map(|speed| 1e3 / speed), 3),
            format::timed(&row.decode_over_reference, 3),
            format::timed(&row.prefill_over_reference, 3),
            format::timed(&row.ceiling_gb_per_s, 3),
            row.ceiling_by.clone(),
            row.decode_tokens_per_s.n.to_string(),
        ]);
    }
    table
}

/// For each text bits a byte by what a token moves, and by how fast tokens come.
fn figures(rows: &Rows<'_>) -> Vec<Figure> {
    let mut figures = Vec::new();
    for (i, text) in rows.texts().into_iter().enumerate() {
        let chart = |label: &str, x: fn(&SpeedRow) -> Extent| {
            let series = rows.models.iter().enumerate().filter_map(|(look, model)| {
                let (score, speed) = rows.score(&model.model, text).zip(rows.speed(&model.model))?;
                let bits = Extent::of_error(score.bits_per_byte.exact, score.bits_per_byte_error.exact);
                let points = vec![Point::new(x(speed), bits)];
                Some(Series { name: model.model.clone(), look: Look::Marks(look), points })
            });
            Chart {
                x: Axis { label: label.to_string(), scale: Scale::Log },
                y: Axis { label: "bits a byte".to_string(), scale: Scale::Linear },
                series: series.collect(),
            }
        };
        let by_bytes = chart("MiB that a decoded token moves", |row| (row.moved_bytes as f64 / 1_048_576.0).into());
        let by_speed = chart("tokens decoded a second", |row| row.decode_tokens_per_s.into());
        if by_bytes.series.is_empty() {
            continue;
        }
        figures.push(Figure {
            name: format!("bytes-{}", i + 1),
            caption: format!(
                "Bits a byte on `{text}` by the bytes that a decoded token moves; to the left and low is better. \
                 Intervals are 95 %, from standard errors over windows."
            ),
            chart: by_bytes,
        });
        figures.push(Figure {
            name: format!("speed-{}", i + 1),
            caption: format!("Bits a byte on `{text}` by decoding speed; to the right and low is better."),
            chart: by_speed,
        });
    }
    figures
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contest::Budget;
    use crate::quantity::{Timed, determined};
    use crate::score::Score;

    fn config() -> Config {
        Config {
            models: vec!["first".to_string(), "second".to_string()],
            datasets: vec!["t".to_string()],
            context: 512,
            max_tokens: 1000,
            resamples: 100,
            cache: "f32".to_string(),
            depths: vec![16, 4096],
            decode: super::super::Decode { depth: 512, steps: 16 },
            prefill: 128,
            budget: Budget { sample_ms: 1.0, min_blocks: 1, max_blocks: 2, seconds: 1.0, precision: 0.1 },
        }
    }

    fn rows(model: &str, context: Option<usize>, nats: f32, speed: f64) -> Vec<Row> {
        let timed = |median: f64| Timed { median, low: median, high: median, n: 7 };
        let score = Score { nats: vec![nats; 8], bytes: 16, tokens: 8, windows: vec![0..4, 4..8] };
        let moved = 1_048_576 * 4;
        vec![
            Row::Model(ModelRow {
                model: model.to_string(),
                architecture: format!("the {model}"),
                weights: "bf16".to_string(),
                parameters: determined(5_000_000),
                weight_bytes: determined(10_000_000),
                context,
                trained_tokens: Some(determined(if context.is_some() { 100 } else { 200 })),
            }),
            Row::Memory(MemoryRow {
                model: model.to_string(),
                depth: 16,
                held_bytes: determined(1024),
                moved_bytes: determined(2048),
            }),
            Row::Score(Box::new(ScoreRow::new(model, "t", 512, &score))),
            Row::Speed(Box::new(SpeedRow {
                model: model.to_string(),
                reference: "first".to_string(),
                isa: "avx2".to_string(),
                threads: 2,
                cache: "f32".to_string(),
                depth: 512,
                prompt: 128,
                decode_tokens_per_s: timed(speed),
                decode_over_reference: timed(speed / 1000.0),
                prefill_tokens_per_s: timed(speed * 5.0),
                prefill_over_reference: timed(0.5),
                moved_bytes: moved,
                ceiling_gb_per_s: timed(50.0),
                ceiling_by: "read in 8 streams, as many bytes as a token".to_string(),
                share_of_bandwidth: timed(0.5),
            })),
        ]
    }

    #[test]
    fn one_table_and_a_figure_compare_the_architectures() {
        let mut all = rows("first", Some(2048), 2.0, 1000.0);
        all.extend(rows("second", None, 1.0, 1500.0));
        all.push(Row::Difference(DifferenceRow {
            model: "second".to_string(),
            reference: "first".to_string(),
            dataset: "t".to_string(),
            tokens: determined(8),
            difference_bits_per_byte: determined(-0.5),
            difference_low: determined(-0.6),
            difference_high: determined(-0.4),
            relative_difference: determined(-0.25),
        }));
        let section = section(&config(), &all);
        assert_eq!(section.findings.len(), 1, "{:?}", section.findings);
        let told = &section.findings[0];
        assert!(told.contains("25 % less than `first` (-0.500 [-0.600, -0.400] bits a byte)"), "{told}");
        assert!(told.contains("decodes 1.50× [1.50, 1.50] as fast"), "{told}");
        let Part::Table(table) = &section.parts[0] else { panic!("the comparison comes first") };
        assert_eq!(table.rows()[0][5..7], ["1,000 [1,000, 1,000]", "–"]);
        assert_eq!(table.rows()[1][5..7], ["1,500 [1,500, 1,500]", "1.50"]);
        let Part::Text(text) = &section.parts[1] else { panic!("then the budgets") };
        assert_eq!(text, "They were not trained on equally many tokens: `first` on 100 and `second` on 200.");
        let memory = section.parts.iter().find_map(|part| match part {
            Part::Table(table) if table.rows()[0].iter().any(|cell| cell == "context 2,048") => Some(table),
            _ => None,
        });
        assert_eq!(memory.unwrap().rows()[1][5], "–", "a recurrent model has no such limit");
        let mut drawn = 0;
        for part in &section.parts {
            if let Part::Figure(figure) = part {
                drawn += 1;
                let svg = crate::report::figures::svg(&figure.chart).unwrap();
                assert!(svg.contains("first") && svg.contains("second"), "points are labelled");
            }
        }
        assert_eq!(drawn, 2);
    }

    #[test]
    fn rows_may_be_missing() {
        assert!(section(&config(), &[]).parts.is_empty());
        let all = rows("first", Some(2048), 2.0, 1000.0);
        for missing in 0..all.len() {
            let mut rest = all.clone();
            rest.remove(missing);
            let section = section(&config(), &rest);
            for part in &section.parts {
                if let Part::Figure(figure) = part {
                    crate::report::figures::svg(&figure.chart).unwrap();
                }
            }
        }
    }
}
