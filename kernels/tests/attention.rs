//! Causal attention of a run of tokens against a call for each token.

use half::bf16;
use kernels::attention::{Heads, causal::ROWS};
use kernels::{CacheElement, Kernels, Rng};
use proptest::prelude::*;

/// Where the two differ on some level: T tokens of G queries of width K, n positions.
fn difference<E: CacheElement>(t: usize, g: usize, k: usize, n: usize, seed: u64) -> Option<String> {
    let mut rng = Rng::new(seed);
    let mut cached = || (0..n * k).map(|_| E::narrow(rng.normal())).collect::<Vec<E>>();
    let (mut keys, mut values) = (cached(), cached());
    // What no token but the last may look at.
    if t > 1 {
        keys[(n - 1) * k] = E::narrow(f32::NAN);
        values[(n - 1) * k] = E::narrow(f32::INFINITY);
    }
    let queries: Vec<f32> = (0..t * g * k).map(|_| rng.normal()).collect();
    let heads = Heads { queries: &queries, keys: &keys, values: &values, width: k, scale: 1.0 / (k as f32).sqrt() };
    for kernels in Kernels::available() {
        let (mut scores, mut got) = (vec![f32::NAN; ROWS * n], vec![f32::NAN; t * g * k]);
        kernels.attention_causal(heads, t, &mut scores, &mut got);
        for (i, (queries, got)) in queries.chunks_exact(g * k).zip(got.chunks_exact(g * k)).enumerate() {
            let seen = n - t + i + 1;
            let (mut scores, mut want) = (vec![f32::NAN; g * seen], vec![f32::NAN; g * k]);
            let heads = Heads { queries, keys: &keys[..seen * k], values: &values[..seen * k], ..heads };
            kernels.attention(heads, &mut scores, &mut want);
            let same = |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
            if let Some(place) = got.iter().zip(&want).position(|pair| !same(pair)) {
                let what = format!("{t} tokens of {g} x {k} over {n} in {} on {}", E::NAME, kernels.isa());
                return Some(format!("{what}: number {place} of token {i} is {}, not {}", got[place], want[place]));
            }
        }
    }
    None
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_run_of_tokens_gives_the_bits_of_a_call_for_each(
        t in 0usize..40, g in 1usize..8, k in 1usize..150, before in 0usize..100, seed: u64,
    ) {
        let n = (t + before).max(1);
        prop_assert_eq!(difference::<f32>(t, g, k, n, seed), None);
        prop_assert_eq!(difference::<bf16>(t, g, k, n, seed), None);
    }
}

#[test]
fn runs_of_any_width_give_the_bits_of_a_call_for_each() {
    for (t, g, k, n) in [(64, 4, 128, 300), (5, 40, 16, 9), (3, 2, 767, 20), (3, 2, 768, 20), (3, 2, 769, 20)] {
        assert_eq!(difference::<f32>(t, g, k, n, 1), None);
        assert_eq!(difference::<bf16>(t, g, k, n, 2), None);
    }
}
