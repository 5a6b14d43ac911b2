//! Statistics of few and noisy samples: medians, paired ratios, block standard errors, bootstrap.
//!
//! Nothing here assumes a distribution. Times have a long right tail, so they are summed up by medians with intervals
//! from order statistics (David and Nagaraja, "Order Statistics", 3rd ed., section 7.1); machines drift, so variants are
//! compared by the ratios of samples taken side by side; tokens of a text depend on each other, so errors of means come
//! from whole blocks.

use kernels::Rng;

use crate::quantity::Timed;

/// The confidence that intervals aim at.
pub const CONFIDENCE: f64 = 0.95;

/// The median of `samples` and its interval. `None` where there is no sample or one is not finite.
pub fn median(samples: &[f64]) -> Option<Timed> {
    if samples.is_empty() || samples.iter().any(|sample| !sample.is_finite()) {
        return None;
    }
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len();
    let middle = if n % 2 == 1 { sorted[n / 2] } else { (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0 };
    let out = trimmed(n);
    Some(Timed { median: middle, low: sorted[out], high: sorted[n - 1 - out], n })
}

/// The median of the ratios `a[i] / b[i]` of samples that were taken side by side, and its interval: drift that slows
/// both alike cancels. `None` where lengths differ, nothing was sampled or a ratio is not finite.
pub fn paired_ratio(a: &[f64], b: &[f64]) -> Option<Timed> {
    if a.len() != b.len() {
        return None;
    }
    let ratios: Vec<f64> = a.iter().zip(b).map(|(a, b)| a / b).collect();
    median(&ratios)
}

/// How many samples the interval of a median of `n` leaves out at each end: the largest k with
/// P(Binomial(n, 1/2) <= k) <= (1 - 95 %) / 2; 0 where n is too small to leave any out.
fn trimmed(n: usize) -> usize {
    let mut below = 0.0;
    let mut k = 0;
    let mut term = -(n as f64) * std::f64::consts::LN_2; // ln of C(n, k) / 2^n
    loop {
        below += term.exp();
        if below > (1.0 - CONFIDENCE) / 2.0 || k >= n / 2 {
            return k.saturating_sub(1).min(n.saturating_sub(1) / 2);
        }
        term += ((n - k) as f64 / (k + 1) as f64).ln();
        k += 1;
    }
}

/// The probability that the interval [`median`] gives for `n` samples covers the true median. Below six samples it is
/// the whole range and covers less than 95 %.
pub fn coverage(n: usize) -> f64 {
    if n == 0 {
        return 0.0;
    }
    let mut term = -(n as f64) * std::f64::consts::LN_2;
    let mut outside = 0.0;
    for k in 0..=trimmed(n) {
        outside += term.exp();
        term += ((n - k) as f64 / (k + 1) as f64).ln();
    }
    (1.0 - 2.0 * outside).max(0.0)
}

/// A mean over blocks of unequal weight, with its standard error.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mean {
    /// Sum of the blocks' values over the sum of their weights.
    pub mean: f64,
    /// Standard error by linearisation of the ratio; 0 for a single block, where it cannot be known.
    pub error: f64,
    /// Blocks.
    pub blocks: usize,
}

/// `sum(values) / sum(weights)` with the standard error of a ratio estimator whose blocks are drawn independently
/// (Cochran, "Sampling Techniques", section 2.11): sqrt(n / (n - 1) · Σ (v - R w)²) / Σ w. Values are a block's total
/// (nats), weights its size (tokens or bytes). `None` where lengths differ or weights do not sum to something positive.
pub fn block_mean(values: &[f64], weights: &[f64]) -> Option<Mean> {
    let (total, weight): (f64, f64) = (values.iter().sum(), weights.iter().sum());
    if values.len() != weights.len() || !total.is_finite() || !weight.is_finite() || weight <= 0.0 {
        return None;
    }
    let mean = total / weight;
    let blocks = values.len();
    let squares: f64 = values.iter().zip(weights).map(|(v, w)| (v - mean * w).powi(2)).sum();
    let error = if blocks < 2 { 0.0 } else { (blocks as f64 / (blocks - 1) as f64 * squares).sqrt() / weight };
    Some(Mean { mean, error, blocks })
}

/// The 95 % percentile interval of `sum(values) / sum(weights)` when whole blocks are drawn again with replacement
/// (Efron 1979), `resamples` times from `seed`. `None` as in [`block_mean`].
pub fn bootstrap(values: &[f64], weights: &[f64], resamples: usize, seed: u64) -> Option<(f64, f64)> {
    block_mean(values, weights)?;
    let mut rng = Rng::new(seed);
    let mut means = Vec::with_capacity(resamples);
    for _ in 0..resamples {
        let (mut total, mut weight) = (0.0, 0.0);
        for _ in 0..values.len() {
            let block = rng.below(values.len());
            total += values[block];
            weight += weights[block];
        }
        if weight > 0.0 {
            means.push(total / weight);
        }
    }
    means.sort_by(f64::total_cmp);
    Some((quantile(&means, (1.0 - CONFIDENCE) / 2.0)?, quantile(&means, (1.0 + CONFIDENCE) / 2.0)?))
}

/// Wilson's 95 % interval of a share that was found in `n` independent draws (Wilson, "Probable inference", 1927): it stays
/// within 0 to 1 and says something of shares of 0 and 1 as well. For a mean of `n` numbers between 0 and 1 that are not
/// all 0 or 1 it is on the safe side, because their variance is smaller.
pub fn wilson(share: f64, n: usize) -> (f64, f64) {
    if n == 0 {
        return (0.0, 1.0);
    }
    let (n, z) = (n as f64, 1.959_963_984_540_054);
    let middle = share + z * z / (2.0 * n);
    let half = z * (share * (1.0 - share) / n + z * z / (4.0 * n * n)).sqrt();
    let scale = 1.0 + z * z / n;
    (((middle - half) / scale).clamp(0.0, share), ((middle + half) / scale).clamp(share, 1.0))
}

/// The value below which a share `q` (0 to 1) of `sorted` lies, by linear interpolation. `None` for no values.
pub fn quantile(sorted: &[f64], q: f64) -> Option<f64> {
    let place = q.clamp(0.0, 1.0) * sorted.len().checked_sub(1)? as f64;
    let (low, high) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    Some(low + (high - low) * place.fract())
}

#[cfg(test)]
mod tests {
    use kernels::Rng;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn wilson_intervals_are_the_published_ones() {
        // Newcombe, "Two-sided confidence intervals for the single proportion" (1998), table I.
        for (hits, n, low, high) in
            [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)]
        {
            let found = wilson(f64::from(hits) / f64::from(n), n as usize);
            assert!((found.0 - low).abs() < 5e-5 && (found.1 - high).abs() < 5e-5, "{hits} of {n}: {found:?}");
        }
        let (low, high) = wilson(1.0, 20);
        assert!(high == 1.0 && (low - (1.0 - 0.1611)).abs() < 5e-5);
        assert_eq!(wilson(0.5, 0), (0.0, 1.0));
    }

    #[test]
    fn intervals_leave_out_what_the_tables_of_order_statistics_say() {
        // Conover, "Practical Nonparametric Statistics", table of the sign test at 95 %: order statistics r and n + 1 - r.
        for (n, r) in [(1, 1), (5, 1), (6, 1), (8, 1), (9, 2), (11, 2), (12, 3), (15, 4), (20, 6), (25, 8), (50, 18)] {
            assert_eq!(trimmed(n) + 1, r, "n = {n}");
        }
        assert!((coverage(6) - 0.96875).abs() < 1e-12);
        assert!((coverage(5) - 0.9375).abs() < 1e-12);
        assert!(coverage(5000) >= CONFIDENCE && coverage(5000) < 0.955);
    }

    #[test]
    fn ninety_five_of_a_hundred_intervals_cover_the_median() {
        let mut rng = Rng::new(7);
        let trials = 4000;
        // Skewed like times: the median of u² is 1/4.
        let covered = (0..trials)
            .filter(|_| {
                let samples: Vec<f64> = (0..21).map(|_| f64::from(rng.unit()).powi(2)).collect();
                let interval = median(&samples).unwrap();
                interval.low <= 0.25 && 0.25 <= interval.high
            })
            .count() as f64
            / f64::from(trials);
        assert!((0.945..=0.995).contains(&covered), "covered {covered}");
    }

    #[test]
    fn drift_cancels_in_paired_ratios() {
        let drift: Vec<f64> = (0..30).map(|i| 1.0 + f64::from(i) * 0.1).collect();
        let twice: Vec<f64> = drift.iter().map(|d| d * 2.0).collect();
        let ratio = paired_ratio(&twice, &drift).unwrap();
        assert_eq!((ratio.median, ratio.low, ratio.high), (2.0, 2.0, 2.0));
        assert!(median(&drift).unwrap().uncertainty() > 0.1);
    }

    #[test]
    fn equal_weights_give_the_textbook_standard_error() {
        let values = [1.0, 2.0, 3.0, 4.0];
        let mean = block_mean(&values, &[1.0; 4]).unwrap();
        assert_eq!(mean.mean, 2.5);
        assert!((mean.error - (5.0f64 / 3.0).sqrt() / 2.0).abs() < 1e-12);
        let (low, high) = bootstrap(&values, &[1.0; 4], 2000, 1).unwrap();
        assert!(low < 2.0 && high > 3.0 && low >= 1.0 && high <= 4.0);
        assert_eq!(bootstrap(&values, &[1.0; 4], 2000, 1), Some((low, high)), "the seed decides");
    }

    #[test]
    fn nothing_sensible_comes_from_nothing() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[1.0, f64::NAN]), None);
        assert_eq!(paired_ratio(&[1.0], &[]), None);
        assert_eq!(paired_ratio(&[1.0], &[0.0]), None);
        assert_eq!(block_mean(&[], &[]), None);
        assert_eq!(quantile(&[], 0.5), None);
        assert_eq!(coverage(0), 0.0);
    }

    proptest! {
        #[test]
        fn a_median_lies_in_its_interval_and_in_the_range(samples in prop::collection::vec(1e-9f64..1e9, 1..200)) {
            let m = median(&samples).unwrap();
            let (min, max) = samples.iter().fold((f64::MAX, f64::MIN), |(a, b), s| (a.min(*s), b.max(*s)));
            prop_assert!(min <= m.low && m.low <= m.median && m.median <= m.high && m.high <= max);
            let mut turned = samples.clone();
            turned.reverse();
            prop_assert_eq!(median(&turned), Some(m), "order does not matter");
        }

        #[test]
        fn a_median_scales_with_its_unit(samples in prop::collection::vec(1e-3f64..1e3, 1..60), scale in 1e-3f64..1e3) {
            let m = median(&samples).unwrap().map(|s| s * scale);
            let scaled: Vec<f64> = samples.iter().map(|s| s * scale).collect();
            let direct = median(&scaled).unwrap();
            prop_assert!((m.median - direct.median).abs() <= 1e-12 * direct.median);
            prop_assert_eq!((m.low, m.high), (direct.low, direct.high));
        }

        #[test]
        fn a_ratio_and_its_inverse_agree(pairs in prop::collection::vec((1e-3f64..1e3, 1e-3f64..1e3), 1..60)) {
            let (a, b): (Vec<f64>, Vec<f64>) = pairs.into_iter().unzip();
            let (forth, back) = (paired_ratio(&a, &b).unwrap(), paired_ratio(&b, &a).unwrap());
            prop_assert!((forth.low * back.high - 1.0).abs() < 1e-9);
            prop_assert!((forth.high * back.low - 1.0).abs() < 1e-9);
        }

        #[test]
        fn coverage_reaches_its_aim_from_six_samples_on(n in 6usize..2000) {
            prop_assert!(coverage(n) >= CONFIDENCE - 1e-9);
        }

        #[test]
        fn a_block_mean_lies_between_its_blocks(blocks in prop::collection::vec((0.0f64..1e6, 1.0f64..1e3), 1..50)) {
            let (values, weights): (Vec<f64>, Vec<f64>) = blocks.iter().map(|(m, w)| (m * w, *w)).unzip();
            let mean = block_mean(&values, &weights).unwrap();
            let (min, max) = blocks.iter().fold((f64::MAX, f64::MIN), |(a, b), (m, _)| (a.min(*m), b.max(*m)));
            prop_assert!(mean.mean >= min - 1e-6 && mean.mean <= max + 1e-6);
            prop_assert!(mean.error >= 0.0);
        }
    }
}
