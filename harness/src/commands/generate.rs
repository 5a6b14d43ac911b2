//! `harness generate`: text that goes on from a prompt.

use std::io::{self, Write};
use std::ops::ControlFlow;
use std::time::Instant;

use anyhow::{Context, Result};
use engines::decode::{self, Finish, Request};
use engines::sample::Sampler;
use engines::{TextStream, Token};
use serde_json::json;

use crate::cli::UserError;
use crate::compute::{Compute, at_least_one, user_or_failure};
use crate::{model, output};

/// What may be said after `harness generate`.
#[derive(clap::Args)]
#[command(after_help = "\
The prompt and the text that follows go to standard output as they come, speed to standard error. The text depends on \
the seed, the settings and the weights alone: not on ISA level, threads or machine. Choosing applies, in this order, \
repetition penalty, temperature, top-k, top-p, min-p.

Examples:
  harness generate --model bitnet-5m --prompt \"The lighthouse\" -n 64
  harness generate --model bitnet-5m --prompt \"Once\" -n 200 --temperature 0.8 --top-p 0.9 --seed 7 --stop \"The end\"")]
pub struct Args {
    /// A name in models/, a folder or a file
    #[arg(long, value_name = "MODEL")]
    model: String,
    /// Text to go on from
    #[arg(long, short = 'p', value_name = "TEXT")]
    prompt: String,
    /// Tokens to generate at most
    #[arg(long, short = 'n', value_name = "N", default_value_t = 128, value_parser = at_least_one)]
    tokens: usize,
    /// Divide logits by T; 0 always takes the likeliest token
    #[arg(long, value_name = "T", default_value_t = 0.0, allow_negative_numbers = true)]
    temperature: f32,
    /// Keep the K likeliest tokens; 0 keeps all
    #[arg(long, value_name = "K", default_value_t = 0)]
    top_k: usize,
    /// Keep the likeliest tokens that make up probability P
    #[arg(long, value_name = "P", default_value_t = 1.0, allow_negative_numbers = true)]
    top_p: f32,
    /// Keep tokens at least P times as likely as the likeliest
    #[arg(long, value_name = "P", default_value_t = 0.0, allow_negative_numbers = true)]
    min_p: f32,
    /// Make tokens that were there before less likely by factor R
    #[arg(long, value_name = "R", default_value_t = 1.0, allow_negative_numbers = true)]
    repetition_penalty: f32,
    /// End before this text (may be given more than once)
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// Seed of the random choices
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    compute: Compute,
    /// Print one JSON object at the end instead of text as it comes
    #[arg(long)]
    json: bool,
}

impl Args {
    fn sampler(&self) -> Sampler {
        Sampler {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
            seed: self.seed,
        }
    }
}

/// Does what `args` ask.
///
/// # Errors
/// Settings that make no sense, an unknown model, one without tokenizer, an empty prompt or one beyond the context.
pub fn run(args: Args) -> Result<()> {
    let settings = args.compute.settings()?;
    let sampler = args.sampler();
    sampler.check().map_err(user_or_failure)?;
    if args.prompt.is_empty() {
        return Err(UserError::new("the prompt is empty: expected at least one character"));
    }
    if args.stop.iter().any(String::is_empty) {
        return Err(UserError::new("a --stop text is empty: expected at least one character"));
    }
    let loaded = model::load(&args.model, &settings)?;
    let Some(tokenizer) = &loaded.tokenizer else {
        return Err(UserError::new(format!("model {} has no tokenizer, so it cannot read a prompt", loaded.name)));
    };
    let mut prompt: Vec<Token> = tokenizer.bos().into_iter().collect();
    prompt.extend(tokenizer.encode(&args.prompt)?);
    if let Some(context) = loaded.model.facts().context.filter(|context| prompt.len() > *context) {
        let (name, len) = (&loaded.name, prompt.len());
        return Err(UserError::new(format!("the prompt has {len} tokens, but the context of {name} holds {context}")));
    }
    let stop_tokens: Vec<Token> = tokenizer.eos().into_iter().chain(tokenizer.bos()).collect();
    let request = Request {
        prompt: &prompt,
        max_tokens: args.tokens,
        sampler: &sampler,
        kernels: settings.cpu.kernels(),
        stop_tokens: &stop_tokens,
        stop_texts: &args.stop,
        tokenizer: Some(tokenizer),
    };
    let mut writer = Writer { quiet: args.json, text: String::new(), failure: None };
    writer.write(&args.prompt);
    let mut stream = TextStream::with_stops(tokenizer, &args.stop);
    let mut tokens = Vec::new();
    let start = Instant::now();
    let mut first = None;
    let mut state = loaded.model.start(0);
    let finish = decode::generate(&*loaded.model, &mut state, &request, &mut |token| {
        first.get_or_insert_with(|| start.elapsed().as_secs_f64());
        tokens.push(token);
        writer.write(&stream.push(token));
        writer.flow()
    })?;
    let seconds = start.elapsed().as_secs_f64();
    writer.write(&stream.finish());
    let text = writer.finish()?;

    let first = first.unwrap_or(seconds);
    let rate = (tokens.len() > 1).then(|| (tokens.len() - 1) as f64 / (seconds - first));
    let ended = ended(finish, &args.stop);
    if args.json {
        return output::json(&json!({
            "model": loaded.name,
            "prompt": args.prompt,
            "text": text.strip_prefix(&args.prompt).unwrap_or(&text),
            "prompt_tokens": prompt,
            "tokens": tokens,
            "ended_by": ended,
            "seed": args.seed,
            "time_to_first_token_s": first,
            "tokens_per_s": rate,
            "threads": settings.cpu.threads(),
            "isa": settings.cpu.kernels().isa().name(),
        }));
    }
    let rate = rate.map(|rate| format!(", then {rate:.1} tokens/s")).unwrap_or_default();
    let (read, chosen) = (prompt.len(), tokens.len());
    eprintln!("read {read} tokens, chose {chosen} (ended by {ended}); first after {first:.3} s{rate}");
    Ok(())
}

fn ended(finish: Finish, stops: &[String]) -> String {
    match finish {
        Finish::MaxTokens => "the number of tokens".to_string(),
        Finish::StopToken(token) => format!("token {token}"),
        Finish::StopText(index) => format!("the text {:?}", stops.get(index).map_or("", String::as_str)),
        Finish::Context => "the model's context".to_string(),
        Finish::Caller => "the reader".to_string(),
    }
}

/// Writes text as it comes, until that fails.
struct Writer {
    quiet: bool,
    text: String,
    failure: Option<io::Error>,
}

impl Writer {
    fn write(&mut self, text: &str) {
        self.text.push_str(text);
        if !self.quiet && self.failure.is_none() {
            let mut out = io::stdout().lock();
            self.failure = out.write_all(text.as_bytes()).and_then(|()| out.flush()).err();
        }
    }

    /// Whether there is any sense in going on.
    fn flow(&self) -> ControlFlow<()> {
        if self.failure.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// Ends the line; gives everything that was written.
    fn finish(mut self) -> Result<String> {
        let text = std::mem::take(&mut self.text);
        self.write("\n");
        match self.failure {
            Some(error) => Err(error).context("cannot write to standard output"),
            None => Ok(text),
        }
    }
}
