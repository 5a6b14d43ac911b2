//! `harness perplexity`: how well a model predicts a text.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use serde_json::json;

use crate::cli::UserError;
use crate::compute::{Compute, at_least_one};
use crate::dataset::{self, Text};
use crate::score::{self, Score, ScoreConfig};
use crate::{model, output};

/// The windows' length where none is asked for: as most published numbers for small models have it.
const DEFAULT_CONTEXT: usize = 512;

/// What may be said after `harness perplexity`.
#[derive(clap::Args)]
#[command(after_help = "\
Protocol: the text is cut into windows of --context tokens without overlap, each read after the tokenizer's \
beginning-of-text token (if it has one), so every token is predicted exactly once. With --documents the text is first \
cut at the separator; each document is stripped of white space and scored alone. Bits per byte divide by the bytes of \
the scored text. Standard errors take windows as independent (runs of tokens, where there are fewer than 16 windows). \
The numbers have the same bits on every CPU, ISA level and number of threads.

Examples:
  harness perplexity --model bitnet-5m --dataset almanac
  harness perplexity --model ./my-model --text book.txt --context 1024 --max-tokens 20000 --json
  harness perplexity --model stories260K.bin --dataset tinystories-sample --documents --limit 40")]
pub struct Args {
    /// A name in models/, a folder, a file, or synthetic:SHAPE or synthetic:SHAPE:SEED
    #[arg(long, value_name = "MODEL")]
    model: String,
    #[command(flatten)]
    source: Source,
    /// Positions of a window [default: 512, or the model's context if that is shorter]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    context: Option<usize>,
    /// Stop after N scored tokens
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    max_tokens: Option<usize>,
    /// Score each document alone: the text is cut at the separator
    #[arg(long)]
    documents: bool,
    /// What stands between documents
    #[arg(long, value_name = "TEXT", default_value = score::SEPARATOR, requires = "documents")]
    separator: String,
    /// Leave out the first N documents
    #[arg(long, value_name = "N", default_value_t = 0, requires = "documents")]
    skip: usize,
    /// Score at most N documents
    #[arg(long, value_name = "N", requires = "documents", value_parser = at_least_one)]
    limit: Option<usize>,
    #[command(flatten)]
    compute: Compute,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Where the text comes from.
#[derive(clap::Args)]
#[group(required = true, multiple = false)]
struct Source {
    /// A file of UTF-8 text
    #[arg(long, value_name = "FILE")]
    text: Option<PathBuf>,
    /// A text of a dataset, for example almanac or wikitext2-test (see `harness dataset list`)
    #[arg(long, value_name = "NAME")]
    dataset: Option<String>,
}

impl Source {
    fn read(&self) -> Result<Text> {
        match (&self.text, &self.dataset) {
            (Some(path), _) => dataset::text_file(path),
            (None, Some(name)) => dataset::text(name),
            (None, None) => Err(UserError::new("no text: expected --text FILE or --dataset NAME")),
        }
    }
}

/// Does what `args` ask.
///
/// # Errors
/// Unknown names, a text or model that cannot be read, output that cannot be written.
pub fn run(args: Args) -> Result<()> {
    let settings = args.compute.settings()?;
    let text = args.source.read()?;
    let documents = documents(&args, &text)?;
    let loaded = model::load(&args.model, &settings)?;
    let facts = loaded.model.facts();
    let context = args.context.unwrap_or(facts.context.map_or(DEFAULT_CONTEXT, |most| most.min(DEFAULT_CONTEXT)));
    let config = ScoreConfig { context, max_tokens: args.max_tokens };

    let start = Instant::now();
    let score = score::score_documents(&loaded, &documents, &config, &mut |_, _, _| {})?;
    let seconds = start.elapsed().as_secs_f64();

    let bos = loaded.tokenizer.as_ref().and_then(|tokenizer| tokenizer.bos());
    if !args.json {
        return output::text(&summary(&args, &text, &loaded.name, &score, &config, documents.len(), seconds));
    }
    let mean = score.mean();
    output::json(&json!({
        "model": { "name": loaded.name, "architecture": facts.architecture, "weights": facts.weights,
            "parameters": facts.parameters, "sha256": model::checksum(&args.model)? },
        "text": { "name": text.name, "sha256": text.sha256, "documents": args.documents.then_some(documents.len()) },
        "protocol": { "context": context, "bos": bos, "overlap": 0, "windows": score.windows.len(),
            "error_blocks": mean.blocks },
        "tokens": score.tokens,
        "bytes": score.bytes,
        "nats_per_token": score.nats_per_token(),
        "nats_per_token_error": mean.error,
        "perplexity": score.perplexity(),
        "perplexity_error": score.perplexity_error(),
        "bits_per_byte": score.bits_per_byte(),
        "bits_per_byte_error": score.bits_per_byte_error(),
        "tokens_per_s": score.tokens as f64 / seconds,
        "threads": settings.cpu.threads(),
        "isa": settings.cpu.kernels().isa().name(),
        "cache": settings.cache.to_string(),
    }))
}

/// The documents to score; the whole text where it is not cut.
fn documents<'a>(args: &Args, text: &'a Text) -> Result<Vec<&'a str>> {
    if !args.documents {
        return Ok(vec![&text.text]);
    }
    if args.separator.is_empty() {
        return Err(UserError::new("--separator is empty: expected what stands between documents"));
    }
    let all = score::documents(&text.text, &args.separator);
    let some: Vec<&str> = all.iter().copied().skip(args.skip).take(args.limit.unwrap_or(usize::MAX)).collect();
    if some.is_empty() {
        let (skip, all, name) = (args.skip, all.len(), &text.name);
        return Err(UserError::new(format!("--skip {skip} leaves no document: {name} has {all}")));
    }
    Ok(some)
}

fn summary(
    args: &Args,
    text: &Text,
    model: &str,
    score: &Score,
    config: &ScoreConfig,
    documents: usize,
    seconds: f64,
) -> String {
    let what = if args.documents { format!("{} ({documents} documents)", text.name) } else { text.name.clone() };
    let mean = score.mean();
    format!(
        "model           {model}\n\
         text            {what}\n\
         windows         {} of up to {} tokens\n\
         scored          {} tokens, {} bytes\n\
         perplexity      {:.4} ± {:.4} a token\n\
         nats per token  {:.4} ± {:.4}\n\
         bits per byte   {:.4} ± {:.4}\n\
         speed           {:.1} tokens/s\n",
        score.windows.len(),
        config.context,
        score.tokens,
        score.bytes,
        score.perplexity(),
        score.perplexity_error(),
        score.nats_per_token(),
        mean.error,
        score.bits_per_byte(),
        score.bits_per_byte_error(),
        score.tokens as f64 / seconds,
    )
}
