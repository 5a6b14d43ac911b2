//! Architectures, one file each.

pub(crate) mod transformer;
