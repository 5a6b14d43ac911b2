//! The machine's ceilings: what a kernel can be held to. The harness times these in the same run as the kernels.

pub mod peak;
pub mod read;
