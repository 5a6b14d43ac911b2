//! The kernel experiment's section: coverage, speeds, roofline.

use kernels::Isa;

use super::{CheckRow, Config, LeftRow, Row, SpeedRow, VariantRow, WorkingSet};
use crate::quantity::Timed;
use crate::report::figures::{Axis, Look, Point, Scale, Series};
use crate::report::{Chart, Figure, Part, Section, Table, format};

mod batches;
mod rivals;

/// The rows, by kind.
struct Rows<'a> {
    variants: Vec<&'a VariantRow>,
    checks: Vec<&'a CheckRow>,
    speeds: Vec<&'a SpeedRow>,
    left: Vec<&'a LeftRow>,
}

pub(super) fn section(config: &Config, rows: &[Row]) -> Section {
    let mut by_kind = Rows { variants: Vec::new(), checks: Vec::new(), speeds: Vec::new(), left: Vec::new() };
    for row in rows {
        match row {
            Row::Variant(row) => by_kind.variants.push(row),
            Row::Check(row) => by_kind.checks.push(row),
            Row::Speed(row) => by_kind.speeds.push(row),
            Row::Left(row) => by_kind.left.push(row),
        }
    }
    let rows = by_kind;
    let mut parts = Vec::new();
    if !rows.variants.is_empty() {
        parts.push(Part::Table(coverage_table(&rows)));
        parts.extend(comparators(&rows).map(Part::Text));
    }
    if !rows.speeds.is_empty() {
        parts.extend(speedup_figure(&rows).map(Part::Figure));
        parts.extend(share_figure(&rows).map(Part::Figure));
        parts.extend(roofline_figures(&rows).into_iter().map(Part::Figure));
        parts.extend(batches::figures(&rows).into_iter().map(Part::Figure));
        parts.extend(rivals::table(&rows).map(Part::Table));
        parts.extend(batches::table(&rows).map(Part::Table));
        parts.push(Part::Table(speed_table(&rows)));
    }
    Section {
        title: "Kernels".to_string(),
        findings: findings(config, &rows),
        method: method(config),
        parts,
        limits: limits(config, &rows),
    }
}

fn method(config: &Config) -> Vec<String> {
    let budget = &config.budget;
    vec![
        "Each variant first computes a case whose inputs follow from the seed, and its output is compared with that of the \
         scalar specification on the same inputs: bit by bit, or within the tolerance that the op declares. A variant that \
         differs ends the run before anything of it is timed. A level without code of its own runs the code of the level \
         below; such inherited variants are neither checked nor timed twice."
            .to_string(),
        format!(
            "Then all variants of a case are timed as contestants of the same blocks, together with two loops that show \
             what the machine can do: moving as many bytes as the case moves (reading in 1, 8 or 16 streams, or copying \
             within the cache: whichever is fastest), and multiply-adds in registers. A sample lasts about {} ms; blocks are \
             repeated until all intervals are within {} of their medians or {} s are over. In a working set called cache \
             every thread computes one case again and again; in one called memory it walks through cases that together are \
             several times as large as the last-level cache; in l2 and l3 they fill half of the thread's share of that cache. With more than one thread each computes its own cases, all \
             started together.",
            format::number(budget.sample_ms, 2),
            format::percent(budget.precision),
            format::number(budget.seconds, 2),
        ),
        "The share of the ceiling is the least time that moving the case's bytes at the measured bandwidth and doing its \
         operations at the measured peak would take (the longer of the two: the roofline), over the time taken, within \
         blocks. Bytes and operations are those that any implementation must move and do; a share above 110 % is taken for \
         a bug and ends the run."
            .to_string(),
    ]
}

fn limits(config: &Config, rows: &Rows<'_>) -> Vec<String> {
    let mut limits = vec![
        "Small cases in cache are bound by latency and call overhead, which the roofline does not know: a low share there \
         does not mean that much could be gained."
            .to_string(),
        "The bandwidth ceiling of cases that write as much as they read is that of reading or copying, whichever was \
         faster: caches that read and write at the same time could do better."
            .to_string(),
        format!(
            "Scalar was not timed where a call does more than {} operations; it was checked against nonetheless.",
            format::integer(config.scalar_operations)
        ),
    ];
    let mut reasons: Vec<&str> = Vec::new();
    for row in &rows.left {
        if !reasons.contains(&row.reason.as_str()) {
            reasons.push(&row.reason);
        }
    }
    for reason in reasons {
        let mut cases: Vec<String> = Vec::new();
        for row in rows.left.iter().filter(|row| row.reason == reason) {
            let case = format!("`{}` at {}x{}x{}", row.op, row.rows, row.columns, row.tokens);
            if !cases.contains(&case) {
                cases.push(case);
            }
        }
        limits.push(format!("Not timed, because {reason}: {}.", format::list(&cases)));
    }
    limits
}

fn threads(count: usize) -> String {
    format::count(count, "thread", "threads")
}

/// The rows of the highest ISA that was timed for each case.
fn highest<'a>(rows: &Rows<'a>) -> Vec<&'a SpeedRow> {
    let level = |row: &SpeedRow| row.isa.parse::<Isa>().ok();
    rows.speeds
        .iter()
        .copied()
        .filter(|row| rows.speeds.iter().all(|o| !same_case(o, row) || level(o) <= level(row)))
        .collect()
}

fn same_case(a: &SpeedRow, b: &SpeedRow) -> bool {
    (&a.op, a.shape(), a.working_set, a.threads) == (&b.op, b.shape(), b.working_set, b.threads)
}

fn findings(config: &Config, rows: &Rows<'_>) -> Vec<String> {
    let mut findings = Vec::new();
    // Ops that are compared with another have findings of their own.
    let named = |row: &&&SpeedRow| row.rival.is_none() && config.cases.iter().any(|case| case.ops.contains(&row.op));
    let best = highest(rows);
    let headline: Vec<&SpeedRow> = best.iter().filter(named).copied().collect();
    let cached = headline.iter().filter(|r| r.tokens == 1 && r.threads == 1 && r.working_set == WorkingSet::Cache);
    let fastest = cached
        .filter_map(|row| row.speedup_over_scalar.map(|speedup| (*row, speedup)))
        .max_by(|a, b| a.1.median.total_cmp(&b.1.median));
    if let Some((row, speedup)) = fastest {
        findings.push(format!(
            "One `{}@{}` of {} × {} in cache is {} as fast as scalar.",
            row.op,
            row.isa,
            row.rows,
            row.columns,
            format::ratio(&speedup, 3)
        ));
    }
    let mut memory: Vec<&SpeedRow> =
        headline.iter().copied().filter(|r| r.tokens == 1 && r.working_set == WorkingSet::Memory).collect();
    memory.sort_by(|a, b| b.share_of_ceiling.median.total_cmp(&a.share_of_ceiling.median));
    if let Some(first) = memory.first() {
        let mut same: Vec<&&SpeedRow> =
            memory.iter().filter(|r| (&r.op, r.shape()) == (&first.op, first.shape())).collect();
        same.sort_by_key(|row| row.threads);
        let shares: Vec<String> = same
            .iter()
            .map(|r| {
                let (share, speed) = (format::timed_percent(&r.share_of_ceiling), format::number(r.gb_per_s.median, 3));
                format!("{share} on {} ({speed} GB/s)", threads(r.threads))
            })
            .collect();
        findings.push(format!(
            "From memory `{}@{}` of {} × {} draws this share of the bandwidth that plain reading reaches in the same \
             blocks: {}.",
            first.op,
            first.isa,
            first.rows,
            first.columns,
            format::list(&shares)
        ));
    }
    let dense = headline
        .iter()
        .filter(|row| row.tokens >= 64 && row.bound == "arithmetic")
        .max_by(|a, b| a.share_of_ceiling.median.total_cmp(&b.share_of_ceiling.median));
    if let Some(row) = dense {
        findings.push(format!(
            "On {} tokens at once `{}@{}` of {} × {} reaches {} of the {} peak on {}.",
            row.tokens,
            row.op,
            row.isa,
            row.rows,
            row.columns,
            format::timed_percent(&row.share_of_ceiling),
            row.arithmetic,
            threads(row.threads)
        ));
    }
    findings.extend([WorkingSet::Cache, WorkingSet::Memory].iter().filter_map(|place| rivals::finding(&best, *place)));
    findings.extend(checked_finding(rows));
    let gains: Vec<f64> = best
        .iter()
        .filter(|row| row.threads == 1)
        .filter_map(|r| r.speedup_over_scalar.map(|s| s.median.ln()))
        .collect();
    if gains.len() > 1 {
        let mean = (gains.iter().sum::<f64>() / gains.len() as f64).exp();
        findings.push(format!(
            "Over all {} on one thread the highest ISA's variant is {}× as fast as scalar (geometric mean).",
            format::count(gains.len(), "case", "cases"),
            format::number(mean, 3)
        ));
    }
    findings
}

fn checked_finding(rows: &Rows<'_>) -> Option<String> {
    let checks: Vec<&&CheckRow> = rows.checks.iter().filter(|row| row.isa != Isa::Scalar.name()).collect();
    let mut variants: Vec<String> = checks.iter().map(|row| format!("{}@{}", row.op, row.isa)).collect();
    variants.sort();
    variants.dedup();
    let elements: usize = checks.iter().map(|row| row.elements.exact).sum();
    let inexact = checks.iter().filter(|row| row.differing.exact > 0).count();
    (!checks.is_empty()).then(|| {
        let bits = if inexact == 0 {
            "the same bits as scalar everywhere".to_string()
        } else {
            format!(
                "the bits of scalar, or numbers within the declared tolerance ({inexact} of {} checks)",
                checks.len()
            )
        };
        format!(
            "{} of {} compared numbers gave {bits}.",
            capital(&format::count(variants.len(), "variant", "variants")),
            format::integer(elements as u64)
        )
    })
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

fn coverage_table(rows: &Rows<'_>) -> Table {
    let caption = "Variants: `own` is code written for the level, `= x` is the code of level x, `not tested` means that \
                   this CPU lacks the level (or that the run was told to stay below it).";
    let titles: Vec<String> =
        std::iter::once("<op".to_string()).chain(Isa::ALL.iter().map(|isa| format!("<{isa}"))).collect();
    let mut table = Table::new(caption, &titles.iter().map(String::as_str).collect::<Vec<_>>());
    let mut ops: Vec<&str> = Vec::new();
    for row in &rows.variants {
        if !ops.contains(&row.op.as_str()) {
            ops.push(&row.op);
        }
    }
    for op in ops {
        let cell = |isa: &Isa| {
            let row = rows.variants.iter().find(|row| row.op == op && row.isa == isa.name());
            row.map_or("–".to_string(), |row| row.told())
        };
        table.row(std::iter::once(format!("`{op}`")).chain(Isa::ALL.iter().map(cell)).collect());
    }
    table
}

/// What is there to be compared with.
fn comparators(rows: &Rows<'_>) -> Option<String> {
    let mut told: Vec<String> = Vec::new();
    for row in &rows.variants {
        let text = row.comparator.as_ref().map(|comparator| format!("`{}` is {comparator}", row.op));
        told.extend(text.filter(|text| !told.contains(text)));
    }
    (!told.is_empty()).then(|| format!("To be compared with: {}.", told.join("; ")))
}

fn speed_table(rows: &Rows<'_>) -> Table {
    let caption = "Speeds of the variants with code of their own. A call's time stands with half of its interval; GB/s and GOPS \
                   count what must be moved and done, all threads together; the share is of the roofline in the same \
                   blocks, and its letter says which ceiling binds (b bandwidth, a arithmetic); the last two columns are \
                   ratios within blocks to scalar and to the level below.";
    let mut table = Table::new(
        caption,
        &[
            "<op",
            "<shape R×C×T, data, threads",
            "<ISA",
            ">a call",
            ">GB/s",
            ">GOPS",
            ">share of ceiling",
            ">× scalar",
            ">× below",
        ],
    );
    for row in &rows.speeds {
        let bound = if row.bound == "bandwidth" { "b" } else { "a" };
        let ratio = |ratio: Option<Timed>| ratio.map_or("–".to_string(), |r| format::timed(&r, 3));
        // Next to scalar the level below is scalar itself.
        let below = row.speedup_over_below.filter(|_| row.below.as_deref() != Some(Isa::Scalar.name()));
        let (r, c, t) = (row.rows, row.columns, row.tokens);
        table.grouped_row(
            2,
            vec![
                format!("`{}`", row.op),
                format!("{r}×{c}×{t}, {}, {}", row.working_set.name(), row.threads),
                row.isa.clone(),
                format!(
                    "{} ± {}",
                    format::seconds(row.call_us.median / 1e6),
                    format::percent(row.call_us.uncertainty())
                ),
                format::number(row.gb_per_s.median, 3),
                format::number(row.gops.median, 3),
                format!("{} {bound}", format::timed_percent(&row.share_of_ceiling)),
                ratio(row.speedup_over_scalar),
                ratio(below),
            ],
        );
    }
    table
}

fn case_name(row: &SpeedRow) -> String {
    let (r, c, t) = (row.rows, row.columns, row.tokens);
    let many = if row.threads == 1 { String::new() } else { format!(", {} threads", row.threads) };
    format!("{} {r}×{c}×{t}, {}{many}", row.op, row.working_set.told())
}

/// A chart of cases from top to bottom and ISAs as series; `value` may leave rows out.
fn by_case(rows: &[&SpeedRow], x: Axis, value: impl Fn(&SpeedRow) -> Option<Point>) -> Option<Chart> {
    let mut names: Vec<String> = Vec::new();
    let mut series: Vec<Series> = Vec::new();
    for row in rows {
        let Some(point) = value(row) else { continue };
        let name = case_name(row);
        let at = names.iter().position(|known| *known == name).unwrap_or_else(|| {
            names.push(name);
            names.len() - 1
        });
        let look = Isa::ALL.iter().position(|isa| isa.name() == row.isa).unwrap_or(Isa::ALL.len());
        let place = series.iter().position(|s| s.name == row.isa).unwrap_or_else(|| {
            series.push(Series { name: row.isa.clone(), look: Look::Marks(look), points: Vec::new() });
            series.len() - 1
        });
        series[place].points.push(Point { y: (at as f64).into(), ..point });
    }
    series.sort_by_key(|series| series.name.parse::<Isa>().ok());
    (!names.is_empty()).then(|| Chart { x, y: Axis { label: String::new(), scale: Scale::Names(names) }, series })
}

fn speedup_figure(rows: &Rows<'_>) -> Option<Figure> {
    let x = Axis { label: "times as fast as scalar, within blocks".to_string(), scale: Scale::Log };
    let one: Vec<&SpeedRow> = rows.speeds.iter().copied().filter(|row| row.threads == 1).collect();
    let chart = by_case(&one, x, |row| row.speedup_over_scalar.map(|speedup| Point::new(speedup, 0.0)))?;
    Some(Figure {
        name: "speedup".to_string(),
        caption:
            "Speed of each ISA's own variant over the scalar specification, one thread, with 95 % intervals where \
                  they are wider than the mark."
                .to_string(),
        chart,
    })
}

fn share_figure(rows: &Rows<'_>) -> Option<Figure> {
    let x = Axis { label: "share of the ceiling, %".to_string(), scale: Scale::Linear };
    let chart =
        by_case(&highest(rows), x, |row| Some(Point::new(row.share_of_ceiling.map(|share| share * 100.0), 0.0)))?;
    Some(Figure {
        name: "share".to_string(),
        caption:
            "How near the highest ISA's variant of each case comes to what the machine did in the same blocks: the \
                  roofline of measured bandwidth and measured arithmetic peak is 100 %."
                .to_string(),
        chart,
    })
}

/// One chart for each number of threads and kind of arithmetic.
fn roofline_figures(rows: &Rows<'_>) -> Vec<Figure> {
    let mut counts: Vec<usize> = rows.speeds.iter().map(|row| row.threads).collect();
    counts.sort_unstable();
    counts.dedup();
    let charts = counts.into_iter().flat_map(|threads| ["int8", "f32"].map(|arithmetic| (threads, arithmetic)));
    charts.filter_map(|(threads, arithmetic)| roofline(rows, threads, arithmetic)).collect()
}

fn roofline(rows: &Rows<'_>, count: usize, arithmetic: &str) -> Option<Figure> {
    let points: Vec<&SpeedRow> = rows
        .speeds
        .iter()
        .copied()
        .filter(|row| row.threads == count && row.arithmetic == arithmetic)
        .filter(|row| row.work_operations > 0 && row.gops.low > 0.0)
        .collect();
    let intensity = |row: &SpeedRow| row.work_operations as f64 / row.work_bytes as f64;
    let (left, right) =
        points.iter().map(|row| intensity(row)).fold((f64::MAX, 0.0f64), |(l, r), i| (l.min(i), r.max(i)));
    // One intensity makes a column of marks, not a roofline.
    if right <= left {
        return None;
    }
    let (left, right) = (left / 2.0, right * 4.0);
    let middle = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        crate::stats::quantile(&values, 0.5)
    };
    let everywhere = rows.speeds.iter().filter(|row| row.threads == count && row.working_set == WorkingSet::Memory);
    let bandwidth = middle(everywhere.map(|row| row.ceiling_gb_per_s.median).collect());
    let peak = middle(points.iter().map(|row| row.ceiling_gops.median).collect())?;
    let corner = bandwidth.map(|bandwidth| (peak / bandwidth, bandwidth)).filter(|(corner, _)| *corner > left);
    let roof = match corner {
        Some((corner, bandwidth)) => {
            let turn = corner.min(right);
            vec![
                Point::new(left, left * bandwidth),
                Point::new(turn, turn * bandwidth),
                Point::new(right, peak.min(right * bandwidth)),
            ]
        }
        None => vec![Point::new(left, peak), Point::new(right, peak)],
    };
    let from = if corner.is_some() { "memory and " } else { "" };
    let name = format!("{from}{arithmetic} peak {} GOPS", format::number(peak, 3));
    let mut series = vec![Series { name, look: Look::Limit(0), points: roof }];
    for (colour, isa) in Isa::ALL.iter().enumerate() {
        for working_set in WorkingSet::ALL {
            let of_kind = points.iter().filter(|row| row.isa == isa.name() && row.working_set == working_set);
            let points: Vec<Point> = of_kind.map(|row| Point::new(intensity(row), row.gops)).collect();
            if !points.is_empty() {
                let look = match working_set {
                    WorkingSet::Memory => Look::Marks(colour),
                    _ => Look::Outlines(colour),
                };
                series.push(Series { name: format!("{isa}, {}", working_set.name()), look, points });
            }
        }
    }
    let axis = |label: &str| Axis { label: label.to_string(), scale: Scale::Log };
    let bandwidth = corner.map_or_else(String::new, |(_, bandwidth)| {
        format!(
            " The slope is the bandwidth of memory ({} GB/s, the median of those measured beside the cases); cases in cache may lie \
             above it.",
            format::number(bandwidth, 3)
        )
    });
    Some(Figure {
        name: format!("roofline-{arithmetic}-{count}"),
        caption: format!(
            "Roofline of {arithmetic} arithmetic on {}: operations a second against operations a byte. Each mark is a variant of a \
             case.{bandwidth}",
            threads(count)
        ),
        chart: Chart { x: axis("operations a byte"), y: axis("GOPS"), series },
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Status, bench::example};
    use super::*;
    use crate::contest::Budget;
    use crate::lab::Threads;

    fn config() -> Config {
        Config {
            budget: Budget { sample_ms: 2.0, min_blocks: 9, max_blocks: 99, seconds: 1.0, precision: 0.01 },
            threads: Threads::default(),
            scalar_operations: 1_000_000,
            others: 1,
            cases: vec![super::super::Case {
                ops: vec!["ternary/i2".to_string()],
                shapes: Vec::new(),
                working_sets: Vec::new(),
                threads: None,
                together: false,
                batches: false,
            }],
        }
    }

    fn rows() -> Vec<Row> {
        let mut rows = vec![Row::Variant(VariantRow {
            comparator: None,
            op: "ternary/i2".to_string(),
            isa: "avx2".to_string(),
            status: Status::Inherited,
            code_of: Some("scalar".to_string()),
        })];
        for (isa, speed) in [("scalar", 0.01), ("avx512", 1.0)] {
            for working_set in [WorkingSet::Cache, WorkingSet::Memory] {
                for threads in [1, 2] {
                    rows.push(Row::Speed(Box::new(example("ternary/i2", isa, working_set, threads, speed))));
                }
            }
        }
        rows
    }

    #[test]
    fn findings_quote_the_rows_of_the_highest_isa() {
        let section = section(&config(), &rows());
        assert_eq!(
            section.findings[0],
            "One `ternary/i2@avx512` of 2560 × 6912 in cache is 100× [98.0, 102] as fast as scalar."
        );
        assert!(
            section.findings[1].contains("80 % [78, 82] on one thread (20.0 GB/s) and 80 % [78, 82] on two threads")
        );
        let figures: Vec<&str> = section
            .parts
            .iter()
            .filter_map(|part| match part {
                Part::Figure(figure) => Some(figure.name.as_str()),
                _ => None,
            })
            .collect();
        assert_eq!(figures, ["speedup", "share"], "one intensity makes no roofline");
    }

    #[test]
    fn ops_that_were_timed_together_are_compared_with_the_first() {
        let mut rows = rows();
        let mut other = example("ternary/t5", "avx512", WorkingSet::Cache, 1, 1.25);
        (other.rival, other.speedup_over_rival) = (Some("ternary/i2".to_string()), Some(Timed::once(1.25)));
        rows.push(Row::Speed(Box::new(other)));
        let section = section(&config(), &rows);
        let tables = section.parts.iter().filter_map(|part| match part {
            Part::Table(table) => Some(table),
            _ => None,
        });
        let table = tables.into_iter().find(|table| table.rows().iter().any(|row| row[2] == "`ternary/t5`")).unwrap();
        let ops: Vec<(&str, &str)> = table.rows().iter().map(|row| (row[2].as_str(), row[8].as_str())).collect();
        assert_eq!(ops, [("`ternary/i2`", "–"), ("`ternary/t5`", "1.25 [1.25, 1.25]")]);
        assert!(section.findings.iter().any(|text| text.contains("`ternary/t5@avx512`") && text.contains("1.25")));
        assert!(
            section.findings[0].starts_with("One `ternary/i2@avx512`"),
            "not the faster one: it is compared by itself"
        );
    }

    #[test]
    fn what_is_inherited_is_said_and_every_figure_can_be_drawn() {
        let section = section(&config(), &rows());
        let Part::Table(coverage) = &section.parts[0] else { panic!("coverage comes first") };
        assert_eq!(coverage.rows()[0], ["`ternary/i2`", "–", "= scalar", "–"]);
        for part in &section.parts {
            if let Part::Figure(figure) = part {
                crate::report::figures::svg(&figure.chart).unwrap();
            }
        }
    }

    #[test]
    fn a_run_without_rows_has_a_section_all_the_same() {
        let section = section(&config(), &[]);
        assert!(section.findings.is_empty() && section.parts.is_empty() && !section.method.is_empty());
    }
}
