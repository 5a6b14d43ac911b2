//! The decoding loop.

use crate::sample::Sampler;
use crate::{Error, LanguageModel, Result, Segment, State, TextStream, Token, Tokenizer, Want};
use kernels::Kernels;
use std::ops::ControlFlow;

/// What to generate.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Tokens to read after the state; at least one.
    pub prompt: &'a [Token],
    /// Tokens to choose at most.
    pub max_tokens: usize,
    /// How to choose.
    pub sampler: &'a Sampler,
    /// What the sampler computes with.
    pub kernels: &'static Kernels,
    /// Tokens that end the text, usually the end of sequence; they are not handed on.
    pub stop_tokens: &'a [Token],
    /// Texts that end the text; needs the tokenizer.
    pub stop_texts: &'a [String],
    /// Turns tokens into the text in which `stop_texts` are looked for.
    pub tokenizer: Option<&'a Tokenizer>,
}

/// Why generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// `max_tokens` were chosen.
    MaxTokens,
    /// One of `stop_tokens` was chosen.
    StopToken(Token),
    /// The text holds `stop_texts[i]`.
    StopText(usize),
    /// The context is full.
    Context,
    /// The caller broke off.
    Caller,
}

/// Reads the prompt after `state`, then chooses tokens one by one and hands each to `on_token`. The position of a token (what
/// its noise depends on) is the number of tokens before it in `state`. The last token chosen has not been read when this
/// returns: `state` holds everything before it.
///
/// # Errors
/// Those of `forward` (an empty prompt, a token outside the vocabulary, a prompt that overflows the context) and of the
/// sampler; stop texts without a tokenizer.
pub fn generate(
    model: &dyn LanguageModel,
    state: &mut State,
    request: &Request<'_>,
    on_token: &mut dyn FnMut(Token) -> ControlFlow<()>,
) -> Result<Finish> {
    request.sampler.check()?;
    let mut text = match (request.stop_texts, request.tokenizer) {
        ([], _) => None,
        (stops, Some(tokenizer)) => Some(TextStream::with_stops(tokenizer, stops)),
        (_, None) => return Err(Error::Input("stop texts need a tokenizer".to_string())),
    };
    let mut context = request.prompt.to_vec();
    let mut unread = context.len();
    let mut chosen = 0;
    loop {
        let tokens = &context[context.len() - unread..];
        let answer = model.forward(&mut [Segment { state, tokens, want: Want::Last }]);
        let logits = match answer {
            // The prompt must fit; text that grows past the context just ends.
            Err(Error::Context { .. }) if chosen > 0 => return Ok(Finish::Context),
            answer => answer?,
        };
        if chosen == request.max_tokens {
            return Ok(Finish::MaxTokens);
        }
        let token = request.sampler.choose(request.kernels, logits[0].last(), &context, state.len())?;
        if request.stop_tokens.contains(&token) {
            return Ok(Finish::StopToken(token));
        }
        if on_token(token).is_break() {
            return Ok(Finish::Caller);
        }
        if let Some(text) = &mut text {
            text.push(token);
            if let Some(stop) = text.stopped() {
                return Ok(Finish::StopText(stop));
            }
        }
        chosen += 1;
        if chosen == request.max_tokens {
            return Ok(Finish::MaxTokens);
        }
        context.push(token);
        unread = 1;
    }
}
