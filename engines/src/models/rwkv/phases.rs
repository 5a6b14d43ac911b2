//! What an RWKV's layer does, as every member of the team walks through it.

use super::config::Version;
use super::{Half, Layer, LayerNorm, Rwkv};
use crate::Result;
use crate::exchange::Exchange;
use crate::linear::{Fan, Input};
use crate::pass::{Buffers, Rows, Run, Sharing, Slot, Walk, Worker, sized};
use crate::plan::Block;
use crate::recurrent::Recalled;
use crate::watch::{Step, StepKind};
use kernels::activation::Activation;
use kernels::mix::shift::Mixes;
use std::ops::Range;

impl Version {
    /// What becomes of a product that enters the time mix: 0 is r, 1 k, 2 v, and from 3 on g and w1 of versions 5 and 6, or
    /// w1, a1, g1 and v1 of version 7.
    fn time_activation(self, matrix: usize) -> Option<Activation> {
        match (self, matrix) {
            (Version::Four, 0) => Some(Activation::Sigmoid),
            (Version::FiveGated | Version::Five | Version::Six, 3) => Some(Activation::Silu),
            (Version::Six, 4) | (Version::Seven, 3) => Some(Activation::Tanh),
            (Version::Seven, 5) => Some(Activation::Sigmoid),
            _ => None,
        }
    }

    /// The same for the second halves: w, and a, g and v of version 7.
    fn adapter_activation(self, matrix: usize) -> Option<Activation> {
        match (self, matrix) {
            (Version::Six, 0) => Some(Activation::ExpDecay),
            (Version::Seven, 0) => Some(Activation::SigmoidDecay),
            (Version::Seven, 1 | 3) => Some(Activation::Sigmoid),
            _ => None,
        }
    }
}

/// The blocks of a fan's matrices, where the plan is of a fan that may have more.
fn blocks_of<'p>(blocks: &'p [Block], fan: &Fan) -> &'p [Block] {
    &blocks[..blocks.partition_point(|block| block.matrix < fan.linears().len())]
}

impl<'b> Walk<'_, 'b, Rwkv> {
    pub(super) fn rwkv_layer(&self, index: usize, worker: &mut Worker) -> Result<()> {
        let layer = &self.net.layers[index];
        self.time_mix(index, layer, worker)?;
        self.channel_mix(index, layer, worker)
    }

    fn time_mix(&self, index: usize, layer: &Layer, worker: &mut Worker) -> Result<()> {
        let (scratch, plan, version) = (self.scratch, self.plan, self.net.config.version);
        let at = |kind| Step { kind, layer: Some(index) };
        let vectors = at(StepKind::Vectors);
        let [norm, _] = &layer.norms;
        self.norm_rows((index, Half::Time, norm), worker, |slot, rows, buffers| {
            self.begin(index, slot, rows, buffers);
        })?;
        if let Some(mixing) = &layer.mixing {
            self.tokens(vectors, worker, Some(&mixing.down), |slot, rows, buffers| {
                self.shift((index, Half::Time), (&mixing.share, false), &mixing.down, slot, rows, buffers);
            })?;
            let to = (&plan.mix_down[..], &scratch.mix_down);
            self.activated(at(StepKind::Adapters), worker, &mixing.down, to, |_| Some(Activation::Tanh))?;
            self.tokens(vectors, worker, Some(&mixing.up), |slot, rows, buffers| {
                self.parts_of(&scratch.mix_down, 0, &mixing.up, slot, rows, buffers);
            })?;
            self.product(at(StepKind::Adapters), worker, &mixing.up, &plan.mix_up, &scratch.mix_up)?;
        }
        self.tokens(vectors, worker, Some(&layer.time), |slot, rows, buffers| {
            let own = layer.mixing.is_some();
            self.shift((index, Half::Time), (&layer.time_shares, own), &layer.time, slot, rows, buffers);
        })?;
        let to = (blocks_of(&plan.time, &layer.time), &scratch.time);
        self.activated(at(StepKind::Input), worker, &layer.time, to, |matrix| version.time_activation(matrix))?;
        if let Some(adapters) = &layer.adapters {
            self.tokens(vectors, worker, Some(adapters), |slot, rows, buffers| {
                // Before the low ranks: r, k, v, and g of version 6.
                let full = if version == Version::Six { 4 } else { 3 };
                self.parts_of(&scratch.time, full * self.net.config.width, adapters, slot, rows, buffers);
            })?;
            let to = (blocks_of(&plan.adapters, adapters), &scratch.adapters);
            self.activated(at(StepKind::Adapters), worker, adapters, to, |matrix| version.adapter_activation(matrix))?;
        }
        let Worker { buffers, .. } = &mut *worker;
        self.items(at(StepKind::Scan), plan.heads.len(), |i| self.heads(index, layer, i, buffers))?;
        self.tokens(vectors, worker, Some(&layer.output), |slot, rows, buffers| {
            let out = sized(&mut buffers.vectors, slot.tokens.len() * self.net.config.width);
            scratch.heads.get(slot.tokens.clone(), &mut buffers.words, out);
            self.inputs(&layer.output, None, rows, buffers);
        })?;
        self.product(at(StepKind::Output), worker, &layer.output, &plan.output, &scratch.output)
    }

    fn channel_mix(&self, index: usize, layer: &Layer, worker: &mut Worker) -> Result<()> {
        let (scratch, plan, config) = (self.scratch, self.plan, &self.net.config);
        let at = |kind| Step { kind, layer: Some(index) };
        let [_, norm] = &layer.norms;
        self.norm_rows((index, Half::Channel, norm), worker, |slot, rows, buffers| {
            self.add(&scratch.output, slot, rows, buffers);
        })?;
        self.tokens(at(StepKind::Vectors), worker, Some(&layer.up), |slot, rows, buffers| {
            self.shift((index, Half::Channel), (&layer.channel_shares, false), &layer.up, slot, rows, buffers);
        })?;
        self.activated(at(StepKind::GateUp), worker, &layer.up, (&plan.up, &scratch.up), |matrix| {
            Some(if matrix == 0 { Activation::SquaredRelu } else { Activation::Sigmoid })
        })?;
        self.tokens(at(StepKind::Vectors), worker, Some(&layer.down), |slot, rows, buffers| {
            self.vectors(&scratch.up, config.inner, slot, buffers);
            self.inputs(&layer.down, None, rows, buffers);
        })?;
        let receptance = layer.up.linears().len() > 1;
        let Worker { rows, buffers } = worker;
        self.items(at(StepKind::Down), plan.down.len(), |i| {
            let Buffers { product, factors, words, vectors, .. } = &mut *buffers;
            let block = &plan.down[i];
            self.multiply(&layer.down.linears()[0], 0, block, rows, product, factors);
            if receptance {
                let (count, tokens) = (block.rows.len(), self.pass.token_count());
                let from = config.inner + block.rows.start..config.inner + block.rows.end;
                let gates = sized(vectors, count * tokens);
                self.gather(&scratch.up, from, 0..tokens, words, gates);
                for group in &self.shares.groups {
                    let product = &mut product[count * group.start..count * group.end];
                    for (t, gates) in gates[group.start * count..].chunks_exact(count).take(group.len()).enumerate() {
                        let column = product[t..].iter_mut().step_by(group.len());
                        column.zip(gates).for_each(|(y, gate)| *y *= gate);
                    }
                }
            }
            scratch.down.put(i, product);
        })
    }

    /// A fan's products, each matrix's with an activation of its own.
    fn activated(
        &self,
        step: Step,
        worker: &mut Worker,
        fan: &Fan,
        to: (&[Block], &Exchange),
        activation: impl Fn(usize) -> Option<Activation>,
    ) -> Result<()> {
        self.product_then(step, worker, fan, to, |block, product| {
            if let Some(activation) = activation(block.matrix) {
                self.kernels.activate(activation, product);
            }
        })
    }

    /// Rows of a matrix from `start` on, as many as a fan's inputs want one after the other.
    fn parts_of(
        &self,
        from: &Exchange,
        mut start: usize,
        fan: &Fan,
        slot: &Slot,
        rows: &mut Rows,
        buffers: &mut Buffers,
    ) {
        rows.inputs.iter_mut().for_each(Input::clear);
        let Buffers { vectors, words, .. } = buffers;
        for (k, linear) in fan.linears().iter().enumerate() {
            let width = linear.cols();
            let out = sized(vectors, slot.tokens.len() * width);
            self.gather(from, start..start + width, slot.tokens.clone(), words, out);
            out.chunks_exact(width).for_each(|row| fan.push_to(self.kernels, k, row, &mut rows.inputs));
            start += width;
        }
    }

    /// What a slot has of each run.
    fn runs_of<'s>(&'s self, slot: &'s Slot) -> impl Iterator<Item = (&'s Run<'b>, &'s Recalled<'b>, Range<usize>)> {
        self.pass.runs.iter().filter_map(move |run| {
            let tokens = run.tokens.start.max(slot.tokens.start)..run.tokens.end.min(slot.tokens.end);
            run.recalled().filter(|_| !tokens.is_empty()).map(|recalled| (run, recalled, tokens))
        })
    }

    /// The rows that a half of a layer shifts, into `rows.normed`, once `change` has brought the residual stream up to date;
    /// they are remembered, and the last one of each slot is handed over to the next.
    fn norm_rows(
        &self,
        (index, half, norm): (usize, Half, &LayerNorm),
        worker: &mut Worker,
        change: impl Fn(&Slot, &mut Rows, &mut Buffers),
    ) -> Result<()> {
        let config = &self.net.config;
        let width = config.width;
        let step = Step { kind: StepKind::Vectors, layer: Some(index) };
        self.slots(step, worker, |slot, rows, buffers| {
            change(slot, rows, buffers);
            let Rows { x, normed, .. } = rows;
            let normed = sized(normed, x.len());
            norm.apply(self.kernels, x, config.eps, normed);
            if self.writes_state() {
                for (run, recalled, tokens) in self.runs_of(slot) {
                    let own = tokens.start - run.tokens.start..tokens.end - run.tokens.start;
                    recalled.save(index, self.plan.heads.len() + half as usize, own, |token, pieces| {
                        let row = run.tokens.start + token - slot.tokens.start;
                        pieces[0].copy_from_slice(&normed[row * width..][..width]);
                    });
                }
            }
            if self.shares.sharing != Sharing::Private {
                let row = &mut buffers.row;
                row.clear();
                row.extend_from_slice(&normed[normed.len() - width..]);
                self.scratch.edges.put(self.number_of(slot), row);
            }
        })
    }

    /// Which slot it is.
    fn number_of(&self, slot: &Slot) -> usize {
        // All but the last are equally long.
        slot.tokens.start / self.shares.slots[0].tokens.len()
    }

    /// The inputs of a fan: the rows of [`Walk::norm_rows`], each moved towards the one before it. `own` says whether the
    /// tokens add shares of their own, those of `mix_up`.
    fn shift(
        &self,
        (index, half): (usize, Half),
        (shares, own): (&[f32], bool),
        fan: &Fan,
        slot: &Slot,
        rows: &mut Rows,
        buffers: &mut Buffers,
    ) {
        let config = &self.net.config;
        let width = config.width;
        let Rows { normed, inputs, .. } = rows;
        inputs.iter_mut().for_each(Input::clear);
        let Buffers { row, words, items: [out, added, ..], .. } = buffers;
        for (run, recalled, tokens) in self.runs_of(slot) {
            let before = sized(row, width);
            if tokens.start == run.tokens.start {
                before.copy_from_slice(recalled.before(index, config.row_numbers(half)));
            } else {
                // Not the run's first token, but the slot's.
                self.scratch.edges.look(self.number_of(slot) - 1, 0..width, words, |edge| before.copy_from_slice(edge));
            }
            let count = tokens.len();
            let own = if own {
                let added = sized(added, shares.len() * count);
                for (f, added) in added.chunks_exact_mut(count * width).enumerate() {
                    self.gather(&self.scratch.mix_up, f * width..(f + 1) * width, tokens.clone(), words, added);
                }
                &*added
            } else {
                &[]
            };
            let mixes = if own.is_empty() { Mixes::Same(shares) } else { Mixes::Own { base: shares, own } };
            let h = &normed[(tokens.start - slot.tokens.start) * width..][..count * width];
            let out = sized(out, shares.len() * count);
            self.kernels.shift(h, before, mixes, out);
            for (k, rows) in out.chunks_exact(count * width).enumerate() {
                rows.chunks_exact(width).for_each(|row| fan.push_to(self.kernels, k, row, inputs));
            }
        }
    }
}
