//! `harness logits`: what a model computes, in a file, so that anyone can compare it with another implementation.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result};
use engines::{Model, Token};
use safetensors::tensor::{Dtype, TensorView};

use crate::cli::UserError;
use crate::compute::Compute;
use crate::model;

/// What may be said after `harness logits`.
#[derive(clap::Args)]
#[command(after_help = "\
Writes a safetensors file with the tensor `logits` [T, V] (f32): row t holds what follows tokens 0 to t. With --hidden \
also `hidden.00` (embedding output), `hidden.01` ... (after each block), each [T, D], before the final norm. No token is \
added in front. --stepwise reads one token at a time; the bits are the same.

Example:
  harness logits --model ./my-model --tokens 1,15043,3186 --hidden --out out.safetensors")]
pub struct Args {
    /// A name in models/, a folder, a file, or synthetic:SHAPE or synthetic:SHAPE:SEED
    #[arg(long, value_name = "MODEL")]
    model: String,
    /// Tokens to read, as numbers
    #[arg(long, value_name = "N,N,...", value_delimiter = ',', required = true)]
    tokens: Vec<Token>,
    /// The file to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Write hidden states too
    #[arg(long)]
    hidden: bool,
    /// Read one token at a time
    #[arg(long)]
    stepwise: bool,
    #[command(flatten)]
    compute: Compute,
}

/// Does what `args` ask.
///
/// # Errors
/// An unknown model, tokens that it does not have or too many of them, a file that cannot be written.
pub fn run(args: Args) -> Result<()> {
    let settings = args.compute.settings()?;
    let loaded = model::load(&args.model, &settings)?;
    let facts = loaded.model.facts();
    if let Some(token) = args.tokens.iter().find(|token| **token as usize >= facts.vocab) {
        let (name, vocab) = (&loaded.name, facts.vocab);
        return Err(UserError::new(format!("token {token} is outside the vocabulary of {name}, which has {vocab}")));
    }
    if let Some(context) = facts.context.filter(|context| args.tokens.len() > *context) {
        let (name, len) = (&loaded.name, args.tokens.len());
        return Err(UserError::new(format!("{len} tokens: the context of {name} holds {context}")));
    }
    let piece = if args.stepwise { 1 } else { args.tokens.len() };
    let tensors = trace(&*loaded.model, &args.tokens, piece, args.hidden)?;
    write(&args.out, &tensors)?;
    eprintln!("wrote {} of {} tokens to {}", names(&tensors), args.tokens.len(), args.out.display());
    Ok(())
}

/// A tensor `[rows, columns]`.
struct Tensor {
    columns: usize,
    values: Vec<f32>,
}

/// Logits and perhaps hidden states of `tokens`, read `piece` at a time.
fn trace(model: &dyn Model, tokens: &[Token], piece: usize, hidden: bool) -> Result<BTreeMap<String, Tensor>> {
    let facts = model.facts();
    let mut tensors = BTreeMap::new();
    let mut append = |name: String, columns: usize, values: &[f32]| {
        let tensor = tensors.entry(name).or_insert_with(|| Tensor { columns, values: Vec::new() });
        tensor.values.extend_from_slice(values);
    };
    let mut state = model.start(0);
    for tokens in tokens.chunks(piece) {
        let trace = model.trace(&mut state, tokens)?;
        append("logits".to_string(), facts.vocab, trace.logits.as_slice());
        for (i, values) in trace.hidden.iter().enumerate().filter(|_| hidden) {
            append(format!("hidden.{i:02}"), facts.width, values);
        }
    }
    Ok(tensors)
}

fn names(tensors: &BTreeMap<String, Tensor>) -> String {
    match tensors.len() {
        1 => "logits".to_string(),
        n => format!("logits and {} hidden states", n - 1),
    }
}

fn write(path: &PathBuf, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
    let bytes: BTreeMap<&str, (usize, Vec<u8>)> = tensors
        .iter()
        .map(|(name, tensor)| {
            let bytes = tensor.values.iter().flat_map(|value| value.to_le_bytes()).collect();
            (name.as_str(), (tensor.columns, bytes))
        })
        .collect();
    let mut views = Vec::new();
    for (name, (columns, bytes)) in &bytes {
        let shape = vec![bytes.len() / 4 / columns, *columns];
        views.push((*name, TensorView::new(Dtype::F32, shape, bytes).with_context(|| format!("tensor {name}"))?));
    }
    let file = safetensors::serialize(views, None).context("cannot write the tensors")?;
    std::fs::write(path, file).map_err(|error| UserError::new(format!("cannot write {}: {error}", path.display())))
}
