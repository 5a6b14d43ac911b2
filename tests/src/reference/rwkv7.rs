//! RWKV-7: the state forgets along one direction of keys, and learns another, for each token.
//!
//! Time mixing of h `[C]`, with p the previous token's h and x_f = h + (p - h) share_f for f = r, w, k, v, a, g:
//!
//! ```text
//! r = Wr x_r, k = Wk x_k, v = Wv x_v
//! w  = exp(-0.606531 sigmoid(w0 + tanh(x_w w1) w2))
//! a  = sigmoid(a0 + (x_a a1) a2),  g = sigmoid(x_g g1) g2
//! kk = k k_k, of length 1 in each head;  then k = k (1 + (a - 1) k_a)
//! first layer: v_first = v;  others: v += (v_first - v) sigmoid(v0 + (x_v v1) v2)
//! S_ij = S_ij w_j - (S kk)_i (kk a)_j + v_i k_j  i counts value channels, j key channels; S kk before the decay
//! y    = S r
//! out  = Wo ((ln_x(y) + (sum_head r k r_k) v) * g)
//! ```
//!
//! Channel mixing: Wv relu(Wk (h + (p - h) x_k))^2.
//!
//! Source: RWKV-7 "Goose", arXiv 2503.14456, section 4; 0.606531 is e^(-1/2) as the published program writes it.

use super::recurrent::{Part, sigmoid};
use super::rwkv::{GroupNorm, Mixes, Rwkv, flat, heads, mix, squared_relu};
use super::rwkv5::Memory;
use crate::tensors::Tensors;
use ndarray::{Array1, Array2, Array3, ArrayD, Axis};

/// The mixes of RWKV-7.
#[derive(Debug)]
pub struct Rwkv7 {
    /// x_r, x_w, x_k, x_v, x_a and x_g.
    shares: [Array1<f64>; 6],
    key: Array2<f64>,
    value: Array2<f64>,
    receptance: Array2<f64>,
    output: Array2<f64>,
    decay: LowRank,
    learning: LowRank,
    /// g1 and g2.
    gate: (Array2<f64>, Array2<f64>),
    /// None in the first layer.
    value_mix: Option<LowRank>,
    /// k_k and k_a.
    removal: Array1<f64>,
    replacement: Array1<f64>,
    /// r_k `[H, N]`.
    bonus: Array2<f64>,
    norm: GroupNorm,
    channel_share: Array1<f64>,
    channel_key: Array2<f64>,
    channel_value: Array2<f64>,
}

/// x to base + f(x down) up.
#[derive(Debug)]
struct LowRank {
    base: Array1<f64>,
    down: Array2<f64>,
    up: Array2<f64>,
}

impl LowRank {
    fn read(part: &Part<'_>, letter: &str) -> LowRank {
        LowRank {
            base: part.vector(&format!("att.{letter}0")),
            down: part.matrix(&format!("att.{letter}1")),
            up: part.matrix(&format!("att.{letter}2")),
        }
    }

    fn apply(&self, x: &Array1<f64>, f: impl Fn(f64) -> f64) -> Array1<f64> {
        &self.base + &x.dot(&self.down).mapv(f).dot(&self.up)
    }
}

impl Rwkv7 {
    /// Takes weights by BlinkDL's names; `eps` is that of `ln_x`.
    pub fn from_tensors(tensors: &Tensors, eps: f64) -> Rwkv<Rwkv7> {
        Rwkv::read(tensors, |part| Rwkv7::read(part, eps))
    }

    fn read(part: &Part<'_>, eps: f64) -> Rwkv7 {
        Rwkv7 {
            shares: ["r", "w", "k", "v", "a", "g"].map(|name| part.vector(&format!("att.x_{name}"))),
            key: part.matrix("att.key.weight"),
            value: part.matrix("att.value.weight"),
            receptance: part.matrix("att.receptance.weight"),
            output: part.matrix("att.output.weight"),
            decay: LowRank::read(part, "w"),
            learning: LowRank::read(part, "a"),
            gate: (part.matrix("att.g1"), part.matrix("att.g2")),
            // Some files carry v0 to v2 in the first layer too, where nothing reads them.
            value_mix: part.has("att.v0").then(|| LowRank::read(part, "v")),
            removal: part.vector("att.k_k"),
            replacement: part.vector("att.k_a"),
            bonus: part.matrix("att.r_k"),
            norm: GroupNorm::read(part, eps),
            channel_share: part.vector("ffn.x_k"),
            channel_key: part.matrix("ffn.key.weight"),
            channel_value: part.matrix("ffn.value.weight"),
        }
    }
}

impl Mixes for Rwkv7 {
    type Memory = Memory;

    fn start(&self) -> Memory {
        let (heads, width) = self.bonus.dim();
        Memory::new(heads, width)
    }

    fn time_mix(&self, h: &Array1<f64>, memory: &mut Memory, first: &mut Option<Array1<f64>>) -> Array1<f64> {
        let count = self.bonus.nrows();
        let [x_r, x_w, x_k, x_v, x_a, x_g] = self.shares.each_ref().map(|share| mix(h, &memory.time_previous, share));
        memory.time_previous.assign(h);

        let r = self.receptance.dot(&x_r);
        let k = self.key.dot(&x_k);
        let v = self.value.dot(&x_v);
        let w = self.decay.apply(&x_w, f64::tanh).mapv(|w| (-0.606531 * sigmoid(w)).exp());
        let a = self.learning.apply(&x_a, |x| x).mapv(sigmoid);
        let g = x_g.dot(&self.gate.0).mapv(sigmoid).dot(&self.gate.1);

        let mut kk = heads(&k * &self.removal, count);
        for mut head in kk.outer_iter_mut() {
            let length = head.mapv(|x| x * x).sum().sqrt().max(1e-12);
            head.mapv_inplace(|x| x / length);
        }
        let k = &k * &(1.0 + (&a - 1.0) * &self.replacement);
        let v = match (&*first, &self.value_mix) {
            (None, _) => v,
            (Some(first), Some(value_mix)) => &v + &((first - &v) * value_mix.apply(&x_v, |x| x).mapv(sigmoid)),
            (Some(_), None) => panic!("a layer after the first lacks v0, v1 and v2"),
        };
        first.get_or_insert_with(|| v.clone());

        let (r, w, k, v, a) = (heads(r, count), heads(w, count), heads(k, count), heads(v, count), heads(a, count));
        let y = self.norm.apply(delta([&r, &w, &k, &v, &kk, &a], &mut memory.state));
        let shares = (&r * &k * &self.bonus).sum_axis(Axis(1)).insert_axis(Axis(1));
        self.output.dot(&((y + flat(shares * v)) * g))
    }

    fn channel_mix(&self, h: &Array1<f64>, memory: &mut Memory) -> Array1<f64> {
        let x = mix(h, &memory.channel_previous, &self.channel_share);
        memory.channel_previous.assign(h);
        self.channel_value.dot(&self.channel_key.dot(&x).mapv(squared_relu))
    }

    fn states(memory: &Memory) -> Vec<ArrayD<f64>> {
        memory.states()
    }
}

/// y `[H, N]` from r, w, k, v, kk and a `[H, N]`; advances S `[H, N, N]`, value channel before key channel.
fn delta([r, w, k, v, kk, a]: [&Array2<f64>; 6], state: &mut Array3<f64>) -> Array2<f64> {
    let (heads, width) = r.dim();
    let mut y = Array2::zeros((heads, width));
    for h in 0..heads {
        for i in 0..width {
            let removed: f64 = (0..width).map(|j| state[[h, i, j]] * kk[[h, j]]).sum();
            for j in 0..width {
                let s = &mut state[[h, i, j]];
                *s = *s * w[[h, j]] - removed * kk[[h, j]] * a[[h, j]] + v[[h, i]] * k[[h, j]];
                y[[h, i]] += *s * r[[h, j]];
            }
        }
    }
    y
}
