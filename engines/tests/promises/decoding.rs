//! The decoding loop stops when it should, and its text is a function of the seed.

use crate::tiny::{CONTEXT, Recipe, Tiny, VOCAB, on, settings, tokens};
use engines::decode::{Finish, Request, generate};
use engines::sample::Sampler;
use engines::{Error, Model, State, Token, Want};
use kernels::{Isa, Kernels};
use std::ops::ControlFlow;
use std::sync::Arc;

fn model() -> Arc<dyn Model> {
    Tiny::new(Recipe::default()).load(&settings()).unwrap()
}

fn request<'a>(prompt: &'a [Token], max_tokens: usize, sampler: &'a Sampler) -> Request<'a> {
    let kernels = Kernels::best();
    Request { prompt, max_tokens, sampler, kernels, stop_tokens: &[], stop_texts: &[], tokenizer: None }
}

fn run(model: &dyn Model, state: &mut State, request: &Request<'_>) -> (Vec<Token>, engines::Result<Finish>) {
    let mut tokens = Vec::new();
    let finish = generate(model, state, request, &mut |token| {
        tokens.push(token);
        ControlFlow::Continue(())
    });
    (tokens, finish)
}

#[test]
fn text_is_a_function_of_the_seed_on_every_isa_and_thread_count() {
    let model = model();
    let prompt = tokens(10, VOCAB, 1);
    for sampler in [Sampler::greedy(), Sampler { seed: 4, top_p: 0.9, ..Sampler::default() }] {
        let (expected, finish) = run(&*model, &mut model.start(0), &request(&prompt, 30, &sampler));
        assert!(expected.len() == 30 && finish.unwrap() == Finish::MaxTokens);
        for isa in Isa::available() {
            let other = model.with(&on(isa, 2));
            let kernels = Kernels::for_isa(isa).unwrap();
            let request = Request { kernels, ..request(&prompt, 30, &sampler) };
            assert_eq!(run(&*other, &mut other.start(0), &request).0, expected);
        }
        // In two halves: the second begins where the first ended.
        let mut state = model.start(0);
        let (mut text, _) = run(&*model, &mut state, &request(&prompt, 12, &sampler));
        assert_eq!(state.len(), prompt.len() + 11);
        let last = [text[11]];
        text.extend(run(&*model, &mut state, &request(&last, 18, &sampler)).0);
        assert_eq!(text, expected);
    }
}

#[test]
fn generation_ends_at_stop_tokens_callers_and_the_context() {
    let model = model();
    let prompt = tokens(5, VOCAB, 2);
    let greedy = Sampler::greedy();
    let (text, _) = run(&*model, &mut model.start(0), &request(&prompt, 20, &greedy));
    let stop = [text[6]];
    let first = text.iter().position(|t| *t == stop[0]).unwrap();
    let with_stop = Request { stop_tokens: &stop, ..request(&prompt, 20, &greedy) };
    let (stopped, finish) = run(&*model, &mut model.start(0), &with_stop);
    assert_eq!((&stopped[..], finish.unwrap()), (&text[..first], Finish::StopToken(stop[0])));

    let mut count = 0;
    let finish = generate(&*model, &mut model.start(0), &request(&prompt, 20, &greedy), &mut |_| {
        count += 1;
        if count == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert_eq!((finish.unwrap(), count), (Finish::Caller, 3));

    let long = tokens(CONTEXT - 4, VOCAB, 3);
    let (text, finish) = run(&*model, &mut model.start(0), &request(&long, 20, &greedy));
    assert_eq!((text.len(), finish.unwrap()), (5, Finish::Context));
    let (text, finish) = run(&*model, &mut model.start(0), &request(&prompt, 0, &greedy));
    assert_eq!((text.len(), finish.unwrap()), (0, Finish::MaxTokens));
}

#[test]
fn generation_ends_where_a_stop_text_is_complete() {
    // Pieces "aa" to "hh", so that most stop texts straddle two tokens.
    let mut vocabulary = 2i32.to_le_bytes().to_vec();
    for i in 0..VOCAB as u8 {
        let piece = [b'a' + i % 8, b'a' + i / 8 % 8];
        vocabulary.extend([0u8, 0, 0, 0, 2, 0, 0, 0]);
        vocabulary.extend(piece);
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.bin");
    std::fs::write(&path, vocabulary).unwrap();
    let tokenizer = engines::Tokenizer::from_file(&path).unwrap();
    let model = model();
    let prompt = tokens(5, VOCAB, 6);
    let sampler = Sampler { seed: 2, ..Sampler::default() };
    let (all, _) = run(&*model, &mut model.start(0), &request(&prompt, 20, &sampler));
    let text: String = all.iter().map(|t| String::from_utf8(tokenizer.piece_bytes(*t)).unwrap()).collect();
    for at in [4, 9, 15] {
        let stops = ["never".to_string(), text[at..at + 3].to_string()];
        let ends = text.find(&stops[1]).unwrap() + 3;
        let request = Request { stop_texts: &stops, tokenizer: Some(&tokenizer), ..request(&prompt, 20, &sampler) };
        let (stopped, finish) = run(&*model, &mut model.start(0), &request);
        assert_eq!((&stopped[..], finish.unwrap()), (&all[..ends.div_ceil(2)], Finish::StopText(1)));
    }
}

#[test]
fn what_cannot_be_generated_is_an_error() {
    let model = model();
    let greedy = Sampler::greedy();
    let fails = |request: &Request<'_>| run(&*model, &mut model.start(0), request).1.unwrap_err();
    assert!(matches!(fails(&request(&[], 5, &greedy)), Error::Empty { .. }));
    assert!(matches!(fails(&request(&[VOCAB as u32], 5, &greedy)), Error::Token { .. }));
    let long = tokens(CONTEXT + 1, VOCAB, 3);
    assert!(matches!(fails(&request(&long, 5, &greedy)), Error::Context { .. }));
    let stops = ["x".to_string()];
    assert!(matches!(fails(&Request { stop_texts: &stops, ..request(&[1], 5, &greedy) }), Error::Input(_)));
    let senseless = Sampler { top_p: 0.0, ..Sampler::default() };
    assert!(matches!(fails(&request(&[1], 5, &senseless)), Error::Sample(_)));
}

#[test]
fn choosing_in_one_call_or_token_by_token_is_the_same() {
    // What a verifier of drafted tokens relies on: logits of all positions give the choices of the loop.
    let model = model();
    let prompt = tokens(6, VOCAB, 5);
    let sampler = Sampler { seed: 9, temperature: 0.8, ..Sampler::default() };
    let (text, _) = run(&*model, &mut model.start(0), &request(&prompt, 12, &sampler));
    let all: Vec<Token> = prompt.iter().chain(&text).copied().collect();
    let mut state = model.start(0);
    let batch = &mut [engines::Segment { state: &mut state, tokens: &all, want: Want::All }];
    let logits = model.forward(batch).unwrap();
    for (i, token) in text.iter().enumerate() {
        let position = prompt.len() + i;
        let row = logits[0].row(position - 1);
        assert_eq!(sampler.choose(Kernels::best(), row, &all[..position], position).unwrap(), *token);
    }
}
