//! Every variant of every op against the specification: the same bits, or within the tolerance that the op declares.

use kernels::Isa;
use kernels::conformance::{SEEDS, differences, tables};
use kernels::probe::{OPS, Shape};
use proptest::prelude::*;
use proptest::test_runner::{FileFailurePersistence, TestRunner};
use std::collections::BTreeMap;

/// Prints the levels that this CPU lacks, so that a green run does not claim more than it showed.
fn print_missing_levels() {
    for isa in Isa::ALL.into_iter().filter(|isa| !isa.is_available()) {
        println!("not tested: {isa} (this CPU lacks it)");
    }
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
