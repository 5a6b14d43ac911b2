//! The number formats that weights, embeddings and caches are stored in.

use crate::{Kernels, attention, dense, embedding};
use half::{bf16, f16};

/// A stored number that widens to `f32` without rounding: `f32`, `bf16` or `f16`. Sealed: the table has one column of
/// variants for each.
pub trait Element: Copy + Default + Send + Sync + PartialEq + std::fmt::Debug + sealed::Columns + 'static {
    /// The format's name: `f32`, `bf16`, `f16`.
    const NAME: &'static str;

    /// The same value in `f32` (exact).
    fn widen(self) -> f32;

    /// The nearest value in this format, ties to even.
    fn narrow(value: f32) -> Self;
}

/// The formats a cache can hold.
pub trait CacheElement: Element + sealed::CacheColumns {}

pub(crate) mod sealed {
    use super::{Kernels, attention, dense, embedding};

    /// Where the table keeps the variants for a format.
    pub trait Columns: Sized {
        #[doc(hidden)]
        fn dense(kernels: &Kernels) -> dense::Variant<Self>;
        #[doc(hidden)]
        fn embedding(kernels: &Kernels) -> embedding::Variant<Self>;
    }

    /// Where the table keeps the attention variants for a format.
    pub trait CacheColumns: Sized {
        #[doc(hidden)]
        fn attention(kernels: &Kernels) -> attention::Variant<Self>;
        #[doc(hidden)]
        fn attention_causal(kernels: &Kernels) -> attention::causal::Variant<Self>;
        /// The numbers themselves, where they need no widening.
        #[doc(hidden)]
        fn plain(_numbers: &[Self]) -> Option<&[f32]> {
            None
        }
    }
}

macro_rules! element {
    ($format:ident, $widen:expr, $narrow:expr, $dense:ident, $embedding:ident) => {
        impl sealed::Columns for $format {
            fn dense(kernels: &Kernels) -> dense::Variant<$format> {
                kernels.$dense
            }

            fn embedding(kernels: &Kernels) -> embedding::Variant<$format> {
                kernels.$embedding
            }
        }

        impl Element for $format {
            const NAME: &'static str = stringify!($format);

            #[inline(always)]
            fn widen(self) -> f32 {
                $widen(self)
            }

            #[inline(always)]
            fn narrow(value: f32) -> $format {
                $narrow(value)
            }
        }
    };
}

element!(f32, std::convert::identity, std::convert::identity, dense_f32, embedding_f32);
element!(bf16, bf16::to_f32, bf16::from_f32, dense_bf16, embedding_bf16);
element!(f16, f16::to_f32, f16::from_f32, dense_f16, embedding_f16);

impl sealed::CacheColumns for f32 {
    fn attention(kernels: &Kernels) -> attention::Variant<f32> {
        kernels.attention_f32
    }

    fn attention_causal(kernels: &Kernels) -> attention::causal::Variant<f32> {
        kernels.attention_causal_f32
    }

    fn plain(numbers: &[f32]) -> Option<&[f32]> {
        Some(numbers)
    }
}

impl sealed::CacheColumns for bf16 {
    fn attention(kernels: &Kernels) -> attention::Variant<bf16> {
        kernels.attention_bf16
    }

    fn attention_causal(kernels: &Kernels) -> attention::causal::Variant<bf16> {
        kernels.attention_causal_bf16
    }
}

impl CacheElement for f32 {}
impl CacheElement for bf16 {}
