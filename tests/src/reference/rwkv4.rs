//! RWKV-4: a weighted mean of all values so far, with one decay to a channel.
//!
//! Time mixing of h `[C]`, with mixes for k, v and r (`rwkv.rs`) and w = -exp(time_decay), u = time_first:
//!
//! ```text
//! r = sigmoid(Wr mix_r), k = Wk mix_k, v = Wv mix_v
//! q   = max(pp, u + k)
//! wkv = (e^(pp - q) aa + e^(u + k - q) v) / (e^(pp - q) bb + e^(u + k - q))
//! q'  = max(pp + w, k)
//! aa  = e^(pp + w - q') aa + e^(k - q') v,  bb likewise with 1 for v,  pp = q'
//! out = Wo (r * wkv)
//! ```
//!
//! aa and bb are the sums that the mean is made of, both over e^pp, so that nothing overflows. Both naming schemes are
//! read: BlinkDL's and that of transformers.
//!
//! Not done: transformers halves x after every sixth layer, and the weights with it, which only the epsilon of norms sees
//! (about 5e-5 of a logit).
//!
//! Source: RWKV, arXiv 2305.13048, equations 16 to 18, and appendix D for the form that cannot overflow.

use super::recurrent::{Part, sigmoid};
use super::rwkv::{ChannelMix, Mixes, Rwkv, mix};
use crate::tensors::Tensors;
use ndarray::{Array1, Array2, ArrayD};

/// The mixes of RWKV-4.
#[derive(Debug)]
pub struct Rwkv4 {
    key_share: Array1<f64>,
    value_share: Array1<f64>,
    receptance_share: Array1<f64>,
    /// w.
    decay: Array1<f64>,
    /// u.
    bonus: Array1<f64>,
    key: Array2<f64>,
    value: Array2<f64>,
    receptance: Array2<f64>,
    output: Array2<f64>,
    channel: ChannelMix,
}

/// What one layer of RWKV-4 remembers; each `[C]`.
#[derive(Clone, Debug)]
pub struct Memory {
    /// The previous token's ln1(x).
    time_previous: Array1<f64>,
    /// aa, bb and pp.
    sum: Array1<f64>,
    weight: Array1<f64>,
    exponent: Array1<f64>,
    /// The previous token's ln2(x).
    channel_previous: Array1<f64>,
}

impl Rwkv4 {
    /// Takes weights by either scheme of names.
    pub fn from_tensors(tensors: &Tensors) -> Rwkv<Rwkv4> {
        let stacked = tensors.get("rwkv.embeddings.weight").is_some();
        let renamed = stacked.then(|| blinkdl(tensors));
        let mut model = Rwkv::read(renamed.as_ref().unwrap_or(tensors), Rwkv4::read);
        model.stacked = stacked;
        model
    }

    fn read(part: &Part<'_>) -> Rwkv4 {
        let share = |name: &str| 1.0 - part.vector(&format!("att.time_mix_{name}"));
        Rwkv4 {
            key_share: share("k"),
            value_share: share("v"),
            receptance_share: share("r"),
            decay: part.vector("att.time_decay").mapv(|decay| -decay.exp()),
            bonus: part.vector("att.time_first"),
            key: part.matrix("att.key.weight"),
            value: part.matrix("att.value.weight"),
            receptance: part.matrix("att.receptance.weight"),
            output: part.matrix("att.output.weight"),
            channel: ChannelMix::read(part, |name| 1.0 - part.vector(&format!("ffn.time_mix_{name}"))),
        }
    }
}

impl Mixes for Rwkv4 {
    type Memory = Memory;

    fn start(&self) -> Memory {
        let zero = Array1::zeros(self.decay.len());
        Memory {
            time_previous: zero.clone(),
            sum: zero.clone(),
            weight: zero.clone(),
            exponent: Array1::from_elem(self.decay.len(), -1e30),
            channel_previous: zero,
        }
    }

    fn time_mix(&self, h: &Array1<f64>, memory: &mut Memory, _: &mut Option<Array1<f64>>) -> Array1<f64> {
        let r = self.receptance.dot(&mix(h, &memory.time_previous, &self.receptance_share)).mapv(sigmoid);
        let k = self.key.dot(&mix(h, &memory.time_previous, &self.key_share));
        let v = self.value.dot(&mix(h, &memory.time_previous, &self.value_share));
        memory.time_previous.assign(h);

        let (aa, bb, pp) = (&mut memory.sum, &mut memory.weight, &mut memory.exponent);
        let mut wkv = Array1::zeros(h.len());
        for i in 0..h.len() {
            let now = self.bonus[i] + k[i];
            let q = pp[i].max(now);
            let (past, now) = ((pp[i] - q).exp(), (now - q).exp());
            wkv[i] = (past * aa[i] + now * v[i]) / (past * bb[i] + now);

            let faded = pp[i] + self.decay[i];
            let q = faded.max(k[i]);
            let (past, now) = ((faded - q).exp(), (k[i] - q).exp());
            aa[i] = past * aa[i] + now * v[i];
            bb[i] = past * bb[i] + now;
            pp[i] = q;
        }
        self.output.dot(&(r * wkv))
    }

    fn channel_mix(&self, h: &Array1<f64>, memory: &mut Memory) -> Array1<f64> {
        self.channel.apply(h, &mut memory.channel_previous)
    }

    fn states(memory: &Memory) -> Vec<ArrayD<f64>> {
        let Memory { time_previous, sum, weight, exponent, channel_previous } = memory;
        [time_previous, sum, weight, exponent, channel_previous].map(|x| x.clone().into_dyn()).to_vec()
    }
}

/// The tensors of a transformers model by BlinkDL's names.
fn blinkdl(tensors: &Tensors) -> Tensors {
    let mut renamed = Tensors::default();
    for name in tensors.names() {
        let mut new = name.trim_start_matches("rwkv.").to_string();
        for (theirs, ours) in [
            ("embeddings.", "emb."),
            (".pre_ln.", ".ln0."),
            (".attention.", ".att."),
            (".feed_forward.", ".ffn."),
            ("time_mix_key", "time_mix_k"),
            ("time_mix_value", "time_mix_v"),
            ("time_mix_receptance", "time_mix_r"),
        ] {
            new = new.replace(theirs, ours);
        }
        renamed.insert(&new, tensors.tensor(name).clone());
    }
    renamed
}
