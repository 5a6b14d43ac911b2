//! What being able to go back costs a recurrent model: a step that keeps what was before it, and going back eight tokens.
//! `cargo bench -p engines --bench rewind`.

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use engines::{CacheFormat, Cpu, Packing, Segment, Settings, Spec, Want, load};
use kernels::Isa;

/// Tokens that a state goes back.
const BACK: usize = 8;

fn rewind(criterion: &mut Criterion) {
    for name in ["mamba-130m", "rwkv7-0.1b"] {
        let cpu = Cpu::new(Isa::best(), 1).unwrap();
        let settings = Settings { cpu, cache: CacheFormat::F32, packing: Packing::default() };
        let spec = Spec::parse(&format!("synthetic:{name}")).unwrap();
        let model = load(&spec, &settings, &|_, _| ()).unwrap().model;
        for keep in [0, BACK] {
            let mut state = model.start(keep);
            criterion.bench_function(&format!("rewind/{name}/step that keeps {keep}"), |bencher| {
                bencher.iter(|| {
                    model.forward(&mut [Segment { state: &mut state, tokens: &[1], want: Want::Last }]).unwrap()
                });
            });
        }
        let mut state = model.start(BACK);
        let tokens: Vec<u32> = (0..2 * BACK as u32).collect();
        model.forward(&mut [Segment { state: &mut state, tokens: &tokens, want: Want::Last }]).unwrap();
        criterion.bench_function(&format!("rewind/{name}/back {BACK}"), |bencher| {
            bencher.iter_batched(|| state.clone(), |mut state| state.rewind(BACK).unwrap(), BatchSize::SmallInput);
        });
    }
}

criterion_group!(benches, rewind);
criterion_main!(benches);
