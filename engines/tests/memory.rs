//! The books of memory of a whole process. A binary with one test, because every other test would write in the same books.

use engines::{CacheFormat, Cpu, DensePacking, Packing, Segment, Settings, Spec, Token, Want, load};
use kernels::Isa;
use kernels::grouped;
use kernels::memory::{MemoryStats, Purpose};
use kernels::ternary::Layout;

fn bytes(purpose: Purpose) -> usize {
    MemoryStats::now().of(purpose).bytes
}

#[test]
fn weights_caches_and_scratch_stand_in_the_books_as_long_as_they_live() {
    let packings = [
        Packing::default(),
        Packing { ternary: Layout::T5, head: DensePacking::Grouped(grouped::Layout::Q8), ..Packing::default() },
    ];
    for (packing, cache) in packings.into_iter().zip([CacheFormat::F32, CacheFormat::Bf16]) {
        let settings = Settings { cpu: Cpu::new(Isa::best(), 2).unwrap(), cache, packing };
        let model = load(&Spec::parse("synthetic:bitnet-tiny:3").unwrap(), &settings, &|_, _| ()).unwrap().model;
        let facts = model.facts();
        // The table is kept beside a head that was packed anew; padding comes on top.
        let read = (facts.linear_bytes + facts.head_bytes) as usize;
        let weights = bytes(Purpose::Weights);
        let table = 2 * facts.vocab * facts.width;
        assert!((read..=read + table + (1 << 20)).contains(&weights), "{weights} of {read} and {table}");
        assert_eq!((bytes(Purpose::Cache), bytes(Purpose::Scratch), bytes(Purpose::Mapped)), (0, 0, 0));

        let tokens: Vec<Token> = (0..150).map(|i| i % facts.vocab as Token).collect();
        let mut state = model.start(0);
        let logits = model.forward(&mut [Segment { state: &mut state, tokens: &tokens, want: Want::All }]).unwrap();
        assert!(state.bytes() >= tokens.len() * facts.cache_bytes_per_position as usize);
        assert_eq!(bytes(Purpose::Cache), state.bytes());
        let with_logits = bytes(Purpose::Scratch);
        let own = size_of_val(logits[0].as_slice());
        drop(logits);
        assert!(own == 4 * tokens.len() * facts.vocab && bytes(Purpose::Scratch) == with_logits - own);
        // The residual stream and the inner activations of the pass, at least.
        assert!(with_logits - own >= 4 * tokens.len() * facts.width);

        // What clones share counts once, until one of them reads on.
        let mut clone = state.clone();
        assert_eq!(bytes(Purpose::Cache), state.bytes());
        clone.rewind(100).unwrap();
        model.forward(&mut [Segment { state: &mut clone, tokens: &[1], want: Want::Last }]).unwrap();
        assert_eq!(bytes(Purpose::Cache), state.bytes() + clone.bytes());
        drop(clone);
        assert_eq!(bytes(Purpose::Cache), state.bytes());
        assert_eq!(bytes(Purpose::Weights), weights, "reading allocates no weights");

        drop((model, state));
        let stats = MemoryStats::now();
        assert!(Purpose::ALL.iter().all(|purpose| stats.of(*purpose).bytes == 0), "{stats:?}");
        assert_eq!(stats.allocated.bytes, 0);
        assert!(stats.allocated.high_water_bytes >= weights + with_logits);
    }

    // A file stays mapped as long as weights lie in it. What was computed on load is in memory of its own.
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/dense-5m");
    if std::path::Path::new(folder).is_dir() {
        let cpu = Cpu::new(Isa::best(), 1).unwrap();
        let settings = Settings { cpu, cache: CacheFormat::F32, packing: Packing::default() };
        let model = load(&Spec::parse(folder).unwrap(), &settings, &|_, _| ()).unwrap().model;
        assert!(bytes(Purpose::Mapped) as u64 >= model.facts().head_bytes);
        drop(model);
        assert_eq!(bytes(Purpose::Mapped), 0);
    }
}
