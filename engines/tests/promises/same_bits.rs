//! Batching, threads, ISA, rewinding and cloning never change a bit.

use crate::tiny::{Form, Recipe, Tiny, VOCAB, on, settings, tokens};
use engines::{CacheFormat, DensePacking, Model, Packing, Segment, Settings, Spec, State, Token, Want, load};
use kernels::ternary::Layout;
use kernels::{Isa, Rng, grouped};
use proptest::collection::vec;
use proptest::prelude::*;
use safetensors::Dtype;
use std::sync::Arc;

/// Logits of all tokens, read in one call from an empty state.
fn whole(model: &dyn Model, tokens: &[Token]) -> Vec<f32> {
    read(model, &mut model.start(0), tokens)
}

fn read(model: &dyn Model, state: &mut State, tokens: &[Token]) -> Vec<f32> {
    let logits = model.forward(&mut [Segment { state, tokens, want: Want::All }]).unwrap();
    logits[0].as_slice().to_vec()
}

fn synthetic(settings: &Settings) -> Arc<dyn Model> {
    load(&Spec::parse("synthetic:bitnet-tiny:3").unwrap(), settings, &|_, _| ()).unwrap().model
}

/// One recipe for every path through the code.
fn recipes() -> Vec<Recipe> {
    let base = Recipe::default();
    vec![
        base,
        Recipe { form: Form::Master(Dtype::BF16), ..base },
        Recipe { form: Form::Plain(Dtype::F32), tied: false, ..base },
        Recipe { bitnet: false, form: Form::Divided, pre_norm: true, tied: false, kv_heads: 4, ..base },
        Recipe { bitnet: false, form: Form::Plain(Dtype::F16), bias: true, kv_heads: 1, ..base },
        Recipe { bitnet: false, form: Form::Multiplied, bias: true, ..base },
    ]
}

#[test]
fn every_isa_and_thread_count_gives_the_same_bits() {
    for recipe in recipes() {
        let tiny = Tiny::new(recipe);
        for count in [1, 3, 7, 50, 130] {
            let tokens = tokens(count, VOCAB, 5);
            let model = tiny.load(&on(Isa::Scalar, 1)).unwrap();
            let expected = whole(&*model, &tokens);
            assert!(expected.iter().all(|x| x.is_finite()));
            for isa in Isa::available() {
                for threads in [1, 2, 3] {
                    let found = whole(&*model.with(&on(isa, threads)), &tokens);
                    assert!(found == expected, "{recipe:?}, {count} tokens, {isa}, {threads} threads");
                }
            }
        }
    }
}

#[test]
fn every_layout_of_ternary_weights_gives_the_same_bits() {
    let fresh = settings();
    let expected = synthetic(&fresh);
    for layout in Layout::ALL {
        for isa in Isa::available() {
            for threads in [1, 2] {
                let packing = Packing { ternary: layout, ..Packing::default() };
                let model = synthetic(&Settings { packing, ..on(isa, threads) });
                assert!(model.facts().weights.contains(layout.name()));
                for count in [1, 2, 4, 5, 50, 130] {
                    let tokens = tokens(count, 640, 7);
                    let found = whole(&*model, &tokens);
                    assert!(found == whole(&*expected, &tokens), "{layout}, {count} tokens, {isa}, {threads} threads");
                }
            }
        }
    }
}

#[test]
fn dense_weights_in_groups_stay_near_and_have_the_same_bits_everywhere() {
    let dense = Recipe { bitnet: false, form: Form::Plain(Dtype::F32), bias: true, tied: false, ..Recipe::default() };
    let tokens = tokens(70, VOCAB, 9);
    let load = |packing, isa, threads| Tiny::new(dense).load(&Settings { packing, ..on(isa, threads) }).unwrap();
    let exact = whole(&*load(Packing::default(), Isa::best(), 1), &tokens);
    let rms = |x: &[f32]| (x.iter().map(|x| x * x).sum::<f32>() / x.len() as f32).sqrt();
    // Rounding to b bits leaves an error of about 2^-b of the weights' size, over a few layers.
    for (layout, limit) in [(grouped::Layout::Q8, 0.03), (grouped::Layout::Q4, 0.4)] {
        let format = DensePacking::Grouped(layout);
        let head = Packing { head: format, ..Packing::default() };
        for packing in [head, Packing { dense: format, ..head }] {
            let model = load(packing, Isa::Scalar, 1);
            let facts = model.facts();
            assert!(facts.head_integers && facts.weights.contains(&format!("{layout} head")), "{}", facts.weights);
            assert_eq!(facts.linear_integers, packing.dense == format);
            let expected = whole(&*model, &tokens);
            let apart: Vec<f32> = expected.iter().zip(&exact).map(|(a, b)| a - b).collect();
            assert!(
                rms(&apart) > 0.0 && rms(&apart) < limit * rms(&exact),
                "{packing:?}: {}",
                rms(&apart) / rms(&exact)
            );
            for isa in Isa::available() {
                for threads in [1, 3] {
                    let model = load(packing, isa, threads);
                    for count in [1, 3, 70] {
                        let found = whole(&*model, &tokens[..count]);
                        assert!(
                            found == expected[..count * VOCAB],
                            "{packing:?}, {count} tokens, {isa}, {threads} threads"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn every_cut_into_calls_gives_the_same_bits() {
    for (i, recipe) in recipes().into_iter().enumerate() {
        for cache in [CacheFormat::F32, CacheFormat::Bf16] {
            let model = Tiny::new(recipe).load(&Settings { cache, ..on(Isa::best(), 2) }).unwrap();
            let tokens = tokens(90, VOCAB, 6);
            let expected = whole(&*model, &tokens);
            let mut rng = Rng::new(i as u64);
            for most in [1, 4, 12, 80] {
                let mut state = model.start(0);
                let mut found = Vec::new();
                while state.len() < tokens.len() {
                    let count = (1 + rng.below(most)).min(tokens.len() - state.len());
                    let next = &tokens[state.len()..state.len() + count];
                    found.extend(read(&*model, &mut state, next));
                }
                assert!(found == expected, "{recipe:?}, {cache}, up to {most} tokens a call");
            }
        }
    }
}

#[test]
fn sequences_in_one_batch_do_not_see_each_other() {
    for threads in [1, 2] {
        let model = synthetic(&on(Isa::best(), threads));
        let mut rng = Rng::new(9);
        for round in 0..8 {
            let sequences: Vec<Vec<Token>> =
                (0..1 + rng.below(6)).map(|i| tokens(1 + rng.below(40), 640, 100 * round + i as u64)).collect();
            // Each has read a part before.
            let cuts: Vec<usize> = sequences.iter().map(|s| rng.below(s.len())).collect();
            let mut states: Vec<State> = sequences.iter().map(|_| model.start(0)).collect();
            for ((state, sequence), cut) in states.iter_mut().zip(&sequences).zip(&cuts) {
                if *cut > 0 {
                    read(&*model, state, &sequence[..*cut]);
                }
            }
            let want = |i: usize| if i.is_multiple_of(2) { Want::All } else { Want::Last };
            let mut batch: Vec<Segment<'_>> = states
                .iter_mut()
                .zip(&sequences)
                .zip(&cuts)
                .enumerate()
                .map(|(i, ((state, s), cut))| Segment { state, tokens: &s[*cut..], want: want(i) })
                .collect();
            let logits = model.forward(&mut batch).unwrap();
            for (i, (sequence, cut)) in sequences.iter().zip(&cuts).enumerate() {
                let expected = whole(&*model, sequence);
                let first = if want(i) == Want::All { *cut } else { sequence.len() - 1 };
                assert!(logits[i].as_slice() == &expected[first * 640..], "round {round}, sequence {i}");
                assert_eq!(logits[i].rows(), sequence.len() - first);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Continuous batching: each call reads some tokens of some sequences, in whatever order.
    #[test]
    fn any_schedule_of_any_sequences_gives_the_same_bits(
        sequences in vec(vec(0..640u32, 1..40), 1..5),
        schedule in vec((0..5usize, 1..30usize, any::<bool>()), 1..20),
        threads in 1..4usize,
    ) {
        let model = synthetic(&on(Isa::best(), threads));
        let mut states: Vec<State> = sequences.iter().map(|_| model.start(0)).collect();
        let mut found: Vec<Vec<f32>> = vec![Vec::new(); sequences.len()];
        let mut call = |counts: &[usize]| {
            let segments = states.iter_mut().zip(&sequences).zip(counts).filter_map(|((state, sequence), count)| {
                let read = state.len();
                let tokens = &sequence[read..sequence.len().min(read + count)];
                (!tokens.is_empty()).then_some(Segment { state, tokens, want: Want::All })
            });
            let mut batch: Vec<Segment<'_>> = segments.collect();
            let lengths: Vec<usize> = batch.iter().map(|segment| segment.tokens.len()).collect();
            let logits = model.forward(&mut batch).unwrap();
            prop_assert!(logits.iter().zip(&lengths).all(|(logits, n)| logits.rows() == *n));
            let mut logits = logits.into_iter();
            for (i, count) in counts.iter().enumerate() {
                if *count > 0 && found[i].len() < 640 * sequences[i].len() {
                    found[i].extend_from_slice(logits.next().unwrap().as_slice());
                }
            }
            Ok(())
        };
        for (which, count, all) in schedule {
            let counts: Vec<usize> =
                (0..sequences.len()).map(|i| if all || i == which { count } else { 0 }).collect();
            call(&counts)?;
        }
        call(&vec![40; sequences.len()])?;
        for (sequence, found) in sequences.iter().zip(&found) {
            prop_assert!(*found == whole(&*model, sequence));
        }
    }
}

#[test]
fn prompts_longer_than_a_pass_give_the_same_bits() {
    let model = Tiny::new(Recipe::default()).load(&on(Isa::best(), 2)).unwrap();
    let tokens = tokens(600, VOCAB, 11);
    let expected = whole(&*model, &tokens);
    let mut state = model.start(0);
    let mut found = read(&*model, &mut state, &tokens[..100]);
    found.extend(read(&*model, &mut state, &tokens[100..]));
    assert!(found == expected);
    // Two long sequences and a short one share passes.
    let mut states: Vec<State> = (0..3).map(|_| model.start(0)).collect();
    let lengths = [400, 3, 600];
    let mut batch: Vec<Segment<'_>> = states
        .iter_mut()
        .zip(lengths)
        .map(|(state, n)| Segment { state, tokens: &tokens[..n], want: Want::All })
        .collect();
    for (logits, n) in model.forward(&mut batch).unwrap().iter().zip(lengths) {
        assert!(logits.as_slice() == &expected[..n * VOCAB]);
    }
}

#[test]
fn rewinding_and_cloning_leave_no_trace() {
    for cache in [CacheFormat::F32, CacheFormat::Bf16] {
        let model = synthetic(&Settings { cache, ..settings() });
        let (tokens, others) = (tokens(60, 640, 1), tokens(60, 640, 2));
        let expected = whole(&*model, &tokens);
        let row = |from: usize| &expected[from * 640..];
        let mut state = model.start(0);
        read(&*model, &mut state, &tokens[..20]);
        let snapshot = state.clone();
        read(&*model, &mut state, &others[..30]);
        state.rewind(20).unwrap();
        assert!(read(&*model, &mut state, &tokens[20..]) == row(20), "after a rewind");
        // The clone saw none of that, and reading on with it does not disturb the original.
        let mut clone = snapshot.clone();
        read(&*model, &mut clone, &others[..5]);
        let mut second = snapshot;
        assert!(read(&*model, &mut second, &tokens[20..]) == row(20), "after another clone read on");
        assert!(
            read(
                &*model,
                &mut {
                    clone.rewind(20).unwrap();
                    clone
                },
                &tokens[20..]
            ) == row(20)
        );
        state.rewind(0).unwrap();
        assert!(state.is_empty() && read(&*model, &mut state, &tokens) == expected);
        assert!(state.rewind(61).is_err());
    }
}

#[test]
fn tracing_agrees_with_reading_and_with_single_blocks() {
    for recipe in recipes() {
        for threads in [1, 2] {
            let model = Tiny::new(recipe).load(&on(Isa::best(), threads)).unwrap();
            for count in [2, 40, 100, 530] {
                let tokens = tokens(count, VOCAB, 3);
                let trace = model.trace(&mut model.start(0), &tokens).unwrap();
                assert!(trace.logits.as_slice() == whole(&*model, &tokens));
                for (i, pair) in trace.hidden.windows(2).enumerate() {
                    assert!(model.block(i, &pair[0]).unwrap() == pair[1], "{recipe:?}, {count} tokens, block {i}");
                }
            }
        }
    }
}

#[test]
fn calls_from_many_threads_at_once_agree() {
    let model = synthetic(&on(Isa::best(), 2));
    let sequences: Vec<Vec<Token>> = (0..4).map(|i| tokens(20, 640, i)).collect();
    let expected: Vec<Vec<f32>> = sequences.iter().map(|s| whole(&*model, s)).collect();
    std::thread::scope(|scope| {
        for (sequence, expected) in sequences.iter().zip(&expected) {
            let model = &*model;
            scope.spawn(move || {
                for _ in 0..5 {
                    assert!(whole(model, sequence) == *expected);
                }
            });
        }
    });
}

#[test]
fn the_same_seed_gives_the_same_weights_and_another_seed_others() {
    let logits = |spec: &str, threads: usize| {
        let loaded = load(&Spec::parse(spec).unwrap(), &on(Isa::best(), threads), &|_, _| ()).unwrap();
        whole(&*loaded.model, &[1, 2, 3])
    };
    let first = logits("synthetic:bitnet-tiny:7", 1);
    assert!(first == logits("synthetic:bitnet-tiny:7", 3));
    assert!(first != logits("synthetic:bitnet-tiny:8", 1));
    let rms = (first.iter().map(|x| x * x).sum::<f32>() / first.len() as f32).sqrt();
    assert!((0.3..10.0).contains(&rms), "logits of synthetic models are of ordinary size: {rms}");
}
