//! RWKV-6: as 5.2, but how much each mix takes of the previous token, and the decay, depend on the token.
//!
//! Time mixing of h `[C]`, with p the previous token's h:
//!
//! ```text
//! m   = tanh((h + (p - h) maa_x) W1)             [5, r], for w, k, v, r and g
//! x_f = h + (p - h) (maa_f + m_f W2_f)           f = w, k, v, r, g; W2_f [r, C]
//! w   = exp(-exp(time_decay + tanh(x_w D1) D2))
//! r = Wr x_r, k = Wk x_k, v = Wv x_v, g = silu(Wg x_g)
//! ```
//!
//! then y, S and the output as in `rwkv5.rs`, with u = time_faaaa.
//!
//! Source: Eagle and Finch, arXiv 2404.05892, section 4 (Finch is version 6).

use super::recurrent::{Part, silu};
use super::rwkv::{ChannelMix, GroupNorm, Mixes, Rwkv, heads, mix};
use super::rwkv5::{Memory, wkv};
use crate::tensors::Tensors;
use ndarray::{Array1, Array2, Array3, ArrayD, Axis};

/// The mixes of RWKV-6.
#[derive(Debug)]
pub struct Rwkv6 {
    /// `maa_x`.
    share: Array1<f64>,
    /// `maa_w`, `maa_k`, `maa_v`, `maa_r` and `maa_g`.
    shares: [Array1<f64>; 5],
    /// W1 `[C, 5r]`.
    share_down: Array2<f64>,
    /// W2 `[5, r, C]`.
    share_up: Array3<f64>,
    /// `time_decay`.
    decay: Array1<f64>,
    /// D1 `[C, rank]`.
    decay_down: Array2<f64>,
    /// D2 `[rank, C]`.
    decay_up: Array2<f64>,
    /// u `[H, N]`.
    bonus: Array2<f64>,
    key: Array2<f64>,
    value: Array2<f64>,
    receptance: Array2<f64>,
    gate: Array2<f64>,
    output: Array2<f64>,
    norm: GroupNorm,
    channel: ChannelMix,
}

impl Rwkv6 {
    /// Takes weights by BlinkDL's names; `eps` is that of `ln_x`.
    pub fn from_tensors(tensors: &Tensors, eps: f64) -> Rwkv<Rwkv6> {
        Rwkv::read(tensors, |part| Rwkv6::read(part, eps))
    }

    fn read(part: &Part<'_>, eps: f64) -> Rwkv6 {
        let [five, rank, width] = *part.shape("att.time_maa_w2") else { panic!("time_maa_w2 is not [5, r, C]") };
        let share_up = part.vector("att.time_maa_w2").into_shape_with_order((five, rank, width));
        Rwkv6 {
            share: part.vector("att.time_maa_x"),
            shares: ["w", "k", "v", "r", "g"].map(|name| part.vector(&format!("att.time_maa_{name}"))),
            share_down: part.matrix("att.time_maa_w1"),
            share_up: share_up.expect("5 r C elements"),
            decay: part.vector("att.time_decay"),
            decay_down: part.matrix("att.time_decay_w1"),
            decay_up: part.matrix("att.time_decay_w2"),
            bonus: part.matrix("att.time_faaaa"),
            key: part.matrix("att.key.weight"),
            value: part.matrix("att.value.weight"),
            receptance: part.matrix("att.receptance.weight"),
            gate: part.matrix("att.gate.weight"),
            output: part.matrix("att.output.weight"),
            norm: GroupNorm::read(part, eps),
            channel: ChannelMix::read(part, |name| part.vector(&format!("ffn.time_maa_{name}"))),
        }
    }
}

impl Mixes for Rwkv6 {
    type Memory = Memory;

    fn start(&self) -> Memory {
        let (heads, width) = self.bonus.dim();
        Memory::new(heads, width)
    }

    fn time_mix(&self, h: &Array1<f64>, memory: &mut Memory, _: &mut Option<Array1<f64>>) -> Array1<f64> {
        let count = self.bonus.nrows();
        let m = mix(h, &memory.time_previous, &self.share).dot(&self.share_down).mapv(f64::tanh);
        let m = heads(m, 5);
        let mixed: Vec<Array1<f64>> = (0..5)
            .map(|f| {
                let share = &self.shares[f] + &m.row(f).dot(&self.share_up.index_axis(Axis(0), f));
                mix(h, &memory.time_previous, &share)
            })
            .collect();
        memory.time_previous.assign(h);
        let [x_w, x_k, x_v, x_r, x_g] = &mixed[..] else { unreachable!("five mixes") };

        let decay = &self.decay + &x_w.dot(&self.decay_down).mapv(f64::tanh).dot(&self.decay_up);
        let w = heads(decay.mapv(|decay| (-decay.exp()).exp()), count);
        let r = heads(self.receptance.dot(x_r), count);
        let k = heads(self.key.dot(x_k), count);
        let v = heads(self.value.dot(x_v), count);
        let g = self.gate.dot(x_g).mapv(silu);
        let y = self.norm.apply(wkv([&r, &k, &v], &w, &self.bonus, &mut memory.state));
        self.output.dot(&(y * g))
    }

    fn channel_mix(&self, h: &Array1<f64>, memory: &mut Memory) -> Array1<f64> {
        self.channel.apply(h, &mut memory.channel_previous)
    }

    fn states(memory: &Memory) -> Vec<ArrayD<f64>> {
        memory.states()
    }
}
