//! A token mixed with the one before it.

pub mod shift;
