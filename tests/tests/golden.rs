//! Engines against what upstream computed from the same files: block by block, end to end, token by token, and on
//! prompts that nobody selected. Pass marks are in [`promises::parity`].

use engines::{Segment, Token, Want};
use kernels::Rng;
use ndarray::Array2;
use promises::external::report;
use promises::golden::{Golden, largest_difference};
use promises::parity::{CLEAN, binomial_tail};
use promises::reference::Reference;
use promises::running::{bits, load_golden, logits, logits_stepwise, open, open_golden, wide};
use promises::upstream;
use serde_json::Value;

#[test]
fn each_block_gives_the_golden_hidden_states() {
    let promise = "each_block_gives_the_golden_hidden_states";
    for golden in Golden::all(promise) {
        let model = open_golden(&golden);
        assert_eq!(golden.hidden().len(), model.facts().layers + 1, "{}: hidden states", golden.name);
        let blocks = upstream::blocks(&golden, &*model).unwrap_or_else(|e| panic!("{}: {e}", golden.name));
        for (index, (share, worst)) in blocks.into_iter().enumerate() {
            let share = 100.0 * share;
            report(promise, &format!("{}: block {index}: {share:.1} % changed, worst {worst:.1e}", golden.name));
        }
    }
}

#[test]
fn logits_and_hidden_states_are_the_golden_ones() {
    let promise = "logits_and_hidden_states_are_the_golden_ones";
    let (mut fixtures, mut clean) = (0, 0);
    for golden in Golden::all(promise) {
        let (logits, hidden) =
            upstream::trace(&golden, &*open_golden(&golden)).unwrap_or_else(|e| panic!("{}: {e}", golden.name));
        fixtures += 1;
        clean += usize::from(logits < CLEAN);
        report(promise, &format!("{}: logits {logits:.1e}, hidden states {hidden:.1e}", golden.name));
    }
    assert!(2 * clean >= fixtures, "only {clean} of {fixtures} fixtures agree within {CLEAN} on all positions");
}

#[test]
fn mamba_remembers_what_upstream_does() {
    let promise = "mamba_remembers_what_upstream_does";
    for golden in Golden::all(promise).iter().filter(|golden| golden.name.starts_with("mamba")) {
        let worst = upstream::states(golden, &*open_golden(golden)).unwrap_or_else(|e| panic!("{}: {e}", golden.name));
        report(promise, &format!("{}: states {worst:.1e}", golden.name));
    }
}

#[test]
fn the_authors_files_of_mamba_give_the_bits_of_hugging_faces() {
    let promise = "the_authors_files_of_mamba_give_the_bits_of_hugging_faces";
    for golden in Golden::all(promise) {
        let authors = golden.folder.join("mamba_ssm_format");
        if !authors.is_dir() {
            continue;
        }
        let tokens = golden.tokens("p3.input_ids");
        let (theirs, ours) = (logits(&*open(&authors), &tokens), logits(&*open_golden(&golden), &tokens));
        assert!(bits(theirs.as_slice()) == bits(ours.as_slice()), "{}", golden.name);
        report(promise, &format!("{}: {} logits", golden.name, theirs.as_slice().len()));
    }
}

#[test]
fn unselected_golden_prompts_stay_within_what_changed_codes_can_do() {
    let promise = "unselected_golden_prompts_stay_within_what_changed_codes_can_do";
    for golden in Golden::all(promise) {
        let differences =
            upstream::prompts(&golden, &*open_golden(&golden)).unwrap_or_else(|e| panic!("{}: {e}", golden.name));
        let differences = differences.map(|difference| format!("{difference:.1e}")).join(", ");
        report(promise, &format!("{}: {differences} for p1 to p4", golden.name));
    }
}

#[test]
fn greedy_decoding_continues_as_upstream_does() {
    let promise = "greedy_decoding_continues_as_upstream_does";
    for golden in Golden::all(promise) {
        let (equal, logits) =
            upstream::greedy(&golden, &*open_golden(&golden)).unwrap_or_else(|e| panic!("{}: {e}", golden.name));
        let count = golden.tokens("main.greedy_ids").len();
        report(promise, &format!("{}: {equal} of {count} tokens equal, greedy logits {logits:.1e}", golden.name));
    }
}

#[test]
fn one_token_at_a_time_gives_the_bits_of_the_whole_sequence() {
    for golden in Golden::all("one_token_at_a_time_gives_the_bits_of_the_whole_sequence") {
        let model = open_golden(&golden);
        let tokens = golden.tokens("p3.input_ids");
        let (whole, steps) = (logits(&*model, &tokens), logits_stepwise(&*model, &tokens));
        assert!(bits(whole.as_slice()) == bits(steps.as_slice()), "{}", golden.name);
    }
}

#[test]
fn rwkv_remembers_what_upstream_does() {
    let promise = "rwkv_remembers_what_upstream_does";
    for golden in Golden::all(promise).into_iter().filter(|golden| golden.name.contains("rwkv")) {
        let (model, tokens) = (open_golden(&golden), golden.tokens("main.input_ids"));
        let mut state = model.start(0);
        model.forward(&mut [Segment { state: &mut state, tokens: &tokens, want: Want::Last }]).expect("a pass");
        let found = model.remembered(&state).expect("a memory");
        let (expected, layers) = (golden.states(), model.facts().layers);
        let kinds = found.len() / layers;
        let mut worst = 0.0f64;
        for (i, part) in found.iter().enumerate() {
            // Transformers keeps one tensor for all layers, layers last, and the channel mix's first.
            let stacked = expected.len() == kinds;
            let name = if stacked { format!("state.{}", (i + 1) % kinds) } else { format!("state.{i:02}") };
            let theirs = expected.iter().find(|(theirs, _)| *theirs == name).expect("a golden state").1;
            let shape = if stacked { [&part.shape[..], &[layers]].concat() } else { part.shape.clone() };
            assert_eq!(shape, theirs.shape, "{}: {name}", golden.name);
            let (first, step) = if stacked { (part.layer, layers) } else { (0, 1) };
            for (a, b) in part.values.iter().zip(theirs.f64s().into_iter().skip(first).step_by(step)) {
                worst = worst.max((f64::from(*a) - b).abs() / b.abs().max(1.0));
            }
        }
        report(promise, &format!("{}: {worst:.1e}", golden.name));
        assert!(worst < 5e-5, "{}: states differ by {worst:.2e}", golden.name);
    }
}

/// Lengths of unselected prompts, how many of each, and the lowest share without a changed code among 14 published
/// comparisons of f32 with f64.
const UNSELECTED: [(usize, usize, f64); 3] = [(8, 12, 0.75), (32, 12, 0.50), (128, 3, 0.0)];

/// The number of clean prompts of each length, and a sentence where they are clearly fewer than published.
fn clean_prompts(
    vocab: usize,
    found: impl Fn(&[Token]) -> Array2<f64>,
    expected: impl Fn(&[Token]) -> Array2<f64>,
) -> (Vec<usize>, Result<(), String>) {
    let mut rng = Rng::new(20_26);
    let mut counts = Vec::new();
    let mut verdict = Ok(());
    for (length, prompts, lowest) in UNSELECTED {
        let mut clean = 0;
        for _ in 0..prompts {
            let tokens: Vec<Token> = (0..length).map(|_| rng.below(vocab) as Token).collect();
            clean += usize::from(largest_difference(&found(&tokens), &expected(&tokens)) < CLEAN);
        }
        if lowest > 0.0 && binomial_tail(clean, prompts, lowest) < 1e-3 {
            verdict = Err(format!("only {clean} of {prompts} prompts of {length} tokens are clean"));
        }
        counts.push(clean);
    }
    (counts, verdict)
}

#[test]
fn unselected_prompts_are_as_often_free_of_changed_codes_as_published() {
    let promise = "unselected_prompts_are_as_often_free_of_changed_codes_as_published";
    let mut totals = vec![0; UNSELECTED.len()];
    let quantised: Vec<Golden> = Golden::all(promise).into_iter().filter(|golden| !golden.is_float()).collect();
    for golden in &quantised {
        let (model, reference) = (open_golden(golden), Reference::open(&golden.folder));
        let found = |tokens: &[Token]| wide(&logits(&*model, tokens));
        let (counts, verdict) = clean_prompts(model.vocab(), found, |tokens| reference.run(tokens).logits);
        let shares: Vec<String> = UNSELECTED
            .iter()
            .zip(&counts)
            .map(|((length, all, _), n)| format!("{n}/{all} of {length} tokens"))
            .collect();
        report(promise, &format!("{}: clean {}", golden.name, shares.join(", ")));
        verdict.unwrap_or_else(|e| panic!("{}: {e}", golden.name));
        totals.iter_mut().zip(counts).for_each(|(total, n)| *total += n);
    }
    // Over all fixtures together the means of the published shares are about 85, 70 and 30 %.
    for ((length, prompts, _), (total, lowest)) in UNSELECTED.iter().zip(totals.iter().zip([0.75, 0.5, 0.15])) {
        let prompts = prompts * quantised.len();
        let chance = binomial_tail(*total, prompts, lowest);
        assert!(chance > 1e-3, "only {total} of {prompts} prompts of {length} tokens are clean in all fixtures");
    }
}

#[test]
fn the_share_of_clean_prompts_exposes_a_wrong_activation_scale() {
    for golden in Golden::all("the_share_of_clean_prompts_exposes_a_wrong_activation_scale") {
        if golden.is_float() {
            continue;
        }
        let right = Reference::open(&golden.folder);
        let mut wrong = Reference::open(&golden.folder);
        wrong.levels = 128.0;
        let found = |tokens: &[Token]| wrong.run(tokens).logits;
        let (counts, verdict) = clean_prompts(right.config.vocab, found, |tokens| right.run(tokens).logits);
        assert!(verdict.is_err(), "{}: a scale of 128 leaves {counts:?} prompts clean", golden.name);
    }
}

#[test]
fn tokenizers_encode_and_decode_the_golden_texts() {
    let promise = "tokenizers_encode_and_decode_the_golden_texts";
    for golden in Golden::all(promise) {
        // Models that read bytes have none.
        if !golden.folder.join("tokenizer_golden.json").is_file() {
            continue;
        }
        let tokenizer = load_golden(&golden).tokenizer.expect("the folder has a tokenizer");
        let text = std::fs::read_to_string(golden.folder.join("tokenizer_golden.json")).expect("golden texts");
        let cases: Vec<Value> = serde_json::from_str(&text).expect("JSON");
        for case in &cases {
            let text = case["text"].as_str().expect("a text");
            let ids: Vec<Token> =
                case["ids"].as_array().expect("ids").iter().map(|id| id.as_u64().expect("an id") as Token).collect();
            assert_eq!(tokenizer.encode(text).expect("an encoding"), ids, "{}: {text:?}", golden.name);
            assert_eq!(tokenizer.decode(&ids), case["decoded"].as_str().expect("a text"), "{}: {text:?}", golden.name);
        }
        report(promise, &format!("{}: {} texts", golden.name, cases.len()));
    }
}
