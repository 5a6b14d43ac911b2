//! The two kinds of number, told apart by type: [`Determined`] and [`Timed`].
//!
//! They stay apart in the files as well: in a row's JSON a determined number is `{"exact": value}` and a timed one
//! `{"median": …, "low": …, "high": …, "n": …}`; everything else in a row says which case it is. So a gate finds what it
//! may compare exactly without knowing the experiment.

use serde::{Deserialize, Serialize};

/// A number (or text) that follows from seed, data and weights: the same on every machine, compared exactly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Determined<T> {
    /// The value.
    pub exact: T,
}

/// Marks a value as determined.
pub fn determined<T>(exact: T) -> Determined<T> {
    Determined { exact }
}

/// A measured quantity: the median of `n` samples with an interval that covers the true median with 95 % confidence
/// where `n` allows it ([`crate::stats::coverage`]). The unit stands in the name of the field that holds it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timed {
    /// The median.
    pub median: f64,
    /// The interval's lower end.
    pub low: f64,
    /// The interval's upper end.
    pub high: f64,
    /// How many samples.
    pub n: usize,
}

impl Timed {
    /// What was measured once.
    pub fn once(value: f64) -> Timed {
        Timed { median: value, low: value, high: value, n: 1 }
    }

    /// The same quantity in another unit or turned into a rate: `f` must be monotone (rising or falling), so that
    /// median and interval map to median and interval.
    #[must_use]
    pub fn map(self, f: impl Fn(f64) -> f64) -> Timed {
        let (a, b) = (f(self.low), f(self.high));
        Timed { median: f(self.median), low: a.min(b), high: a.max(b), n: self.n }
    }

    /// Half the interval's width relative to the median.
    pub fn uncertainty(&self) -> f64 {
        (self.high - self.low) / 2.0 / self.median.abs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_falling_map_turns_the_interval_round() {
        let seconds = Timed { median: 2.0, low: 1.0, high: 4.0, n: 9 };
        assert_eq!(seconds.map(|s| 1.0 / s), Timed { median: 0.5, low: 0.25, high: 1.0, n: 9 });
        assert_eq!(seconds.uncertainty(), 0.75);
    }

    #[test]
    fn the_two_kinds_look_unlike_in_json() {
        assert_eq!(serde_json::to_string(&determined(1.5)).unwrap(), r#"{"exact":1.5}"#);
        let timed = Timed { median: 2.0, low: 1.0, high: 4.0, n: 9 };
        assert_eq!(serde_json::to_string(&timed).unwrap(), r#"{"median":2.0,"low":1.0,"high":4.0,"n":9}"#);
    }
}
