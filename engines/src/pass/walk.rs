//! One thread's way through a pass.
//!
//! Between two barriers a member either computes blocks of rows of a product, or other items (attention heads, channels of
//! a scan), or (see [`Sharing`]) what is done token by token.

use super::{Buffers, Net, Outline, Pass, Rows, Shares, Sharing, Slot, Source, Worker, sized};
use crate::exchange::Exchange;
use crate::linear::{Fan, Input, Linear, Norm};
use crate::plan::Block;
use crate::team::{Member, lock, read, write};
use crate::watch::{Step, StepKind};
use crate::{Cpu, Result};
use kernels::Kernels;
use kernels::transpose::Grid;
use std::ops::Range;
use std::sync::Mutex;

/// Hidden states `[L + 1]` of `[T, D]`, and where this pass's tokens begin.
type Trace<'t> = (&'t Mutex<Vec<Vec<f32>>>, usize);

/// A block of the head's rows, as pieces of the rows of logits.
type Pieces<'l> = Mutex<Vec<&'l mut [f32]>>;

/// One member's view of a pass.
pub(crate) struct Walk<'w, 'b, N: Net> {
    pub(crate) net: &'w N,
    pub(crate) pass: &'w Pass<'b>,
    pub(crate) shares: &'w Shares,
    pub(crate) scratch: &'w N::Scratch,
    pub(crate) plan: &'w N::Plan,
    pub(crate) member: &'w Member<'w>,
    pub(crate) kernels: &'static Kernels,
    source: Source<'w>,
    trace: Option<Trace<'w>>,
    head_blocks: &'w [Block],
}

impl<N: Net> Walk<'_, '_, N> {
    /// Sends a pass's tokens through the layers; `logits` are the rows `[V]` of the wanted tokens, in order.
    pub(super) fn run<'l>(
        net: &N,
        cpu: &Cpu,
        pass: &Pass<'_>,
        (shares, scratch, plan): (&Shares, &N::Scratch, &N::Plan),
        head_blocks: &[Block],
        (source, trace): (Source<'_>, Option<Trace<'_>>),
        logits: impl Iterator<Item = &'l mut [f32]>,
    ) -> Result<()> {
        let mut pieces: Vec<Vec<&mut [f32]>> = head_blocks.iter().map(|_| Vec::new()).collect();
        for row in logits {
            let size = head_blocks[0].rows.len();
            pieces.iter_mut().zip(row.chunks_mut(size)).for_each(|(pieces, piece)| pieces.push(piece));
        }
        let pieces: Vec<Pieces<'_>> = pieces.into_iter().map(Mutex::new).collect();
        cpu.watched_team(|member| {
            let kernels = cpu.kernels();
            let walk = Walk { net, pass, shares, scratch, plan, member, kernels, source, trace, head_blocks };
            let mut worker = lock(&shares.workers[member.index()]);
            walk.all(&mut worker, &pieces)
        })?;
        Ok(())
    }

    fn all(&self, worker: &mut Worker, logits: &[Pieces<'_>]) -> Result<()> {
        let layers = self.layers();
        for index in layers.clone() {
            N::layer(self, index, worker)?;
        }
        let last = |kind| Step { kind, layer: None };
        self.tokens(last(StepKind::Vectors), worker, None, |slot, rows, buffers| {
            self.end(layers.end, slot, rows, buffers);
        })?;
        self.member.begin(last(StepKind::Head));
        self.head(worker, logits)
    }

    /// The layers that this pass goes through.
    fn layers(&self) -> Range<usize> {
        match self.source {
            Source::Embedding => 0..self.net.outline().layers,
            Source::Block(index, _) => index..index + 1,
        }
    }

    /// Does `work` once for each slot, or for all tokens on every member.
    pub(crate) fn slots(
        &self,
        step: Step,
        worker: &mut Worker,
        work: impl Fn(&Slot, &mut Rows, &mut Buffers),
    ) -> Result<()> {
        let Worker { rows, buffers } = worker;
        let Shares { sharing, slots, shared, .. } = self.shares;
        self.member.begin(step);
        if *sharing == Sharing::Private {
            work(&slots[0], rows, buffers);
            self.member.end();
            return Ok(());
        }
        self.member.phase(slots.len(), |i| {
            work(&slots[i], &mut write(&shared[i]), buffers);
            Ok(())
        })
    }

    /// Does `work` once for each slot, or for all tokens on every member; then the products' inputs are where this member
    /// finds them. `next` are the layers that read the inputs; the head reads them as they are.
    pub(crate) fn tokens(
        &self,
        step: Step,
        worker: &mut Worker,
        next: Option<&Fan>,
        work: impl Fn(&Slot, &mut Rows, &mut Buffers),
    ) -> Result<()> {
        let finish = |rows: &mut Rows| {
            if let Some(fan) = next {
                fan.finish(self.kernels, &mut rows.inputs);
            }
        };
        let sharing = self.shares.sharing;
        self.slots(step, worker, |slot, rows, buffers| {
            work(slot, rows, buffers);
            if sharing != Sharing::Gathered {
                finish(rows);
            }
        })?;
        if sharing == Sharing::Gathered {
            let (rows, shared) = (&mut worker.rows, &self.shares.shared);
            self.member.begin(step);
            for (k, input) in rows.inputs[..next.map_or(1, Fan::inputs)].iter_mut().enumerate() {
                input.clear();
                for slot in shared {
                    input.append(&read(slot).inputs[k]);
                }
            }
            finish(rows);
            self.member.end();
        }
        Ok(())
    }

    /// Shares out `count` items that are neither products nor tokens.
    pub(crate) fn items(&self, step: Step, count: usize, mut work: impl FnMut(usize)) -> Result<()> {
        self.member.begin(step);
        self.member.phase(count, |i| {
            work(i);
            Ok(())
        })
    }

    /// Shows each group's input number `k`.
    pub(crate) fn each_group(&self, rows: &Rows, k: usize, mut show: impl FnMut(&Range<usize>, &Input)) {
        let Shares { sharing, groups, shared, .. } = self.shares;
        if *sharing != Sharing::InPlace {
            return show(&groups[0], &rows.inputs[k]);
        }
        for (group, slot) in groups.iter().zip(shared) {
            show(group, &read(slot).inputs[k]);
        }
    }

    /// The beginning of a layer: the residual stream, with all that the layer before adds.
    pub(crate) fn begin(&self, index: usize, slot: &Slot, rows: &mut Rows, buffers: &mut Buffers) {
        let width = self.net.outline().width;
        if index == self.layers().start {
            let x = &mut rows.x;
            x.resize(slot.tokens.len() * width, 0.0);
            match self.source {
                Source::Embedding => {
                    self.net.embed(self.kernels, &self.pass.tokens[slot.tokens.clone()], x, &mut buffers.row);
                }
                Source::Block(_, given) => {
                    x.copy_from_slice(&given[slot.tokens.start * width..slot.tokens.end * width]);
                }
            }
        } else {
            self.add(N::pending(self.scratch), slot, rows, buffers);
        }
        self.record(index, slot, rows);
    }

    /// The end: the residual stream after the last layer, and the head's inputs for the tokens whose logits are wanted.
    fn end(&self, layers: usize, slot: &Slot, rows: &mut Rows, buffers: &mut Buffers) {
        self.add(N::pending(self.scratch), slot, rows, buffers);
        self.record(layers, slot, rows);
        let Outline { width, head, .. } = self.net.outline();
        let Rows { x, inputs, .. } = rows;
        inputs[0].clear();
        let norm = sized(&mut buffers.norm, *width);
        for (t, x) in slot.tokens.clone().zip(x.chunks_exact(*width)) {
            if self.pass.wanted[t] {
                self.net.norm(self.kernels, x, norm);
                head.push(self.kernels, norm, &mut inputs[0]);
            }
        }
    }

    /// Keeps hidden states for [`Inspect`](crate::Inspect).
    fn record(&self, index: usize, slot: &Slot, rows: &Rows) {
        let Some((trace, start)) = self.trace else { return };
        if !self.writes_state() {
            return;
        }
        let mut trace = lock(trace);
        let at = (start + slot.tokens.start) * self.net.outline().width;
        // Empty where nobody asked.
        if !trace[index].is_empty() {
            trace[index][at..at + rows.x.len()].copy_from_slice(&rows.x);
        }
    }

    /// Whether what this member does token by token is the only time that it is done.
    pub(crate) fn writes_state(&self) -> bool {
        self.shares.sharing != Sharing::Private || self.member.index() == 0
    }

    /// Adds a product `[D, T]` to the residual stream.
    pub(crate) fn add(&self, product: &Exchange, slot: &Slot, rows: &mut Rows, buffers: &mut Buffers) {
        self.vectors(product, self.net.outline().width, slot, buffers);
        rows.x.iter_mut().zip(&buffers.vectors).for_each(|(x, y)| *x += y);
    }

    /// A slot's tokens of a matrix `[width, T]` into `buffers.vectors` `[tokens, width]`.
    pub(crate) fn vectors(&self, from: &Exchange, width: usize, slot: &Slot, buffers: &mut Buffers) {
        let out = sized(&mut buffers.vectors, slot.tokens.len() * width);
        let (tokens, group) = (slot.tokens.clone(), slot.group.clone());
        from.get(self.kernels, 0..width, tokens, group, &mut buffers.words, (out, width));
    }

    /// Rows `rows` of a matrix `[R, T]` for any tokens of the pass, as `[tokens, rows]`.
    pub(crate) fn gather(
        &self,
        from: &Exchange,
        rows: Range<usize>,
        tokens: Range<usize>,
        scratch: &mut Vec<f32>,
        out: &mut [f32],
    ) {
        let width = rows.len();
        self.gather_columns(from, rows, tokens, scratch, (out, width));
    }

    /// The same as columns of rows that are `stride` apart.
    pub(crate) fn gather_columns(
        &self,
        from: &Exchange,
        rows: Range<usize>,
        tokens: Range<usize>,
        scratch: &mut Vec<f32>,
        (out, stride): (&mut [f32], usize),
    ) {
        for group in &self.shares.groups {
            let some = group.start.max(tokens.start)..group.end.min(tokens.end);
            if !some.is_empty() {
                let out = &mut out[(some.start - tokens.start) * stride..];
                from.get(self.kernels, rows.clone(), some, group.clone(), scratch, (out, stride));
            }
        }
    }

    /// A product `[rows, T]` in groups, as [`Walk::multiply`] leaves it, turned into `out` `[T, rows]`.
    pub(crate) fn turn(&self, product: &[f32], rows: usize, out: &mut [f32]) {
        for group in &self.shares.groups {
            let grid = Grid { rows, cols: group.len(), stride: group.len(), out_stride: rows };
            let (from, to) = (rows * group.start, rows * group.end);
            let (product, out) = (&product[from..to], &mut out[from..to]);
            if group.len() == 1 {
                out.copy_from_slice(product);
            } else {
                self.kernels.transpose(product, grid, out);
            }
        }
    }

    /// Inputs from the residual stream, normalised.
    pub(crate) fn inputs_of_residual(&self, fan: &Fan, norm: Norm<'_>, rows: &mut Rows, buffers: &mut Buffers) {
        let width = self.net.outline().width;
        let Rows { x, inputs, .. } = rows;
        inputs.iter_mut().for_each(Input::clear);
        let (row, normed) = (sized(&mut buffers.row, width), sized(&mut buffers.norm, width));
        for x in x.chunks_exact(width) {
            fan.push(self.kernels, x, Some(norm), inputs, [row, normed]);
        }
    }

    /// Inputs from `buffers.vectors`, normalised where there is a norm.
    pub(crate) fn inputs(&self, fan: &Fan, norm: Option<Norm<'_>>, rows: &mut Rows, buffers: &mut Buffers) {
        let width = fan.linears()[0].cols();
        let count = rows.x.len() / self.net.outline().width;
        rows.inputs.iter_mut().for_each(Input::clear);
        let (row, normed) = (sized(&mut buffers.row, width), sized(&mut buffers.norm, width));
        for vector in buffers.vectors[..count * width].chunks_exact(width) {
            fan.push(self.kernels, vector, norm, &mut rows.inputs, [row, normed]);
        }
    }

    /// Blocks of the products of a fan, each changed by `then` (its matrix, its rows, `[rows, T]` in groups) before it is
    /// handed on.
    pub(crate) fn product_then(
        &self,
        step: Step,
        worker: &mut Worker,
        fan: &Fan,
        (blocks, to): (&[Block], &Exchange),
        mut then: impl FnMut(&Block, &mut [f32]),
    ) -> Result<()> {
        let Worker { rows, buffers } = worker;
        self.member.begin(step);
        self.member.phase(blocks.len(), |i| {
            let block = &blocks[i];
            let Buffers { product, factors, .. } = buffers;
            self.multiply(&fan.linears()[block.matrix], fan.input_of(block.matrix), block, rows, product, factors);
            then(block, &mut product[..block.rows.len() * self.pass.token_count()]);
            to.put(i, product);
            Ok(())
        })
    }

    /// Blocks of the products of a fan.
    pub(crate) fn product(
        &self,
        step: Step,
        worker: &mut Worker,
        fan: &Fan,
        blocks: &[Block],
        to: &Exchange,
    ) -> Result<()> {
        self.product_then(step, worker, fan, (blocks, to), |_, _| ())
    }

    /// Rows of a layer that reads input `k` for all tokens, group by group: `[rows, T]` in groups.
    pub(crate) fn multiply(
        &self,
        linear: &Linear,
        k: usize,
        block: &Block,
        rows: &Rows,
        product: &mut Vec<f32>,
        factors: &mut Vec<f32>,
    ) {
        let count = block.rows.len();
        let product = sized(product, count * self.pass.token_count());
        self.each_group(rows, k, |group, input| {
            let out = &mut product[count * group.start..count * group.end];
            linear.apply(self.kernels, block.rows.clone(), input, factors, out);
        });
    }

    /// Blocks of logits, straight into their rows.
    fn head(&self, worker: &mut Worker, logits: &[Pieces<'_>]) -> Result<()> {
        let Worker { rows, buffers } = worker;
        let head = &self.net.outline().head;
        let wanted = lock(&logits[0]).len();
        let blocks = if wanted == 0 { &[][..] } else { self.head_blocks };
        self.member.phase(blocks.len(), |i| {
            let block = &blocks[i].rows;
            let mut pieces = lock(&logits[i]);
            let mut pieces = pieces.iter_mut();
            self.each_group(rows, 0, |_, input| {
                let tokens = input.tokens();
                if tokens == 0 {
                    return;
                }
                let product = sized(&mut buffers.product, block.len() * tokens);
                head.apply(self.kernels, block.clone(), input, &mut buffers.factors, product);
                for (t, piece) in pieces.by_ref().take(tokens).enumerate() {
                    piece.iter_mut().zip(product[t..].iter().step_by(tokens)).for_each(|(y, x)| *y = *x);
                }
            });
            Ok(())
        })
    }
}
