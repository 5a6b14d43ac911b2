//! A trained model on real text: stories260K of llama2.c on a sample of TinyStories, whose loss is known.

use engines::{Spec, Tokenizer};
use ndarray::ArrayView1;
use promises::external::{datasets, or_skip, report};
use promises::golden::largest_difference;
use promises::parity;
use promises::reference::{Pieces, Reference};
use promises::running::{logits, plain, wide};
use std::path::PathBuf;

/// The folder of the weights and the first forty whole stories after the first, trimmed.
fn stories(promise: &str) -> Option<(PathBuf, Vec<String>)> {
    let weights = or_skip(promise, datasets(), "weights_stories260K")?;
    let sample = or_skip(promise, datasets(), "tinystories_sample/tinystories_sample.txt")?;
    let text = std::fs::read_to_string(sample).expect("the sample");
    let stories: Vec<String> =
        text.split("<|endoftext|>").skip(1).take(40).map(|story| story.trim().to_string()).collect();
    assert_eq!(stories.len(), 40, "whole stories in the sample");
    Some((weights, stories))
}

/// Nats of one token: the logarithm of the sum of exponentials less the token's logit.
fn nats(logits: ArrayView1<'_, f64>, token: u32) -> f64 {
    let max = logits.fold(f64::NEG_INFINITY, |max, x| max.max(*x));
    max + logits.mapv(|x| (x - max).exp()).sum().ln() - logits[token as usize]
}

#[test]
fn stories260k_has_its_known_loss() {
    let promise = "stories260k_has_its_known_loss";
    let Some((weights, stories)) = stories(promise) else { return };
    let loaded = engines::load(&Spec::File(weights.join("stories260K.bin")), &plain(), &|_, _| {}).expect("the model");
    let tokenizer = loaded.tokenizer.expect("tok512.bin lies beside the model");
    let bos = tokenizer.bos().expect("a token that begins a text");
    let (mut sum, mut tokens, mut bytes) = (0.0, 0, 0);
    for story in &stories {
        let ids = tokenizer.encode(story).expect("tokens");
        let sequence: Vec<u32> = [bos].into_iter().chain(ids.iter().copied()).collect();
        let logits = wide(&logits(&*loaded.model, &sequence[..ids.len()]));
        sum += logits.outer_iter().zip(&ids).map(|(row, id)| nats(row, *id)).sum::<f64>();
        tokens += ids.len();
        bytes += story.len();
    }
    let (per_token, per_byte) = (sum / tokens as f64, sum / bytes as f64 / std::f64::consts::LN_2);
    report(promise, &format!("{per_token:.5} nats a token, {per_byte:.5} bits a byte over {tokens} tokens"));
    assert!((per_token - 1.246).abs() < 0.005, "{per_token} nats a token");
    assert!((per_byte - 0.844).abs() < 0.005, "{per_byte} bits a byte");
}

#[test]
fn stories260k_gives_the_logits_of_the_reference() {
    let promise = "stories260k_gives_the_logits_of_the_reference";
    let Some((weights, stories)) = stories(promise) else { return };
    let path = weights.join("stories260K.bin");
    let reference = Reference::open_llama2c(&path);
    let model = engines::load(&Spec::File(path), &plain(), &|_, _| {}).expect("the model").model;
    let pieces = Pieces::open(&weights.join("tok512.bin"));
    for story in &stories[..3] {
        let sequence: Vec<u32> = [Pieces::BOS].into_iter().chain(pieces.encode(story)).collect();
        let (found, expected) = (wide(&logits(&*model, &sequence)), reference.run(&sequence).logits);
        let difference = parity::float_logits(&found, &expected).unwrap_or_else(|e| panic!("{e}"));
        report(promise, &format!("{} tokens: {difference:.1e}", sequence.len()));
        for index in 0..reference.config.layers {
            let input = reference.run(&sequence[..40]).hidden[index].mapv(|x| f64::from(x as f32));
            let x: Vec<f32> = input.iter().map(|x| *x as f32).collect();
            let block = promises::golden::rows(&model.block(index, &x).expect("a block"), input.ncols());
            assert!(largest_difference(&block, &reference.block(index, &input)) < 1e-4, "block {index}");
        }
    }
}

#[test]
fn the_tokenizer_of_llama2c_gives_the_ids_of_plain_merging() {
    let promise = "the_tokenizer_of_llama2c_gives_the_ids_of_plain_merging";
    let Some((weights, stories)) = stories(promise) else { return };
    let path = weights.join("tok512.bin");
    let (pieces, tokenizer) = (Pieces::open(&path), Tokenizer::from_file(&path).expect("a tokenizer"));
    let odd =
        ["", " ", "a", "  two  spaces ", "naïve café", "тест", "漢字 and 🙂", "tab\tand\nline", "<s> </s> <0x41>"];
    for text in odd.into_iter().chain(stories[..10].iter().map(String::as_str)) {
        let ids = tokenizer.encode(text).expect("ids");
        assert_eq!(ids, pieces.encode(text), "{text:?}");
        let decoded = tokenizer.decode(&ids);
        assert_eq!(decoded.strip_prefix(' ').unwrap_or(&decoded), text.strip_prefix(' ').unwrap_or(text), "{text:?}");
    }
}
