//! The recurrences of RWKV, which stand where attention does: a state of fixed size meets one token after the other.
//!
//! | op | model | state of a head |
//! |---|---|---|
//! | [`wkv4`] | RWKV-4 | three numbers a channel |
//! | [`wkv6`] | RWKV-5.0, 5.2 and 6 | N keys × N values |
//! | [`wkv7`] | RWKV-7 | N keys × N values |

use crate::{Rng, Rows, RowsMut};

pub mod wkv4;
pub mod wkv6;
pub mod wkv7;

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
fn rows(data: &[f32], width: usize) -> Rows<'_> {
    Rows { data, stride: width + GAP }
}

/// A place for results, as [`rows`] lie.
fn rows_mut(data: &mut [f32], width: usize) -> RowsMut<'_> {
    RowsMut { data, stride: width + GAP }
}
