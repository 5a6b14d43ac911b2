//! The context experiment's section.

use super::{Config, MemoryRow, Row, StepRow};
use crate::report::figures::{Axis, Look, Point, Scale, Series};
use crate::report::{Chart, Figure, Part, Section, Table, format};

pub(super) fn section(config: &Config, rows: &[Row]) -> Section {
    let (mut memories, mut steps) = (Vec::new(), Vec::new());
    for row in rows {
        match row {
            Row::Memory(row) => memories.push(row),
            Row::Step(row) => steps.push(row),
        }
    }
    let mut parts = Vec::new();
    if !memories.is_empty() {
        parts.push(Part::Table(memory_table(&memories)));
    }
    if let Some(table) = crossings(&memories) {
        parts.push(Part::Table(table));
    }
    if !steps.is_empty() {
        parts.push(Part::Figure(figure(&memories, &steps)));
        parts.push(Part::Table(step_table(&steps)));
    }
    Section {
        title: "Cost of context".to_string(),
        findings: findings(&memories, &steps),
        method: vec![format!(
            "Each model reads random tokens up to each depth; from there a sample decodes {} of them, one after the other, and \
             counts all but the first, for which the weights of another model lie in the caches. All models and depths are \
             contestants of the same blocks. Caches ({}) are rewound after a sample; recurrent memories, whose cost does not \
             depend on what they have read, go on from where they are. Bytes are those of the numbers that a sequence needs; \
             memory that is reserved for growth, or for going back, comes on top.",
            config.steps, config.cache
        )],
        parts,
        limits: vec![
            "One sequence at a time; a server that holds many multiplies the memory, not the weights.".to_string(),
            "Time and bytes say nothing of what a model still knows of a text that it read long ago.".to_string(),
        ],
    }
}

/// Names of the models whose memory grows, and of those whose does not.
fn kinds<'r>(memories: &[&'r MemoryRow]) -> (Vec<&'r MemoryRow>, Vec<&'r MemoryRow>) {
    memories.iter().copied().partition(|row| row.cache_bytes_per_position.exact > 0)
}

/// The length from which on a memory of one size is the smaller one, rounded up.
fn crossing(state: &MemoryRow, cache: &MemoryRow) -> u64 {
    state.state_bytes.exact.div_ceil(cache.cache_bytes_per_position.exact)
}

fn findings(memories: &[&MemoryRow], steps: &[&StepRow]) -> Vec<String> {
    let mut findings = Vec::new();
    for memory in memories {
        let of_model = || steps.iter().filter(|row| row.model == memory.model);
        let Some(last) = of_model().max_by_key(|row| row.depth) else { continue };
        let Some(first) = of_model().min_by_key(|row| row.depth).filter(|first| first.depth < last.depth) else {
            continue;
        };
        findings.push(format!(
            "`{}`: a step after {} tokens takes {} of the time of one after {}, and the sequence needs {} instead of {}.",
            memory.model,
            format::integer(last.depth as u64),
            format::ratio(&last.over_shortest, 3),
            format::integer(first.depth as u64),
            format::bytes(last.held_bytes.exact),
            format::bytes(first.held_bytes.exact),
        ));
    }
    findings
}

fn memory_table(memories: &[&MemoryRow]) -> Table {
    let mut table = Table::new(
        "What the models read and remember.",
        &["<model", "<architecture", ">parameters", ">weights a token", ">cache a position", ">state", ">context"],
    );
    for row in memories {
        table.row(vec![
            format!("`{}`", row.model),
            row.architecture.clone(),
            format::integer(row.parameters.exact),
            format::bytes(row.weight_bytes.exact),
            format::bytes(row.cache_bytes_per_position.exact),
            format::bytes(row.state_bytes.exact),
            row.context.map_or("no limit".to_string(), |context| format::integer(context as u64)),
        ]);
    }
    table
}

/// For each pair of a cache and a state, the length from which on the state is smaller.
fn crossings(memories: &[&MemoryRow]) -> Option<Table> {
    let (caches, states) = kinds(memories);
    let mut titles = vec!["<state of".to_string()];
    titles.extend(caches.iter().map(|cache| format!(">cache of `{}`", cache.model)));
    let titles: Vec<&str> = titles.iter().map(String::as_str).collect();
    let mut table = Table::new("Tokens from which on the state is smaller than the cache.", &titles);
    for state in &states {
        let lengths = caches.iter().map(|cache| format::integer(crossing(state, cache)));
        table.row(std::iter::once(format!("`{}`", state.model)).chain(lengths).collect());
    }
    (!caches.is_empty() && !states.is_empty()).then_some(table)
}

fn step_table(steps: &[&StepRow]) -> Table {
    let mut table = Table::new(
        "Steps by depth. The ratio is to the least depth of the same model, within blocks.",
        &["<model", ">depth", ">remembered", ">step, ms", ">× shortest", ">n"],
    );
    for row in steps {
        table.grouped_row(
            1,
            vec![
                format!("`{}`", row.model),
                format::integer(row.depth as u64),
                format::bytes(row.held_bytes.exact),
                format::timed(&row.step_ms, 3),
                format::timed(&row.over_shortest, 3),
                row.step_ms.n.to_string(),
            ],
        );
    }
    table
}

fn figure(memories: &[&MemoryRow], steps: &[&StepRow]) -> Figure {
    let series = memories.iter().enumerate().map(|(look, memory)| Series {
        name: memory.model.clone(),
        look: Look::Joined(look),
        points: steps
            .iter()
            .filter(|row| row.model == memory.model)
            .map(|row| Point::new(row.depth as f64, row.over_shortest))
            .collect(),
    });
    Figure {
        name: "steps".to_string(),
        caption: "The time of a step over that at the model's least depth, by depth, with 95 % intervals.".to_string(),
        chart: Chart {
            x: Axis { label: "tokens read before".to_string(), scale: Scale::Log },
            y: Axis { label: "time over the shortest".to_string(), scale: Scale::Linear },
            series: series.collect(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contest::Budget;
    use crate::quantity::{Timed, determined};

    fn memory(model: &str, cache: u64, state: u64) -> Row {
        Row::Memory(MemoryRow {
            model: model.to_string(),
            architecture: "a".to_string(),
            parameters: determined(10),
            weight_bytes: determined(20),
            cache_bytes_per_position: determined(cache),
            state_bytes: determined(state),
            context: None,
        })
    }

    fn step(model: &str, depth: usize, ratio: f64) -> Row {
        let timed = |median| Timed { median, low: median, high: median, n: 5 };
        Row::Step(StepRow {
            model: model.to_string(),
            depth,
            held_bytes: determined(depth as u64),
            step_ms: timed(2.0 * ratio),
            over_shortest: timed(ratio),
        })
    }

    #[test]
    fn the_crossing_is_where_the_cache_has_outgrown_the_state() {
        let config = Config {
            budget: Budget { sample_ms: 1.0, min_blocks: 1, max_blocks: 2, seconds: 1.0, precision: 0.1 },
            cache: "f32".to_string(),
            models: Vec::new(),
            depths: vec![128],
            steps: 2,
        };
        let rows =
            [memory("grows", 10, 0), memory("stays", 0, 1001), step("grows", 128, 1.0), step("grows", 4096, 1.5)];
        let section = section(&config, &rows);
        assert!(section.findings[0].contains("after 4,096 tokens takes 1.5"), "{:?}", section.findings);
        let Part::Table(table) = &section.parts[1] else { panic!("no table of crossings") };
        assert_eq!(table.rows()[0], ["`stays`", "101"]);
        // Rows may be missing.
        assert!(super::section(&config, &rows[..1]).findings.is_empty());
        assert!(super::section(&config, &[]).parts.is_empty());
    }
}
