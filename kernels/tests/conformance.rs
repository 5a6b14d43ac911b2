//! Every variant of every op against the specification: the same bits, or within the tolerance that the op declares.

use kernels::probe::{OPS, Probe, Shape, Tolerance};
use kernels::{Isa, Kernels};
use proptest::prelude::*;
use proptest::test_runner::{FileFailurePersistence, TestRunner};
use std::collections::BTreeMap;

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

/// Where a variant breaks the promise of its op, if one does.
fn differences(op: &Probe, tables: &[&'static Kernels], shape: &Shape, seed: u64) -> Vec<String> {
    // Each fills a case of its own, so that what one leaves unwritten stays NaN.
    let run = |kernels| {
        let mut case = (op.case)(shape, seed);
        case.run(kernels);
        case.output()
    };
    let want = run(specification());
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

/// The tables whose variants are held to the specification.
fn tables(op: &Probe) -> Vec<&'static Kernels> {
    op.own_tables().into_iter().filter(|table| table.isa() != Isa::Scalar).collect()
}

#[test]
fn the_instructions_of_every_op_are_counted_or_it_is_said_why_not() {
    let text = include_str!("../benches/counts.rs");
    for op in OPS {
        let counted = text.contains(&format!("= {:?};", op.name));
        let excused = text.contains(&format!("    {:?}: \"", op.name));
        assert!(
            counted != excused,
            "{} must be in benches/counts.rs once: counted, or with the reason why not",
            op.name
        );
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
        let tables = tables(op);
        for shape in (op.shapes)().iter().filter(|_| !tables.is_empty()) {
            wrong.extend(SEEDS.iter().flat_map(|seed| differences(op, &tables, shape, *seed)).take(1));
        }
    }
    assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), wrong.join("\n"));
}

/// The environment variable that says how many random cases each op is tried with: `RYZANSTEIN_CASES=10000`.
const CASES: &str = "RYZANSTEIN_CASES";
/// How many it is without.
const FEW: u32 = 32;

/// Mostly small shapes, where the boundaries are and cases are cheap; now and then larger ones.
fn any_shape() -> impl Strategy<Value = Shape> {
    prop_oneof![
        60 => (0usize..20, 0usize..80, 0usize..6),
        16 => (0usize..140, 0usize..40, 0usize..4),
        16 => (0usize..6, 0usize..600, 0usize..4),
        8 => (0usize..12, 0usize..80, 0usize..40),
        4 => (0usize..300, 0usize..300, 0usize..40),
    ]
    .prop_map(|(r, c, t)| Shape::new(r, c, t))
}

#[test]
fn any_shape_gives_the_same_bits() {
    print_missing_levels();
    let cases = std::env::var(CASES).map_or(FEW, |cases| cases.parse().expect("RYZANSTEIN_CASES is a number"));
    let mut levels = BTreeMap::new();
    for op in OPS {
        let tables = tables(op);
        if tables.is_empty() {
            let why = (op.missing)().unwrap_or("every level holds the specification");
            println!("not tested: {} ({why})", op.name);
            continue;
        }
        let config = ProptestConfig {
            cases,
            failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("proptest-regressions"))),
            ..ProptestConfig::with_source_file(file!())
        };
        let result = TestRunner::new(config).run(&(any_shape(), any::<u64>()), |(shape, seed)| {
            prop_assert_eq!(differences(op, &tables, &(op.admit)(shape), seed), Vec::<String>::new());
            Ok(())
        });
        result.unwrap_or_else(|failure| panic!("{}: {failure}", op.name));
        levels
            .entry(tables.iter().map(|table| table.isa().name()).collect::<Vec<_>>())
            .or_insert(Vec::new())
            .push(op.name);
    }
    for (levels, ops) in levels {
        println!("{cases} random cases an op on {}: {}", levels.join(" and "), ops.join(", "));
    }
}
