//! Times every variant of every op on the shapes of real models: `cargo bench -p kernels --bench ops -- FILTER`.
//!
//! A benchmark's name is `OP@ISA/ROWSxCOLUMNSxTOKENS`, for example `ternary/i2@avx512/2560x6912x1`, and a filter may be any
//! part of it. Bytes are those that must move, elements the operations that must be done: what the op itself declares.
//! Inherited variants are not timed twice; levels that this CPU lacks are left out. What is timed here is checked by
//! `tests/conformance.rs`.

use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use kernels::probe::OPS;
use std::time::Duration;

fn ops(criterion: &mut Criterion) {
    for op in OPS {
        for table in op.own_tables() {
            let mut group = criterion.benchmark_group(format!("{}@{}", op.name, table.isa()));
            group.sampling_mode(SamplingMode::Flat).sample_size(20);
            group.warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(1));
            for shape in (op.model_shapes)() {
                let work = (op.work)(&shape);
                group.throughput(Throughput::ElementsAndBytes { elements: work.operations, bytes: work.bytes });
                // Made by the first call, so that what a filter leaves out costs nothing.
                let mut case = None;
                group.bench_function(shape.to_string(), |bencher| {
                    let case = case.get_or_insert_with(|| (op.case)(&shape, 1));
                    bencher.iter(|| case.run(table));
                });
            }
            group.finish();
        }
    }
}

criterion_group!(benches, ops);
criterion_main!(benches);
