//! Normalisation over the model width.

pub mod layer;
pub mod rms;
