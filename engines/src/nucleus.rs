//! The fewest most likely tokens whose probabilities reach a sum (Holtzman et al., arXiv 1904.09751).

use crate::Token;

/// Probabilities are added in units of 2^-52: whole numbers, so that the sum does not depend on the order.
const UNITS: f64 = (1u64 << 52) as f64;

fn units(p: f32) -> u64 {
    (f64::from(p) * UNITS) as u64
}

/// Probabilities that share their exponent and seven bits of fraction share a bucket; 1 is in the last one.
fn bucket(p: f32) -> usize {
    ((p.to_bits() >> 16) as usize).min(BUCKETS - 1)
}

/// As many as the highest bits of the numbers from 0 to 1 take values.
const BUCKETS: usize = (1f32.to_bits() >> 16) as usize + 1;

/// Of (probability, token) pairs, in any order, the last of the fewest most likely whose probabilities add up to `top_p` at
/// least; of equals the lower token comes first. `None` if all together do not reach it.
///
/// Linear in the number of pairs: sums by bucket tell in which of them the last token lies, and only that one is sorted.
pub(crate) fn last(tokens: impl Iterator<Item = (f32, Token)> + Clone, top_p: f32) -> Option<(f32, Token)> {
    let wanted = units(top_p);
    let mut sums = vec![0u64; BUCKETS];
    tokens.clone().for_each(|(p, _)| sums[bucket(p)] += units(p));
    let mut sum = 0;
    let reached = |bucket: &usize| {
        sum += sums[*bucket];
        sum >= wanted
    };
    let edge = (0..BUCKETS).rev().find(reached)?;
    sum -= sums[edge];
    let mut tokens: Vec<(f32, Token)> = tokens.filter(|(p, _)| bucket(*p) == edge).collect();
    tokens.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    tokens.into_iter().find(|(p, _)| {
        sum += units(*p);
        sum >= wanted
    })
}

/// Whether a token comes no later than the last one.
pub(crate) fn keeps((least, last): (f32, Token), p: f32, token: Token) -> bool {
    p > least || p == least && token <= last
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    /// The definition.
    fn sorted(mut tokens: Vec<(f32, Token)>, top_p: f32) -> Vec<(f32, Token)> {
        tokens.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let mut sum = 0;
        let reached = tokens.iter().position(|(p, _)| {
            sum += units(*p);
            sum >= units(top_p)
        });
        tokens.truncate(reached.map_or(tokens.len(), |last| last + 1));
        tokens
    }

    fn kept(tokens: &[(f32, Token)], top_p: f32) -> Vec<(f32, Token)> {
        let last = last(tokens.iter().copied(), top_p);
        tokens.iter().copied().filter(|(p, token)| last.is_none_or(|last| keeps(last, *p, *token))).collect()
    }

    proptest! {
        #[test]
        fn what_is_kept_is_what_the_sorted_definition_keeps(
            weights in vec(prop_oneof![0.0f32..1.0, Just(0.5), 0.0f32..1e-6, Just(0.0)], 1..400),
            top_p in prop_oneof![0.0f32..1.0, Just(1.0), Just(0.5)],
        ) {
            let total: f32 = weights.iter().sum::<f32>().max(f32::MIN_POSITIVE);
            let tokens: Vec<(f32, Token)> = weights.iter().zip(0..).map(|(w, t)| ((w / total).min(1.0), t)).collect();
            let mut kept = kept(&tokens, top_p);
            kept.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
            prop_assert_eq!(kept, sorted(tokens, top_p));
        }
    }

    #[test]
    fn sure_tokens_and_certainty_are_kept() {
        assert_eq!(kept(&[(1.0, 3)], 0.9), [(1.0, 3)]);
        assert_eq!(kept(&[(0.25, 7), (0.25, 2), (0.5, 9)], 0.6), [(0.25, 2), (0.5, 9)]);
        assert_eq!(kept(&[(0.25, 7), (0.5, 9)], 0.9), [(0.25, 7), (0.5, 9)]);
    }
}
