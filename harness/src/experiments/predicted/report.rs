//! The section of predictions.

use super::{Config, InstructionRow, LoopRow, PredictedRow, Row};
use crate::report::{Part, Section, Table, format};

pub(super) fn section(config: &Config, rows: &[Row]) -> Section {
    let (mut absent, mut loops, mut instructions, mut predicted) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for row in rows {
        match row {
            Row::Absent { subject, reason, remedy } => absent.push((subject, reason, remedy)),
            Row::Loop(row) => loops.push(row),
            Row::Instruction(row) => instructions.push(row),
            Row::Predicted(row) => predicted.push(row),
        }
    }
    let mut parts = Vec::new();
    for (subject, reason, remedy) in absent {
        parts.push(Part::Text(format!("There are no predictions for {subject}: {reason}. Needed: {remedy}.")));
    }
    parts.extend(borrowed(config, &predicted).into_iter().map(Part::Text));
    if !predicted.is_empty() {
        parts.push(Part::Table(table(config, &predicted)));
    }
    if !instructions.is_empty() {
        parts.push(Part::Table(instruction_table(config, &instructions)));
    }
    if loops.iter().any(|row| row.hot) {
        parts.push(Part::Table(loop_table(&loops)));
    }
    Section {
        title: "Predicted cycles".to_string(),
        findings: findings(config, &predicted),
        method: method(config),
        parts,
        limits: vec![
            "Nothing in this section was measured. A scheduling model knows no caches (every load is taken to hit the \
             first level), no branches that are mispredicted and no limits of fetching, and its descriptions of CPUs \
             have errors, some of which the table of single instructions shows. A prediction below the least cycles is \
             too low for sure."
                .to_string(),
            "One turn of the innermost loop is all that is looked at: not the making of lookup tables or panels, not \
             what is done once for several turns, such as widening sums."
                .to_string(),
        ],
    }
}

fn method(config: &Config) -> Vec<String> {
    vec![
        format!(
            "The loops are read from the machine code of the very program that ran the other experiments: of each \
             variant, the innermost loops with the instructions that do its work. One turn follows the branches that \
             run through the most vector instructions. Hot is, for one token, the loop that walks the most streams of \
             memory and, for several, the one with the most such instructions. Weights of a turn are counted by its \
             prefetches, one for each line of packed weights, by its loads, or by the instructions that multiply, and \
             tokens by the instructions that multiply or look up. What is done once around an innermost loop, as the \
             scales of a group, is not counted. `llvm-mca` schedules each loop for {} and for {} turns; the difference is what is \
             given.",
            format::integer(config.turns as u64),
            format::integer(2 * config.turns as u64),
        ),
        "The least cycles are no schedule: instructions of each kind are counted and divided by the widths that the \
         CPU's maker documents (operations that enter in a cycle, vector pipes, those that multiply or shuffle, loads, \
         stores)."
            .to_string(),
    ]
}

/// The CPU asked for before with whose description another is scheduled, if it is.
fn lender<'a>(rows: &[&'a PredictedRow], cpu: &str) -> Option<&'a PredictedRow> {
    let row = rows.iter().find(|row| row.cpu == cpu)?;
    rows.iter().find(|earlier| earlier.description == row.description).copied().filter(|earlier| earlier.cpu != cpu)
}

/// Which CPUs have no description of their own.
fn borrowed(config: &Config, rows: &[&PredictedRow]) -> Vec<String> {
    let told = config.cpus.iter().filter_map(|cpu| {
        let PredictedRow { tool, cpu: other, description, .. } = lender(rows, cpu)?;
        Some(format!(
            "{tool} has no description of `{cpu}`: it takes that of `{other}` (its resources are called \
             `{description}…`). So what the tool predicts for `{cpu}` is what it predicts for `{other}`; of what is \
             wider in `{cpu}` only the least cycles tell."
        ))
    });
    told.collect()
}

fn findings(config: &Config, rows: &[&PredictedRow]) -> Vec<String> {
    let finding = |cpu: &String| {
        let of_cpu = || rows.iter().filter(|row| row.cpu == *cpu && row.tokens == 1 && row.op.starts_with("ternary/"));
        let fastest = |isa: &str| {
            of_cpu()
                .filter(|row| row.isa == isa)
                .min_by(|a, b| a.predicted_cycles_per_64_weights.total_cmp(&b.predicted_cycles_per_64_weights))
        };
        let of_isa = |row: &PredictedRow| {
            format!(
                "`{}@{}` with {} cycles for 64 weights",
                row.op,
                row.isa,
                format::number(row.predicted_cycles_per_64_weights, 3)
            )
        };
        let told: Vec<String> =
            ["avx2", "avx512"].iter().filter_map(|isa| fastest(isa)).map(|row| of_isa(row)).collect();
        let other = rows.iter().find(|row| row.cpu == *cpu)?;
        (!told.is_empty()).then(|| {
            format!(
                "Predicted, not measured, for one token on `{cpu}` as {} describes it (`{}`): the fastest ternary loop is \
                 {}.",
                other.tool,
                other.description,
                format::list(&told)
            )
        })
    };
    // A borrowed description gives no finding of its own.
    config.cpus.iter().filter(|cpu| lender(rows, cpu).is_none()).filter_map(finding).collect()
}

fn table(config: &Config, rows: &[&PredictedRow]) -> Table {
    let caption = "Predicted cycles for 64 weights, in brackets for 64 weights and one token, by what the loop is held \
                   up; and the least that documented widths allow. None of these was measured.";
    let mut headings = vec!["<variant".to_string(), ">tokens".to_string()];
    for cpu in &config.cpus {
        headings.extend([format!(">predicted, {cpu}"), "<held up by".to_string(), format!(">least, {cpu}")]);
    }
    let headings: Vec<&str> = headings.iter().map(String::as_str).collect();
    let mut table = Table::new(caption, &headings);
    let mut told: Vec<&str> = Vec::new();
    for row in rows {
        if told.contains(&row.address.as_str()) {
            continue;
        }
        told.push(&row.address);
        let mut cells = vec![format!("`{}@{}`", row.op, row.isa), row.tokens.to_string()];
        for cpu in &config.cpus {
            let Some(row) = rows.iter().find(|other| other.address == row.address && other.cpu == *cpu) else {
                cells.extend(["–"; 3].map(str::to_string));
                continue;
            };
            let show = |cycles: f64| {
                let all = format::number(cycles, 3);
                let one = format::number(cycles / row.tokens as f64, 3);
                if row.tokens == 1 { all } else { format!("{all} ({one})") }
            };
            if let Some(other) = lender(rows, cpu) {
                cells.extend([format!("as {}", other.cpu), "–".to_string()]);
            } else {
                cells.extend([show(row.predicted_cycles_per_64_weights), row.predicted_bottleneck.clone()]);
            }
            cells.push(match (row.least_cycles, &row.least_because) {
                (Some(cycles), Some(because)) => {
                    format!("{}, {because}", show(cycles / row.weights as f64 * 64.0))
                }
                _ => "–".to_string(),
            });
        }
        table.row(cells);
    }
    table
}

fn instruction_table(config: &Config, rows: &[&InstructionRow]) -> Table {
    let caption = "What the tool thinks of single instructions: predicted cycles for one of many that do not depend on \
                   each other, and the least that documented widths allow. Where the two differ, predictions of loops \
                   that live on the instruction are as far off.";
    let mut headings = vec!["<instruction".to_string()];
    for cpu in &config.cpus {
        headings.extend([format!(">predicted, {cpu}"), format!(">least, {cpu}")]);
    }
    let headings: Vec<&str> = headings.iter().map(String::as_str).collect();
    let mut table = Table::new(caption, &headings);
    let mut told: Vec<&str> = Vec::new();
    for InstructionRow { instruction, .. } in rows {
        if told.contains(&instruction.as_str()) {
            continue;
        }
        told.push(instruction);
        let mut cells = vec![format!("`{instruction}`")];
        for cpu in &config.cpus {
            let row = rows.iter().find(|row| row.instruction == *instruction && row.cpu == *cpu);
            let show = |cycles: Option<f64>| cycles.map_or("–".to_string(), |cycles| format::number(cycles, 3));
            cells.push(show(row.map(|row| row.predicted_cycles)));
            cells.push(show(row.and_then(|row| row.least_cycles)));
        }
        table.row(cells);
    }
    table
}

fn loop_table(rows: &[&LoopRow]) -> Table {
    let caption = "The hot loops as this program has them. Spills write a vector register to the stack. The other \
                   loops of these variants are in the rows.";
    let mut table = Table::new(
        caption,
        &["<variant", ">tokens", "<address", ">instructions", ">with vectors", ">spills", ">weights a turn"],
    );
    for row in rows.iter().filter(|row| row.hot) {
        table.row(vec![
            format!("`{}@{}`", row.op, row.isa),
            row.tokens.to_string(),
            format!("`{}`", row.address),
            row.instructions.to_string(),
            row.vector_instructions.to_string(),
            row.spills.to_string(),
            format::integer(row.weights as u64),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn predicted(cpu: &str, cycles: f64) -> Row {
        Row::Predicted(PredictedRow {
            op: "ternary/i2".to_string(),
            isa: "avx512".to_string(),
            address: "0x1000".to_string(),
            tokens: 2,
            cpu: cpu.to_string(),
            tool: "LLVM version 22.1.8".to_string(),
            description: "Zn4".to_string(),
            weights: 256,
            predicted_cycles: cycles,
            predicted_cycles_per_64_weights: cycles / 4.0,
            predicted_uops: 30.0,
            predicted_bottleneck: "Zn4FP0".to_string(),
            least_cycles: None,
            least_because: None,
        })
    }

    fn config() -> Config {
        let cpus = ["znver4", "znver5"].map(str::to_string).to_vec();
        Config { ops: vec!["ternary/i2".to_string()], cpus, turns: 100, limit_s: 1.0 }
    }

    #[test]
    fn a_description_that_two_cpus_share_is_told() {
        let section = section(&config(), &[predicted("znver4", 8.0), predicted("znver5", 8.0)]);
        assert!(section.title.contains("Predicted"));
        let Some(Part::Text(told)) = section.parts.first() else { panic!("{:?}", section.parts) };
        assert!(told.contains("has no description of `znver5`: it takes that of `znver4`"), "{told}");
        assert!(section.limits[0].contains("Nothing in this section was measured"));
    }

    #[test]
    fn no_rows_and_missing_rows_give_a_section_all_the_same() {
        assert!(section(&config(), &[]).parts.is_empty());
        let lonely = section(&config(), &[predicted("znver5", 8.0)]);
        assert_eq!(lonely.parts.len(), 1);
        let [subject, reason, remedy] = ["cycles", "cannot run llvm-mca", "install it"].map(str::to_string);
        let absent = section(&config(), &[Row::Absent { subject, reason, remedy }]);
        let Some(Part::Text(told)) = absent.parts.first() else { panic!("{:?}", absent.parts) };
        assert!(told.contains("cannot run llvm-mca") && told.contains("install it"));
    }
}
