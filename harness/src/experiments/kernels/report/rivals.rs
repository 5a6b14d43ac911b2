//! Ops that were timed together: which is the fastest?

use kernels::Isa;

use super::super::{SpeedRow, WorkingSet};
use super::Rows;
use crate::report::{Table, format};

/// The op that does best, on one token and one thread, against the one that it was timed together with.
pub(super) fn finding(best: &[&SpeedRow], working_set: WorkingSet) -> Option<String> {
    let rows = best.iter().filter(|row| (row.tokens, row.threads, row.working_set) == (1, 1, working_set));
    let compared = rows.filter_map(|row| Some((row, row.rival.as_ref()?, row.speedup_over_rival?)));
    let (row, rival, speedup) = compared.max_by(|a, b| a.2.median.total_cmp(&b.2.median))?;
    Some(format!(
        "On one token and one thread {} `{}@{}` of {} × {} is {} as fast as `{rival}`, the best of those that were timed \
         together with it.",
        row.working_set.told(),
        row.op,
        row.isa,
        row.rows,
        row.columns,
        format::ratio(&speedup, 3)
    ))
}

/// Ops that were timed together, each against the first of them.
pub(super) fn table(rows: &Rows<'_>) -> Option<Table> {
    let caption = "Ops that were timed together: contestants of the same blocks on the same shape. Bits are what a call must \
                   move, over the weights; weights a second count each once for every token; the last column is the ratio within blocks to the first op on the same level.";
    let mut table = Table::new(
        caption,
        &[
            "<shape R×C×T, data, threads",
            "<ISA",
            "<op",
            ">bits a weight",
            ">a call",
            ">GB/s",
            ">G weights/s",
            ">share of ceiling",
            ">× first",
        ],
    );
    let together = |row: &&&SpeedRow| {
        let first = |other: &SpeedRow| other.rival.as_ref() == Some(&row.op);
        row.rival.is_some()
            || rows.speeds.iter().any(|other| {
                first(other) && other.isa == row.isa && other.shape() == row.shape() && same_setting(other, row)
            })
    };
    let mut listed: Vec<&&SpeedRow> = rows.speeds.iter().filter(together).collect();
    // Levels side by side; the sort keeps the order of ops.
    listed.sort_by_key(|row| {
        let case = rows.speeds.iter().position(|other| other.shape() == row.shape() && same_setting(other, row));
        (case, row.isa.parse::<Isa>().ok())
    });
    for row in &listed {
        let (r, c, t) = (row.rows, row.columns, row.tokens);
        table.grouped_row(
            2,
            vec![
                format!("{r}×{c}×{t}, {}, {}", row.working_set.name(), row.threads),
                row.isa.clone(),
                format!("`{}`", row.op),
                format::number(8.0 * row.work_bytes as f64 / (r * c).max(1) as f64, 3),
                format::seconds(row.call_us.median / 1e6),
                format::number(row.gb_per_s.median, 3),
                format::number(row.gops.median / 2.0, 3),
                format::timed_percent(&row.share_of_ceiling),
                row.speedup_over_rival.map_or("–".to_string(), |ratio| format::timed(&ratio, 3)),
            ],
        );
    }
    (!listed.is_empty()).then_some(table)
}

fn same_setting(a: &SpeedRow, b: &SpeedRow) -> bool {
    (a.working_set, a.threads) == (b.working_set, b.threads)
}
