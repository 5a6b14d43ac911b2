//! The fewest most likely tokens whose probabilities reach a sum (Holtzman et al., arXiv 1904.09751).

use crate::Token;

/// Probabilities are added in units of 2^-52: whole numbers, so that the sum does not depend on the order.
const UNITS: f64 = (1u64 << 52) as f64;

fn units(p: f32) -> u64 {
    // By way of signed numbers, which a single instruction converts to; p is not negative.
    (f64::from(p) * UNITS) as i64 as u64
}

/// What the sum must reach: a unit at least, so that there is a first token that reaches it.
fn wanted(top_p: f32) -> u64 {
    units(top_p).max(1)
}

/// Probabilities looked at together: most runs of them hold none that matters, and vectors tell that.
pub(crate) const RUN: usize = 16;

/// The leading bits of a probability, which order probabilities as their values do: exponent and seven bits of fraction
/// first, 1 being the last value, then a byte, then the last.
const STEPS: [(u32, usize); 3] = [(16, (1f32.to_bits() >> 16) as usize + 1), (8, 256), (0, 256)];

/// Of tokens with probabilities `p`, in any order, the last of the fewest most likely whose probabilities add up to `top_p`
/// at least; of equals the lower token comes first. `None` if all together do not reach it.
///
/// Linear in the number of tokens, whatever their probabilities: sums by leading bits tell what the leading bits of the last
/// token's probability are, sums of those that begin so tell the next byte, and then the last one. Nothing is sorted.
pub(crate) fn last(p: &[f32], token: impl Fn(usize) -> Token, top_p: f32) -> Option<(f32, Token)> {
    let wanted = wanted(top_p);
    let (mut above, mut least, mut equal) = (0, 0, 0);
    for (shift, buckets) in STEPS {
        // Two sums a bucket, taken in turns: an addition need not wait for that of the token before.
        let mut sums = vec![[0u64; 2]; buckets];
        // None has been found before the first step; what follows it may then be anything.
        let found = |bits: u32| shift == STEPS[0].0 || bits >> (shift + 8) == least >> (shift + 8);
        for run in p.chunks(RUN) {
            if run.iter().fold(false, |any, p| any | found(p.to_bits())) {
                for (i, p) in run.iter().enumerate().filter(|(_, p)| found(p.to_bits())) {
                    let bucket = (p.to_bits() >> shift) as usize - (least >> shift) as usize;
                    sums[bucket.min(buckets - 1)][i % 2] += units(*p);
                }
            }
        }
        let mut reached = None;
        for (bucket, [even, odd]) in sums.into_iter().enumerate().rev() {
            equal = even + odd;
            if above + equal >= wanted {
                reached = Some(bucket as u32);
                break;
            }
            above += equal;
        }
        least |= reached? << shift;
    }
    // Those that are left are equal, and together they are `equal` units.
    let least = f32::from_bits(least);
    let mut left = Vec::with_capacity((equal / units(least)) as usize);
    for (start, run) in (0..).step_by(RUN).zip(p.chunks(RUN)) {
        if run.iter().fold(false, |any, p| any | (*p == least)) {
            left.extend(run.iter().enumerate().filter(|(_, p)| **p == least).map(|(i, _)| token(start + i)));
        }
    }
    let more = (wanted - above).div_ceil(units(least)) as usize;
    // In the order of tokens already, unless top-k has been here.
    let last = if left.is_sorted() { left[more - 1] } else { *left.select_nth_unstable(more - 1).1 };
    Some((least, last))
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
            sum >= wanted(top_p)
        });
        tokens.truncate(reached.map_or(tokens.len(), |last| last + 1));
        tokens
    }

    fn kept(tokens: &[(f32, Token)], top_p: f32) -> Vec<(f32, Token)> {
        let p: Vec<f32> = tokens.iter().map(|(p, _)| *p).collect();
        let last = last(&p, |i| tokens[i].1, top_p);
        tokens.iter().copied().filter(|(p, token)| last.is_none_or(|last| keeps(last, *p, *token))).collect()
    }

    proptest! {
        #[test]
        fn what_is_kept_is_what_the_sorted_definition_keeps(
            weights in vec(prop_oneof![0.0f32..1.0, Just(0.5), 0.5f32..0.502, 0.0f32..1e-6, Just(0.0)], 1..400),
            top_p in prop_oneof![0.0f32..1.0, Just(1.0), Just(0.5), Just(1e-20)],
            descending in any::<bool>(),
        ) {
            let total: f32 = weights.iter().sum::<f32>().max(f32::MIN_POSITIVE);
            let mut tokens: Vec<(f32, Token)> =
                weights.iter().zip(0..).map(|(w, t)| ((w / total).min(1.0), t)).collect();
            if descending {
                tokens.reverse();
            }
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
