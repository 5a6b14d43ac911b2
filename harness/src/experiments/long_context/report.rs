//! The long-context experiment's section.

use super::{BandRow, Config, FiniteRow, ModelRow, Row, StateRow};
use crate::report::figures::{Axis, Extent, Look, Point, Scale, Series};
use crate::report::{Chart, Figure, Part, Section, Table, format};

/// The rows, by kind.
#[derive(Default)]
struct Rows<'a> {
    absent: Vec<(&'a str, &'a str)>,
    models: Vec<&'a ModelRow>,
    bands: Vec<&'a BandRow>,
    states: Vec<&'a StateRow>,
    finite: Vec<&'a FiniteRow>,
}

impl<'a> Rows<'a> {
    fn of(rows: &'a [Row]) -> Rows<'a> {
        let mut by_kind = Rows::default();
        for row in rows {
            match row {
                Row::Absent { dataset, remedy } => by_kind.absent.push((dataset, remedy)),
                Row::Model(row) => by_kind.models.push(row),
                Row::Band(row) => by_kind.bands.push(row),
                Row::State(row) => by_kind.states.push(row),
                Row::Finite(row) => by_kind.finite.push(row),
            }
        }
        by_kind
    }

    /// The texts that were read, in order.
    fn texts(&self) -> Vec<&'a str> {
        let mut texts: Vec<&str> = Vec::new();
        for row in &self.bands {
            if !texts.contains(&row.dataset.as_str()) {
                texts.push(&row.dataset);
            }
        }
        texts
    }

    /// The bands of a model on a text, in order of position.
    fn of_model(&self, model: &'a str, text: &'a str) -> impl Iterator<Item = &'a BandRow> + '_ {
        self.bands.iter().copied().filter(move |row| row.model == model && row.dataset == text)
    }
}

pub(super) fn section(config: &Config, rows: &[Row]) -> Section {
    let rows = Rows::of(rows);
    let mut parts = Vec::new();
    for (dataset, remedy) in &rows.absent {
        parts.push(Part::Text(format!(
            "The text `{dataset}` is not on this machine and was left out: `{remedy}` gets it."
        )));
    }
    let limited: Vec<String> =
        rows.models.iter().filter_map(|row| Some((row, row.context?))).map(|(row, most)| limit(row, most)).collect();
    if !limited.is_empty() {
        parts.push(Part::Text(limited.join(" ")));
    }
    let (costs, gains) = (cost_figures(config, &rows), gain_figures(config, &rows));
    if !rows.bands.is_empty() {
        parts.push(Part::Table(band_table(config, &rows, &COSTS)));
        parts.extend(costs.into_iter().map(Part::Figure));
        parts.push(Part::Table(band_table(config, &rows, &GAINS)));
        parts.extend(gains.into_iter().map(Part::Figure));
    }
    if !rows.states.is_empty() {
        parts.push(Part::Table(state_table(config, &rows)));
        parts.extend(state_figure(&rows).map(Part::Figure));
    }
    Section {
        title: "Long contexts".to_string(),
        findings: findings(config, &rows),
        method: method(config, &rows),
        parts,
        limits: vec![
            "The models were trained on short windows: beyond these nothing taught them to use what they read long \
             ago, and others of the same architecture, trained on long ones, may do better."
                .to_string(),
            "A mean over many tokens shows what a memory is worth on average; it does not show whether a single fact \
             of the far past can be found again."
                .to_string(),
            "Few streams of few texts: how hard the text happens to be at some positions shows in the costs, but not \
             in the differences, which are of the same tokens."
                .to_string(),
        ],
    }
}

/// What is said of a model that has a last position.
fn limit(row: &ModelRow, context: usize) -> String {
    format!(
        "`{}` has {} positions and reads no further than {}.",
        row.model,
        format::integer(context as u64),
        format::integer(row.reads.exact as u64)
    )
}

fn method(config: &Config, rows: &Rows<'_>) -> Vec<String> {
    let trained: Vec<u64> = rows.models.iter().filter_map(|row| Some(row.trained_context?.exact)).collect();
    let window = config.window as u64;
    let known = !trained.is_empty() && trained.len() == rows.models.len() && trained.iter().all(|own| *own == window);
    vec![
        format!(
            "A text is cut into streams of {} tokens that follow each other, {} of them at most; each is read from an \
             empty state to its end, without a reset. Costs are means over the tokens of a band of positions in all \
             streams; their standard errors take the streams' bands (or, where these are few, runs of tokens within \
             them) as independent. The same tokens are read again in windows of {}{}, each from an empty state. The \
             difference is taken token by token, and its interval from blocks drawn again ({} times): below zero it \
             pays to remember more than such a window, above zero the model would do better to forget. Of a text that \
             models were trained on, only the bytes that were held out are read.",
            format::integer(config.positions() as u64),
            config.streams,
            format::integer(window),
            if known { ", the length of training" } else { "" },
            format::integer(config.resamples as u64),
        ),
        "Every logit is looked at, and every number of a recurrent state each 128 tokens or less: one that is NaN or \
         infinite ends the run. States are told by their parts, over all layers and streams: the root of the mean \
         square, and the greatest number without its sign. Up to the end of the first window both readings must cost \
         the same to the last bit."
            .to_string(),
    ]
}

fn findings(config: &Config, rows: &Rows<'_>) -> Vec<String> {
    let mut findings = Vec::new();
    for model in &rows.models {
        for text in rows.texts() {
            let beyond = rows.of_model(&model.model, text).filter(|row| row.from > config.window).last();
            let within = rows.of_model(&model.model, text).filter(|row| row.to <= config.window).last();
            let Some((within, beyond)) = within.zip(beyond) else { continue };
            findings.push(format!(
                "On `{text}`, `{}` pays {} nats a token at positions {} and {} at {}, where the same tokens in \
                 windows of {} cost {}: a difference of {}.",
                model.model,
                format::with_error(within.nats_per_token.exact, within.nats_per_token_error.exact, 3),
                places(within),
                format::with_error(beyond.nats_per_token.exact, beyond.nats_per_token_error.exact, 3),
                places(beyond),
                format::integer(config.window as u64),
                format::number(beyond.short_nats_per_token.exact, 3),
                difference(beyond),
            ));
        }
        findings.extend(bounds(model, rows));
    }
    let (logits, numbers) = rows
        .finite
        .iter()
        .fold((0, 0), |(logits, numbers), row| (logits + row.logits.exact, numbers + row.state_numbers.exact));
    if logits > 0 {
        findings.push(format!(
            "None of {} logits and {} numbers of recurrent states was NaN or infinite.",
            format::integer(logits),
            format::integer(numbers)
        ));
    }
    findings
}

/// By how much the parts of a model's state grow from the first depth to the last, the part that grows most.
fn bounds(model: &ModelRow, rows: &Rows<'_>) -> Option<String> {
    let of_model = || rows.states.iter().filter(|row| row.model == model.model);
    let growth = |first: &StateRow| {
        let same = of_model().filter(|row| row.part == first.part && row.dataset == first.dataset);
        let last = same.max_by_key(|row| row.depth)?;
        Some((last.rms.exact / first.rms.exact, (*last).clone()))
    };
    let least = of_model().map(|row| row.depth).min()?;
    let firsts = of_model().filter(|row| row.depth == least);
    let grown =
        firsts.filter_map(|first| Some((first, growth(first)?))).filter(|(first, (_, last))| last.depth > first.depth);
    let (first, (ratio, last)) = grown.max_by(|a, b| a.1.0.total_cmp(&b.1.0))?;
    let greatest = of_model().max_by(|a, b| a.greatest.exact.total_cmp(&b.greatest.exact))?;
    Some(format!(
        "The state of `{}` grows most in its `{}` on `{}`: from {} (root of the mean square) after {} tokens to {} \
         after {}, {} times as much. The greatest number at any depth is {}, in the `{}` of layer {} after {} tokens \
         of `{}`.",
        model.model,
        first.part,
        first.dataset,
        format::number(first.rms.exact, 3),
        format::integer(first.depth as u64),
        format::number(last.rms.exact, 3),
        format::integer(last.depth as u64),
        format::number(ratio, 3),
        format::number(greatest.greatest.exact, 3),
        greatest.part,
        greatest.greatest_layer.exact,
        format::integer(greatest.depth as u64),
        greatest.dataset,
    ))
}

/// `1,025–2,048`.
fn places(row: &BandRow) -> String {
    format!("{}–{}", format::integer(row.from as u64), format::integer(row.to as u64))
}

fn difference(row: &BandRow) -> String {
    format::interval(row.difference_nats.exact, row.difference_low.exact, row.difference_high.exact, 2)
}

/// What a table of bands shows.
struct Shown {
    caption: &'static str,
    cell: fn(&Config, &BandRow) -> String,
}

const COSTS: Shown = Shown {
    caption: "Nats a token by position in the stream, read without a reset, with standard errors.",
    cell: |_, row| format::with_error(row.nats_per_token.exact, row.nats_per_token_error.exact, 3),
};

const GAINS: Shown = Shown {
    caption: "Nats a token in the stream less those of the same tokens in short windows, with 95 % intervals; less is \
              better.",
    cell: |config, row| if row.to <= config.window { "the same".to_string() } else { difference(row) },
};

/// Texts and bands from top to bottom, models side by side.
fn band_table(config: &Config, rows: &Rows<'_>, shown: &Shown) -> Table {
    let mut titles = vec!["<text".to_string(), ">positions".to_string(), ">tokens".to_string()];
    titles.extend(rows.models.iter().map(|model| format!(">`{}`", model.model)));
    let titles: Vec<&str> = titles.iter().map(String::as_str).collect();
    let mut table = Table::new(shown.caption, &titles);
    for text in rows.texts() {
        let mut bands: Vec<&BandRow> = Vec::new();
        for row in rows.bands.iter().filter(|row| row.dataset == text) {
            if !bands.iter().any(|known| (known.from, known.to) == (row.from, row.to)) {
                bands.push(row);
            }
        }
        bands.sort_by_key(|row| row.from);
        for band in bands {
            let mut cells = vec![text.to_string(), places(band), format::integer(band.tokens.exact as u64)];
            cells.extend(rows.models.iter().map(|model| {
                let row = rows.of_model(&model.model, text).find(|row| (row.from, row.to) == (band.from, band.to));
                match (row, model.context) {
                    (Some(row), _) => (shown.cell)(config, row),
                    (None, Some(context)) if band.to > context => {
                        format!("beyond its {}", format::integer(context as u64))
                    }
                    _ => "–".to_string(),
                }
            }));
            table.grouped_row(1, cells);
        }
    }
    table
}

fn state_table(config: &Config, rows: &Rows<'_>) -> Table {
    let depths: Vec<usize> =
        config.depths.iter().copied().filter(|depth| rows.states.iter().any(|row| row.depth == *depth)).collect();
    let mut titles = vec!["<model".to_string(), "<text".to_string(), "<part".to_string(), ">numbers".to_string()];
    titles.extend(depths.iter().map(|depth| format!(">{}", format::integer(*depth as u64))));
    let titles: Vec<&str> = titles.iter().map(String::as_str).collect();
    let caption = "The size of recurrent states by tokens read: root of the mean square / greatest number without its \
                   sign, over all layers and streams.";
    let mut table = Table::new(caption, &titles);
    let mut told: Vec<(&str, &str, &str)> = Vec::new();
    for row in &rows.states {
        let subject = (row.model.as_str(), row.dataset.as_str(), row.part.as_str());
        if told.contains(&subject) {
            continue;
        }
        told.push(subject);
        let mut cells =
            vec![format!("`{}`", row.model), row.dataset.clone(), row.part.clone(), format::integer(row.numbers.exact)];
        cells.extend(depths.iter().map(|depth| {
            let same = |row: &&&StateRow| (row.model.as_str(), row.dataset.as_str(), row.part.as_str()) == subject;
            rows.states.iter().filter(same).find(|row| row.depth == *depth).map_or("–".to_string(), |row| {
                format!("{} / {}", format::number(row.rms.exact, 3), format::number(row.greatest.exact, 3))
            })
        }));
        table.grouped_row(2, cells);
    }
    table
}

/// Where a band stands on a logarithmic axis.
fn middle(row: &BandRow) -> f64 {
    ((row.from * row.to) as f64).sqrt()
}

/// One chart for each text.
fn charts(rows: &Rows<'_>, label: &str, points: impl Fn(&str, &str) -> Vec<Point>) -> Vec<(usize, String, Chart)> {
    let chart = |(i, text): (usize, &str)| {
        let series = rows.models.iter().enumerate().map(|(look, model)| Series {
            name: model.model.clone(),
            look: Look::Joined(look),
            points: points(&model.model, text),
        });
        let chart = Chart {
            x: Axis { label: "position".to_string(), scale: Scale::Log },
            y: Axis { label: label.to_string(), scale: Scale::Linear },
            series: series.filter(|series| !series.points.is_empty()).collect(),
        };
        (i + 1, text.to_string(), chart)
    };
    let charts = rows.texts().into_iter().enumerate().map(chart);
    charts.filter(|(.., chart)| !chart.series.is_empty()).collect()
}

fn cost_figures(config: &Config, rows: &Rows<'_>) -> Vec<Figure> {
    let points = |model: &str, text: &str| {
        let of_model = rows.bands.iter().filter(|row| row.model == model && row.dataset == text);
        let cost = |row: &BandRow| Extent::of_error(row.nats_per_token.exact, row.nats_per_token_error.exact);
        of_model.map(|row| Point::new(middle(row), cost(row))).collect()
    };
    let figure = |(i, text, mut chart): (usize, String, Chart)| {
        let ends = chart
            .series
            .iter()
            .flat_map(|series| &series.points)
            .fold((f64::MAX, f64::MIN), |(low, high), point| (low.min(point.y.low), high.max(point.y.high)));
        let at = config.window as f64;
        chart.series.push(Series {
            name: format!("window of {}", format::integer(config.window as u64)),
            look: Look::Limit(1),
            points: vec![Point::new(at, ends.0), Point::new(at, ends.1)],
        });
        Figure {
            name: format!("cost-{i}"),
            caption: format!(
                "Nats a token on `{text}` by position in a stream that is read without a reset (bands of positions), \
                 with 95 % intervals."
            ),
            chart,
        }
    };
    charts(rows, "nats a token", points).into_iter().map(figure).collect()
}

fn gain_figures(config: &Config, rows: &Rows<'_>) -> Vec<Figure> {
    let points = |model: &str, text: &str| {
        let beyond = rows.bands.iter().filter(|row| row.to > config.window);
        let of_model = beyond.filter(|row| row.model == model && row.dataset == text);
        let gain = |row: &BandRow| Extent {
            at: row.difference_nats.exact,
            low: row.difference_low.exact,
            high: row.difference_high.exact,
        };
        of_model.map(|row| Point::new(middle(row), gain(row))).collect()
    };
    let figure = |(i, text, mut chart): (usize, String, Chart)| {
        let middles: Vec<f64> = chart.series.iter().flat_map(|series| &series.points).map(|point| point.x.at).collect();
        let (first, last) = middles.iter().fold((f64::MAX, f64::MIN), |(low, high), at| (low.min(*at), high.max(*at)));
        chart.series.push(Series {
            name: "no difference".to_string(),
            look: Look::Limit(1),
            points: vec![Point::new(first, 0.0), Point::new(last, 0.0)],
        });
        Figure {
            name: format!("gain-{i}"),
            caption: format!(
                "What remembering more than a window of {} changes on `{text}`, in nats a token, by position, with 95 \
                 % intervals; below zero it pays.",
                format::integer(config.window as u64)
            ),
            chart,
        }
    };
    charts(rows, "nats a token", points).into_iter().map(figure).collect()
}

/// The states on the first text that was read.
fn state_figure(rows: &Rows<'_>) -> Option<Figure> {
    let text = rows.states.first()?.dataset.as_str();
    let of_text = || rows.states.iter().filter(|row| row.dataset == text && row.rms.exact > 0.0);
    let mut series: Vec<Series> = Vec::new();
    for row in of_text() {
        let name = format!("{}, {}", row.model, row.part);
        if series.iter().all(|known| known.name != name) {
            let same = of_text().filter(|other| (&other.model, &other.part) == (&row.model, &row.part));
            let points = same.map(|row| Point::new(row.depth as f64, row.rms.exact)).collect();
            series.push(Series { name, look: Look::Joined(series.len()), points });
        }
    }
    (!series.is_empty()).then(|| Figure {
        name: "state".to_string(),
        caption: format!(
            "The size of recurrent states on `{text}`: root of the mean square of each part, over all layers and \
             streams, by tokens read."
        ),
        chart: Chart {
            x: Axis { label: "tokens read".to_string(), scale: Scale::Log },
            y: Axis { label: "root of the mean square".to_string(), scale: Scale::Log },
            series,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quantity::determined;

    fn config() -> Config {
        let text = r#"
            models = ["caches", "recalls"]
            texts = [{ dataset = "t" }]
            depths = [512, 2048, 8192]
            streams = 4
            window = 512
            resamples = 100
        "#;
        toml::from_str(text).unwrap()
    }

    fn model(name: &str, context: Option<usize>) -> Row {
        Row::Model(ModelRow {
            model: name.to_string(),
            architecture: "a".to_string(),
            context,
            reads: determined(context.unwrap_or(8192)),
            trained_context: Some(determined(512)),
            state_bytes: determined(0),
        })
    }

    fn band(name: &str, from: usize, to: usize, nats: f64, short: f64) -> Row {
        Row::Band(BandRow {
            model: name.to_string(),
            dataset: "t".to_string(),
            from,
            to,
            streams: 4,
            tokens: determined(4 * (to + 1 - from)),
            nats_per_token: determined(nats),
            nats_per_token_error: determined(0.05),
            short_nats_per_token: determined(short),
            difference_nats: determined(nats - short),
            difference_low: determined(nats - short - 0.01),
            difference_high: determined(nats - short + 0.01),
        })
    }

    fn state(depth: usize, rms: f64) -> Row {
        Row::State(StateRow {
            model: "recalls".to_string(),
            dataset: "t".to_string(),
            part: "wkv".to_string(),
            depth,
            numbers: determined(4096),
            rms: determined(rms),
            greatest: determined(10.0 * rms),
            greatest_layer: determined(3),
        })
    }

    fn rows() -> Vec<Row> {
        let finite = FiniteRow {
            model: "recalls".to_string(),
            dataset: "t".to_string(),
            logits: determined(1_000_000),
            state_numbers: determined(12_288),
        };
        vec![
            model("caches", Some(2048)),
            model("recalls", None),
            band("caches", 1, 512, 4.0, 4.0),
            band("caches", 513, 2048, 4.5, 3.9),
            band("recalls", 1, 512, 4.0, 4.0),
            band("recalls", 513, 2048, 3.75, 3.875),
            band("recalls", 2049, 8192, 3.5, 3.75),
            state(512, 0.5),
            state(2048, 0.6),
            state(8192, 1.0),
            Row::Finite(finite),
        ]
    }

    #[test]
    fn what_lies_beyond_a_context_is_said_in_the_table() {
        let section = section(&config(), &rows());
        let Part::Text(text) = &section.parts[0] else { panic!("limits come first") };
        assert_eq!(text, "`caches` has 2,048 positions and reads no further than 2,048.");
        let Part::Table(table) = &section.parts[1] else { panic!("then the costs") };
        assert_eq!(table.rows()[2], ["", "2,049–8,192", "24,576", "beyond its 2,048", "3.50 ± 0.050"]);
        let mut tables = section.parts.iter().filter_map(|part| match part {
            Part::Table(table) => Some(table),
            _ => None,
        });
        let gains = tables.nth(1).unwrap();
        assert_eq!(gains.rows()[0][3..], ["the same", "the same"]);
        assert_eq!(gains.rows()[2][3..], ["beyond its 2,048", "-0.25 [-0.26, -0.24]"]);
    }

    #[test]
    fn findings_tell_costs_growth_and_that_all_are_numbers() {
        let findings = section(&config(), &rows()).findings;
        assert_eq!(findings.len(), 4, "{findings:?}");
        assert!(
            findings[0].contains("`caches` pays 4.00 ± 0.050 nats a token at positions 1–512 and 4.50"),
            "{findings:?}"
        );
        assert!(findings[1].contains("a difference of -0.25 [-0.26, -0.24]"), "{findings:?}");
        assert!(
            findings[2].contains("0.500 (root of the mean square) after 512 tokens to 1.00 after 8,192, 2.00 times")
        );
        assert!(findings[2].contains("is 10.0, in the `wkv` of layer 3"), "{findings:?}");
        assert_eq!(findings[3], "None of 1,000,000 logits and 12,288 numbers of recurrent states was NaN or infinite.");
    }

    #[test]
    fn figures_are_drawn_and_rows_may_be_missing() {
        let drawn = |rows: &[Row]| {
            let figures = section(&config(), rows).parts.into_iter().filter_map(|part| match part {
                Part::Figure(figure) => Some(figure),
                _ => None,
            });
            let names = figures.map(|figure| {
                crate::report::figures::svg(&figure.chart).unwrap();
                figure.name
            });
            names.collect::<Vec<_>>()
        };
        let all = rows();
        assert_eq!(drawn(&all), ["cost-1", "gain-1", "state"]);
        assert!(drawn(&[]).is_empty() && section(&config(), &[]).findings.is_empty());
        for missing in 0..all.len() {
            let mut rest = all.clone();
            rest.remove(missing);
            drawn(&rest);
        }
    }
}
