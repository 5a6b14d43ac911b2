//! The recurrences of an RWKV: what carries the past to each token, for some heads at a time.

use super::{Core, Layer, Rwkv};
use crate::exchange::Exchange;
use crate::pass::{Buffers, Run, Walk, sized};
use kernels::wkv::{wkv4, wkv6, wkv7};
use kernels::{Rows, RowsMut};
use std::ops::Range;

/// Tokens of a sequence: counted in the pass, and the pieces of the memory that they change.
type Round<'s, 'm> = (Range<usize>, &'s mut [&'m mut [f32]]);

impl Walk<'_, '_, Rwkv> {
    /// An item's channels of all tokens, which moves its part of the state on.
    pub(super) fn heads(&self, index: usize, layer: &Layer, item: usize, buffers: &mut Buffers) {
        match &layer.core {
            Core::Four { .. } => self.heads_of_four(index, layer, item, buffers),
            Core::Matrix { .. } => self.heads_of_matrix(index, layer, item, buffers),
            Core::Seven { .. } => self.heads_of_seven(index, layer, item, buffers),
        }
        self.scratch.heads.put(item, &mut buffers.product);
    }

    /// A matrix's rows of some channels, for all tokens: `[T, channels]`; matrix i is the i-th of C rows.
    fn rows_of<'o>(
        &self,
        from: &Exchange,
        matrix: usize,
        channels: &Range<usize>,
        words: &mut Vec<f32>,
        out: &'o mut Vec<f32>,
    ) -> &'o mut [f32] {
        let tokens = self.pass.token_count();
        let start = matrix * self.net.config.width;
        let out = sized(out, tokens * channels.len());
        self.gather(from, start + channels.start..start + channels.end, 0..tokens, words, out);
        out
    }

    /// Takes the memory of an item through every sequence, a few tokens at a time.
    fn each_round(&self, index: usize, item: usize, mut round: impl FnMut(Round<'_, '_>)) {
        for run in &self.pass.runs {
            let Run { tokens, .. } = run;
            let Some(recalled) = run.recalled() else { continue };
            recalled.walk(index, item, |range, pieces| {
                round((tokens.start + range.start..tokens.start + range.end, pieces));
            });
        }
    }

    fn heads_of_four(&self, index: usize, layer: &Layer, item: usize, buffers: &mut Buffers) {
        let Core::Four { decay, bonus } = &layer.core else { return };
        let channels = self.plan.heads[item].rows.clone();
        let width = channels.len();
        let Buffers { product, words, items: [r, k, v, ..], .. } = buffers;
        let r = self.rows_of(&self.scratch.time, 0, &channels, words, r);
        let k = self.rows_of(&self.scratch.time, 1, &channels, words, k);
        let v = self.rows_of(&self.scratch.time, 2, &channels, words, v);
        let out = sized(product, r.len());
        self.each_round(index, item, |(tokens, pieces)| {
            let [aa, bb, pp] = pieces else { return };
            let at = tokens.start * width;
            let rows = |data| Rows::dense(data, width);
            let inputs = wkv4::Inputs {
                tokens: tokens.len(),
                k: rows(&k[at..]),
                v: rows(&v[at..]),
                decay: &decay[channels.clone()],
                bonus: &bonus[channels.clone()],
            };
            let out = RowsMut { data: &mut out[at..], stride: width };
            self.kernels.wkv4(inputs, wkv4::State { aa, bb, pp }, out);
        });
        out.iter_mut().zip(&*r).for_each(|(y, r)| *y *= r);
    }

    fn heads_of_matrix(&self, index: usize, layer: &Layer, item: usize, buffers: &mut Buffers) {
        let Core::Matrix { decay, bonus, norm } = &layer.core else { return };
        let config = &self.net.config;
        let channels = self.plan.heads[item].rows.clone();
        let width = channels.len();
        let Buffers { product, words, items: [r, k, v, w, g, y, ..], .. } = buffers;
        let r = self.rows_of(&self.scratch.time, 0, &channels, words, r);
        let k = self.rows_of(&self.scratch.time, 1, &channels, words, k);
        let v = self.rows_of(&self.scratch.time, 2, &channels, words, v);
        let w = match decay {
            Some(_) => &mut [],
            None => self.rows_of(&self.scratch.adapters, 0, &channels, words, w),
        };
        let y = sized(y, r.len());
        self.each_round(index, item, |(tokens, pieces)| {
            let at = tokens.start * width;
            let rows = |data| Rows::dense(data, width);
            let inputs = wkv6::Inputs {
                tokens: tokens.len(),
                width: config.head_width,
                r: rows(&r[at..]),
                k: rows(&k[at..]),
                v: rows(&v[at..]),
                decay: match decay {
                    Some(decay) => Rows::same(&decay[channels.clone()]),
                    None => rows(&w[at..]),
                },
                bonus: &bonus[channels.clone()],
            };
            self.kernels.wkv6(inputs, pieces[0], RowsMut { data: &mut y[at..], stride: width });
        });
        let out = sized(product, y.len());
        let (gain, bias) = (&norm.gain[channels.clone()], &norm.bias[channels.clone()]);
        self.kernels.group_norm(y, config.head_width, gain, bias, config.head_eps, out);
        if config.version.is_gated() {
            let g = self.rows_of(&self.scratch.time, 3, &channels, words, g);
            out.iter_mut().zip(&*g).for_each(|(y, g)| *y *= g);
        }
    }

    fn heads_of_seven(&self, index: usize, layer: &Layer, item: usize, buffers: &mut Buffers) {
        let Core::Seven { removal, replacement, bonus, norm } = &layer.core else { return };
        let config = &self.net.config;
        let channels = self.plan.heads[item].rows.clone();
        let (width, n) = (channels.len(), config.head_width);
        let Buffers { product, words, items: [r, k, v, w, a, g, kk, y, mix, ..], .. } = buffers;
        let (time, adapters) = (&self.scratch.time, &self.scratch.adapters);
        let r = self.rows_of(time, 0, &channels, words, r);
        let k = self.rows_of(time, 1, &channels, words, k);
        let v_rows = self.rows_of(time, 2, &channels, words, v).len();
        let w = self.rows_of(adapters, 0, &channels, words, w);
        let a = self.rows_of(adapters, 1, &channels, words, a);
        let g = self.rows_of(adapters, 2, &channels, words, g);
        // The first layer's values serve all others.
        if index == 0 {
            let copy = sized(mix, v_rows);
            copy.copy_from_slice(&v[..v_rows]);
            self.scratch.values.put(item, mix);
        } else {
            let share = self.rows_of(adapters, 3, &channels, words, mix);
            self.scratch.values.look(item, 0..v_rows, words, |first| {
                for ((v, share), first) in v.iter_mut().zip(&*share).zip(first) {
                    *v += (first - *v) * share;
                }
            });
        }
        let v = &v[..v_rows];
        let kk = sized(kk, v_rows);
        let (removal, replacement) = (&removal[channels.clone()], &replacement[channels.clone()]);
        for ((kk, k), a) in kk.chunks_exact_mut(width).zip(k.chunks_exact_mut(width)).zip(a.chunks_exact(width)) {
            for i in 0..width {
                kk[i] = k[i] * removal[i];
                k[i] *= 1.0 + (a[i] - 1.0) * replacement[i];
            }
        }
        self.kernels.unit_norm(kk, n);
        let y = sized(y, v_rows);
        self.each_round(index, item, |(tokens, pieces)| {
            let at = tokens.start * width;
            let rows = |data| Rows::dense(data, width);
            let inputs = wkv7::Inputs {
                tokens: tokens.len(),
                width: n,
                r: rows(&r[at..]),
                decay: rows(&w[at..]),
                k: rows(&k[at..]),
                v: rows(&v[at..]),
                removal: rows(&kk[at..]),
                rate: rows(&a[at..]),
            };
            self.kernels.wkv7(inputs, pieces[0], RowsMut { data: &mut y[at..], stride: width });
        });
        let out = sized(product, v_rows);
        let (gain, bias) = (&norm.gain[channels.clone()], &norm.bias[channels.clone()]);
        self.kernels.group_norm(y, n, gain, bias, config.head_eps, out);
        let heads = width / n;
        let bonus = bonus[channels].chunks_exact(n);
        let rows = out.chunks_exact_mut(n).zip(r.chunks_exact(n)).zip(k.chunks_exact(n));
        let rows = rows.zip(v.chunks_exact(n)).zip(g.chunks_exact(n)).zip(bonus.cycle().take(v_rows / width * heads));
        for (((((out, r), k), v), g), bonus) in rows {
            let share = sum_of_products(r, k, bonus);
            for ((out, v), g) in out.iter_mut().zip(v).zip(g) {
                *out = (*out + share * v) * g;
            }
        }
    }
}

/// sum a b c, in sixteen sums side by side: the compiler may use vectors, and every one gives the same bits.
fn sum_of_products(a: &[f32], b: &[f32], c: &[f32]) -> f32 {
    let mut sums = [0.0; 16];
    let chunks = a.chunks(16).zip(b.chunks(16)).zip(c.chunks(16));
    for ((a, b), c) in chunks {
        for (sum, ((a, b), c)) in sums.iter_mut().zip(a.iter().zip(b).zip(c)) {
            *sum += a * b * c;
        }
    }
    sums.iter().sum()
}
