//! Convolutions over tokens.

pub mod causal;
