//! What several tokens at once cost.

use kernels::Isa;

use super::super::{SpeedRow, WorkingSet};
use super::{Rows, highest};
use crate::report::figures::{Axis, Look, Point, Scale, Series};
use crate::report::{Chart, Figure, Table, format};

/// Batches that were timed together, each against the smallest.
pub(super) fn table(rows: &Rows<'_>) -> Option<Table> {
    let caption = "Batches: the time of a call for several tokens over that for the smallest batch of the same op, level and \
                   matrix, contestants of the same blocks.";
    let mut table = Table::new(
        caption,
        &[
            "<op",
            "<matrix, data, threads",
            "<ISA",
            ">tokens",
            ">a call",
            ">share of ceiling",
            ">time × that of",
            ">tokens",
        ],
    );
    let mut listed: Vec<&&SpeedRow> = rows.speeds.iter().filter(|row| row.batch_of.is_some()).collect();
    listed.sort_by_key(|row| {
        let setting = (row.rows, row.columns, row.working_set.name(), row.threads);
        (row.op.clone(), setting, row.isa.parse::<Isa>().ok(), row.tokens)
    });
    for row in &listed {
        let Some((tokens, ratio)) = row.batch_of.zip(row.time_over_batch_of) else { continue };
        table.grouped_row(
            3,
            vec![
                format!("`{}`", row.op),
                format!("{}×{}, {}, {}", row.rows, row.columns, row.working_set.name(), row.threads),
                row.isa.clone(),
                row.tokens.to_string(),
                format::seconds(row.call_us.median / 1e6),
                format::timed_percent(&row.share_of_ceiling),
                format::timed(&ratio, 3),
                tokens.to_string(),
            ],
        );
    }
    (!listed.is_empty()).then_some(table)
}

/// A figure for each matrix, place and number of threads that was timed with at least three numbers of tokens.
pub(super) fn figures(rows: &Rows<'_>) -> Vec<Figure> {
    let best = highest(rows);
    let key = |row: &SpeedRow| (row.rows, row.columns, row.working_set, row.threads);
    let mut keys = Vec::new();
    for row in best.iter().filter(|row| row.arithmetic == "int8" && row.tokens > 0) {
        if !keys.contains(&key(row)) {
            keys.push(key(row));
        }
    }
    let of_key = |key_of: &(usize, usize, WorkingSet, usize)| {
        let of: Vec<&SpeedRow> =
            best.iter().copied().filter(|row| key(row) == *key_of && row.arithmetic == "int8").collect();
        let mut tokens: Vec<usize> = of.iter().map(|row| row.tokens).collect();
        tokens.sort_unstable();
        tokens.dedup();
        (tokens.len() >= 3).then_some(of)
    };
    keys.iter().filter_map(|key| of_key(key).map(|rows| figure(&rows))).collect()
}

fn figure(rows: &[&SpeedRow]) -> Figure {
    let first = rows[0];
    let mut ops: Vec<String> = Vec::new();
    for row in rows {
        let name = format!("{}@{}", row.op, row.isa);
        if !ops.contains(&name) {
            ops.push(name);
        }
    }
    let series = ops.iter().enumerate().map(|(look, op)| {
        let mut of: Vec<&&SpeedRow> = rows.iter().filter(|row| format!("{}@{}", row.op, row.isa) == *op).collect();
        of.sort_by_key(|row| row.tokens);
        let points = of.iter().map(|row| Point::new(row.tokens as f64, row.gops)).collect();
        Series { name: op.clone(), look: Look::Joined(look), points }
    });
    let place = format!("{}x{}-{}-{}", first.rows, first.columns, first.working_set.name(), first.threads);
    Figure {
        name: format!("tokens-{place}"),
        caption: format!(
            "Operations a second by tokens at once, {} × {} {}, {}: where reading the weights stops to be the price.",
            first.rows,
            first.columns,
            first.working_set.told(),
            format::count(first.threads, "thread", "threads")
        ),
        chart: Chart {
            x: Axis { label: "tokens at once".to_string(), scale: Scale::Log },
            y: Axis { label: "GOPS".to_string(), scale: Scale::Log },
            series: series.collect(),
        },
    }
}
