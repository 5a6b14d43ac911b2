//! The recurrences of RWKV, which stand where attention does: a state of fixed size meets one token after the other.
//!
//! | op | model | state of a head |
//! |---|---|---|
//! | [`wkv4`] | RWKV-4 | three numbers a channel |
//! | [`wkv6`] | RWKV-5.0, 5.2 and 6 | N keys × N values |
//! | [`wkv7`] | RWKV-7 | N keys × N values |

use crate::Rng;

pub mod wkv4;
pub mod wkv6;
pub mod wkv7;

/// One row of numbers for each token. Row t begins at `t * stride`, so that heads can be picked from wider rows.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    /// From the first number of the first row on.
    pub numbers: &'a [f32],
    /// Numbers between the starts of two rows; 0 where one row serves all tokens.
    pub stride: usize,
}

/// [`Rows`] to be written, with a stride of at least their width.
#[derive(Debug)]
pub struct RowsMut<'a> {
    /// From the first number of the first row on.
    pub numbers: &'a mut [f32],
    /// Numbers between the starts of two rows.
    pub stride: usize,
}

impl<'a> Rows<'a> {
    /// The same row for every token.
    pub fn same(row: &'a [f32]) -> Rows<'a> {
        Rows { numbers: row, stride: 0 }
    }

    /// The first `width` numbers of row t.
    #[inline]
    pub(crate) fn row(self, t: usize, width: usize) -> &'a [f32] {
        &self.numbers[t * self.stride..][..width]
    }

    /// The same rows from a column on.
    #[inline]
    pub(crate) fn from(self, column: usize) -> Rows<'a> {
        Rows { numbers: &self.numbers[column..], ..self }
    }

    #[track_caller]
    fn check(self, tokens: usize, width: usize, what: &str) {
        let enough = holds(self.numbers.len(), tokens, width, self.stride);
        assert!(
            enough,
            "{what} of {} numbers for {tokens} rows of {width}, stride {}",
            self.numbers.len(),
            self.stride
        );
    }
}

impl RowsMut<'_> {
    /// The first `width` numbers of row t.
    #[inline]
    pub(crate) fn row(&mut self, t: usize, width: usize) -> &mut [f32] {
        &mut self.numbers[t * self.stride..][..width]
    }

    /// The same rows from a column on.
    #[inline]
    pub(crate) fn from(&mut self, column: usize) -> RowsMut<'_> {
        RowsMut { numbers: &mut self.numbers[column..], stride: self.stride }
    }

    #[track_caller]
    fn check(&self, tokens: usize, width: usize) {
        let len = self.numbers.len();
        let enough = holds(len, tokens, width, self.stride);
        assert!(enough, "out of {len} numbers for {tokens} rows of {width}, stride {}", self.stride);
        assert!(tokens < 2 || self.stride >= width, "stride {} of out rows of {width}", self.stride);
    }
}

/// Whether so many numbers are enough; without tokens any number is.
fn holds(len: usize, tokens: usize, width: usize, stride: usize) -> bool {
    tokens == 0 || (tokens - 1).checked_mul(stride).and_then(|last| last.checked_add(width)).is_some_and(|n| n <= len)
}

/// How many numbers lie between two rows of a probe's case, in inputs and outputs: NaN, which no variant may read.
const GAP: usize = 16;

/// Rows of `width` numbers for a probe's case, [`GAP`] between them.
fn random_rows(tokens: usize, width: usize, rng: &mut Rng, number: impl Fn(&mut Rng) -> f32) -> Vec<f32> {
    let mut rows = vec![f32::NAN; tokens * (width + GAP)];
    for row in rows.chunks_exact_mut(width + GAP) {
        row[..width].fill_with(|| number(rng));
    }
    rows
}

/// The rows that [`random_rows`] has made.
fn rows(numbers: &[f32], width: usize) -> Rows<'_> {
    Rows { numbers, stride: width + GAP }
}

/// A place for results, as [`rows`] lie.
fn rows_mut(numbers: &mut [f32], width: usize) -> RowsMut<'_> {
    RowsMut { numbers, stride: width + GAP }
}
