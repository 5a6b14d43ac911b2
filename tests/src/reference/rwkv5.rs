//! RWKV-5: a matrix of state to a head, in its first (5.0) and its last form (5.2).
//!
//! Time mixing of h `[C]`, with mixes for k, v, r and g (`rwkv.rs`); r, k and v as `[H, N]`; i counts key channels, j value
//! channels of a head:
//!
//! ```text
//! r = Wr mix_r, k = Wk mix_k, v = Wv mix_v, g = silu(Wg mix_g)
//! y_j  = sum_i r_i (u_i k_i v_j + S_ij)          with S as the previous token left it
//! S_ij = w_i S_ij + k_i v_j
//! out  = Wo (ln_x(y) * g)                        ln_x is a norm of each head
//! ```
//!
//! with w = exp(-exp(time_decay)). 5.2 has time_decay and u = time_faaaa for every channel, `[H, N]`; 5.0 has one number to a
//! head, `[H]`, u = exp(time_first), and no gate. Published World models need ln_x with epsilon 64e-5; the tiny models of
//! rwkv.cpp were trained and published with 1e-5: an argument.
//!
//! Source: Eagle and Finch, arXiv 2404.05892, section 4 (Eagle is version 5.2).

use super::recurrent::{Part, silu};
use super::rwkv::{ChannelMix, GroupNorm, Mixes, Rwkv, heads, mix};
use crate::tensors::Tensors;
use ndarray::{Array1, Array2, Array3, ArrayD};

/// The mixes of RWKV-5.
#[derive(Debug)]
pub struct Rwkv5 {
    key_share: Array1<f64>,
    value_share: Array1<f64>,
    receptance_share: Array1<f64>,
    /// The share and the matrix of g.
    gate: Option<(Array1<f64>, Array2<f64>)>,
    /// w `[H, N]`.
    decay: Array2<f64>,
    /// u `[H, N]`.
    bonus: Array2<f64>,
    key: Array2<f64>,
    value: Array2<f64>,
    receptance: Array2<f64>,
    output: Array2<f64>,
    norm: GroupNorm,
    channel: ChannelMix,
}

/// What one layer of RWKV-5, 6 or 7 remembers.
#[derive(Clone, Debug)]
pub struct Memory {
    /// The previous token's ln1(x), `[C]`.
    pub(super) time_previous: Array1<f64>,
    /// S `[H, N, N]`.
    pub(super) state: Array3<f64>,
    /// The previous token's ln2(x), `[C]`.
    pub(super) channel_previous: Array1<f64>,
}

impl Memory {
    pub(super) fn new(heads: usize, width: usize) -> Memory {
        let zero = Array1::zeros(heads * width);
        Memory { time_previous: zero.clone(), state: Array3::zeros((heads, width, width)), channel_previous: zero }
    }

    pub(super) fn states(&self) -> Vec<ArrayD<f64>> {
        vec![
            self.time_previous.clone().into_dyn(),
            self.state.clone().into_dyn(),
            self.channel_previous.clone().into_dyn(),
        ]
    }
}

impl Rwkv5 {
    /// Takes weights by BlinkDL's names; `eps` is that of `ln_x`.
    pub fn from_tensors(tensors: &Tensors, eps: f64) -> Rwkv<Rwkv5> {
        Rwkv::read(tensors, |part| Rwkv5::read(part, eps))
    }

    fn read(part: &Part<'_>, eps: f64) -> Rwkv5 {
        let share = |name: &str| 1.0 - part.vector(&format!("att.time_mix_{name}"));
        let key = part.matrix("att.key.weight");
        let count = part.shape("att.time_decay")[0];
        // One number to a head serves all its channels.
        let width = key.nrows() / count;
        let per_channel = |x: Array1<f64>| {
            let each = x.len() / count;
            Array2::from_shape_fn((count, width), |(head, i)| x[head * each + i % each])
        };
        Rwkv5 {
            key_share: share("k"),
            value_share: share("v"),
            receptance_share: share("r"),
            gate: part.has("att.gate.weight").then(|| (share("g"), part.matrix("att.gate.weight"))),
            decay: per_channel(part.vector("att.time_decay").mapv(|decay| (-decay.exp()).exp())),
            bonus: per_channel(match part.optional("att.time_faaaa") {
                Some(bonus) => bonus,
                None => part.vector("att.time_first").mapv(f64::exp),
            }),
            key,
            value: part.matrix("att.value.weight"),
            receptance: part.matrix("att.receptance.weight"),
            output: part.matrix("att.output.weight"),
            norm: GroupNorm::read(part, eps),
            channel: ChannelMix::read(part, |name| 1.0 - part.vector(&format!("ffn.time_mix_{name}"))),
        }
    }
}

impl Mixes for Rwkv5 {
    type Memory = Memory;

    fn start(&self) -> Memory {
        let (heads, width) = self.decay.dim();
        Memory::new(heads, width)
    }

    fn time_mix(&self, h: &Array1<f64>, memory: &mut Memory, _: &mut Option<Array1<f64>>) -> Array1<f64> {
        let count = self.decay.nrows();
        let product = |weight: &Array2<f64>, share| weight.dot(&mix(h, &memory.time_previous, share));
        let r = heads(product(&self.receptance, &self.receptance_share), count);
        let k = heads(product(&self.key, &self.key_share), count);
        let v = heads(product(&self.value, &self.value_share), count);
        let g = self.gate.as_ref().map(|(share, gate)| product(gate, share).mapv(silu));
        memory.time_previous.assign(h);

        let y = self.norm.apply(wkv([&r, &k, &v], &self.decay, &self.bonus, &mut memory.state));
        self.output.dot(&match g {
            Some(g) => y * g,
            None => y,
        })
    }

    fn channel_mix(&self, h: &Array1<f64>, memory: &mut Memory) -> Array1<f64> {
        self.channel.apply(h, &mut memory.channel_previous)
    }

    fn states(memory: &Memory) -> Vec<ArrayD<f64>> {
        memory.states()
    }
}

/// y `[H, N]` from r, k, v, w and u `[H, N]`; advances S `[H, N, N]`, key channel before value channel.
pub(super) fn wkv(
    [r, k, v]: [&Array2<f64>; 3],
    w: &Array2<f64>,
    u: &Array2<f64>,
    state: &mut Array3<f64>,
) -> Array2<f64> {
    let (heads, width) = r.dim();
    let mut y = Array2::zeros((heads, width));
    for h in 0..heads {
        for i in 0..width {
            for j in 0..width {
                let kv = k[[h, i]] * v[[h, j]];
                let s = &mut state[[h, i, j]];
                y[[h, j]] += r[[h, i]] * (u[[h, i]] * kv + *s);
                *s = w[[h, i]] * *s + kv;
            }
        }
    }
    y
}
