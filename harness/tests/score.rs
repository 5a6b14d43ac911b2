//! Promises about scoring that need a model.

mod toy;

use engines::{CacheFormat, Cpu, Packing, Segment, Settings, Spec, Token, Want};
use harness::score::{self, ScoreConfig};
use kernels::Isa;
use toy::Toy;

fn load(toy: &Toy) -> engines::Loaded {
    let settings =
        Settings { cpu: Cpu::new(Isa::best(), 2).unwrap(), cache: CacheFormat::F32, packing: Packing::default() };
    engines::load(&Spec::parse(&toy.model()).unwrap(), &settings, &|_, _| {}).unwrap()
}

/// The protocol word for word: one window after the other, one token at a time, the cost by the textbook in f64.
#[test]
fn a_score_is_that_of_the_protocol_read_one_token_at_a_time() {
    let toy = Toy::new();
    let loaded = load(&toy);
    let tokenizer = loaded.tokenizer.as_ref().unwrap();
    let text = "The flood came up the estuary. ".repeat(40);
    let tokens = tokenizer.encode(&text).unwrap();
    for context in [1, 7, 64] {
        let mut heard: Vec<(usize, Token)> = Vec::new();
        let config = ScoreConfig { context, max_tokens: None };
        let score = score::score(&loaded, &text, &config, &mut |at, row, target| {
            assert_eq!(row.len(), toy::VOCAB);
            heard.push((at, target));
        })
        .unwrap();

        let mut expected = Vec::new();
        for window in tokens.chunks(context) {
            let mut state = loaded.model.start(0);
            let mut before = tokenizer.bos().unwrap();
            for target in window {
                let logits = loaded
                    .model
                    .forward(&mut [Segment { state: &mut state, tokens: &[before], want: Want::Last }])
                    .unwrap();
                let row: Vec<f64> = logits[0].last().iter().map(|logit| f64::from(*logit)).collect();
                let sum: f64 = row.iter().map(|logit| logit.exp()).sum();
                expected.push(sum.ln() - row[*target as usize]);
                before = *target;
            }
        }
        assert_eq!(score.nats.len(), tokens.len());
        assert_eq!((score.tokens, score.bytes), (tokens.len(), text.len()));
        assert_eq!(heard, tokens.iter().copied().enumerate().collect::<Vec<_>>());
        for (found, expected) in score.nats.iter().zip(&expected) {
            assert!((f64::from(*found) - expected).abs() < 1e-5, "{found} and {expected}");
        }
        let mean = expected.iter().sum::<f64>() / expected.len() as f64;
        assert!((score.nats_per_token() - mean).abs() < 1e-6);
        assert!((score.perplexity().ln() - mean).abs() < 1e-6);
        let bits = expected.iter().sum::<f64>() / std::f64::consts::LN_2 / text.len() as f64;
        assert!((score.bits_per_byte() - bits).abs() < 1e-6);
    }
}

#[test]
fn a_limit_scores_the_beginning_of_the_same_tokens() {
    let toy = Toy::new();
    let loaded = load(&toy);
    let text = "Nobody had yet seen the moon run dry. ".repeat(10);
    let score = |max_tokens| {
        let config = ScoreConfig { context: 30, max_tokens };
        score::score(&loaded, &text, &config, &mut |_, _, _| {}).unwrap()
    };
    let (whole, part) = (score(None), score(Some(50)));
    assert_eq!(part.tokens, 50);
    assert_eq!(part.nats, whole.nats[..50]);
    assert_eq!(part.bytes, 50, "each token of this vocabulary is a byte");
}

#[test]
fn errors_shrink_with_the_square_root_of_the_text() {
    let toy = Toy::new();
    let loaded = load(&toy);
    let sentences: Vec<String> = (0..400).map(|i| format!("Sack {i} weighed {} pounds. ", i * 7 % 97)).collect();
    let error = |sentences: &[String]| {
        let config = ScoreConfig { context: 64, max_tokens: None };
        score::score(&loaded, &sentences.concat(), &config, &mut |_, _, _| {}).unwrap().mean().error
    };
    let (few, many) = (error(&sentences[..100]), error(&sentences));
    assert!(few > 0.0 && (1.4..2.9).contains(&(few / many)), "{few} and {many}");
}
