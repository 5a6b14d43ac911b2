//! What recurrent models promise beside what all models do: their memory has one size, and goes back as far as it was asked to.

use crate::tiny::{on, tokens};
use engines::{DensePacking, Error, Model, Packing, SHAPES, Segment, Settings, Spec, State, Token, Want, load};
use kernels::{Isa, Rng, grouped};
use proptest::prelude::*;
use std::sync::{Arc, LazyLock};

/// The small synthetic model of every recurrent architecture.
static MODELS: LazyLock<Vec<&str>> = LazyLock::new(|| {
    let recurrent =
        |name: &&str| ["mamba", "rwkv"].iter().any(|kind| name.starts_with(kind)) && name.ends_with("-tiny");
    SHAPES.iter().map(|shape| shape.name).filter(recurrent).collect()
});
const VOCAB: usize = 640;

fn model(name: &str, settings: &Settings) -> Arc<dyn Model> {
    load(&Spec::parse(&format!("synthetic:{name}:3")).unwrap(), settings, &|_, _| ()).unwrap().model
}

fn read(model: &dyn Model, state: &mut State, tokens: &[Token]) -> Vec<f32> {
    let logits = model.forward(&mut [Segment { state, tokens, want: Want::All }]).unwrap();
    logits[0].as_slice().to_vec()
}

fn whole(model: &dyn Model, tokens: &[Token]) -> Vec<f32> {
    read(model, &mut model.start(0), tokens)
}

#[test]
fn every_isa_and_thread_count_gives_the_same_bits() {
    for name in &*MODELS {
        let tokens = tokens(130, VOCAB, 5);
        let plain = model(name, &on(Isa::Scalar, 1));
        let expected = whole(&*plain, &tokens);
        assert!(expected.iter().all(|x| x.is_finite()));
        let rms = (expected.iter().map(|x| x * x).sum::<f32>() / expected.len() as f32).sqrt();
        assert!((0.3..10.0).contains(&rms), "{name}: logits of ordinary size: {rms}");
        for count in [1, 3, 7, 50, 130] {
            for isa in Isa::available() {
                for threads in [1, 2, 3] {
                    let found = whole(&*plain.with(&on(isa, threads)), &tokens[..count]);
                    assert!(found == expected[..count * VOCAB], "{name}, {count} tokens, {isa}, {threads} threads");
                }
            }
        }
    }
}

#[test]
fn dense_weights_in_groups_stay_near_and_have_the_same_bits_everywhere() {
    let tokens = tokens(40, VOCAB, 9);
    for name in &*MODELS {
        let exact = whole(&*model(name, &on(Isa::best(), 1)), &tokens);
        let rms = |x: &[f32]| (x.iter().map(|x| x * x).sum::<f32>() / x.len() as f32).sqrt();
        // The norm of a head divides by what may be next to nothing: roundings count for more than in a transformer.
        for (layout, limit) in [(grouped::Layout::Q8, 0.15), (grouped::Layout::Q4, 1.0)] {
            let format = DensePacking::Grouped(layout);
            let packing = Packing { dense: format, head: format, ..Packing::default() };
            let expected = whole(&*model(name, &Settings { packing, ..on(Isa::Scalar, 1) }), &tokens);
            let apart: Vec<f32> = expected.iter().zip(&exact).map(|(a, b)| a - b).collect();
            let share = rms(&apart) / rms(&exact);
            assert!(share > 0.0 && share < limit, "{name}, {layout}: {share}");
            for isa in Isa::available() {
                let found = whole(&*model(name, &Settings { packing, ..on(isa, 2) }), &tokens);
                assert!(found == expected, "{name}, {layout}, {isa}");
            }
        }
    }
}

#[test]
fn long_prompts_and_every_cut_into_calls_give_the_same_bits() {
    for name in &*MODELS {
        let model = model(name, &on(Isa::best(), 2));
        let tokens = tokens(600, VOCAB, 6);
        let expected = whole(&*model, &tokens);
        let mut rng = Rng::new(1);
        for most in [1, 4, 12, 80, 590] {
            let mut state = model.start(rng.below(9));
            let mut found = Vec::new();
            while state.len() < tokens.len() {
                let count = (1 + rng.below(most)).min(tokens.len() - state.len());
                let next = &tokens[state.len()..state.len() + count];
                found.extend(read(&*model, &mut state, next));
            }
            assert!(found == expected, "{name}, up to {most} tokens a call");
        }
    }
}

#[test]
fn sequences_in_one_batch_do_not_see_each_other() {
    for name in &*MODELS {
        for threads in [1, 2] {
            let model = model(name, &on(Isa::best(), threads));
            let mut rng = Rng::new(9);
            for round in 0..6 {
                let sequences: Vec<Vec<Token>> =
                    (0..1 + rng.below(6)).map(|i| tokens(1 + rng.below(40), VOCAB, 100 * round + i as u64)).collect();
                let cuts: Vec<usize> = sequences.iter().map(|s| rng.below(s.len())).collect();
                let mut states: Vec<State> = sequences.iter().map(|_| model.start(rng.below(4))).collect();
                for ((state, sequence), cut) in states.iter_mut().zip(&sequences).zip(&cuts) {
                    if *cut > 0 {
                        read(&*model, state, &sequence[..*cut]);
                    }
                }
                let mut batch: Vec<Segment<'_>> = states
                    .iter_mut()
                    .zip(&sequences)
                    .zip(&cuts)
                    .map(|((state, s), cut)| Segment { state, tokens: &s[*cut..], want: Want::All })
                    .collect();
                let logits = model.forward(&mut batch).unwrap();
                for ((logits, sequence), cut) in logits.iter().zip(&sequences).zip(&cuts) {
                    assert!(logits.as_slice() == &whole(&*model, sequence)[cut * VOCAB..], "{name}, round {round}");
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Any reading, rewinding and forking leaves what reading the surviving tokens alone would.
    #[test]
    fn rewinding_and_forking_leave_no_trace(
        which in 0..MODELS.len(),
        keep in 0..10usize,
        moves in proptest::collection::vec((0..4u8, 1..20usize, any::<u64>()), 1..12),
    ) {
        let model = model(MODELS[which], &on(Isa::best(), 2));
        let mut state = model.start(keep);
        let mut history: Vec<Token> = Vec::new();
        // Forks, each with what it has read.
        let mut forks: Vec<(State, Vec<Token>)> = Vec::new();
        // How far back the state remembers.
        let mut oldest = 0;
        for (action, count, seed) in moves {
            match action {
                0 | 1 => {
                    let next = tokens(count, VOCAB, seed);
                    read(&*model, &mut state, &next);
                    history.extend(next);
                    oldest = oldest.max(history.len().saturating_sub(keep));
                }
                2 => {
                    let to = history.len().saturating_sub(count);
                    let possible = to == 0 || to >= oldest;
                    let result = state.rewind(to);
                    prop_assert_eq!(result.is_ok(), possible, "keep {}, to {}", keep, to);
                    if possible {
                        history.truncate(to);
                        oldest = if to == 0 { 0 } else { oldest };
                    } else {
                        let forgotten = matches!(result, Err(Error::Forgotten { .. }));
                        prop_assert!(forgotten);
                    }
                }
                _ => forks.push((state.clone(), history.clone())),
            }
            prop_assert_eq!(state.len(), history.len());
        }
        forks.push((state, history));
        let last = tokens(3, VOCAB, 77);
        for (mut state, mut history) in forks {
            let found = read(&*model, &mut state, &last);
            let from = history.len() * VOCAB;
            history.extend(&last);
            prop_assert!(found == whole(&*model, &history)[from..]);
        }
    }
}

#[test]
fn the_memory_has_one_size_whatever_was_read() {
    for name in &*MODELS {
        let model = model(name, &on(Isa::best(), 2));
        let facts = model.facts();
        assert!(facts.state_bytes > 0 && facts.cache_bytes_per_position == 0 && facts.holds(usize::MAX));
        let mut state = model.start(2);
        (0..8).for_each(|i| drop(read(&*model, &mut state, &[i])));
        let bytes = state.bytes();
        (0..20).for_each(|i| drop(read(&*model, &mut state, &[i])));
        assert_eq!(state.bytes(), bytes);
        // Three to go back to and one to write, in whole cache lines.
        assert!((4 * facts.state_bytes..=4 * facts.state_bytes + 4 * 64).contains(&(bytes as u64)), "{name}");
        assert!(!model.remembered(&state).unwrap().is_empty());
    }
}

#[test]
fn states_of_other_models_are_refused() {
    let cached = load(&Spec::parse("synthetic:bitnet-tiny").unwrap(), &on(Isa::best(), 1), &|_, _| ()).unwrap().model;
    for name in &*MODELS {
        let model = model(name, &on(Isa::best(), 1));
        for (reader, state) in [(&model, cached.start(0)), (&cached, model.start(0))] {
            let mut state = state;
            let error =
                reader.forward(&mut [Segment { state: &mut state, tokens: &[1], want: Want::Last }]).unwrap_err();
            assert!(matches!(error, Error::State { .. }), "{error}");
        }
    }
}

#[test]
fn tracing_agrees_with_reading_and_with_single_blocks() {
    for name in &*MODELS {
        let model = model(name, &on(Isa::best(), 2));
        for count in [2, 40, 530] {
            let tokens = tokens(count, VOCAB, 3);
            let trace = model.trace(&mut model.start(0), &tokens).unwrap();
            assert!(trace.logits.as_slice() == whole(&*model, &tokens));
            for (i, pair) in trace.hidden.windows(2).enumerate() {
                if let Ok(alone) = model.block(i, &pair[0]) {
                    assert!(alone == pair[1], "{name}, {count} tokens, block {i}");
                }
            }
            assert!(model.block(0, &trace.hidden[0]).is_ok());
        }
    }
}
