//! Elementary functions as our own polynomials, so that every ISA and every C library gives the same bits.

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
pub(crate) mod scalar;

#[cfg(test)]
mod tests;
