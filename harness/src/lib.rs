//! Experiments that write reports, and the command line around them.

pub mod ceilings;
pub mod contest;
pub mod crew;
pub mod machine;
pub mod quantity;
pub mod record;
pub mod report;
pub mod stats;
