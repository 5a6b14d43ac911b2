//! Who watches hears every step of every thread in order, and changes nothing.

use crate::tiny::{on, tokens};
use engines::{Model, Segment, Settings, Spec, Step, StepCost, StepKind, Want, Watch, load};
use kernels::Isa;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Heard {
    Begin(Step),
    Done,
    Left,
}

#[derive(Default)]
struct Ear(Mutex<BTreeMap<usize, Vec<Heard>>>);

impl Ear {
    fn hear(&self, thread: usize, what: Heard) {
        self.0.lock().unwrap().entry(thread).or_default().push(what);
    }
}

impl Watch for Ear {
    fn begin(&self, thread: usize, step: Step) {
        self.hear(thread, Heard::Begin(step));
    }

    fn done(&self, thread: usize) {
        self.hear(thread, Heard::Done);
    }

    fn left(&self, thread: usize) {
        self.hear(thread, Heard::Left);
    }
}

fn logits(model: &dyn Model, count: usize) -> Vec<f32> {
    let tokens = tokens(count, model.vocab(), 4);
    let segment = Segment { state: &mut model.start(0), tokens: &tokens, want: Want::All };
    model.forward(&mut [segment]).unwrap()[0].as_slice().to_vec()
}

#[test]
fn every_step_of_every_thread_is_heard_in_order_and_no_bit_changes() {
    let spec = Spec::parse("synthetic:bitnet-tiny:3").unwrap();
    for threads in [1, 2] {
        let settings = on(Isa::best(), threads);
        let plain = load(&spec, &settings, &|_, _| ()).unwrap().model;
        // One token, tokens that are gathered, and tokens that products read in place.
        for count in [1, 40, 100] {
            let ear = Arc::new(Ear::default());
            let watched = plain.with(&Settings { cpu: settings.cpu.watched(ear.clone()), ..settings.clone() });
            assert!(logits(&*watched, count) == logits(&*plain, count));
            let heard = ear.0.lock().unwrap();
            assert_eq!(heard.keys().copied().collect::<Vec<_>>(), (0..threads).collect::<Vec<_>>());
            for events in heard.values() {
                let mut kinds = BTreeMap::new();
                for step in events.chunks(3) {
                    let [Heard::Begin(step), Heard::Done, Heard::Left] = *step else { panic!("{step:?}") };
                    let within = !matches!(step.kind, StepKind::Head | StepKind::Vectors);
                    assert!(step.layer.is_some() || !within, "{step:?}");
                    *kinds.entry(step.kind).or_insert(0) += 1;
                }
                let layers = plain.facts().layers;
                for StepCost { kind, .. } in plain.step_costs(1, 0) {
                    match kind {
                        StepKind::Head => assert_eq!(kinds[&kind], 1),
                        StepKind::Vectors => assert!(kinds[&kind] > 4 * layers),
                        _ => assert_eq!(kinds[&kind], layers, "{kind}"),
                    }
                }
            }
        }
    }
}

#[test]
fn the_costs_of_steps_add_up_to_those_of_the_model() {
    let model = load(&Spec::parse("synthetic:bitnet-tiny:3").unwrap(), &on(Isa::best(), 1), &|_, _| ()).unwrap().model;
    let facts = model.facts();
    let costs = model.step_costs(1, 9);
    let bytes: u64 = costs.iter().map(|cost| cost.bytes).sum();
    let weights = facts.linear_bytes + facts.head_bytes + facts.other_bytes;
    assert_eq!(bytes, weights + 10 * facts.cache_bytes_per_position);
    let products = |cost: &&engines::StepCost| cost.kind != StepKind::Attention;
    let operations: u64 = costs.iter().filter(products).map(|cost| cost.operations).sum();
    assert_eq!(operations, facts.linear_operations + facts.head_operations);
    // Two tokens see twice what was before them, themselves, and the second sees the first.
    let attention = |tokens, depth| {
        let costs = model.step_costs(tokens, depth);
        costs.iter().find(|cost| cost.kind == StepKind::Attention).unwrap().operations
    };
    assert_eq!(attention(2, 9) * 10, attention(1, 9) * 21);
}
