//! Scans of state space models: a state that decays, takes in a token and is read, token by token.

pub mod selective;
pub mod ssd;
