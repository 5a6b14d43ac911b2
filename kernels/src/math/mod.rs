//! Elementary functions as our own polynomials, so that every ISA and every C library gives the same bits.

pub(crate) mod scalar;
