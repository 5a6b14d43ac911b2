//! Reading streams without a reset, and looking at what is remembered on the way.

use anyhow::{Context, Result, bail, ensure};
use engines::{Model, Remembered, Segment, State, Want};

use super::StateRow;
use crate::distribution::Distribution;
use crate::quantity::determined;
use crate::score::{Window, rows_at_once};

/// States are looked at after at most so many tokens.
const PIECE: usize = 128;

/// What reading gave.
pub(super) struct Reading {
    /// The cost of each token of each stream.
    pub(super) nats: Vec<Vec<f32>>,
    /// By depth and part.
    pub(super) states: Vec<Size>,
    /// Logits that were looked at.
    pub(super) logits: u64,
    /// Numbers of states that were looked at.
    pub(super) state_numbers: u64,
}

/// The size of a part of what is remembered, over all layers and streams.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Size {
    part: &'static str,
    depth: usize,
    numbers: u64,
    /// Sum of the squares, in the order of streams, layers and numbers.
    squares: f64,
    greatest: f32,
    greatest_layer: usize,
}

impl Size {
    pub(super) fn row(&self, model: &str, dataset: &str) -> StateRow {
        StateRow {
            model: model.to_string(),
            dataset: dataset.to_string(),
            part: self.part.to_string(),
            depth: self.depth,
            numbers: determined(self.numbers),
            rms: determined((self.squares / self.numbers as f64).sqrt()),
            greatest: determined(f64::from(self.greatest)),
            greatest_layer: determined(self.greatest_layer),
        }
    }
}

/// Reads the first tokens of all streams side by side, each up to the last of `depths`.
///
/// # Errors
/// Whatever the model finds wrong; a logit or a number of a state that is NaN or infinite, with its place.
pub(super) fn read(name: &str, model: &dyn Model, streams: &[Window], depths: &[usize]) -> Result<Reading> {
    let mut states: Vec<State> = streams.iter().map(|_| model.start(0)).collect();
    let mut reading =
        Reading { nats: vec![Vec::new(); streams.len()], states: Vec::new(), logits: 0, state_numbers: 0 };
    let mut costs = Distribution::new();
    let piece = (rows_at_once(model.vocab()) / streams.len()).clamp(1, PIECE);
    let mut at = 0;
    for &depth in depths {
        while at < depth {
            let end = (at + piece).min(depth);
            let segments = states.iter_mut().zip(streams);
            let mut batch: Vec<Segment<'_>> = segments
                .map(|(state, stream)| Segment { state, tokens: &stream.inputs[at..end], want: Want::All })
                .collect();
            let logits = model.forward(&mut batch)?;
            let here = Place { model: name, before: at, after: end };
            // First the states: where one is broken, so are the logits, which know no layer.
            let mut sizes = Vec::new();
            for (i, state) in states.iter().enumerate() {
                for part in model.remembered(state)? {
                    reading.state_numbers += here.add(&mut sizes, i, &part)?;
                }
            }
            if end == depth {
                reading.states.append(&mut sizes);
            }
            for (i, (logits, stream)) in logits.iter().zip(streams).enumerate() {
                let targets = &stream.targets[at..end];
                ensure!(logits.rows() == targets.len(), "{} logits for {} tokens", logits.rows(), targets.len());
                for (j, target) in targets.iter().enumerate() {
                    let row = logits.row(j);
                    if let Some(wrong) = row.iter().position(|logit| !logit.is_finite()) {
                        let (logit, position) = (row[wrong], at + j + 1);
                        bail!(
                            "{name}: the logit of token {wrong} is {logit} at position {position} of stream {}",
                            i + 1
                        );
                    }
                    let nats = costs.cost(row, *target);
                    reading.nats[i].push(nats.with_context(|| format!("position {} of stream {}", at + j + 1, i + 1))?);
                    reading.logits += row.len() as u64;
                }
            }
            at = end;
        }
    }
    Ok(reading)
}

/// Where in the streams something was found.
struct Place<'a> {
    model: &'a str,
    /// Tokens after which everything was a number.
    before: usize,
    /// Tokens read now.
    after: usize,
}

impl Place<'_> {
    /// Adds a part of a stream's state to the sizes; gives how many numbers it has.
    fn add(&self, sizes: &mut Vec<Size>, stream: usize, part: &Remembered) -> Result<u64> {
        let Remembered { layer, name, values, .. } = part;
        if let Some(wrong) = values.iter().position(|value| !value.is_finite()) {
            let Place { model, before, after } = self;
            bail!(
                "{model}: layer {layer} remembers {} as number {wrong} of its `{name}` after position {after} of \
                 stream {}; after position {before} all its numbers were finite",
                values[wrong],
                stream + 1
            );
        }
        let at = sizes.iter().position(|size| size.part == *name).unwrap_or_else(|| {
            let depth = self.after;
            sizes.push(Size { part: name, depth, numbers: 0, squares: 0.0, greatest: 0.0, greatest_layer: *layer });
            sizes.len() - 1
        });
        let size = &mut sizes[at];
        size.numbers += values.len() as u64;
        for value in values {
            size.squares += f64::from(*value) * f64::from(*value);
            if value.abs() > size.greatest {
                (size.greatest, size.greatest_layer) = (value.abs(), *layer);
            }
        }
        Ok(values.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Machine;
    use crate::{lab::Lab, speed};
    use engines::CacheFormat;
    use kernels::Isa;

    fn part(layer: usize, name: &'static str, values: &[f32]) -> Remembered {
        Remembered { layer, name, shape: vec![values.len()], values: values.to_vec() }
    }

    #[test]
    fn a_state_is_summed_up_by_its_parts() {
        let place = Place { model: "m", before: 0, after: 16 };
        let mut sizes = Vec::new();
        for (stream, part) in
            [(0, part(0, "ssm", &[3.0, -4.0])), (0, part(0, "conv", &[1.0])), (1, part(1, "ssm", &[0.0, 5.0]))]
        {
            place.add(&mut sizes, stream, &part).unwrap();
        }
        let row = sizes[0].row("m", "t");
        assert_eq!((row.part.as_str(), row.depth, row.numbers.exact), ("ssm", 16, 4));
        assert_eq!((row.rms.exact, row.greatest.exact, row.greatest_layer.exact), (12.5f64.sqrt(), 5.0, 1));
        assert_eq!(sizes[1].row("m", "t").rms.exact, 1.0);
    }

    #[test]
    fn what_is_no_number_is_told_with_model_layer_and_position() {
        let place = Place { model: "some-model", before: 128, after: 256 };
        for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let told = place.add(&mut Vec::new(), 1, &part(3, "wkv", &[0.0, wrong])).unwrap_err().to_string();
            for needle in ["some-model", "layer 3", "`wkv`", "position 256 of stream 2", &wrong.to_string()] {
                assert!(told.contains(needle), "'{told}' lacks '{needle}'");
            }
        }
    }

    #[test]
    fn recurrent_states_are_looked_at_where_asked_however_the_stream_is_cut() {
        let lab = Lab::new(Machine::read(), 1, Isa::best(), 0, true);
        let settings = lab.settings(lab.isa, 1, CacheFormat::F32).unwrap();
        for name in ["synthetic:mamba2-tiny", "synthetic:rwkv7-tiny"] {
            let model = lab.model(name, &settings).unwrap().model;
            let tokens = speed::tokens(2 * PIECE + 41, model.vocab());
            let stream = Window { inputs: tokens[..tokens.len() - 1].to_vec(), targets: tokens[1..].to_vec() };
            let last = stream.inputs.len();
            let streams = [stream.clone(), stream];
            let one = read(name, &*model, &streams, &[last]).unwrap();
            let some = read(name, &*model, &streams, &[3, PIECE + 1, last]).unwrap();
            assert_eq!(one.nats, some.nats);
            assert_eq!(one.nats[0], one.nats[1]);
            let at_end: Vec<Size> = some.states.iter().filter(|size| size.depth == last).cloned().collect();
            assert_eq!(one.states, at_end);
            assert_eq!(some.states.len(), 3 * at_end.len());
            assert!(at_end.len() >= 2 && at_end.iter().all(|size| size.squares > 0.0), "{at_end:?}");
        }
    }
}
