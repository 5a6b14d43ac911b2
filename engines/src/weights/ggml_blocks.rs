//! The blocks that ggml quantises rows of weights to: 32 numbers as small integers with a factor, and in some forms an offset.
//!
//! | form | bytes | layout | number |
//! |---|---|---|---|
//! | Q4_0 | 18 | f16 d, 16 bytes | (q - 8) d |
//! | Q4_1 | 20 | f16 d, f16 m, 16 bytes | q d + m |
//! | Q5_0 | 22 | f16 d, u32 high, 16 bytes | (q - 16) d |
//! | Q5_1 | 24 | f16 d, f16 m, u32 high, 16 bytes | q d + m |
//! | Q8_0 | 34 | f16 d, 32 signed bytes | q d |
//!
//! Byte i of the 16 holds the lower four bits of number i (low half) and of number i + 16 (high half); bit i of `high` is the
//! fifth bit of number i.
//!
//! Source: ggml (github.com/ggml-org/ggml), the block structures of its quantised types.

use half::f16;

/// Numbers to a block.
pub(crate) const BLOCK: usize = 32;

/// A form of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blocks {
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
}

impl Blocks {
    /// Bytes to a block.
    pub(crate) fn bytes(self) -> usize {
        match self {
            Blocks::Q4_0 => 18,
            Blocks::Q4_1 => 20,
            Blocks::Q5_0 => 22,
            Blocks::Q5_1 => 24,
            Blocks::Q8_0 => 34,
        }
    }

    /// Widens whole blocks.
    pub(crate) fn widen(self, blocks: &[u8], numbers: &mut [f32]) {
        for (block, numbers) in blocks.chunks_exact(self.bytes()).zip(numbers.chunks_exact_mut(BLOCK)) {
            let half = |at: usize| f16::from_le_bytes([block[at], block[at + 1]]).to_f32();
            let d = half(0);
            let five = |at: usize| {
                let high = u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
                let four = nibbles(&block[at + 4..]);
                std::array::from_fn(|i| four[i] | ((high >> i & 1) as u8) << 4)
            };
            let shifted = |q: u8, zero: i16| f32::from(i16::from(q) - zero) * d;
            match self {
                Blocks::Q4_0 => fill(numbers, nibbles(&block[2..]), |q| shifted(q, 8)),
                Blocks::Q5_0 => fill(numbers, five(2), |q| shifted(q, 16)),
                Blocks::Q4_1 => fill(numbers, nibbles(&block[4..]), |q| f32::from(q) * d + half(2)),
                Blocks::Q5_1 => fill(numbers, five(4), |q| f32::from(q) * d + half(2)),
                Blocks::Q8_0 => {
                    for (number, q) in numbers.iter_mut().zip(&block[2..]) {
                        *number = f32::from(*q as i8) * d;
                    }
                }
            }
        }
    }
}

fn fill(numbers: &mut [f32], quants: [u8; BLOCK], number: impl Fn(u8) -> f32) {
    for (out, q) in numbers.iter_mut().zip(quants) {
        *out = number(q);
    }
}

/// The low halves of 16 bytes, then the high ones.
fn nibbles(bytes: &[u8]) -> [u8; BLOCK] {
    std::array::from_fn(|i| if i < BLOCK / 2 { bytes[i] & 15 } else { bytes[i - BLOCK / 2] >> 4 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_at_its_place() {
        let (d, m) = (f16::from_f32(0.5).to_le_bytes(), f16::from_f32(-3.0).to_le_bytes());
        // Number i has the lower bits i mod 16; every third has the fifth bit.
        let low: Vec<u8> = (0..16u8).map(|i| i | i << 4).collect();
        let high = (0..32u32).filter(|i| i.is_multiple_of(3)).map(|i| 1u32 << i).sum::<u32>().to_le_bytes();
        let four = |i: usize| (i % 16) as f32;
        let five = |i: usize| four(i) + if i.is_multiple_of(3) { 16.0 } else { 0.0 };
        let check = |form: Blocks, parts: &[&[u8]], expected: &dyn Fn(usize) -> f32| {
            let block = parts.concat();
            assert_eq!(block.len(), form.bytes());
            let mut numbers = [f32::NAN; 2 * BLOCK];
            form.widen(&[&block[..], &block].concat(), &mut numbers);
            for (i, number) in numbers.iter().enumerate() {
                assert_eq!(*number, expected(i % BLOCK), "{form:?} {i}");
            }
        };
        check(Blocks::Q4_0, &[&d, &low], &|i| (four(i) - 8.0) * 0.5);
        check(Blocks::Q4_1, &[&d, &m, &low], &|i| four(i) * 0.5 - 3.0);
        check(Blocks::Q5_0, &[&d, &high, &low], &|i| (five(i) - 16.0) * 0.5);
        check(Blocks::Q5_1, &[&d, &m, &high, &low], &|i| five(i) * 0.5 - 3.0);
        let signed: Vec<u8> = (0..32u8).map(|i| i.wrapping_mul(9).wrapping_sub(128)).collect();
        check(Blocks::Q8_0, &[&d, &signed], &|i| f32::from(signed[i] as i8) * 0.5);
    }
}
