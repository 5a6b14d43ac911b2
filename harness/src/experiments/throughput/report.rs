//! The throughput experiment's section.

use kernels::Isa;

use super::{Config, ModelRow, Row, SpeedRow};
use crate::quantity::Timed;
use crate::report::figures::{Axis, Look, Point, Scale, Series};
use crate::report::{Chart, Figure, Part, Section, Table, format};

pub(super) fn section(config: &Config, rows: &[Row]) -> Section {
    let (mut models, mut speeds) = (Vec::new(), Vec::new());
    for row in rows {
        match row {
            Row::Model(row) => models.push(row.as_ref()),
            Row::Speed(row) => speeds.push(row.as_ref()),
        }
    }
    let mut parts = Vec::new();
    if !models.is_empty() {
        parts.push(Part::Table(model_table(&models)));
    }
    if !speeds.is_empty() {
        parts.push(Part::Table(bytes_table(&speeds)));
        parts.extend(speed_figures(&models, &speeds).into_iter().map(Part::Figure));
        parts.push(Part::Table(speed_table(&speeds)));
    }
    Section {
        title: "Throughput".to_string(),
        findings: findings(&models, &speeds),
        method: method(config),
        parts,
        limits: vec![
            "One sequence at a time: serving many at once streams the weights once for all of them and is another question."
                .to_string(),
            "Operations count the linear layers and the head; attention, norms and activations come on top, so shares of \
             the peak are lower bounds."
                .to_string(),
            "Resident memory is what the process grew by; memory that earlier models gave back may be used again and is \
             then not counted."
                .to_string(),
            "The speed of synthetic weights is that of real ones of the same shape; their text is noise.".to_string(),
        ],
    }
}

fn method(config: &Config) -> Vec<String> {
    let budget = &config.budget;
    vec![
        format!(
            "A prefill sample reads a prompt of random tokens into an empty state, up to the logits from which the first \
             token would be chosen, so its time is the time to the first token. A decode sample reads tokens one after the \
             other from a state that has read as many as the depth says, and is then rewound; its time is the mean of its \
             steps. Depths are bounded by a model's context. The cache is kept as {}. All settings of a test (ISA levels, \
             numbers of threads, and packings, each of them one copy of the weights) are contestants of the same blocks, at least {} and at \
             most about {} s of them.",
            config.cache,
            budget.min_blocks,
            format::number(budget.seconds, 2),
        ),
        "In the same blocks as many threads read in 1, 8 and 16 streams, from memory where the weights are larger than twice \
         the last-level cache, else data of the size that a token reads; and they multiply and add in registers. The share \
         of the bandwidth is what had to be read (linear layers, head, norms, one row of the embedding, cache) a second over \
         the fastest reader; the share of the peak is the time that the operations of linear layers and head would take at \
         the peak of their arithmetic, over the time taken. A share above 110 % is taken for a bug and ends the run."
            .to_string(),
    ]
}

fn findings(models: &[&ModelRow], speeds: &[&SpeedRow]) -> Vec<String> {
    let mut findings = Vec::new();
    for model in models {
        let of_model = |test: &str| {
            let best = speeds.iter().filter(|row| row.model == model.model && row.test == test);
            best.max_by(|a, b| a.tokens_per_s.median.total_cmp(&b.tokens_per_s.median))
        };
        let (decode, prefill) = (of_model("decode"), of_model("prefill"));
        if let Some(row) = decode {
            let mut text = format!(
                "`{}` decodes {} tokens a second at depth {} on {}: {} of the read bandwidth of the same blocks",
                row.model,
                format::timed(&row.tokens_per_s, 3),
                row.depth,
                format::count(row.threads, "thread", "threads"),
                format::timed_percent(&row.share_of_bandwidth),
            );
            if let Some(row) = prefill {
                text += &format!(
                    "; it reads a prompt of {} at {} tokens a second, {} of the arithmetic peak",
                    row.tokens,
                    format::timed(&row.tokens_per_s, 3),
                    format::percent(row.share_of_peak.median)
                );
            }
            if let Some(share) = row.share_of_handover {
                text += &format!("; handing over between threads takes {} of a step", format::percent(share.median));
            }
            findings.push(text + ".");
        }
    }
    findings
}

fn model_table(models: &[&ModelRow]) -> Table {
    let caption = "Models: what a token reads (the cache's part for each earlier position) and what was needed to have them \
                   ready. Loading was timed once.";
    let mut table = Table::new(
        caption,
        &[
            "<model",
            "<weights",
            ">parameters",
            ">linear layers",
            ">head",
            ">other",
            ">cache a position",
            ">state",
            ">ready after",
            ">resident",
        ],
    );
    for row in models {
        table.row(vec![
            format!("`{}`", row.model),
            row.weights.clone(),
            format::integer(row.parameters.exact),
            format::bytes(row.linear_bytes.exact),
            format::bytes(row.head_bytes.exact),
            format::bytes(row.other_bytes.exact),
            format::bytes(row.cache_bytes_per_position.exact),
            format::bytes(row.state_bytes.exact),
            format::seconds(row.load_s.median),
            row.resident_bytes.map_or("–".to_string(), |bytes| format::bytes(bytes.median as u64)),
        ]);
    }
    table
}

/// Each model and depth once: bytes do not depend on settings.
fn bytes_table(speeds: &[&SpeedRow]) -> Table {
    let caption = "Bytes that a decoded token must read, and how they split.";
    let mut table = Table::new(
        caption,
        &["<model", ">depth", ">bytes a token", ">linear layers", ">head", ">cache, state", ">other"],
    );
    let mut seen = Vec::new();
    for row in speeds.iter().filter(|row| row.test == "decode") {
        if seen.contains(&(&row.model, row.depth)) {
            continue;
        }
        seen.push((&row.model, row.depth));
        let all = row.linear_bytes + row.head_bytes + row.other_bytes + row.cache_bytes;
        let part = |bytes: u64| format!("{} ({})", format::bytes(bytes), format::percent(bytes as f64 / all as f64));
        table.row(vec![
            format!("`{}`", row.model),
            row.depth.to_string(),
            format::bytes(all),
            part(row.linear_bytes),
            part(row.head_bytes),
            part(row.cache_bytes),
            part(row.other_bytes),
        ]);
    }
    table
}

fn test_name(row: &SpeedRow) -> String {
    match row.test.as_str() {
        "prefill" => format!("prefill {}", row.tokens),
        _ => format!("decode at {}", row.depth),
    }
}

fn speed_table(speeds: &[&SpeedRow]) -> Table {
    let caption = "Speeds. The wait is the time to the first token (prefill) or of a step (decode). Shares are of the \
                   bandwidth and the peak measured in the same blocks with as many threads; the hand-over is the share of a step that \
                   an empty walk through its phases takes; ratios are taken within blocks, × plain over the same model as its \
                   name alone says on the same level and threads.";
    let mut table = Table::new(
        caption,
        &[
            "<model",
            "<test",
            "<ISA",
            ">threads",
            ">tokens/s",
            ">wait, ms",
            ">of bandwidth",
            ">of peak",
            ">hand-over",
            ">× one thread",
            ">× level below",
            ">× plain",
            ">n",
        ],
    );
    for row in speeds {
        let ratio = |ratio: Option<Timed>| ratio.map_or("–".to_string(), |r| format::timed(&r, 3));
        table.grouped_row(
            2,
            vec![
                format!("`{}`", row.model),
                test_name(row),
                row.isa.clone(),
                row.threads.to_string(),
                format::timed(&row.tokens_per_s, 3),
                format::number(row.wait_ms.median, 3),
                format::timed_percent(&row.share_of_bandwidth),
                format::timed_percent(&row.share_of_peak),
                row.share_of_handover.map_or("–".to_string(), |share| format::percent(share.median)),
                ratio(row.speedup_over_one_thread),
                ratio(row.speedup_over_below),
                ratio(row.speedup_over_plain),
                row.tokens_per_s.n.to_string(),
            ],
        );
    }
    table
}

/// One chart for each model, its other packings aside: tests from top to bottom, a series for each setting.
fn speed_figures(models: &[&ModelRow], speeds: &[&SpeedRow]) -> Vec<Figure> {
    let plain = |model: &&&ModelRow| speeds.iter().all(|row| row.model != model.model || row.plain.is_none());
    models.iter().filter(plain).enumerate().filter_map(|(i, model)| speed_figure(i + 1, &model.model, speeds)).collect()
}

fn speed_figure(number: usize, model: &str, speeds: &[&SpeedRow]) -> Option<Figure> {
    let rows: Vec<&&SpeedRow> = speeds.iter().filter(|row| row.model == model).collect();
    let mut names: Vec<String> = Vec::new();
    let mut settings: Vec<(Option<Isa>, usize)> = Vec::new();
    for row in &rows {
        let (name, setting) = (test_name(row), (row.isa.parse().ok(), row.threads));
        if !names.contains(&name) {
            names.push(name);
        }
        if !settings.contains(&setting) {
            settings.push(setting);
        }
    }
    settings.sort_unstable();
    let series = settings.iter().enumerate().map(|(look, (isa, threads))| {
        let of_setting = rows.iter().filter(|row| (row.isa.parse().ok(), row.threads) == (*isa, *threads));
        let at = |row: &SpeedRow| names.iter().position(|name| *name == test_name(row)).unwrap_or(0) as f64;
        Series {
            name: format!("{}, {}", isa.map_or("unknown", Isa::name), format::count(*threads, "thread", "threads")),
            look: Look::Marks(look),
            points: of_setting.map(|row| Point::new(row.tokens_per_s, at(row))).collect(),
        }
    });
    let series: Vec<Series> = series.collect();
    (!rows.is_empty()).then(|| Figure {
        name: format!("speed-{number}"),
        caption: format!("Tokens a second of `{model}` by test and setting, with 95 % intervals."),
        chart: Chart {
            x: Axis { label: "tokens a second".to_string(), scale: Scale::Log },
            y: Axis { label: String::new(), scale: Scale::Names(names) },
            series,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contest::Budget;
    use crate::lab::Threads;
    use crate::quantity::determined;

    fn timed(median: f64) -> Timed {
        Timed { median, low: median * 0.9, high: median * 1.1, n: 9 }
    }

    fn row(test: &str, threads: usize, speed: f64) -> Row {
        Row::Speed(Box::new(SpeedRow {
            model: "m".to_string(),
            test: test.to_string(),
            tokens: 32,
            depth: 0,
            isa: "avx512".to_string(),
            threads,
            cache: "f32".to_string(),
            tokens_per_s: timed(speed),
            wait_ms: timed(1e3 / speed),
            linear_bytes: 300,
            head_bytes: 100,
            other_bytes: 0,
            cache_bytes: 0,
            linear_operations: 2400,
            head_operations: 100,
            ceiling_gb_per_s: timed(30.0),
            ceiling_by: "read in 8 streams, from memory".to_string(),
            ceiling_gops: timed(600.0),
            arithmetic: "int8".to_string(),
            share_of_bandwidth: timed(0.8),
            share_of_peak: timed(0.1),
            share_of_handover: None,
            speedup_over_one_thread: None,
            below: None,
            speedup_over_below: None,
            plain: None,
            speedup_over_plain: None,
        }))
    }

    #[test]
    fn each_model_is_found_by_its_fastest_settings() {
        let config = Config {
            budget: Budget { sample_ms: 2.0, min_blocks: 9, max_blocks: 99, seconds: 1.0, precision: 0.01 },
            threads: Threads::default(),
            cache: "f32".to_string(),
            scalar_parameters: 0,
            models: Vec::new(),
        };
        let model = Row::Model(Box::new(ModelRow {
            model: "m".to_string(),
            architecture: "bitnet-b1.58".to_string(),
            weights: "ternary i2".to_string(),
            parameters: determined(1000),
            context: Some(64),
            linear_bytes: determined(300),
            head_bytes: determined(100),
            other_bytes: determined(0),
            cache_bytes_per_position: determined(2),
            state_bytes: determined(0),
            linear_operations: determined(2400),
            head_operations: determined(100),
            load_s: Timed { median: 1.0, low: 1.0, high: 1.0, n: 1 },
            resident_bytes: None,
        }));
        let rows = [model, row("decode", 1, 20.0), row("decode", 2, 40.0), row("prefill", 2, 300.0)];
        let section = section(&config, &rows);
        assert_eq!(
            section.findings,
            [
                "`m` decodes 40.0 [36.0, 44.0] tokens a second at depth 0 on two threads: 80 % [72, 88] of the read bandwidth of \
              the same blocks; it reads a prompt of 32 at 300 [270, 330] tokens a second, 10 % of the arithmetic peak."
            ]
        );
        for part in &section.parts {
            if let Part::Figure(figure) = part {
                crate::report::figures::svg(&figure.chart).unwrap();
            }
        }
        let Part::Table(bytes) = &section.parts[1] else { panic!("bytes come second") };
        assert_eq!(bytes.rows()[0][3], "300 B (75 %)");
    }
}
