//! The section of the synthetic tasks.

use super::{Asked, Config, Row, SYMBOLS, Task};
use crate::report::figures::{Axis, Extent, Look, Point, Scale, Series};
use crate::report::{Chart, Figure, Part, Section, Table, format};

pub(super) fn section(config: &Config, rows: &[Row]) -> Section {
    let (mut parts, mut findings) = (Vec::new(), Vec::new());
    for (&task, asked) in &config.tasks {
        let rows: Vec<&Row> = rows.iter().filter(|row| row.task == task).collect();
        if rows.is_empty() {
            continue;
        }
        findings.extend(finding(task, &rows));
        parts.push(Part::Figure(figure(task, asked, &rows)));
        parts.push(Part::Table(table(task, asked, &rows)));
    }
    Section {
        title: "Synthetic tasks".to_string(),
        findings,
        method: vec![
            format!(
                "Both tasks are those of the Mamba paper (arXiv 2312.00752, section 4.1) at a smaller scale. Induction heads: in a \
                 text of {SYMBOLS} random symbols a special token stands once, and again at the end; the answer is the symbol that \
                 followed it. Selective copying: symbols stand at random places among noise; the answers to the marks at the end \
                 are the symbols in order. The length counts the tokens before the marks."
            ),
            format!(
                "Each model was trained for its task alone; its card says how. It answers {} new instances of each length by its \
                 likeliest token, which is exact: the same seed gives the same shares on every ISA and number of threads. Intervals \
                 are Wilson's for 95 %; those of answers take an instance, not an answer, as one draw. By chance an answer is right \
                 one time in {SYMBOLS}.",
                format::integer(config.instances as u64)
            ),
        ],
        parts,
        limits: vec![
            "Each architecture was trained once, in minutes, with one shape and schedule: a failure says what this budget \
             reached, not what the architecture cannot do."
                .to_string(),
            "Remembered bytes are those of the numbers that a sequence needs; transformers that forget nothing pay by the token."
                .to_string(),
        ],
    }
}

/// The models of some rows, each once, in order.
fn models<'r>(rows: &[&'r Row]) -> Vec<&'r str> {
    let mut models: Vec<&str> = Vec::new();
    for row in rows {
        if !models.contains(&row.model.as_str()) {
            models.push(&row.model);
        }
    }
    models
}

fn title(task: Task) -> &'static str {
    match task {
        Task::Induction => "Induction heads",
        Task::Copying => "Selective copying",
    }
}

/// A share with one place after the point, so that a single failure in a thousand shows.
fn percent(share: f64) -> String {
    format!("{:.1}", share * 100.0)
}

fn interval(share: f64, low: f64, high: f64) -> String {
    format!("{} % [{}, {}]", percent(share), percent(low), percent(high))
}

/// `4×`, or nothing where the trained length is not known.
fn times(row: &Row) -> String {
    let ratio = |trained: u64| (row.length as f64 / trained as f64 * 100.0).round() / 100.0;
    row.trained.map_or("–".to_string(), |trained| format!("{}×", ratio(trained)))
}

/// What the models reach at the least and at the greatest length.
fn finding(task: Task, rows: &[&Row]) -> Option<String> {
    let (least, greatest) = (rows.iter().map(|row| row.length).min()?, rows.iter().map(|row| row.length).max()?);
    let at = |length: usize| {
        let rows = rows.iter().filter(|row| row.length == length);
        let shares: Vec<String> =
            rows.map(|row| format!("{} % by `{}`", percent(row.solved.exact), row.model)).collect();
        format!("of texts of {} tokens {}", format::integer(length as u64), format::list(&shares))
    };
    let longest = if greatest > least { format!(", {}", at(greatest)) } else { String::new() };
    Some(format!("{} are solved {}{longest}.", instances(task), at(least)))
}

fn instances(task: Task) -> &'static str {
    match task {
        Task::Induction => "Instances of induction heads",
        Task::Copying => "Instances of selective copying",
    }
}

fn table(task: Task, asked: &Asked, rows: &[&Row]) -> Table {
    let answers = format::count(asked.items, "answer", "answers");
    let mut table = Table::new(
        format!(
            "{}: {answers} to an instance. By chance {} % of instances are solved.",
            title(task),
            format::number(100.0 * (SYMBOLS as f64).powi(-(asked.items as i32)), 2)
        ),
        &[
            "<model",
            "<architecture",
            ">parameters",
            ">length",
            ">× trained",
            ">remembered",
            ">solved",
            ">answers right",
            ">n",
        ],
    );
    for row in rows {
        table.grouped_row(
            3,
            vec![
                format!("`{}`", row.model),
                row.architecture.clone(),
                format::integer(row.parameters.exact),
                format::integer(row.length as u64),
                times(row),
                format::bytes(row.held_bytes.exact),
                interval(row.solved.exact, row.solved_low.exact, row.solved_high.exact),
                interval(row.right.exact, row.right_low.exact, row.right_high.exact),
                format::integer(row.instances.exact as u64),
            ],
        );
    }
    table
}

fn figure(task: Task, asked: &Asked, rows: &[&Row]) -> Figure {
    let share = |row: &Row| Extent {
        at: 100.0 * row.right.exact,
        low: 100.0 * row.right_low.exact,
        high: 100.0 * row.right_high.exact,
    };
    let mut series: Vec<Series> = models(rows)
        .into_iter()
        .enumerate()
        .map(|(look, model)| Series {
            name: model.to_string(),
            look: Look::Joined(look),
            points: rows
                .iter()
                .filter(|row| row.model == model)
                .map(|row| Point::new(row.length as f64, share(row)))
                .collect(),
        })
        .collect();
    let chance = |length: &usize| Point::new(*length as f64, 100.0 / SYMBOLS as f64);
    let ends = [asked.lengths.first(), asked.lengths.last()];
    series.push(Series {
        name: "chance".to_string(),
        look: Look::Limit(1),
        points: ends.into_iter().flatten().map(chance).collect(),
    });
    Figure {
        name: task.name().to_string(),
        caption: format!("{}: share of answers that are right, by length, with 95 % intervals.", title(task)),
        chart: Chart {
            x: Axis { label: "length, tokens".to_string(), scale: Scale::Log },
            y: Axis { label: "answers right, %".to_string(), scale: Scale::Linear },
            series,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quantity::determined;

    fn row(model: &str, length: usize, solved: f64) -> Row {
        Row {
            task: Task::Copying,
            items: 8,
            model: model.to_string(),
            architecture: "a".to_string(),
            trained: Some(64),
            length,
            parameters: determined(1000),
            held_bytes: determined(length as u64),
            instances: determined(100),
            solved: determined(solved),
            solved_low: determined(solved),
            solved_high: determined(solved),
            right: determined(solved),
            right_low: determined(solved),
            right_high: determined(solved),
        }
    }

    #[test]
    fn every_model_and_length_is_reported_and_rows_may_be_missing() {
        let asked = Asked { items: 8, lengths: vec![64, 256], models: Vec::new() };
        let config = Config { instances: 100, tasks: [(Task::Copying, asked)].into() };
        let rows = [row("one", 64, 0.5), row("one", 256, 0.125), row("two", 64, 1.0)];
        let section = section(&config, &rows);
        let expected =
            "of texts of 64 tokens 50.0 % by `one` and 100.0 % by `two`, of texts of 256 tokens 12.5 % by `one`.";
        assert!(section.findings[0].ends_with(expected), "{:?}", section.findings);
        let [Part::Figure(figure), Part::Table(table)] = &section.parts[..] else { panic!("a figure and a table") };
        assert_eq!(figure.chart.series.len(), 3);
        assert_eq!((table.rows().len(), table.rows()[1][4].as_str()), (3, "4×"));
        assert!(super::section(&config, &[]).parts.is_empty());
    }
}
