//! Reproducible random numbers for test inputs and synthetic weights.

/// SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014): 64 bits of state,
/// the same sequence on every machine and in every version of this project, which published seeds rely on.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// A generator whose whole sequence is a function of `seed`.
    pub fn new(seed: u64) -> Rng {
        Rng(seed)
    }

    /// SplitMix64's finaliser: a bijection of 64-bit words in which every input bit reaches every output bit.
    pub fn mix(word: u64) -> u64 {
        let word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        word ^ (word >> 31)
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        Rng::mix(self.0)
    }

    /// Uniform in `0..bound`; `bound` at least 1. The bias is below `bound / 2^64`.
    pub fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next_u64()) * bound as u128) >> 64) as usize
    }

    /// Uniform in [0, 1), 24 bits.
    pub fn unit(&mut self) -> f32 {
        (self.next_u64() >> 40) as f32 / (1 << 24) as f32
    }

    /// Approximately normal with mean 0 and variance 1: the sum of twelve uniforms less six (range -6..6), which needs no
    /// transcendental function and so is the same on every machine.
    pub fn normal(&mut self) -> f32 {
        let mut sum = 0u64;
        for _ in 0..3 {
            let word = self.next_u64();
            sum += (word & 0xFFFF) + (word >> 16 & 0xFFFF) + (word >> 32 & 0xFFFF) + (word >> 48);
        }
        sum as f32 / 65536.0 - 6.0
    }
}
