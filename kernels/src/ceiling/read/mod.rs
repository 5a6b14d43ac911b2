//! Reading memory in several streams.
//!
//! **Computes** the wrapping sum of all 64-bit words, reading `streams` equal parts side by side.
//!
//! **Shapes** lines `[n]` of 64 bytes.
//!
//! **Exactness** the same sum everywhere.
//!
//! **Cost** 64·n bytes read.
//!
//! **Variants** AVX-512 and AVX2: four lines of each stream in turn, every stream prefetched 1.75 KiB ahead.

use crate::memory::Purpose;
use crate::probe::{Op, Shape, Work};
use crate::{Kernels, Line, Lines, Rng};

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
pub(crate) mod scalar;

/// lines, streams (at least 1).
pub(crate) type Variant = unsafe fn(&[Line], usize) -> u64;

impl Kernels {
    /// The wrapping sum of the lines' 64-bit little-endian words, read in `streams` streams (1..=16). See
    /// [`crate::ceiling::read`].
    ///
    /// # Panics
    /// If `streams` is outside 1..=16.
    pub fn read(&self, lines: &[Line], streams: usize) -> u64 {
        assert!((1..=16).contains(&streams), "{streams} streams: expected 1 to 16");
        // SAFETY: this table exists only if the CPU has the variant's features.
        unsafe { (self.read)(lines, streams) }
    }
}

/// The op, for [`OPS`](crate::probe::OPS). A shape is 1 × lines × streams.
pub(crate) struct Read;

/// Memory to read and the sum that came of it.
pub(crate) struct Case {
    lines: Lines,
    streams: usize,
    sum: Option<u64>,
}

impl Op for Read {
    const NAME: &'static str = "ceiling/read";
    type Case = Case;

    fn shapes() -> Vec<Shape> {
        let counts = [0, 1, 2, 3, 4, 5, 31, 63, 64, 65, 257];
        counts.into_iter().flat_map(|n| [1, 2, 3, 4, 7, 8, 12, 16].map(|streams| Shape::new(1, n, streams))).collect()
    }

    fn model_shapes() -> Vec<Shape> {
        // 16 KiB, 1 MiB and 128 MiB: first-level cache, second-level cache, memory.
        let counts = [1 << 8, 1 << 14, 1 << 21];
        counts.into_iter().flat_map(|n| [1, 8, 16].map(|streams| Shape::new(1, n, streams))).collect()
    }

    fn admit(shape: Shape) -> Shape {
        Shape::new(1, shape.c, shape.t.clamp(1, 16))
    }

    fn case(shape: &Shape, rng: &mut Rng) -> Case {
        let mut lines = Lines::zeroed_for(Purpose::Measuring, shape.c);
        for bytes in lines.bytes_mut().chunks_exact_mut(8) {
            bytes.copy_from_slice(&rng.next_u64().to_le_bytes());
        }
        Case { lines, streams: shape.t, sum: None }
    }

    fn run(kernels: &Kernels, case: &mut Case) {
        case.sum = Some(kernels.read(&case.lines, case.streams));
    }

    fn output(case: &Case) -> Vec<f32> {
        // In quarters, which are exact in `f32`.
        case.sum.map_or(Vec::new(), |sum| (0..4).map(|i| (sum >> (16 * i) & 0xFFFF) as f32).collect())
    }

    fn work(shape: &Shape) -> Work {
        Work { bytes: 64 * shape.c as u64, operations: 8 * shape.c as u64 }
    }

    fn variant(kernels: &Kernels) -> usize {
        kernels.read as usize
    }
}
