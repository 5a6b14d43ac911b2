//! What two models that read the same tokens differ by. Differences are taken token by token; their intervals come from
//! whole blocks of tokens drawn again, since tokens of a text depend on each other.

use std::f64::consts::LN_2;

use anyhow::{Context, Result, ensure};
use engines::{Loaded, Token, Tokenizer};

use crate::cli::UserError;
use crate::score::Score;
use crate::stats;

/// A mean over tokens and its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// The mean.
    pub mean: f64,
    /// The interval's lower end.
    pub low: f64,
    /// The interval's upper end.
    pub high: f64,
}

/// The mean of `value`, a function of a scored token's index, with the interval from the score's blocks drawn again
/// `resamples` times.
///
/// # Errors
/// Nothing was scored, or a value is not a finite number.
pub fn over_blocks(score: &Score, value: &dyn Fn(usize) -> f64, resamples: usize, seed: u64) -> Result<Interval> {
    let blocks = score.blocks();
    let weights: Vec<f64> = blocks.iter().map(|block| block.len() as f64).collect();
    let values: Vec<f64> = blocks.into_iter().map(|block| block.map(value).sum()).collect();
    let mean = stats::block_mean(&values, &weights).map(|mean| mean.mean);
    let interval = mean.zip(stats::bootstrap(&values, &weights, resamples, seed));
    interval.map(|(mean, (low, high))| Interval { mean, low, high }).context("there is nothing to compare")
}

/// Nats a token of `score` less those of `reference`.
///
/// # Errors
/// The scores are not of the same tokens.
pub fn in_nats(score: &Score, reference: &Score, resamples: usize, seed: u64) -> Result<Interval> {
    let (tokens, others) = (score.tokens, reference.tokens);
    ensure!(tokens == others && score.windows == reference.windows, "scores of {tokens} and of {others} tokens");
    let nats = |i: usize| f64::from(score.nats[i]) - f64::from(reference.nats[i]);
    over_blocks(score, &nats, resamples, seed)
}

/// Nats a token as bits a byte.
pub fn bits_per_byte(nats: f64, score: &Score) -> f64 {
    nats / LN_2 * score.tokens as f64 / score.bytes as f64
}

/// The tokenizer that models share: only such models read the same tokens.
///
/// # Errors
/// [`UserError`] that names a model without a tokenizer, or two whose tokenizers differ and where.
pub fn tokenizer<'m>(models: &'m [(&str, Loaded)]) -> Result<&'m Tokenizer> {
    let mut shared: Option<(&str, &Tokenizer)> = None;
    for (name, loaded) in models {
        let Some(own) = &loaded.tokenizer else {
            return Err(UserError::new(format!(
                "models: {name} has no tokenizer, so it cannot read text: leave it out"
            )));
        };
        let (first, other) = *shared.get_or_insert((name, own));
        if let Some(how) = unlike(other, own) {
            return Err(UserError::new(format!(
                "models: {name} has another tokenizer than {first} ({how}), so their numbers would not be of the same \
                 tokens: name models of one tokenizer"
            )));
        }
    }
    shared.map(|(_, tokenizer)| tokenizer).ok_or_else(|| UserError::new("models: expected at least one"))
}

/// The first difference of two tokenizers' vocabularies, if any.
fn unlike(one: &Tokenizer, other: &Tokenizer) -> Option<String> {
    if std::ptr::eq(one, other) {
        return None;
    }
    let (v, w) = (one.vocab(), other.vocab());
    if v != w {
        return Some(format!("{w} tokens instead of {v}"));
    }
    if one.bos() != other.bos() {
        let told = |bos: Option<Token>| bos.map_or("no token".to_string(), |token| format!("token {token}"));
        return Some(format!("its texts begin with {} instead of {}", told(other.bos()), told(one.bos())));
    }
    let differ = |token: &Token| one.piece_bytes(*token) != other.piece_bytes(*token);
    (0..v as Token).find(differ).map(|token| {
        let piece = |tokenizer: &Tokenizer| String::from_utf8_lossy(&tokenizer.piece_bytes(token)).into_owned();
        format!("token {token} is {:?} instead of {:?}", piece(other), piece(one))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(nats: &[f32]) -> Score {
        Score { nats: nats.to_vec(), bytes: 2 * nats.len(), tokens: nats.len(), windows: vec![0..4, 4..nats.len()] }
    }

    #[test]
    fn a_difference_is_taken_token_by_token() {
        let (a, b) = (score(&[3.0, 2.0, 1.0, 1.0, 5.0, 2.0]), score(&[2.0, 1.0, 0.0, 0.0, 4.0, 1.0]));
        assert_eq!(in_nats(&a, &b, 100, 7).unwrap(), Interval { mean: 1.0, low: 1.0, high: 1.0 });
        let nothing = in_nats(&a, &a, 100, 7).unwrap();
        assert_eq!((nothing.mean, nothing.low, nothing.high), (0.0, 0.0, 0.0));
        let wider = in_nats(&a, &score(&[0.0; 6]), 100, 7).unwrap();
        assert!(wider.low < wider.mean && wider.mean < wider.high, "{wider:?}");
        assert!(in_nats(&a, &score(&[1.0; 9]), 100, 7).unwrap_err().to_string().contains("6 and of 9 tokens"));
    }

    #[test]
    fn nats_become_bits_a_byte() {
        let score = score(&[3.0, 2.0, 1.0, 1.0, 5.0, 2.0]);
        assert!((bits_per_byte(score.nats_per_token(), &score) - score.bits_per_byte()).abs() < 1e-12);
    }

    #[test]
    fn models_that_read_other_tokens_are_refused() {
        let lab = crate::lab::Lab::new(crate::machine::Machine::read(), 1, kernels::Isa::Scalar, 0, true);
        let settings = lab.settings(lab.isa, 1, engines::CacheFormat::F32).unwrap();
        let load = |name: &'static str| (name, lab.model(name, &settings).unwrap());
        let twins = [load("bitnet-5m"), load("dense-5m")];
        assert_eq!(tokenizer(&twins).unwrap().vocab(), 4096);
        let says = |models: &[(&str, Loaded)]| tokenizer(models).unwrap_err().to_string();
        assert!(says(&[]).contains("at least one"));
        let told = says(&[load("bitnet-5m"), load("synthetic:mamba-tiny")]);
        assert!(told.contains("synthetic:mamba-tiny has no tokenizer") && told.contains("leave it out"), "{told}");
        let mut other = load("dense-5m");
        let json = std::fs::read_to_string(crate::root::root().join("models/dense-5m/tokenizer.json")).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokenizer.json");
        let mut json: serde_json::Value = serde_json::from_str(&json).unwrap();
        let merges = json["model"]["merges"].as_array_mut().unwrap();
        let last = merges.pop().unwrap();
        let piece = match &last {
            serde_json::Value::String(pair) => pair.replace(' ', ""),
            pair => pair.as_array().unwrap().iter().map(|half| half.as_str().unwrap()).collect(),
        };
        let vocab = json["model"]["vocab"].as_object_mut().unwrap();
        let number = vocab.remove(&piece).unwrap();
        vocab.insert("zzzzzz".to_string(), number);
        std::fs::write(&path, json.to_string()).unwrap();
        let special = r#"{"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}"#;
        std::fs::write(folder.path().join("tokenizer_config.json"), special).unwrap();
        other.1.tokenizer = Some(Tokenizer::from_file(&path).unwrap());
        let told = says(&[load("bitnet-5m"), other]);
        assert!(
            told.contains("dense-5m has another tokenizer than bitnet-5m") && told.contains("\"zzzzzz\""),
            "{told}"
        );
    }
}
