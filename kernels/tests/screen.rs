//! A screened head gives what the whole head gives, bit for bit, whatever the head and the token.

use half::{bf16, f16};
use kernels::grouped::codes::Codes;
use kernels::grouped::{GroupedMatrix, Layout};
use kernels::screen::planes::{self, Planes};
use kernels::screen::{DenseHead, Head, Scratch, Screen, Spent};
use kernels::{Element, Isa, Kernels, Rng};

/// The best tokens and their logits from the whole head.
fn whole<H: Head>(kernels: &Kernels, head: &H, x: &[f32], k: usize) -> (Vec<u32>, Vec<u32>) {
    let mut codes = Codes::new(1, head.cols());
    codes.fill(kernels, x, head.cols());
    let mut logits = vec![f32::NAN; head.rows()];
    head.logits(kernels, x, codes.view(), 0..head.rows(), &mut logits);
    let mut tokens = vec![0; k];
    kernels.top_k(&logits, &mut tokens);
    let bits = tokens.iter().map(|token| logits[*token as usize].to_bits()).collect();
    (tokens, bits)
}

/// What a head is screened with, and room for it.
enum Sieve<'a> {
    Screen(&'a Screen, Scratch),
    Planes(&'a Planes, planes::Scratch),
}

/// A head with its screen and what decisions with it have cost.
struct Trial<'a, H> {
    head: H,
    sieve: Sieve<'a>,
    decisions: usize,
    rows: usize,
    bytes: usize,
}

impl<H: Head> Trial<'_, H> {
    fn new(head: H, screen: &Screen) -> Trial<'_, H> {
        let sieve = Sieve::Screen(screen, Scratch::new(head.rows(), head.cols()));
        Trial { head, sieve, decisions: 0, rows: 0, bytes: 0 }
    }

    fn refined(head: H, planes: &Planes) -> Trial<'_, H> {
        let sieve = Sieve::Planes(planes, planes::Scratch::new(head.rows(), head.cols()));
        Trial { head, sieve, decisions: 0, rows: 0, bytes: 0 }
    }

    #[track_caller]
    fn decide(&mut self, kernels: &Kernels, x: &[f32], k: usize) -> Spent {
        let k = k.min(self.head.rows());
        let (mut tokens, mut logits) = (vec![u32::MAX; k], vec![f32::NAN; k]);
        let spent = match &mut self.sieve {
            Sieve::Screen(screen, room) => {
                kernels.screened_top_k(&self.head, screen, x, room, &mut tokens, &mut logits)
            }
            Sieve::Planes(planes, room) => kernels.refined_top_k(&self.head, planes, x, room, &mut tokens, &mut logits),
        };
        let bits = Vec::from_iter(logits.iter().map(|logit| logit.to_bits()));
        assert_eq!((tokens, bits), whole(kernels, &self.head, x, k), "top {k} on {}", kernels.isa());
        assert!(spent.rows >= k && spent.rows <= self.head.rows());
        self.decisions += 1;
        self.rows += spent.rows;
        self.bytes += spent.bytes;
        spent
    }
}

/// Heads that make decisions hard: kind, rows, columns.
fn head(kind: usize, rows: usize, cols: usize, rng: &mut Rng) -> Vec<f32> {
    let mut head: Vec<f32> = (0..rows * cols).map(|_| rng.normal()).collect();
    match kind {
        // Every row twice or more: ties everywhere.
        1 => (rows / 3 * cols..rows * cols).for_each(|i| head[i] = head[i % (rows / 3 * cols).max(1)]),
        // Rows that are alike but for the last bits.
        2 => (cols..rows * cols).for_each(|i| head[i] = head[i % cols] * (1.0 + rng.normal() * 3e-3)),
        // Sizes far apart, within rows and between them.
        3 => {
            for (i, w) in head.iter_mut().enumerate() {
                *w *= [1.0, 1e-3, 30.0][rng.below(3)] * [1.0, 1e-4, 1e2][i / cols % 3];
            }
        }
        // Zeros, denormals and few distinct values.
        4 => head.iter_mut().for_each(|w| *w = [0.0, -0.0, 1e-40, 1e-7, 1.0, -1.0][rng.below(6)]),
        // Lengths like those of an embedding, with a common part.
        5 => {
            let common: Vec<f32> = (0..cols).map(|_| rng.normal()).collect();
            for row in head.chunks_mut(cols) {
                let size = 0.02 * (1.0 + rng.unit());
                row.iter_mut().zip(&common).for_each(|(w, c)| *w = (*w + 0.5 * c) * size);
            }
        }
        _ => {}
    }
    head
}

/// A token for a head: noise, a row, a difference of rows, what the copy lost of a row, extremes.
fn token(weights: &[f32], copy: &GroupedMatrix, cols: usize, rng: &mut Rng) -> Vec<f32> {
    let rows = weights.len() / cols;
    let row = |r: usize| &weights[r * cols..][..cols];
    let (a, b) = (rng.below(rows), rng.below(rows));
    let mut x: Vec<f32> = (0..cols).map(|_| rng.normal()).collect();
    match rng.below(10) {
        0 => x.copy_from_slice(row(a)),
        1 => x.iter_mut().zip(row(a)).for_each(|(x, w)| *x = *w + 0.3 * *x),
        2 => x.iter_mut().zip(row(a).iter().zip(row(b))).for_each(|(x, (a, b))| *x = a - b),
        3 => {
            copy.unpack_row(a, &mut x);
            let sign = if rng.below(2) == 0 { 1.0 } else { -1.0 };
            x.iter_mut().zip(row(a)).for_each(|(x, w)| *x = (w - *x) * sign);
        }
        4 => x.iter_mut().for_each(|x| *x *= [1.0, 1e-6, 1e6, 0.0, 1e-42][rng.below(5)]),
        5 => x[rng.below(cols)] *= 1e3,
        6 => {
            let size = [0.0, 1e-45, 1e-38, 1e-30, 1e30, 1e37][rng.below(6)];
            x.iter_mut().for_each(|x| *x *= size);
        }
        7 => x.iter_mut().for_each(|x| *x = x.round()),
        _ => {}
    }
    x
}

/// Decides about tokens of every kind for heads of every kind.
fn trials<E: Element>(kernels: &Kernels, rows: usize, cols: usize, tokens: usize, seed: u64) -> usize {
    let mut rng = Rng::new(seed);
    let mut decisions = 0;
    for kind in 0..6 {
        let narrow: Vec<E> = head(kind, rows, cols, &mut rng).into_iter().map(E::narrow).collect();
        let wide: Vec<f32> = narrow.iter().map(|w| w.widen()).collect();
        let dense = DenseHead { weights: &narrow, cols };
        let grouped = GroupedMatrix::pack(&narrow, rows, cols, Layout::Q8).expect("finite weights");
        let copies = Layout::ALL.map(|layout| GroupedMatrix::pack(&wide, rows, cols, layout).expect("finite weights"));
        let screens = Layout::ALL.map(|layout| Screen::of_dense(dense, layout).expect("finite weights"));
        let of_grouped = Screen::of_grouped(&grouped, Layout::Q4).expect("finite weights");
        let mut of_dense = screens.each_ref().map(|screen| Trial::new(dense, screen));
        let mut of_groups = Trial::new(&grouped, &of_grouped);
        let planes = Planes::of_dense(dense).expect("finite weights");
        let planes_of_grouped = Planes::of_grouped(&grouped).expect("finite weights");
        let mut refined = Trial::refined(dense, &planes);
        let mut refined_groups = Trial::refined(&grouped, &planes_of_grouped);
        for _ in 0..tokens {
            let copy = &copies[rng.below(2)];
            let x = token(&wide, copy, cols, &mut rng);
            let k = [1, 40][rng.below(2)];
            for trial in &mut of_dense {
                trial.decide(kernels, &x, k);
            }
            of_groups.decide(kernels, &x, k);
            refined.decide(kernels, &x, k);
            refined_groups.decide(kernels, &x, k);
        }
        decisions += of_dense.iter().map(|trial| trial.decisions).sum::<usize>() + of_groups.decisions;
        decisions += refined.decisions + refined_groups.decisions;
    }
    decisions
}

#[test]
fn a_hundred_thousand_decisions_are_those_of_the_whole_head() {
    let kernels = Kernels::best();
    let mut decisions = 0;
    for (i, (rows, cols)) in
        [(1, 1), (5, 3), (63, 31), (64, 64), (100, 33), (200, 96), (513, 70)].into_iter().enumerate()
    {
        let seed = i as u64;
        decisions += trials::<f32>(kernels, rows, cols, 260, seed);
        decisions += trials::<bf16>(kernels, rows, cols, 320, 100 + seed);
        decisions += trials::<f16>(kernels, rows, cols, 260, 200 + seed);
    }
    decisions += trials::<bf16>(kernels, 2048, 256, 20, 300);
    assert!(decisions >= 100_000, "{decisions} decisions");
}

#[test]
fn every_isa_decides_alike() {
    for kernels in Kernels::available() {
        trials::<bf16>(kernels, 50, 70, 10, 7);
    }
}

#[test]
fn tokens_that_are_not_finite_are_decided_by_the_whole_head() {
    let mut rng = Rng::new(12);
    let weights = head(0, 50, 40, &mut rng);
    let dense = DenseHead { weights: &weights, cols: 40 };
    let screen = Screen::of_dense(dense, Layout::Q4).expect("finite weights");
    for wrong in [f32::NAN, f32::INFINITY, f32::MAX] {
        let mut x = vec![1.0; 40];
        x[17] = wrong;
        let kernels = Kernels::for_isa(Isa::best()).expect("the best level");
        let (mut tokens, mut logits) = ([0; 5], [0.0; 5]);
        let mut scratch = Scratch::new(50, 40);
        let spent = kernels.screened_top_k(&dense, &screen, &x, &mut scratch, &mut tokens, &mut logits);
        assert_eq!((spent.rows, spent.bytes), (50, spent.head_bytes));
        assert_eq!(tokens.to_vec(), whole(kernels, &dense, &x, 5).0);
        let planes = Planes::of_dense(dense).expect("finite weights");
        let mut scratch = planes::Scratch::new(50, 40);
        let spent = kernels.refined_top_k(&dense, &planes, &x, &mut scratch, &mut tokens, &mut logits);
        assert_eq!((spent.rows, spent.bytes), (50, spent.head_bytes));
        assert_eq!(tokens.to_vec(), whole(kernels, &dense, &x, 5).0);
    }
}

#[test]
fn heads_that_are_not_finite_are_refused() {
    let weights = [1.0f32, f32::NAN];
    assert!(Screen::of_dense(DenseHead { weights: &weights, cols: 2 }, Layout::Q4).is_err());
    assert!(Planes::of_dense(DenseHead { weights: &weights, cols: 2 }).is_err());
}

#[test]
fn wide_heads_are_decided_alike_and_sure_tokens_read_few_rows() {
    let mut rng = Rng::new(31);
    let (rows, cols, kernels) = (8192, 2560, Kernels::best());
    let weights: Vec<bf16> = (0..rows * cols).map(|_| bf16::from_f32(rng.normal() * 0.02)).collect();
    let dense = DenseHead { weights: &weights, cols };
    let screens = [Layout::Q4, Layout::Q8].map(|layout| Screen::of_dense(dense, layout).expect("finite weights"));
    let planes = Planes::of_dense(dense).expect("finite weights");
    for (i, layout) in ["q4", "q8", "planes"].into_iter().enumerate() {
        for k in [1, 40] {
            for (sure, tokens) in [(0.0, 8), (10.0, 8), (40.0, 4)] {
                let mut trial = match screens.get(i) {
                    Some(screen) => Trial::new(dense, screen),
                    None => Trial::refined(dense, &planes),
                };
                for _ in 0..tokens {
                    let row = &weights[rng.below(rows) * cols..][..cols];
                    let x: Vec<f32> = row.iter().map(|w| w.to_f32() * sure + rng.normal()).collect();
                    trial.decide(kernels, &x, k);
                }
                let share = trial.rows as f64 / (trial.decisions * rows) as f64;
                let bytes = trial.bytes as f64 / (trial.decisions * rows * cols) as f64;
                println!("{layout}, top {k}, row times {sure}: {share:.4} of the rows, {bytes:.3} bytes a weight");
                // Two bits of so wide a row say less: the best must be farther from the crowd.
                let enough = if layout == "planes" { 40.0 } else { 10.0 };
                assert!(sure < enough || k > 1 || share < 0.01, "{layout}: {share} of the rows for sure tokens");
            }
        }
    }
}
