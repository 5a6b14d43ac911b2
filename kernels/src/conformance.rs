//! Variants held to their specification: our ops and those of outside crates alike.

use crate::probe::{Probe, Shape, Tolerance};
use crate::{Isa, Kernels, Rng};

/// The seeds that each of an op's own shapes is tried with.
pub const SEEDS: [u64; 3] = [1, 20, 300];

/// The tables whose variants of an op are held to its specification: those of this CPU's levels with code of their own.
pub fn tables(op: &Probe) -> Vec<&'static Kernels> {
    op.own_tables().into_iter().filter(|table| table.isa() != Isa::Scalar).collect()
}

/// Where variants of an op break its promise on one random case: a sentence each, or none.
pub fn differences(op: &Probe, tables: &[&'static Kernels], shape: &Shape, seed: u64) -> Vec<String> {
    // Each fills a case of its own, so that what one leaves unwritten stays NaN.
    let run = |kernels| {
        let mut case = (op.case)(shape, seed);
        case.run(kernels);
        case.output()
    };
    let Some(specification) = Kernels::for_isa(Isa::Scalar) else { return Vec::new() };
    let want = run(specification);
    let same = |got: f32, want: f32| match op.tolerance {
        Tolerance::Exact => got.to_bits() == want.to_bits(),
        Tolerance::Absolute(limit, _) => got.to_bits() == want.to_bits() || (got - want).abs() <= limit,
    };
    let difference = |table: &&'static Kernels| {
        let got = run(table);
        let name = format!("{}@{} at {shape}, seed {seed}", op.name, table.isa());
        if got.len() != want.len() {
            return Some(format!("{name}: {} numbers, expected {}", got.len(), want.len()));
        }
        let wrong = got.iter().zip(&want).position(|(got, want)| !same(*got, *want))?;
        Some(format!("{name}: element {wrong} is {:?}, expected {:?}", got[wrong], want[wrong]))
    };
    tables.iter().filter_map(difference).collect()
}

/// Holds every variant that this CPU can run to the specification: on all shapes that the op lists, then on `cases` random
/// ones, mostly small, where boundaries are.
///
/// # Errors
/// The first difference, in one sentence.
pub fn check(op: &Probe, cases: u32) -> Result<(), String> {
    let tables = tables(op);
    let first = |shape: &Shape, seed| differences(op, &tables, shape, seed).into_iter().next().map_or(Ok(()), Err);
    for shape in (op.shapes)() {
        SEEDS.iter().try_for_each(|seed| first(&shape, *seed))?;
    }
    let mut rng = Rng::new(0);
    for _ in 0..cases {
        let most = [(20, 80, 6), (140, 40, 4), (6, 600, 4), (12, 80, 40)][[0, 0, 0, 1, 2, 3][rng.below(6)]];
        let shape = Shape::new(rng.below(most.0), rng.below(most.1), rng.below(most.2));
        first(&(op.admit)(shape), rng.next_u64())?;
    }
    Ok(())
}
