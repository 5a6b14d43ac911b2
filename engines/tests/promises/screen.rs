//! On the trained heads and a text that they were not trained on, a head screened in planes decides as the whole head does,
//! and for the likeliest token reads less than 40 % of what the head would take in eight bits.

use engines::{CacheFormat, Cpu, Packing, Settings, Spec, load};
use half::bf16;
use kernels::screen::planes::{Planes, Scratch};
use kernels::screen::{DenseHead, Screen, Spent};
use kernels::{Isa, grouped, screen};
use safetensors::SafeTensors;
use std::path::Path;

/// Tokens of each passage, and every how many passages.
const TOKENS: usize = 64;
const EVERY: usize = 8;

fn numbers(tensors: &SafeTensors<'_>, name: &str) -> Vec<bf16> {
    let data = tensors.tensor(name).expect("the file has it").data();
    data.chunks_exact(2).map(|two| bf16::from_le_bytes([two[0], two[1]])).collect()
}

/// What decisions have read.
#[derive(Default)]
struct Total {
    decisions: usize,
    rows: usize,
    bytes: usize,
}

impl Total {
    fn add(&mut self, spent: Spent) {
        self.decisions += 1;
        self.rows += spent.rows;
        self.bytes += spent.bytes;
    }
}

#[test]
fn trained_heads_decide_alike_and_read_under_two_fifths_of_eight_bits_for_the_likeliest_token() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let passages = std::fs::read_to_string(root.join("datasets/almanac/passages-1.jsonl")).expect("the almanac");
    let cpu = Cpu::new(Isa::best(), 1).expect("one thread");
    let settings = Settings { cpu, cache: CacheFormat::F32, packing: Packing::default() };
    let kernels = settings.cpu.kernels();
    for name in ["dense-5m", "bitnet-5m"] {
        let folder = root.join("models").join(name);
        let loaded = load(&Spec::Folder(folder.clone()), &settings, &|_, _| {}).expect("a committed model");
        let file = std::fs::read(folder.join("model.safetensors")).expect("its weights");
        let tensors = SafeTensors::deserialize(&file).expect("safetensors");
        let gain: Vec<f32> = numbers(&tensors, "model.norm.weight").into_iter().map(bf16::to_f32).collect();
        let weights = numbers(&tensors, "model.embed_tokens.weight");
        let cols = gain.len();
        let head = DenseHead { weights: &weights, cols };
        let rows = weights.len() / cols;
        let planes = Planes::of_dense(head).expect("finite weights");
        let four_bits = Screen::of_dense(head, grouped::Layout::Q4).expect("finite weights");
        let mut scratch = (Scratch::new(rows, cols), screen::Scratch::new(rows, cols));
        let eight_bits = rows * cols * 17 / 16;
        let mut totals: [[Total; 2]; 2] = Default::default();
        for line in passages.lines().step_by(EVERY) {
            let passage: serde_json::Value = serde_json::from_str(line).expect("a passage");
            let text = passage["text"].as_str().expect("its text");
            let mut tokens = loaded.tokenizer.as_ref().expect("a tokenizer").encode(text).expect("text");
            tokens.truncate(TOKENS);
            let trace = loaded.model.trace(&mut loaded.model.start(0), &tokens).expect("a trace");
            let hidden = trace.hidden.last().expect("a last block");
            for (t, hidden) in hidden.chunks(cols).enumerate() {
                let mut x = vec![0.0; cols];
                kernels.rms_norm(hidden, &gain, 1e-5, &mut x);
                for (totals, k) in totals.iter_mut().zip([1, 40]) {
                    let mut expected = vec![0; k];
                    kernels.top_k(trace.logits.row(t), &mut expected);
                    let bits: Vec<u32> = expected.iter().map(|i| trace.logits.row(t)[*i as usize].to_bits()).collect();
                    let (mut best, mut logits) = (vec![0; k], vec![0.0; k]);
                    let spent = kernels.refined_top_k(&head, &planes, &x, &mut scratch.0, &mut best, &mut logits);
                    totals[0].add(spent);
                    let found: Vec<u32> = logits.iter().map(|logit| logit.to_bits()).collect();
                    assert_eq!((&best, &found), (&expected, &bits), "{name}, token {t}, top {k}");
                    totals[1].add(kernels.screened_top_k(
                        &head,
                        &four_bits,
                        &x,
                        &mut scratch.1,
                        &mut best,
                        &mut logits,
                    ));
                    assert_eq!(best, expected, "{name}, token {t}, top {k}");
                }
            }
        }
        for (totals, k) in totals.iter().zip([1, 40]) {
            for (total, with) in totals.iter().zip(["planes", "four bits"]) {
                let share = total.bytes as f64 / (total.decisions * eight_bits) as f64;
                let rows = total.rows as f64 / (total.decisions * rows) as f64;
                let decisions = total.decisions;
                println!(
                    "{name}, top {k}, {with}: {:.1} % of eight bits' bytes, {:.2} % of the rows, {decisions} decisions",
                    100.0 * share,
                    100.0 * rows
                );
                assert!(k > 1 || with != "planes" || share < 0.4, "{name}: {share} of the bytes");
            }
        }
    }
}
