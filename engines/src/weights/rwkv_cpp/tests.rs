//! Model files written by hand, good and damaged.

use super::*;
use crate::weights::Source;

fn header(version: u32, vocab: u32, width: u32, layers: u32) -> Vec<u8> {
    [0x6767_6D66, version, vocab, width, layers, 0].iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// A tensor in PyTorch's order of axes.
fn put(file: &mut Vec<u8>, name: &str, kind: u32, shape: &[u32], data: &[u8]) {
    let head = [shape.len() as u32, name.len() as u32, kind];
    let words = head.iter().chain(shape.iter().rev());
    file.extend(words.flat_map(|word| word.to_le_bytes()));
    file.extend(name.bytes());
    file.extend(data);
}

fn put_f32(file: &mut Vec<u8>, name: &str, shape: &[u32], numbers: &[f32]) {
    put(file, name, 0, shape, bytemuck::cast_slice(numbers));
}

/// The smallest file: an embedding and a block.
fn base() -> Vec<u8> {
    let mut file = header(101, 2, 3, 1);
    put_f32(&mut file, "emb.weight", &[2, 3], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    put_f32(&mut file, "blocks.0.ln1.weight", &[3], &[1.0; 3]);
    file
}

fn open(file: &[u8]) -> Result<RwkvCpp> {
    RwkvCpp::new("model.bin", Map::copy(file))
}

fn says(file: &[u8]) -> String {
    let error = open(file).unwrap_err().to_string();
    error.strip_prefix("model.bin: ").expect("names the file").to_string()
}

#[test]
fn axes_come_out_in_the_order_of_pytorch() {
    let mut file = base();
    let halves: Vec<u8> = [0.5f32, -2.0].iter().flat_map(|x| half::f16::from_f32(*x).to_le_bytes()).collect();
    put(&mut file, "head.weight", 1, &[2, 1], &halves);
    let model = open(&file).unwrap();
    assert_eq!(model.names(), ["blocks.0.ln1.weight", "emb.weight", "head.weight"]);
    assert_eq!(model.shape("emb.weight"), Some(vec![2, 3]));
    assert_eq!(model.dense("emb.weight", 2, 3).unwrap().to_f32(), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    assert_eq!(model.vector("head.weight", 2).unwrap(), [0.5, -2.0]);
    assert!(model.vector("none", 1).unwrap_err().to_string().contains("tensor none: missing"));
}

#[test]
fn exponentials_are_undone() {
    let decay = [-8.0f32, -0.5, 1.25];
    let double: Vec<f32> = decay.iter().map(|w| f64::from(*w)).map(|w| (-w.exp()).exp() as f32).collect();
    let close = |found: Vec<f32>, expected: &[f32]| {
        assert_eq!(found.len(), expected.len());
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 2e-4), "{found:?} {expected:?}");
    };
    let mut v4 = base();
    let negated: Vec<f32> = decay.iter().map(|w| -w.exp()).collect();
    put_f32(&mut v4, "blocks.0.att.time_decay", &[3], &negated);
    put_f32(&mut v4, "blocks.0.att.time_first", &[3], &decay);
    let v4 = open(&v4).unwrap();
    close(v4.vector("blocks.0.att.time_decay", 3).unwrap(), &decay);
    assert_eq!(v4.vector("blocks.0.att.time_first", 3).unwrap(), decay);
    let mut v5 = base();
    put_f32(&mut v5, "blocks.0.att.ln_x.weight", &[3], &[1.0; 3]);
    put_f32(&mut v5, "blocks.0.att.time_decay", &[3, 1, 1], &double);
    let exponentials: Vec<f32> = decay.iter().map(|u| u.exp()).collect();
    put_f32(&mut v5, "blocks.0.att.time_first", &[3, 1, 1], &exponentials);
    put_f32(&mut v5, "blocks.0.att.time_faaaa", &[3, 1, 1], &decay);
    let v5 = open(&v5).unwrap();
    assert_eq!(v5.shape("blocks.0.att.time_decay"), Some(vec![3]));
    close(v5.vector("blocks.0.att.time_decay", 3).unwrap(), &decay);
    close(v5.flat("blocks.0.att.time_first", 3).unwrap(), &decay);
    assert_eq!(v5.vector("blocks.0.att.time_faaaa", 3).unwrap(), decay);
}

#[test]
fn rounded_exponentials_stay_finite_and_come_back() {
    for stored in [0.0f32, 1e-45, 0.25, 1.0 - f32::EPSILON / 2.0, 1.0] {
        let before = Change::DoubleExponential.undo(stored).unwrap();
        let again = libm::exp(-libm::exp(f64::from(before))) as f32;
        assert!((again - stored).abs() <= 1e-6 * stored, "{stored} {before} {again}");
    }
    for (change, bad) in [
        (Change::DoubleExponential, 1.5),
        (Change::DoubleExponential, f32::NAN),
        (Change::NegatedExponential, 0.1),
        (Change::Exponential, -0.1),
    ] {
        assert_eq!(change.undo(bad), None);
    }
    let mut v4 = base();
    put_f32(&mut v4, "blocks.0.att.time_decay", &[3], &[-1.0, 0.5, -1.0]);
    let error = open(&v4).unwrap().vector("blocks.0.att.time_decay", 3).unwrap_err().to_string();
    assert!(error.contains("number 1 is 0.5, which no exponential"), "{error}");
}

#[test]
fn exchanged_and_joined_tensors_are_undone() {
    let count = |n: u32| (0..n).map(|i| i as f32).collect::<Vec<f32>>();
    let mut v7 = base();
    put_f32(&mut v7, "blocks.0.att.k_k", &[1, 1, 3], &[1.0; 3]);
    put_f32(&mut v7, "blocks.0.att.w1", &[2, 3], &count(6));
    put_f32(&mut v7, "blocks.0.att.x_rwkvag", &[6, 1, 3], &count(18));
    let v7 = open(&v7).unwrap();
    assert_eq!(v7.shape("blocks.0.att.w1"), Some(vec![3, 2]));
    assert_eq!(v7.flat("blocks.0.att.w1", 6).unwrap(), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
    assert_eq!(v7.dense_transposed("blocks.0.att.w1", 2, 3).unwrap().to_f32(), count(6));
    assert_eq!(v7.shape("blocks.0.att.x_rwkvag"), None);
    assert_eq!(v7.shape("blocks.0.att.x_w"), Some(vec![1, 1, 3]));
    assert_eq!(v7.vector("blocks.0.att.x_g", 3).unwrap(), [15.0, 16.0, 17.0]);
    let mut v6 = base();
    put_f32(&mut v6, "blocks.0.att.time_maa_x", &[3], &[1.0; 3]);
    put_f32(&mut v6, "blocks.0.att.time_maa_w2", &[2, 2, 2], &count(8));
    put_f32(&mut v6, "blocks.0.att.time_decay", &[3, 1, 1], &count(3));
    put_f32(&mut v6, "blocks.0.att.time_faaaa", &[3, 1, 1], &count(3));
    let v6 = open(&v6).unwrap();
    assert_eq!(v6.flat("blocks.0.att.time_maa_w2", 8).unwrap(), [0.0, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0]);
    assert_eq!(v6.shape("blocks.0.att.time_decay"), Some(vec![1, 1, 3]));
    assert_eq!(v6.vector("blocks.0.att.time_decay", 3).unwrap(), count(3));
}

#[test]
fn quantised_rows_are_widened() {
    // d = 1, every byte 0x21: low halves 1, high halves 2, less 8.
    let block = [&half::f16::ONE.to_le_bytes()[..], &[0x21; 16]].concat();
    let mut file = base();
    put(&mut file, "head.weight", 2, &[2, 32], &block.repeat(2));
    let head = open(&file).unwrap().dense("head.weight", 2, 32).unwrap();
    assert_eq!(head.to_f32(), [[-7.0; 16], [-6.0; 16], [-7.0; 16], [-6.0; 16]].concat());
    let mut file = base();
    put(&mut file, "head.weight", 2, &[32, 2], &block.repeat(2));
    assert!(says(&file).contains("tensor head.weight: rows of 2: expected a multiple of 32"));
    file = [header(100, 2, 3, 1), base()[24..].to_vec()].concat();
    assert!(open(&file).is_ok());
    put(&mut file, "head.weight", 2, &[1, 32], &block);
    assert!(says(&file).contains("quantised by version 100"));
}

#[test]
fn every_truncation_is_an_error() {
    let mut file = base();
    let whole = file.len();
    put_f32(&mut file, "head.weight", &[2], &[1.0; 2]);
    // Cut between the last two tensors the file still has what its header promises.
    for cut in (0..file.len()).filter(|cut| *cut != whole) {
        let error = says(&file[..cut]);
        assert!(error.contains("ends inside") || error.contains("as its header says"), "{cut}: {error}");
    }
}

#[test]
fn damaged_files_are_errors() {
    let says_after = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut file = base();
        change(&mut file);
        says(&file)
    };
    assert!(says_after(&|file| file[0] = 0).contains("not a model of rwkv.cpp"));
    assert!(says_after(&|file| file[4] = 99).contains("version 99: expected 100 or 101"));
    assert!(says_after(&|file| file[8] = 3).contains("no emb.weight of the shape [3, 3]"));
    assert!(says_after(&|file| file[16] = 2).contains("does not have 2 blocks"));
    assert!(says_after(&|file| file[16] = 0).contains("does not have 0 blocks"));
    assert!(says_after(&|file| file[24] = 4).contains("a tensor of 4 axes"));
    assert!(says_after(&|file| file[28..32].fill(0xFF)).contains("4294967295 bytes of name"));
    assert!(says_after(&|file| file[32] = 4).contains("tensor emb.weight: type 4: expected FP32"));
    assert!(says_after(&|file| file[36..44].fill(0xFF)).contains("tensor emb.weight: shape"));
    assert!(says_after(&|file| file[36] = 0).contains("is empty or too large"));
    assert!(says_after(&|file| file[36] = 0xFF).contains("ends inside the tensor emb.weight"));
    assert!(says_after(&|file| file[44] = 0xFF).contains("not UTF-8"));
    assert!(says_after(&|file| put_f32(file, "emb.weight", &[1], &[1.0])).contains("two tensors called emb.weight"));
    let mut joined = base();
    put_f32(&mut joined, "blocks.0.att.k_k", &[3], &[1.0; 3]);
    put_f32(&mut joined, "blocks.0.att.x_rwkvag", &[5, 3], &[1.0; 15]);
    assert!(says(&joined).contains("expected [6, ...] of floats"));
}

#[test]
fn flipped_bits_never_panic() {
    let mut file = base();
    put_f32(&mut file, "blocks.0.att.k_k", &[1, 1, 3], &[1.0; 3]);
    put_f32(&mut file, "blocks.0.att.x_rwkvag", &[6, 1, 1], &[1.0; 6]);
    put(&mut file, "blocks.0.att.w1", 2, &[1, 32], &[0x33; 18]);
    for at in 0..file.len() * 8 {
        let mut bytes = file.clone();
        bytes[at / 8] ^= 1 << (at % 8);
        if let Ok(model) = open(&bytes) {
            for name in model.names() {
                let count = model.shape(&name).unwrap().iter().product();
                let _ = model.flat(&name, count);
            }
        }
    }
}
