//! What a Mamba's layer does, as every member of the team walks through it.

use super::{Layer, Mamba};
use crate::Result;
use crate::pass::{Buffers, Rows, Slot, Walk, Worker, sized};
use crate::watch::{Step, StepKind};
use kernels::activation::Activation;
use kernels::conv::causal::Convolution;
use kernels::scan::selective::Selective;
use kernels::{Rows as TokenRows, RowsMut};

impl Walk<'_, '_, Mamba> {
    pub(super) fn mamba_layer(&self, index: usize, worker: &mut Worker) -> Result<()> {
        let layer = &self.net.layers[index];
        let (scratch, plan) = (self.scratch, self.plan);
        let at = |kind| Step { kind, layer: Some(index) };
        self.tokens(at(StepKind::Vectors), worker, Some(&layer.input), |slot, rows, buffers| {
            self.begin(index, slot, rows, buffers);
            self.inputs_of_residual(&layer.input, (&layer.norm, self.net.config.eps), rows, buffers);
        })?;
        self.product(at(StepKind::Input), worker, &layer.input, &plan.input, &scratch.input)?;
        self.tokens(at(StepKind::Vectors), worker, Some(&layer.adapters), |slot, rows, buffers| {
            self.convolve(index, layer, slot, rows, buffers);
        })?;
        self.product(at(StepKind::Adapters), worker, &layer.adapters, &plan.adapters, &scratch.adapters)?;
        self.tokens(at(StepKind::Vectors), worker, Some(&layer.dt), |slot, rows, buffers| {
            self.vectors(&scratch.adapters, self.net.config.rank, slot, buffers);
            self.inputs(&layer.dt, None, rows, buffers);
        })?;
        let Worker { rows, buffers } = &mut *worker;
        self.items(at(StepKind::Scan), plan.scan.len(), |i| self.scan(index, layer, i, rows, buffers))?;
        self.tokens(at(StepKind::Vectors), worker, Some(&layer.output), |slot, rows, buffers| {
            let out = sized(&mut buffers.vectors, slot.tokens.len() * self.net.config.inner);
            scratch.scanned.get(slot.tokens.clone(), &mut buffers.words, out);
            self.inputs(&layer.output, None, rows, buffers);
        })?;
        self.product(at(StepKind::Output), worker, &layer.output, &plan.output, &scratch.output)
    }

    /// The convolved rows of a slot's tokens, as inputs of the adapters.
    fn convolve(&self, index: usize, layer: &Layer, slot: &Slot, rows: &mut Rows, buffers: &mut Buffers) {
        let width = self.net.config.inner;
        let kept = self.net.config.taps - 1;
        rows.inputs.iter_mut().for_each(crate::linear::Input::clear);
        let Buffers { vectors, words, items: [inputs, state, ..], .. } = buffers;
        for run in &self.pass.runs {
            let tokens = run.tokens.start.max(slot.tokens.start)..run.tokens.end.min(slot.tokens.end);
            let Some(recalled) = run.recalled().filter(|_| !tokens.is_empty()) else { continue };
            // The inputs before these tokens: those of this pass, and before it what the state holds.
            let earlier = kept.min(tokens.start - run.tokens.start);
            let count = earlier + tokens.len();
            let inputs = sized(inputs, count * width);
            self.gather(&self.scratch.input, 0..width, tokens.start - earlier..tokens.end, words, inputs);
            let (past, present) = inputs.split_at(earlier * width);
            let state = sized(state, kept * width);
            let (old, new) = state.split_at_mut((kept - earlier) * width);
            old.copy_from_slice(recalled.before(index, earlier * width..kept * width));
            new.copy_from_slice(past);
            let conv = Convolution {
                x: TokenRows::dense(present, width),
                tokens: tokens.len(),
                width,
                weights: &layer.conv,
                bias: layer.conv_bias.as_deref(),
                silu: true,
            };
            let out = sized(vectors, tokens.len() * width);
            self.kernels.causal_conv(&conv, state, RowsMut::dense(out, width));
            for row in out.chunks_exact(width) {
                layer.adapters.push_to(self.kernels, 0, row, &mut rows.inputs);
            }
        }
    }

    /// Some channels of all tokens: dt, the convolution, and the scan, which moves the state on.
    fn scan(&self, index: usize, layer: &Layer, item: usize, rows: &Rows, buffers: &mut Buffers) {
        let config = &self.net.config;
        let block = &self.plan.scan[item];
        let (channels, width, tokens) = (block.rows.clone(), block.rows.len(), self.pass.token_count());
        let (states, kept) = (config.states, config.taps - 1);
        let Buffers { product, other, factors, words, items, .. } = buffers;
        let [u, z, bc, dt, convolved, state, weights, ..] = items;
        let all = 0..tokens;
        let (u, z) = (sized(u, tokens * width), sized(z, tokens * width));
        self.gather(&self.scratch.input, channels.clone(), all.clone(), words, u);
        let gates = config.inner + channels.start..config.inner + channels.end;
        self.gather(&self.scratch.input, gates, all.clone(), words, z);
        let bc = sized(bc, tokens * 2 * states);
        self.gather(&self.scratch.adapters, config.rank..config.rank + 2 * states, all, words, bc);
        self.multiply(&layer.dt.linears()[0], 0, block, rows, other, factors);
        let dt = sized(dt, tokens * width);
        self.turn(other, width, dt);
        self.kernels.activate(Activation::Softplus, dt);
        // The kernel wants the rows of its channels one after the other.
        let weights = sized(weights, (kept + 1) * width);
        for (to, from) in weights.chunks_exact_mut(width).zip(layer.conv.chunks_exact(config.inner)) {
            to.copy_from_slice(&from[channels.clone()]);
        }
        let convolved = sized(convolved, tokens * width);
        let state = sized(state, kept * width);
        let out = sized(product, tokens * width);
        let decays = config.scan_numbers(channels.clone());
        let start = config.conv_numbers();
        let decays = &layer.decays[decays.start - start..decays.end - start];
        for run in &self.pass.runs {
            let Some(recalled) = run.recalled() else { continue };
            recalled.walk(index, item, |range, pieces| {
                let first = run.tokens.start + range.start;
                let at = first * width..(first + range.len()) * width;
                let Some((scanned, past)) = pieces.split_last_mut() else { return };
                state.chunks_exact_mut(width).zip(&*past).for_each(|(to, from)| to.copy_from_slice(from));
                let conv = Convolution {
                    x: TokenRows::dense(&u[at.clone()], width),
                    tokens: range.len(),
                    width,
                    weights,
                    bias: layer.conv_bias.as_ref().map(|bias| &bias[channels.clone()]),
                    silu: true,
                };
                self.kernels.causal_conv(&conv, state, RowsMut::dense(&mut convolved[at.clone()], width));
                past.iter_mut().zip(state.chunks_exact(width)).for_each(|(to, from)| to.copy_from_slice(from));
                let scan = Selective {
                    tokens: range.len(),
                    states,
                    decays,
                    skip: &layer.skip[channels.clone()],
                    dt: TokenRows::dense(&dt[at.clone()], width),
                    x: TokenRows::dense(&convolved[at.clone()], width),
                    b: TokenRows { data: &bc[first * 2 * states..], stride: 2 * states },
                    c: TokenRows { data: &bc[first * 2 * states + states..], stride: 2 * states },
                    gate: Some(TokenRows::dense(&z[at.clone()], width)),
                };
                self.kernels.selective_scan(&scan, scanned, RowsMut::dense(&mut out[at], width));
            });
        }
        self.scratch.scanned.put(item, product);
    }
}
