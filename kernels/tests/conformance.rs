//! Every variant of every op against the specification: the same bits, or within the tolerance that the op declares.

use kernels::probe::{OPS, Probe, Shape, Tolerance};
use kernels::{Isa, Kernels};
use proptest::prelude::*;

/// The seeds that every shape is tried with.
const SEEDS: [u64; 3] = [1, 20, 300];

/// The scalar table, which every machine has.
fn specification() -> &'static Kernels {
    Kernels::for_isa(Isa::Scalar).expect("every machine has the scalar level")
}

/// Prints the levels that this CPU lacks, so that a green run does not claim more than it showed.
fn print_missing_levels() {
    for isa in Isa::ALL.into_iter().filter(|isa| !isa.is_available()) {
        println!("not tested: {isa} (this CPU lacks it)");
    }
}

/// Where a variant breaks the promise of its op, if it does.
fn difference(op: &Probe, table: &'static Kernels, shape: &Shape, seed: u64) -> Option<String> {
    // Each fills a case of its own, so that what one leaves unwritten stays NaN.
    let run = |kernels| {
        let mut case = (op.case)(shape, seed);
        case.run(kernels);
        case.output()
    };
    let (got, want) = (run(table), run(specification()));
    let name = format!("{}@{} at {shape}, seed {seed}", op.name, table.isa());
    if got.len() != want.len() {
        return Some(format!("{name}: {} numbers, expected {}", got.len(), want.len()));
    }
    let same = |got: f32, want: f32| match op.tolerance {
        Tolerance::Exact => got.to_bits() == want.to_bits(),
        Tolerance::Absolute(limit, _) => got.to_bits() == want.to_bits() || (got - want).abs() <= limit,
    };
    let wrong = got.iter().zip(&want).position(|(got, want)| !same(*got, *want))?;
    Some(format!("{name}: element {wrong} is {:?}, expected {:?}", got[wrong], want[wrong]))
}

#[test]
fn the_instructions_of_every_op_are_counted() {
    let counted = include_str!("../benches/counts.rs");
    for op in OPS {
        assert!(counted.contains(&format!("= {:?};", op.name)), "{} is missing in benches/counts.rs", op.name);
    }
}

#[test]
fn every_op_has_shapes_of_models_and_names_are_unique() {
    for (i, op) in OPS.iter().enumerate() {
        assert!(OPS[..i].iter().all(|earlier| earlier.name != op.name), "two ops are called {}", op.name);
        let shapes = (op.model_shapes)();
        assert!(!shapes.is_empty(), "{} has no model shape to time", op.name);
        for shape in shapes.into_iter().chain((op.shapes)()) {
            assert_eq!((op.admit)(shape), shape, "{} lists a shape that it does not admit", op.name);
        }
    }
}

#[test]
fn every_isa_gives_the_same_bits() {
    print_missing_levels();
    let mut wrong = Vec::new();
    for op in OPS {
        for table in op.own_tables().into_iter().filter(|table| table.isa() != Isa::Scalar) {
            for shape in (op.shapes)() {
                wrong.extend(SEEDS.iter().filter_map(|seed| difference(op, table, &shape, *seed)).take(1));
            }
        }
    }
    assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), wrong.join("\n"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn any_shape_gives_the_same_bits(op in 0..OPS.len(), r in 0usize..300, c in 0usize..300, t in 0usize..40, seed: u64) {
        let op = &OPS[op];
        let shape = (op.admit)(Shape::new(r, c, t));
        for table in op.own_tables() {
            prop_assert_eq!(difference(op, table, &shape, seed), None);
        }
    }
}
