//! What a Mamba-2's layer does, as every member of the team walks through it.

use super::{Layer, Mamba2, Vectors};
use crate::Result;
use crate::pass::{Buffers, Run, Slot, Walk, Worker, sized};
use crate::watch::{Step, StepKind};
use kernels::activation::Activation;
use kernels::conv::causal::Convolution;
use kernels::scan::ssd::Ssd;
use kernels::{Rows as TokenRows, RowsMut};
use std::ops::Range;

impl Walk<'_, '_, Mamba2> {
    pub(super) fn mamba2_layer(&self, index: usize, worker: &mut Worker) -> Result<()> {
        let layer = &self.net.layers[index];
        let (scratch, plan) = (self.scratch, self.plan);
        let at = |kind| Step { kind, layer: Some(index) };
        self.tokens(at(StepKind::Vectors), worker, Some(&layer.input), |slot, rows, buffers| {
            self.begin(index, slot, rows, buffers);
            self.inputs_of_residual(&layer.input, (&layer.vectors.norm, self.net.config.eps), rows, buffers);
        })?;
        self.product(at(StepKind::Input), worker, &layer.input, &plan.input, &scratch.input)?;
        let buffers = &mut worker.buffers;
        self.items(at(StepKind::Scan), plan.scan.len(), |i| self.scan(index, &layer.vectors, i, buffers))?;
        self.tokens(at(StepKind::Vectors), worker, Some(&layer.output), |slot, rows, buffers| {
            self.gate(layer, slot, buffers);
            self.inputs(&layer.output, None, rows, buffers);
        })?;
        self.product(at(StepKind::Output), worker, &layer.output, &plan.output, &scratch.output)
    }

    /// Some heads of all tokens: the convolution, dt, and the scan, which moves the state on.
    fn scan(&self, index: usize, vectors: &Vectors, item: usize, buffers: &mut Buffers) {
        let config = &self.net.config;
        let (inner, channels, states) = (config.inner(), config.channels(), config.states);
        let part = &self.plan.scan[item];
        let (heads, width, tokens) =
            (part.heads.clone(), part.heads.len() * config.head_width, self.pass.token_count());
        let Buffers { product, words, items, .. } = buffers;
        let [inputs, convolved, state, weights, bias, dt, ..] = items;
        // u, B and C side by side.
        let columns = config.columns(part);
        let stride = width + 2 * states;
        let inputs = sized(inputs, tokens * stride);
        let mut first = 0;
        for columns in &columns {
            let (rows, out) = (inner + columns.start..inner + columns.end, &mut inputs[first..]);
            self.gather_columns(&self.scratch.input, rows, 0..tokens, words, (out, stride));
            first += columns.len();
        }
        let dt = sized(dt, tokens * heads.len());
        let rows = inner + channels + heads.start..inner + channels + heads.end;
        self.gather(&self.scratch.input, rows, 0..tokens, words, dt);
        for dt in dt.chunks_exact_mut(heads.len()) {
            dt.iter_mut().zip(&vectors.dt_bias[heads.clone()]).for_each(|(dt, bias)| *dt += bias);
        }
        self.kernels.activate(Activation::Softplus, dt);
        let [least, largest] = config.limits;
        dt.iter_mut().for_each(|dt| *dt = dt.clamp(least, largest));
        // The kernel wants the rows of its channels one after the other.
        let weights = sized(weights, config.taps * stride);
        for (to, from) in weights.chunks_exact_mut(stride).zip(vectors.conv.chunks_exact(channels)) {
            side_by_side(from, &columns, to);
        }
        let bias = vectors.conv_bias.as_ref().map(|from| {
            let bias = sized(bias, stride);
            side_by_side(from, &columns, bias);
            &*bias
        });
        let convolved = sized(convolved, tokens * stride);
        let state = sized(state, (config.taps - 1) * stride);
        let out = sized(product, tokens * width);
        for run in &self.pass.runs {
            let Some(recalled) = run.recalled() else { continue };
            for (j, state) in state.chunks_exact_mut(stride).enumerate() {
                side_by_side(recalled.before(index, j * channels..(j + 1) * channels), &columns, state);
            }
            let inputs = &inputs[run.tokens.start * stride..run.tokens.end * stride];
            let convolved = &mut convolved[run.tokens.start * stride..run.tokens.end * stride];
            let conv = Convolution {
                x: TokenRows::dense(inputs, stride),
                tokens: run.tokens.len(),
                width: stride,
                weights,
                bias,
                silu: true,
            };
            self.kernels.causal_conv(&conv, state, RowsMut::dense(convolved, stride));
            self.keep(index, item, run, inputs);
            // Head by head: the state that a head begins with is copied into the cache just before it is scanned.
            for (i, head) in heads.clone().enumerate() {
                recalled.walk(index, head, |range, pieces| {
                    let Some(state) = pieces.first_mut() else { return };
                    let (first, at) = (run.tokens.start + range.start, i * config.head_width);
                    let rows = TokenRows { data: &convolved[range.start * stride..], stride };
                    let scan = Ssd {
                        tokens: range.len(),
                        states,
                        width: config.head_width,
                        a: &vectors.decays[head..head + 1],
                        skip: &vectors.skip[head..head + 1],
                        dt: TokenRows { data: &dt[first * heads.len() + i..], stride: heads.len() },
                        x: rows.columns_from(at),
                        b: rows.columns_from(width),
                        c: rows.columns_from(width + states),
                    };
                    let out = RowsMut { data: &mut out[first * width + at..], stride: width };
                    self.kernels.ssd_scan(&scan, state, out);
                });
            }
        }
        self.scratch.scanned.put(item, product);
    }

    /// Writes the last rows of v that a part keeps of a run: its columns of them, one row after the other.
    fn keep(&self, index: usize, item: usize, run: &Run<'_>, inputs: &[f32]) {
        let config = &self.net.config;
        let (part, kept) = (&self.plan.scan[item], config.taps - 1);
        let columns = config.columns(part);
        let stride: usize = columns.iter().map(Range::len).sum();
        let Some(recalled) = run.recalled() else { return };
        recalled.save(index, config.heads + item, 0..run.tokens.len(), |token, pieces| {
            let mut pieces = pieces.iter_mut();
            let mut first = 0;
            for columns in &columns[..part.kept()] {
                for (j, piece) in pieces.by_ref().take(kept).enumerate() {
                    let row = match (token + 1 + j).checked_sub(kept) {
                        Some(t) => &inputs[t * stride + first..][..columns.len()],
                        None => {
                            let row = (token + 1 + j) * config.channels();
                            recalled.before(index, row + columns.start..row + columns.end)
                        }
                    };
                    piece.copy_from_slice(row);
                }
                first += columns.len();
            }
        });
    }

    /// A slot's tokens of y, gated and normalised, into `buffers.vectors`.
    fn gate(&self, layer: &Layer, slot: &Slot, buffers: &mut Buffers) {
        let config = &self.net.config;
        let width = config.inner();
        let Buffers { vectors, words, items: [z, ..], .. } = buffers;
        let y = sized(vectors, slot.tokens.len() * width);
        self.scratch.scanned.get(slot.tokens.clone(), words, y);
        let z = sized(z, slot.tokens.len() * width);
        self.gather(&self.scratch.input, 0..width, slot.tokens.clone(), words, z);
        let gain = &layer.vectors.gated_norm;
        self.kernels.gated_rms_norm(y, TokenRows::dense(z, width), gain, config.groups, config.eps);
    }
}

/// Some columns of a row, one after the other.
fn side_by_side(row: &[f32], columns: &[Range<usize>; 3], out: &mut [f32]) {
    let mut first = 0;
    for columns in columns {
        out[first..first + columns.len()].copy_from_slice(&row[columns.clone()]);
        first += columns.len();
    }
}
