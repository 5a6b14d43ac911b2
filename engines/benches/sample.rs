//! Choosing a token among 128,256: `cargo bench -p engines`.

use criterion::{Criterion, criterion_group, criterion_main};
use engines::sample::Sampler;
use kernels::{Kernels, Rng};
use std::hint::black_box;

fn sample(criterion: &mut Criterion) {
    let mut rng = Rng::new(1);
    // Flat, so that filters leave many; and peaked, as a trained model's are.
    for (name, spread) in [("flat", 0.5), ("peaked", 4.0)] {
        let logits: Vec<f32> = (0..128_256).map(|_| spread * rng.normal()).collect();
        let base = Sampler::default();
        for (setting, sampler) in [
            ("greedy", Sampler::greedy()),
            ("plain", base),
            ("top_k 40", Sampler { top_k: 40, ..base }),
            ("top_p 0.9", Sampler { top_p: 0.9, ..base }),
            ("min_p 0.05", Sampler { min_p: 0.05, ..base }),
            ("top_k 40, top_p 0.9, min_p 0.05", Sampler { top_k: 40, top_p: 0.9, min_p: 0.05, ..base }),
        ] {
            let mut position = 0;
            criterion.bench_function(&format!("sample/{name}/{setting}"), |bencher| {
                bencher.iter(|| {
                    position += 1;
                    sampler.choose(Kernels::best(), black_box(&logits), &[], position).unwrap()
                });
            });
        }
    }
}

criterion_group!(benches, sample);
criterion_main!(benches);
