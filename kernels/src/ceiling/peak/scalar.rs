//! Plain loops over eight independent chains.

use super::Burst;
use std::hint::black_box;

const CHAINS: usize = 8;

pub(crate) fn int8(rounds: u64) -> Burst {
    let mut sums = [0i32; CHAINS];
    let (a, b) = (black_box(2u8), black_box(-3i8));
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = black_box(sum.wrapping_add(i32::from(a) * i32::from(b)));
        }
    }
    Burst { operations: rounds * 2 * CHAINS as u64, checksum: sums.iter().map(|s| f64::from(*s)).sum() }
}

pub(crate) fn f32(rounds: u64) -> Burst {
    let mut sums = [0.0f32; CHAINS];
    let (a, b) = (black_box(0.999f32), black_box(1e-3f32));
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = black_box(*sum * a + b);
        }
    }
    Burst { operations: rounds * 2 * CHAINS as u64, checksum: sums.iter().map(|s| f64::from(*s)).sum() }
}
