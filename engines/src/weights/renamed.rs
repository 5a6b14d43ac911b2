//! Tensors under other names than their source's.

use super::dense::Dense;
use super::{Source, TernaryForm};
use crate::{Error, Result};
use kernels::ternary::TernaryMatrix;

/// A source whose tensors are asked for by names that it does not know. Errors speak of its own.
pub(crate) struct Renamed<'a> {
    pub(crate) source: &'a dyn Source,
    /// From a name that is asked for to the source's.
    pub(crate) theirs: fn(&str) -> String,
    /// And back.
    pub(crate) ours: fn(&str) -> String,
}

impl Renamed<'_> {
    fn theirs(&self, name: &str) -> String {
        (self.theirs)(name)
    }
}

impl Source for Renamed<'_> {
    fn vector(&self, name: &str, width: usize) -> Result<Vec<f32>> {
        self.source.vector(&self.theirs(name), width)
    }

    fn flat(&self, name: &str, len: usize) -> Result<Vec<f32>> {
        self.source.flat(&self.theirs(name), len)
    }

    fn dense(&self, name: &str, rows: usize, cols: usize) -> Result<Dense> {
        self.source.dense(&self.theirs(name), rows, cols)
    }

    fn dense_transposed(&self, name: &str, rows: usize, cols: usize) -> Result<Dense> {
        self.source.dense_transposed(&self.theirs(name), rows, cols)
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.source.shape(&self.theirs(name))
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.source.names().iter().map(|name| (self.ours)(name)).collect();
        names.sort_unstable();
        names
    }

    fn ternary(&self, name: &str, rows: usize, cols: usize, form: TernaryForm) -> Result<(TernaryMatrix, f64)> {
        self.source.ternary(&self.theirs(name), rows, cols, form)
    }

    fn place(&self) -> String {
        self.source.place()
    }

    fn wrong(&self, name: &str, problem: String) -> Error {
        self.source.wrong(&self.theirs(name), problem)
    }

    fn check_names(&self, known: &dyn Fn(&str) -> bool) -> Result<()> {
        self.source.check_names(&|name| known(&(self.ours)(name)))
    }
}
