//! The sampler draws from the distribution that its settings define, and its noise depends on nothing else.

use engines::sample::{Sampler, noise};
use kernels::{Kernels, Rng};

fn logits(count: usize, seed: u64) -> Vec<f32> {
    let mut rng = Rng::new(seed);
    (0..count).map(|_| 1.5 * rng.normal()).collect()
}

/// Probabilities after all filters, computed plainly in f64.
fn expected(sampler: &Sampler, logits: &[f32], context: &[u32]) -> Vec<f64> {
    let mut x: Vec<f64> = logits.iter().map(|x| f64::from(*x)).collect();
    let penalty = f64::from(sampler.repetition_penalty);
    for (i, x) in x.iter_mut().enumerate() {
        if context.contains(&(i as u32)) {
            *x = if *x > 0.0 { *x / penalty } else { *x * penalty };
        }
    }
    let mut p: Vec<f64> = x.iter().map(|x| (x / f64::from(sampler.temperature)).exp()).collect();
    let normalise = |p: &mut Vec<f64>| {
        let sum: f64 = p.iter().sum();
        p.iter_mut().for_each(|p| *p /= sum);
    };
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|a, b| p[*b].total_cmp(&p[*a]));
    if sampler.top_k > 0 {
        order.iter().skip(sampler.top_k).for_each(|i| p[*i] = 0.0);
    }
    normalise(&mut p);
    let mut sum = 0.0;
    for i in order {
        if sum >= f64::from(sampler.top_p) {
            p[i] = 0.0;
        }
        sum += p[i];
    }
    let most = p.iter().copied().fold(0.0, f64::max);
    p.iter_mut().filter(|p| **p < f64::from(sampler.min_p) * most).for_each(|p| *p = 0.0);
    normalise(&mut p);
    p
}

/// The statistic sum of (found - expected)^2 / expected over tokens that can be drawn, per degree of freedom; infinite where a
/// token was drawn that cannot be.
fn chi_square(counts: &[usize], p: &[f64]) -> f64 {
    let draws: usize = counts.iter().sum();
    let mut sum = 0.0;
    for (count, p) in counts.iter().zip(p) {
        if *p == 0.0 {
            assert_eq!(*count, 0, "a filtered token was drawn");
            continue;
        }
        let expected = draws as f64 * p;
        sum += (*count as f64 - expected).powi(2) / expected;
    }
    sum / (p.iter().filter(|p| **p > 0.0).count() as f64 - 1.0)
}

fn counts(sampler: &Sampler, logits: &[f32], context: &[u32]) -> Vec<usize> {
    let mut counts = vec![0; logits.len()];
    for position in 0..20_000 {
        counts[sampler.choose(Kernels::best(), logits, context, position).unwrap() as usize] += 1;
    }
    counts
}

#[test]
fn draws_follow_the_filtered_distribution() {
    let logits = logits(24, 4);
    let context = [3, 5, 3, 20];
    let base = Sampler { seed: 11, ..Sampler::default() };
    let samplers = [
        base,
        Sampler { temperature: 0.5, ..base },
        Sampler { temperature: 1.7, ..base },
        Sampler { top_k: 6, ..base },
        Sampler { top_p: 0.8, ..base },
        Sampler { min_p: 0.1, ..base },
        Sampler { repetition_penalty: 1.4, ..base },
        Sampler { temperature: 0.9, top_k: 15, top_p: 0.9, min_p: 0.05, repetition_penalty: 1.1, seed: 5 },
    ];
    for sampler in samplers {
        let found = counts(&sampler, &logits, &context);
        let p = expected(&sampler, &logits, &context);
        let chi = chi_square(&found, &p);
        assert!(chi < 2.2, "{sampler:?}: {chi}");
        // The test must be able to fail: another temperature is told apart.
        let wrong = expected(&Sampler { temperature: sampler.temperature * 1.15, ..sampler }, &logits, &context);
        let support = found.iter().zip(&wrong).all(|(count, p)| *count == 0 || *p > 0.0);
        assert!(!support || chi_square(&found, &wrong) > 4.0, "{sampler:?}");
    }
}

#[test]
fn the_choice_is_a_function_of_seed_position_and_logits_on_every_isa() {
    let logits = logits(5000, 6);
    for (seed, position) in [(1, 0), (1, 1), (2, 0), (u64::MAX, 1 << 40)] {
        for sampler in [
            Sampler { seed, ..Sampler::default() },
            Sampler { seed, temperature: 2.0, top_k: 1000, top_p: 0.95, min_p: 0.001, ..Sampler::default() },
        ] {
            let first = sampler.choose(Kernels::best(), &logits, &[], position).unwrap();
            for kernels in Kernels::available() {
                assert_eq!(sampler.choose(kernels, &logits, &[], position).unwrap(), first);
            }
        }
    }
    let draws = |seed: u64| -> Vec<u32> {
        let sampler = Sampler { seed, ..Sampler::default() };
        (0..50).map(|p| sampler.choose(Kernels::best(), &logits, &[], p).unwrap()).collect()
    };
    assert!(draws(1) == draws(1) && draws(1) != draws(2));
}

#[test]
fn shortcuts_choose_what_the_definition_chooses() {
    // The definition: the largest log-probability plus noise.
    for seed in 0..200 {
        let logits = logits(700, seed);
        let sampler = Sampler { seed, temperature: 1.3, ..Sampler::default() };
        let top = logits.iter().copied().fold(f32::MIN, f32::max);
        let score = |i: usize| f64::from((logits[i] - top) / 1.3) + noise(seed, 9, i as u32);
        let expected = (0..700).max_by(|a, b| score(*a).total_cmp(&score(*b))).unwrap();
        assert_eq!(sampler.choose(Kernels::best(), &logits, &[], 9).unwrap(), expected as u32);
    }
}

#[test]
fn greedy_takes_the_first_of_the_largest() {
    let kernels = Kernels::best();
    let greedy = Sampler::greedy();
    assert_eq!(greedy.choose(kernels, &[0.0, 3.0, 1.0, 3.0], &[], 0).unwrap(), 1);
    let penalised = Sampler { repetition_penalty: 2.0, ..greedy };
    assert_eq!(penalised.choose(kernels, &[1.0, 1.5, -1.0], &[1], 0).unwrap(), 0);
    assert_eq!(penalised.choose(kernels, &[-3.0, -1.0, -1.5], &[1, 900], 0).unwrap(), 2);
    // A tiny temperature is nearly greedy and does not overflow.
    let cold = Sampler { temperature: 1e-30, ..Sampler::default() };
    assert_eq!(cold.choose(kernels, &[f32::NEG_INFINITY, -1e30, 5.0, 4.9], &[], 3).unwrap(), 2);
    let one = Sampler { top_k: 1, ..Sampler::default() };
    assert_eq!(one.choose(kernels, &[0.1, 0.2, 0.15], &[], 3).unwrap(), 1);
}

#[test]
fn senseless_logits_and_settings_are_errors() {
    let kernels = Kernels::best();
    let says = |sampler: Sampler, logits: &[f32]| sampler.choose(kernels, logits, &[], 0).unwrap_err().to_string();
    assert_eq!(says(Sampler::greedy(), &[0.0, f32::NAN]), "the logit of token 1 is NaN");
    assert_eq!(says(Sampler::greedy(), &[f32::INFINITY]), "the logit of token 0 is inf");
    assert!(says(Sampler::default(), &[f32::NEG_INFINITY; 3]).contains("every logit is -inf"));
    assert!(says(Sampler::default(), &[]).contains("no logits"));
    let base = Sampler::default();
    for (sampler, name) in [
        (Sampler { temperature: -1.0, ..base }, "temperature is -1"),
        (Sampler { temperature: f32::NAN, ..base }, "temperature is NaN"),
        (Sampler { top_p: 0.0, ..base }, "top_p is 0"),
        (Sampler { top_p: 1.1, ..base }, "top_p is 1.1"),
        (Sampler { min_p: 2.0, ..base }, "min_p is 2"),
        (Sampler { repetition_penalty: 0.0, ..base }, "repetition_penalty is 0"),
    ] {
        assert!(says(sampler, &[0.0, 1.0]).starts_with(name));
    }
}
