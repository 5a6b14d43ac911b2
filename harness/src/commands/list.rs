//! `harness list`: everything that has a name.

use anyhow::Result;
use engines::{ARCHITECTURES, NamedShape, SHAPES};
use kernels::Isa;
use kernels::probe::Tolerance;
use kernels::ternary::Layout;
use serde::Serialize;

use super::experiment::files;
use crate::experiment::Plan;
use crate::guests::Guests;
use crate::report::format;
use crate::{dataset, model, output, root, table};

/// What may be said after `harness list`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Everything {
    experiments: Vec<ExperimentLine>,
    models: Vec<ModelLine>,
    shapes: Vec<ShapeLine>,
    architectures: Vec<ArchitectureLine>,
    texts: Vec<TextLine>,
    ops: Vec<OpLine>,
    layouts: Vec<LayoutLine>,
    isas: Vec<IsaLine>,
}

#[derive(Serialize)]
struct ExperimentLine {
    name: String,
    experiment: &'static str,
    question: &'static str,
}

#[derive(Serialize)]
struct ModelLine {
    name: String,
    architecture: String,
    parameters: u64,
    /// None for a model of a synthetic task.
    held_out_bits_per_byte: Option<f64>,
    description: String,
}

#[derive(Serialize)]
struct ShapeLine {
    name: String,
    architecture: String,
    layers: u64,
    width: u64,
    vocab: u64,
}

#[derive(Serialize)]
struct ArchitectureLine {
    name: &'static str,
    recognised_by: &'static str,
    source: &'static str,
}

#[derive(Serialize)]
struct TextLine {
    name: String,
    dataset: String,
    license: String,
    present: bool,
}

#[derive(Serialize)]
struct OpLine {
    name: &'static str,
    own: Vec<&'static str>,
    /// How far variants may differ; absent where they give the same bits.
    tolerance: Option<f32>,
    /// What it stands for, if others are judged against it.
    comparator: Option<&'static str>,
}

#[derive(Serialize)]
struct LayoutLine {
    name: &'static str,
    bits_per_weight: f64,
}

#[derive(Serialize)]
struct IsaLine {
    name: &'static str,
    available: bool,
}

/// Does what `args` ask.
///
/// # Errors
/// Cards or experiments that cannot be read, output that cannot be written.
pub fn run(args: Args, guests: &Guests) -> Result<()> {
    let everything = everything(guests)?;
    if args.json { output::json(&everything) } else { output::text(&text(&everything)) }
}

fn everything(guests: &Guests) -> Result<Everything> {
    let experiment = |path: std::path::PathBuf| {
        let plan = Plan::read(&path, false)?;
        Ok(ExperimentLine { name: plan.name, experiment: plan.entry.name, question: plan.entry.question })
    };
    let mut texts = Vec::new();
    for card in dataset::list()? {
        for name in card.texts.keys() {
            texts.push(TextLine {
                name: name.clone(),
                dataset: card.name.clone(),
                license: card.license.clone(),
                present: dataset::is_present(name)?,
            });
        }
    }
    Ok(Everything {
        experiments: files(&root::root().join("experiments"))?.into_iter().map(experiment).collect::<Result<_>>()?,
        models: model::list()?
            .into_iter()
            .map(|card| ModelLine {
                name: card.name,
                architecture: card.architecture,
                parameters: card.parameters,
                held_out_bits_per_byte: card.evaluation.held_out_bits_per_byte,
                description: card.description,
            })
            .collect(),
        shapes: SHAPES.iter().map(shape).collect::<Result<_>>()?,
        architectures: ARCHITECTURES
            .iter()
            .map(|a| ArchitectureLine { name: a.name, recognised_by: a.recognised_by, source: a.source })
            .collect(),
        texts,
        ops: guests
            .all_ops()
            .iter()
            .map(|op| OpLine {
                name: op.name,
                own: op.own_tables().iter().map(|table| table.isa().name()).collect(),
                comparator: op.comparator,
                tolerance: match op.tolerance {
                    Tolerance::Exact => None,
                    Tolerance::Absolute(most, _) => Some(most),
                },
            })
            .collect(),
        layouts: Layout::ALL.map(|layout| LayoutLine { name: layout.name(), bits_per_weight: layout.bits() }).into(),
        isas: Isa::ALL.map(|isa| IsaLine { name: isa.name(), available: isa.is_available() }).into(),
    })
}

/// What a shape's config says of it.
fn shape(shape: &NamedShape) -> Result<ShapeLine> {
    let config: serde_json::Value = serde_json::from_str(shape.config)?;
    let number = |key: &str| config[key].as_u64().unwrap_or(0);
    Ok(ShapeLine {
        name: format!("synthetic:{}", shape.name),
        architecture: config["model_type"].as_str().unwrap_or_default().to_string(),
        layers: number("num_hidden_layers"),
        width: number("hidden_size"),
        vocab: number("vocab_size"),
    })
}

fn text(all: &Everything) -> String {
    let yes = |is: bool| if is { "yes" } else { "no" }.to_string();
    let parts = [
        table::plain(
            ["experiment", "of", "question"],
            all.experiments.iter().map(|e| [e.name.clone(), e.experiment.to_string(), e.question.to_string()]),
        ),
        table::plain(
            ["model", "architecture", "parameters", "bits a byte, held out"],
            all.models.iter().map(|m| {
                let bits = m.held_out_bits_per_byte.map_or("–".to_string(), |bits| format::number(bits, 4));
                [m.name.clone(), m.architecture.clone(), format::integer(m.parameters), bits]
            }),
        ),
        table::plain(
            ["shape", "architecture", "layers", "width", "vocabulary"],
            all.shapes.iter().map(|s| {
                let [layers, width, vocab] = [s.layers, s.width, s.vocab].map(|n| n.to_string());
                [s.name.clone(), s.architecture.clone(), layers, width, vocab]
            }),
        ),
        table::plain(
            ["architecture", "recognised by"],
            all.architectures.iter().map(|a| [a.name.to_string(), a.recognised_by.to_string()]),
        ),
        table::plain(
            ["text", "of dataset", "licence", "here"],
            all.texts.iter().map(|t| [t.name.clone(), t.dataset.clone(), t.license.clone(), yes(t.present)]),
        ),
        table::plain(
            ["op", "own variants", "results", ""],
            all.ops.iter().map(|op| {
                let results = op.tolerance.map_or("same bits".to_string(), |most| format!("within {most}"));
                let role = if op.comparator.is_some() { "comparator" } else { "" };
                [op.name.to_string(), op.own.join(" "), results, role.to_string()]
            }),
        ),
        table::plain(
            ["ternary layout", "bits a weight"],
            all.layouts.iter().map(|l| [l.name.to_string(), format::number(l.bits_per_weight, 3)]),
        ),
        table::plain(["ISA", "on this CPU"], all.isas.iter().map(|isa| [isa.name.to_string(), yes(isa.available)])),
    ];
    parts.join("\n\n") + "\n"
}
