//! What every model keeps, whatever its architecture and its form: the same bits on every ISA, however threaded, batched,
//! split, rewound or cloned; and the logits of the plain reference.

use engines::decode::{Finish, Request, generate};
use engines::sample::Sampler;
use engines::{CacheFormat, Model, Segment, Settings, Spec, State, Token, Want};
use kernels::{Isa, Rng};
use promises::external::{checkout, report};
use promises::golden::{largest_difference, rows};
use promises::parity;
use promises::recipe::{RECIPES, Recipe};
use promises::recurrent_recipe::RECURRENT_RECIPES;
use promises::reference::{self, Config, GROUP_NORM_EPS, Reference};
use promises::running::{bits, logits, logits_stepwise, open, plain, settings, wide};
use promises::upstream;
use proptest::prelude::*;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

/// A model under its name.
type Named = (String, Arc<dyn Model>);

/// Every recipe, the smallest synthetic shape, and the trained models of the repository.
static MODELS: LazyLock<Vec<Named>> = LazyLock::new(|| {
    let written = RECIPES.iter().map(|recipe| {
        let folder = tempfile::tempdir().expect("a temporary folder");
        recipe.write(folder.path(), 7);
        // The files may go: what the engine keeps of them it has mapped or read.
        (recipe.name.to_string(), open(folder.path()))
    });
    let synthetic = Spec::Synthetic { shape: "bitnet-tiny".to_string(), seed: 3 };
    let synthetic = engines::load(&synthetic, &plain(), &|_, _| {}).expect("a synthetic model").model;
    let recurrent = RECURRENT_RECIPES.iter().map(|recipe| {
        let folder = tempfile::tempdir().expect("a temporary folder");
        recipe.write(folder.path(), 7);
        (recipe.name.to_string(), open(folder.path()))
    });
    let mut models: Vec<Named> = written.chain(recurrent).collect();
    models.push(("synthetic:bitnet-tiny:3".to_string(), synthetic));
    models.extend(committed_models().into_iter().map(|folder| (folder.display().to_string(), open(&folder))));
    models
});

/// All but the trained ones, which are as large as all others together and have tests of their own.
fn random_models() -> &'static [Named] {
    &MODELS[..RECIPES.len() + RECURRENT_RECIPES.len() + 1]
}

/// Folders of `models/` that hold weights.
fn committed_models() -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(checkout().join("models")) else { return Vec::new() };
    let folders = entries.map(|entry| entry.expect("an entry").path());
    let mut folders: Vec<PathBuf> = folders.filter(|folder| folder.join("config.json").is_file()).collect();
    folders.sort();
    folders
}

const CACHES: [CacheFormat; 2] = [CacheFormat::F32, CacheFormat::Bf16];

fn random_tokens(rng: &mut Rng, vocab: usize, count: usize) -> Vec<Token> {
    (0..count).map(|_| rng.below(vocab) as Token).collect()
}

/// The specification: scalar kernels, one thread, the whole sequence in one call.
fn specification(model: &dyn Model, cache: CacheFormat, tokens: &[Token]) -> Vec<u32> {
    bits(logits(&*model.with(&settings(Isa::Scalar, 1, cache)), tokens).as_slice())
}

#[test]
fn every_isa_and_every_number_of_threads_gives_the_same_bits() {
    let mut rng = Rng::new(1);
    for (name, model) in MODELS.iter() {
        let tokens = random_tokens(&mut rng, model.vocab(), 90);
        for cache in CACHES {
            let expected = specification(&**model, cache, &tokens);
            // Attention is causal: a prefix of the tokens gives a prefix of the rows.
            let prefix = |count: usize| &expected[..count * model.vocab()];
            for isa in Isa::available() {
                for threads in [1, 2, 3] {
                    let what = format!("{name} on {isa}, {threads} threads, {cache} cache");
                    let variant = model.with(&settings(isa, threads, cache));
                    for count in [2, 7, 33, 90] {
                        let whole = bits(logits(&*variant, &tokens[..count]).as_slice());
                        assert!(whole == prefix(count), "{what}: {count} tokens in one call");
                    }
                    // One token a call takes the kernels' matrix-vector forms.
                    let steps = bits(logits_stepwise(&*variant, &tokens[..20]).as_slice());
                    assert!(steps == prefix(20), "{what}: token by token");
                }
            }
        }
    }
}

#[test]
fn sequences_read_together_give_the_bits_of_sequences_read_alone() {
    let mut rng = Rng::new(2);
    for (name, model) in MODELS.iter() {
        for cache in CACHES {
            let model = model.with(&settings(Isa::best(), 2, cache));
            let sequences: Vec<Vec<Token>> =
                [9, 1, 17, 4].into_iter().map(|n| random_tokens(&mut rng, model.vocab(), n)).collect();
            // Half of each in the first call, the rest in the second.
            let mut states: Vec<State> = sequences.iter().map(|_| model.start(0)).collect();
            let mut found: Vec<Vec<u32>> = vec![Vec::new(); sequences.len()];
            for part in 0..2 {
                let mut which = Vec::new();
                let mut batch = Vec::new();
                for (i, (state, sequence)) in states.iter_mut().zip(&sequences).enumerate() {
                    let (first, second) = sequence.split_at(sequence.len().div_ceil(2));
                    let tokens = if part == 0 { first } else { second };
                    if !tokens.is_empty() {
                        which.push(i);
                        batch.push(Segment { state, tokens, want: Want::All });
                    }
                }
                let answers = model.forward(&mut batch).expect("a pass");
                assert_eq!(answers.len(), which.len(), "{name}: one answer a segment");
                which.into_iter().zip(answers).for_each(|(i, answer)| found[i].extend(bits(answer.as_slice())));
            }
            for (sequence, found) in sequences.iter().zip(found) {
                let alone = specification(&*model, cache, sequence);
                assert!(found == alone, "{name}: {} tokens among others, {cache} cache", sequence.len());
            }
        }
    }
}

#[test]
fn a_batch_larger_than_any_buffer_gives_the_bits_of_its_parts() {
    let mut rng = Rng::new(8);
    for (name, model) in random_models() {
        let model = model.with(&settings(Isa::best(), 2, CacheFormat::F32));
        let sequences: Vec<Vec<Token>> =
            [150, 3, 149, 1, 151, 128].into_iter().map(|n| random_tokens(&mut rng, model.vocab(), n)).collect();
        let mut states: Vec<State> = sequences.iter().map(|_| model.start(0)).collect();
        let segment = |(state, tokens)| Segment { state, tokens, want: Want::All };
        let mut batch: Vec<Segment<'_>> =
            states.iter_mut().zip(sequences.iter().map(Vec::as_slice)).map(segment).collect();
        let answers = model.forward(&mut batch).expect("a pass");
        for (sequence, answer) in sequences.iter().zip(answers) {
            let alone = specification(&*model, CacheFormat::F32, sequence);
            assert!(bits(answer.as_slice()) == alone, "{name}: {} tokens", sequence.len());
        }
    }
}

#[test]
fn the_last_row_is_what_want_last_gives() {
    let mut rng = Rng::new(3);
    for (name, model) in MODELS.iter() {
        let tokens = random_tokens(&mut rng, model.vocab(), 11);
        let mut state = model.start(0);
        let segment = Segment { state: &mut state, tokens: &tokens, want: Want::Last };
        let last = model.forward(&mut [segment]).expect("a pass").remove(0);
        assert_eq!((last.rows(), last.vocab()), (1, model.vocab()), "{name}");
        assert!(bits(last.last()) == bits(logits(&**model, &tokens).last()), "{name}");
        assert_eq!(state.len(), tokens.len(), "{name}: tokens read");
    }
}

#[test]
fn a_trace_gives_the_bits_of_a_pass_and_its_blocks_chain() {
    let mut rng = Rng::new(4);
    for (name, model) in MODELS.iter() {
        let tokens = random_tokens(&mut rng, model.vocab(), 13);
        let trace = model.trace(&mut model.start(0), &tokens).expect("a trace");
        assert!(bits(trace.logits.as_slice()) == bits(logits(&**model, &tokens).as_slice()), "{name}");
        assert_eq!(trace.hidden.len(), model.facts().layers + 1, "{name}: hidden states");
        // Later blocks of RWKV-7 read the values of the first.
        let alone = if model.facts().architecture == "rwkv-7" { 1 } else { model.facts().layers };
        for index in 0..alone {
            let block = model.block(index, &trace.hidden[index]).expect("a block");
            assert!(bits(&block) == bits(&trace.hidden[index + 1]), "{name}: block {index} alone");
        }
    }
}

/// One step of a schedule; numbers are taken modulo what there is.
#[derive(Clone, Debug)]
enum Step {
    /// Reads so many tokens in each of some sequences, in one call.
    Read(Vec<(usize, usize)>),
    /// Forgets so many of a sequence's last tokens.
    Rewind(usize, usize),
    /// Replaces a sequence by a clone of another.
    Clone(usize, usize),
}

const SEQUENCES: usize = 3;
/// A sequence is not read beyond this length: every model's context holds it.
const LONGEST: usize = 150;

/// Tokens to read: mostly few, sometimes as many as engines treat in other ways.
fn count() -> impl Strategy<Value = usize> {
    prop_oneof![6 => 1..9usize, 2 => 9..40usize, 1 => 40..130usize]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => prop::collection::vec((0..SEQUENCES, count()), 1..=SEQUENCES).prop_map(Step::Read),
        1 => (0..SEQUENCES, 1..9usize).prop_map(|(i, n)| Step::Rewind(i, n)),
        1 => (0..SEQUENCES, 0..SEQUENCES).prop_map(|(from, to)| Step::Clone(from, to)),
    ]
}

/// A sequence as the schedule left it.
#[derive(Clone)]
struct Run {
    state: State,
    tokens: Vec<Token>,
    /// The bits of each token's logits.
    rows: Vec<Vec<u32>>,
}

fn follow(model: &dyn Model, steps: &[Step], rng: &mut Rng) -> Vec<Run> {
    let empty = Run { state: model.start(LONGEST), tokens: Vec::new(), rows: Vec::new() };
    let mut runs = vec![empty; SEQUENCES];
    for step in steps {
        match step {
            Step::Read(parts) => {
                let mut counts = [0; SEQUENCES];
                parts.iter().for_each(|(i, n)| counts[*i] = (*n).min(LONGEST - runs[*i].tokens.len()));
                let new: Vec<_> = counts.iter().map(|n| random_tokens(rng, model.vocab(), *n)).collect();
                let reading = runs.iter_mut().zip(&new).filter(|(_, tokens)| !tokens.is_empty());
                let mut batch: Vec<_> =
                    reading.map(|(run, tokens)| Segment { state: &mut run.state, tokens, want: Want::All }).collect();
                if batch.is_empty() {
                    continue;
                }
                let mut answers = model.forward(&mut batch).expect("a pass").into_iter();
                for (run, tokens) in runs.iter_mut().zip(new).filter(|(_, tokens)| !tokens.is_empty()) {
                    let answer = answers.next().expect("an answer a segment");
                    run.rows.extend((0..answer.rows()).map(|row| bits(answer.row(row))));
                    run.tokens.extend(tokens);
                }
            }
            Step::Rewind(i, n) => {
                let run = &mut runs[*i];
                let len = run.tokens.len().saturating_sub(*n);
                run.state.rewind(len).expect("a rewind within what was kept");
                run.tokens.truncate(len);
                run.rows.truncate(len);
            }
            Step::Clone(from, to) => runs[*to] = runs[*from].clone(),
        }
    }
    runs
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_schedule_of_reads_rewinds_and_clones_gives_the_bits_of_one_call(
        which in any::<prop::sample::Index>(),
        isa in prop::sample::select(Isa::available()),
        threads in 1..=3usize,
        cache in prop::sample::select(&CACHES[..]),
        steps in prop::collection::vec(step(), 1..12),
        seed in any::<u64>(),
    ) {
        let (name, model) = which.get(random_models());
        let variant = model.with(&settings(isa, threads, cache));
        for run in follow(&*variant, &steps, &mut Rng::new(seed)) {
            prop_assert_eq!(run.state.len(), run.tokens.len());
            if !run.tokens.is_empty() {
                let expected = specification(&**model, cache, &run.tokens);
                prop_assert!(run.rows.concat() == expected, "{} on {}, {} threads, {} cache", name, isa, threads, cache);
            }
        }
    }
}

#[test]
fn clones_go_separate_ways() {
    let mut rng = Rng::new(5);
    for (name, model) in MODELS.iter() {
        for cache in CACHES {
            let model = model.with(&settings(Isa::best(), 2, cache));
            let stem = random_tokens(&mut rng, model.vocab(), 12);
            let mut trunk = model.start(8);
            let segment = Segment { state: &mut trunk, tokens: &stem, want: Want::Last };
            model.forward(&mut [segment]).expect("a pass");
            let mut branches: Vec<(State, Vec<Token>)> =
                (0..3).map(|_| (trunk.clone(), random_tokens(&mut rng, model.vocab(), 6))).collect();
            let mut batch: Vec<_> =
                branches.iter_mut().map(|(state, tokens)| Segment { state, tokens, want: Want::All }).collect();
            let answers = model.forward(&mut batch).expect("a pass");
            assert_eq!(trunk.len(), stem.len(), "{name}: the trunk stays");
            for ((_, tokens), answer) in branches.iter().zip(answers) {
                let whole = specification(&*model, cache, &[&stem[..], tokens].concat());
                assert!(whole.ends_with(&bits(answer.as_slice())), "{name}: a branch, {cache} cache");
            }
        }
    }
}

/// Holds the engine to the reference on files that this test wrote. Gives the number of blocks that differ by a changed
/// activation code.
fn changed_blocks(recipe: &Recipe, seed: u64) -> usize {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (config, tensors) = recipe.write(folder.path(), seed);
    let reference = Reference::from_tensors(Config::from_json(&config), &tensors);
    let model = open(folder.path());
    let tokens = random_tokens(&mut Rng::new(seed), recipe.vocab, 29);
    let pass = reference.run(&tokens);

    let mut changed = 0;
    for index in 0..recipe.layers {
        // Both read the very same f32 numbers.
        let input = pass.hidden[index].mapv(|x| f64::from(x as f32));
        let x: Vec<f32> = input.iter().map(|x| *x as f32).collect();
        let found = rows(&model.block(index, &x).expect("a block"), recipe.width);
        let expected = reference.block(index, &input);
        if recipe.is_quantised() {
            let (share, worst) = parity::block_distance(&input, &found, &expected);
            assert!(worst <= parity::BLOCK_CHANGED, "{} ({seed}): block {index}: {worst:.2e}", recipe.name);
            changed += usize::from(share > 0.0);
        } else {
            parity::float_block(&input, &found, &expected)
                .unwrap_or_else(|e| panic!("{} ({seed}): block {index}: {e}", recipe.name));
        }
    }

    let found = wide(&logits(&*model, &tokens));
    let rule = if recipe.is_quantised() { parity::quantised_logits } else { parity::float_logits };
    let difference = rule(&found, &pass.logits).unwrap_or_else(|e| panic!("{} ({seed}): {e}", recipe.name));
    report("every_published_form", &format!("{} ({seed}): {difference:.1e}, {changed} blocks changed", recipe.name));
    changed
}

#[test]
fn every_published_form_gives_the_logits_of_the_reference() {
    const SEEDS: u64 = 6;
    for recipe in RECIPES {
        let changed: usize = (1..=SEEDS).map(|seed| changed_blocks(recipe, seed)).sum();
        let blocks = recipe.layers * SEEDS as usize;
        // One code in about 1e5 lies so near a half that f32 and f64 part: a few blocks in a hundred. An error parts all.
        assert!(4 * changed <= blocks, "{}: {changed} of {blocks} blocks hold a changed code", recipe.name);
    }
}

#[test]
fn every_recurrent_form_gives_the_logits_of_the_reference() {
    let promise = "every_recurrent_form_gives_the_logits_of_the_reference";
    for (recipe, seed) in RECURRENT_RECIPES.iter().flat_map(|recipe| [(recipe, 1), (recipe, 2), (recipe, 3)]) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        recipe.write(folder.path(), seed);
        let oracle = reference::open(folder.path(), GROUP_NORM_EPS);
        let tokens = random_tokens(&mut Rng::new(seed), recipe.vocab, 29);
        let (block, logits) = upstream::oracle(&*oracle, &*open(folder.path()), &tokens, recipe.blocks_alone())
            .unwrap_or_else(|e| panic!("{} ({seed}): {e}", recipe.name));
        report(promise, &format!("{} ({seed}): blocks {block:.1e}, logits {logits:.1e}", recipe.name));
    }
}

/// Sampled text on given kernels and threads.
fn sampled(model: &dyn Model, settings: &Settings, prompt: &[Token], seed: u64) -> Vec<Token> {
    let model = model.with(settings);
    let sampler = Sampler { top_k: 40, top_p: 0.95, repetition_penalty: 1.1, seed, ..Sampler::default() };
    let request = Request {
        prompt,
        max_tokens: 24,
        sampler: &sampler,
        kernels: settings.cpu.kernels(),
        stop_tokens: &[],
        stop_texts: &[],
        tokenizer: None,
    };
    let mut text = Vec::new();
    let mut take = |token| {
        text.push(token);
        ControlFlow::Continue(())
    };
    let finish = generate(&*model, &mut model.start(0), &request, &mut take).expect("a text");
    assert_eq!((finish, text.len()), (Finish::MaxTokens, request.max_tokens));
    text
}

#[test]
fn text_is_a_function_of_the_seed_on_every_isa_and_number_of_threads() {
    let mut rng = Rng::new(9);
    for (index, (name, model)) in MODELS.iter().enumerate() {
        let prompt = random_tokens(&mut rng, model.vocab(), 5);
        let text = |isa, threads, seed| sampled(&**model, &settings(isa, threads, CacheFormat::F32), &prompt, seed);
        let expected = text(Isa::Scalar, 1, 1);
        for isa in Isa::available() {
            for threads in [1, 2] {
                assert_eq!(text(isa, threads, 1), expected, "{name} on {isa}, {threads} threads");
            }
        }
        // Trained models may be so sure that chance has no say.
        if index < random_models().len() {
            assert_ne!(text(Isa::best(), 1, 2), expected, "{name}: another seed");
        }
    }
}

#[test]
fn committed_models_give_the_logits_of_the_reference() {
    for folder in committed_models() {
        let (reference, model) = (reference::open(&folder, GROUP_NORM_EPS), open(&folder));
        let tokens = random_tokens(&mut Rng::new(6), model.vocab(), 24);
        let (found, run) = (wide(&logits(&*model, &tokens)), reference.run(&tokens));
        let config = std::fs::read_to_string(folder.join("config.json")).expect("a config");
        let quantised = config.contains("quantization_config");
        let rule = if quantised { parity::quantised_logits } else { parity::float_logits };
        let difference = rule(&found, &run.pass.logits).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        report("committed_models_give_the_logits_of_the_reference", &format!("{}: {difference:.1e}", folder.display()));
    }
}

#[test]
fn a_bf16_cache_moves_logits_little_and_an_f32_cache_not_at_all() {
    for recipe in RECIPES.iter().filter(|recipe| !recipe.is_quantised()) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        recipe.write(folder.path(), 11);
        let model = open(folder.path());
        let tokens = random_tokens(&mut Rng::new(11), recipe.vocab, 32);
        let exact = wide(&logits(&*model.with(&settings(Isa::best(), 1, CacheFormat::F32)), &tokens));
        let rounded = wide(&logits(&*model.with(&settings(Isa::best(), 1, CacheFormat::Bf16)), &tokens));
        let difference = largest_difference(&exact, &rounded) / parity::deviation(&exact);
        // Keys and values keep 8 bits: relative errors of 2^-9, averaged by attention.
        assert!(difference > 0.0 && difference < 0.05, "{}: {difference:.2e} of the deviation", recipe.name);
        assert!(largest_difference(&exact, &wide(&logits(&*model, &tokens))) == 0.0, "{}", recipe.name);
    }
}
