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

/// Keeps of (probability, token) pairs the fewest most likely whose probabilities add up to `top_p` at least; of equals
/// the lower token first. All of them, if together they do not. The order of what is kept is not specified.
///
/// Linear in the number of pairs: sums by bucket tell in which of them the last token lies, and only that one is sorted.
pub(crate) fn keep(tokens: &mut Vec<(f32, Token)>, top_p: f32) {
    let wanted = units(top_p);
    let mut sums = vec![0u64; BUCKETS];
    for (p, _) in &*tokens {
        sums[bucket(*p)] += units(*p);
    }
    let mut sum = 0;
    let last = (0..BUCKETS).rev().find(|bucket| {
        let reached = sum + sums[*bucket] >= wanted;
        if !reached {
            sum += sums[*bucket];
        }
        reached
    });
    let Some(last) = last else { return };
    let mut edge: Vec<(f32, Token)> = tokens.iter().copied().filter(|(p, _)| bucket(*p) == last).collect();
    edge.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    tokens.retain(|(p, _)| bucket(*p) > last);
    for token in edge {
        tokens.push(token);
        sum += units(token.0);
        if sum >= wanted {
            break;
        }
    }
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

    proptest! {
        #[test]
        fn what_is_kept_is_what_the_sorted_definition_keeps(
            weights in vec(prop_oneof![0.0f32..1.0, Just(0.5), 0.0f32..1e-6, Just(0.0)], 1..400),
            top_p in prop_oneof![0.0f32..1.0, Just(1.0), Just(0.5)],
        ) {
            let total: f32 = weights.iter().sum::<f32>().max(f32::MIN_POSITIVE);
            let tokens: Vec<(f32, Token)> = weights.iter().zip(0..).map(|(w, t)| ((w / total).min(1.0), t)).collect();
            let mut kept = tokens.clone();
            keep(&mut kept, top_p);
            kept.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
            prop_assert_eq!(kept, sorted(tokens, top_p));
        }
    }

    #[test]
    fn sure_tokens_and_certainty_are_kept() {
        let mut one = vec![(1.0, 3)];
        keep(&mut one, 0.9);
        assert_eq!(one, [(1.0, 3)]);
        let mut many = vec![(0.25, 7), (0.25, 2), (0.5, 9)];
        keep(&mut many, 0.6);
        many.sort_by_key(|(_, token)| *token);
        assert_eq!(many, [(0.25, 2), (0.5, 9)]);
    }
}
