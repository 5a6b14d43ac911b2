//! The perplexity experiment's section.

use super::{BitsRow, Config, PairRow, PositionRow, Row, ScoreRow};
use crate::report::figures::{Axis, Extent, Look, Point, Scale, Series};
use crate::report::{Chart, Figure, Part, Section, Table, format};

/// The rows, by kind.
#[derive(Default)]
struct Rows<'a> {
    absent: Vec<(&'a str, &'a str)>,
    scores: Vec<&'a ScoreRow>,
    positions: Vec<&'a PositionRow>,
    pairs: Vec<&'a PairRow>,
    bits: Vec<&'a BitsRow>,
}

pub(super) fn section(config: &Config, rows: &[Row]) -> Section {
    let mut by_kind = Rows::default();
    for row in rows {
        match row {
            Row::Absent { dataset, remedy } => by_kind.absent.push((dataset, remedy)),
            Row::Score(row) => by_kind.scores.push(row),
            Row::Position(row) => by_kind.positions.push(row),
            Row::Pair(row) => by_kind.pairs.push(row),
            Row::Bits(row) => by_kind.bits.push(row),
        }
    }
    let rows = by_kind;
    let mut parts = Vec::new();
    for (dataset, remedy) in &rows.absent {
        parts.push(Part::Text(format!(
            "The text `{dataset}` is not on this machine and was left out: `{remedy}` gets it."
        )));
    }
    if !rows.scores.is_empty() {
        parts.push(Part::Table(score_table(&rows)));
        parts.push(Part::Figure(score_figure(&rows)));
    }
    if !rows.pairs.is_empty() {
        parts.push(Part::Table(pair_table(&rows)));
    }
    parts.extend(position_figures(&rows).into_iter().map(Part::Figure));
    if !rows.bits.is_empty() {
        parts.push(Part::Table(bits_table(&rows)));
    }
    Section {
        title: "Perplexity".to_string(),
        findings: findings(&rows),
        method: method(config),
        parts,
        limits: vec![
            "Models of a few million parameters, trained on a few million bytes, say what quantisation-aware training costs \
             at their own size; they say nothing about models a thousand times as large."
                .to_string(),
            "Perplexity a token depends on the tokenizer and can be compared only between models that share one; bits a \
             byte can be compared between all."
                .to_string(),
            "Every window starts without context, so numbers are comparable only at the same window length.".to_string(),
        ],
    }
}

fn method(config: &Config) -> Vec<String> {
    vec![
        format!(
            "A text is cut into windows of {} tokens that follow each other without overlap; every token (of the first {} at \
             most) is predicted once, from what precedes it in its window. Standard errors and intervals take windows (or, where \
             these are few, runs of tokens), not tokens, as independent; intervals of differences draw them again ({} times). Differences are paired: both \
             models predict the same token at the same place.",
            config.context,
            format::integer(config.max_tokens as u64),
            format::integer(config.resamples as u64),
        ),
        format!(
            "The Kullback-Leibler divergence is that of the model's next-token distribution from the reference's, summed in \
             double precision. Before anything is scored, the first {} tokens are read on every ISA level and on one and all \
             threads; logits that differ in a single bit end the run.",
            format::integer(config.bits_tokens as u64),
        ),
    ]
}

fn findings(rows: &Rows<'_>) -> Vec<String> {
    let mut findings = Vec::new();
    let score = |model: &str, dataset: &str| rows.scores.iter().find(|s| s.model == model && s.dataset == dataset);
    for pair in &rows.pairs {
        let (Some(model), Some(reference)) = (score(&pair.model, &pair.dataset), score(&pair.reference, &pair.dataset))
        else {
            continue;
        };
        findings.push(format!(
            "On `{}` the model `{}` needs {} bits a byte and `{}` {}: {} ({} bits a byte). Their distributions are {} nats \
             apart (Kullback-Leibler) and agree on the likeliest token {} of the time.",
            pair.dataset,
            pair.model,
            format::with_error(model.bits_per_byte.exact, model.bits_per_byte_error.exact, 4),
            pair.reference,
            format::with_error(reference.bits_per_byte.exact, reference.bits_per_byte_error.exact, 4),
            format::more_or_less(pair.relative_difference.exact),
            format::interval(
                pair.difference_bits_per_byte.exact,
                pair.difference_low.exact,
                pair.difference_high.exact,
                3
            ),
            format::number(pair.kld_nats.exact, 3),
            format::percent(pair.top1_agreement.exact),
        ));
    }
    let (mut isas, mut threads): (Vec<&str>, Vec<usize>) = (Vec::new(), Vec::new());
    for row in &rows.bits {
        if !isas.contains(&row.isa.as_str()) {
            isas.push(&row.isa);
        }
        if !threads.contains(&row.threads) {
            threads.push(row.threads);
        }
    }
    if !isas.is_empty() {
        let threads: Vec<String> = threads.iter().map(ToString::to_string).collect();
        findings.push(format!(
            "Logits have the same bits on {} and with {} threads.",
            format::list(&isas),
            format::list(&threads)
        ));
    }
    findings
}

fn score_table(rows: &Rows<'_>) -> Table {
    let caption = "How well models predict texts, with standard errors over windows.";
    let mut table = Table::new(
        caption,
        &["<model", "<text", ">tokens", ">bytes", ">bits a byte", ">nats a token", ">perplexity a token"],
    );
    for row in &rows.scores {
        table.row(vec![
            format!("`{}`", row.model),
            row.dataset.clone(),
            format::integer(row.tokens.exact as u64),
            format::integer(row.bytes.exact as u64),
            format::with_error(row.bits_per_byte.exact, row.bits_per_byte_error.exact, 4),
            format::with_error(row.nats_per_token.exact, row.nats_per_token_error.exact, 4),
            format::with_error(row.perplexity.exact, row.perplexity_error.exact, 4),
        ]);
    }
    table
}

fn pair_table(rows: &Rows<'_>) -> Table {
    let caption = "Models against their references, token by token, with 95 % intervals. The divergence is the mean over \
                   tokens; its median and 99th percentile show how it is spread.";
    let mut table = Table::new(
        caption,
        &[
            "<model",
            "<against",
            "<text",
            ">difference, bits a byte",
            ">relative",
            ">KLD, nats",
            ">median",
            ">99 %",
            ">same likeliest token",
        ],
    );
    for row in &rows.pairs {
        let agreement = [row.top1_agreement.exact, row.top1_low.exact, row.top1_high.exact].map(|share| share * 100.0);
        table.row(vec![
            format!("`{}`", row.model),
            format!("`{}`", row.reference),
            row.dataset.clone(),
            format::interval(
                row.difference_bits_per_byte.exact,
                row.difference_low.exact,
                row.difference_high.exact,
                3,
            ),
            format!("{} %", format::number(row.relative_difference.exact * 100.0, 3)),
            format::interval(row.kld_nats.exact, row.kld_low.exact, row.kld_high.exact, 3),
            format::number(row.kld_median_nats.exact, 3),
            format::number(row.kld_p99_nats.exact, 3),
            format!("{} %", format::interval(agreement[0], agreement[1], agreement[2], 3)),
        ]);
    }
    table
}

fn subject(row: &BitsRow) -> (&str, &str, &str) {
    (&row.model, &row.dataset, &row.digest.exact)
}

fn bits_table(rows: &Rows<'_>) -> Table {
    let caption = "Digests (the beginning of the SHA-256) of the logits of the first tokens, and where they were the same: \
                   levels with their numbers of threads. A second digest of a model would have ended the run.";
    let mut table = Table::new(caption, &["<model", "<text", ">tokens", "<digest", "<given by"]);
    let mut told: Vec<(&str, &str, &str)> = Vec::new();
    for row in &rows.bits {
        if told.contains(&subject(row)) {
            continue;
        }
        told.push(subject(row));
        let same = rows.bits.iter().filter(|other| subject(other) == subject(row));
        let by: Vec<String> = same.map(|row| format!("{} × {}", row.isa, row.threads)).collect();
        table.row(vec![
            format!("`{}`", row.model),
            row.dataset.clone(),
            format::integer(row.tokens.exact as u64),
            format!("`{}`", row.digest.exact),
            by.join(", "),
        ]);
    }
    table
}

fn models<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut models: Vec<&str> = Vec::new();
    for name in names {
        if !models.contains(&name) {
            models.push(name);
        }
    }
    models
}

fn score_figure(rows: &Rows<'_>) -> Figure {
    let texts: Vec<String> =
        models(rows.scores.iter().map(|row| row.dataset.as_str())).into_iter().map(String::from).collect();
    let series =
        models(rows.scores.iter().map(|row| row.model.as_str())).into_iter().enumerate().map(|(look, model)| {
            let of_model = rows.scores.iter().filter(|row| row.model == model);
            let points = of_model.map(|row| {
                let at = texts.iter().position(|text| *text == row.dataset).unwrap_or(0) as f64;
                Point::new(Extent::of_error(row.bits_per_byte.exact, row.bits_per_byte_error.exact), at)
            });
            Series { name: model.to_string(), look: Look::Marks(look), points: points.collect() }
        });
    let series = series.collect();
    Figure {
        name: "bits".to_string(),
        caption:
            "Bits a byte by text and model, with 95 % intervals from standard errors over windows; less is better."
                .to_string(),
        chart: Chart {
            x: Axis { label: "bits a byte".to_string(), scale: Scale::Linear },
            y: Axis { label: String::new(), scale: Scale::Names(texts) },
            series,
        },
    }
}

/// One chart for each text.
fn position_figures(rows: &Rows<'_>) -> Vec<Figure> {
    let texts = models(rows.positions.iter().map(|row| row.dataset.as_str()));
    let figure = |(i, text): (usize, &&str)| {
        let of_text: Vec<&&PositionRow> = rows.positions.iter().filter(|row| row.dataset == **text).collect();
        let names = models(of_text.iter().map(|row| row.model.as_str()));
        let series = names.into_iter().enumerate().map(|(look, model)| {
            let of_model = of_text.iter().filter(|row| row.model == model);
            let points = of_model.map(|row| {
                let middle = ((row.from * row.to) as f64).sqrt();
                Point::new(middle, Extent::of_error(row.nats_per_token.exact, row.nats_per_token_error.exact))
            });
            Series { name: model.to_string(), look: Look::Joined(look), points: points.collect() }
        });
        Figure {
            name: format!("position-{}", i + 1),
            caption: format!(
                "What context is worth on `{text}`: mean cost of a token by its place in the window (places in groups that \
                 double), with 95 % intervals over windows."
            ),
            chart: Chart {
                x: Axis { label: "place in the window".to_string(), scale: Scale::Log },
                y: Axis { label: "nats a token".to_string(), scale: Scale::Linear },
                series: series.collect(),
            },
        }
    };
    texts.iter().enumerate().map(figure).collect()
}
