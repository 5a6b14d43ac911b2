//! Archives written by hand, good and hostile.

use super::super::pickle::tests::Writer;
use super::*;
use crate::weights::Source;

/// Writes zip archives of stored entries.
#[derive(Default)]
struct Zip {
    bytes: Vec<u8>,
    directory: Vec<u8>,
    count: u16,
    /// Whether sizes and places are written in the directory as those of large files are, in 64 bits.
    wide: bool,
}

impl Zip {
    fn put(mut self, name: &str, data: &[u8]) -> Zip {
        let (size, at) = ((data.len() as u32).to_le_bytes(), (self.bytes.len() as u32).to_le_bytes());
        // Version, flags, method, time, date, checksum, sizes, lengths of the name and of what follows it.
        let common = |size: [u8; 4], extra: u16| {
            let name_size = (name.len() as u16).to_le_bytes();
            [&[20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0][..], &size, &size, &name_size, &extra.to_le_bytes()].concat()
        };
        self.bytes.extend([MAGIC, &common(size, 0), name.as_bytes(), data].concat());
        let long = [&[1, 0, 24, 0][..], &size, &[0; 4], &size, &[0; 4], &at, &[0; 4]].concat();
        let (size, at, extra) = if self.wide { ([0xFF; 4], [0xFF; 4], &long[..]) } else { (size, at, &[][..]) };
        let head = [b"PK\x01\x02\x14\x00", &common(size, extra.len() as u16)[..], &[0; 10], &at].concat();
        self.directory.extend([&head, name.as_bytes(), extra].concat());
        self.count += 1;
        self
    }

    fn end(self) -> Vec<u8> {
        let (size, at) = (self.directory.len() as u32, self.bytes.len() as u32);
        let count = self.count.to_le_bytes();
        let end = [b"PK\x05\x06\0\0\0\0", &count[..], &count, &size.to_le_bytes(), &at.to_le_bytes(), &[0, 0]].concat();
        [self.bytes, self.directory, end].concat()
    }
}

fn open(bytes: &[u8]) -> Result<Torch> {
    Torch::new("model.pth", Map::copy(bytes))
}

fn says(bytes: &[u8]) -> String {
    let error = open(bytes).unwrap_err().to_string();
    error.strip_prefix("model.pth: ").expect("names the file").to_string()
}

/// One tensor `a` over the numbers 0 to 5.
fn one(kind: &str, stored: i32, offset: i32, shape: &[i32], strides: &[i32]) -> Vec<u8> {
    let pickle = Writer::new().raw(b"}").text("a").tensor(kind, "0", stored, offset, shape, strides).raw(b"s.").0;
    let numbers: Vec<f32> = (0..6).map(|i| i as f32).collect();
    let zip = Zip::default().put("m/data.pkl", &pickle).put("m/byteorder", b"little");
    zip.put("m/data/0", bytemuck::cast_slice(&numbers)).put("m/version", b"3\n").end()
}

#[test]
fn numbers_come_out_in_the_order_of_their_indices() {
    let torch = open(&one("Float", 6, 0, &[2, 3], &[3, 1])).unwrap();
    assert_eq!((torch.names(), torch.shape("a")), (vec!["a".to_string()], Some(vec![2, 3])));
    assert_eq!(torch.dense("a", 2, 3).unwrap().to_f32(), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    assert_eq!(torch.dense_transposed("a", 3, 2).unwrap().to_f32(), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
    assert!(torch.vector("b", 1).unwrap_err().to_string().contains("tensor b: missing"));
    let torch = open(&one("Float", 6, 0, &[3, 2], &[1, 3])).unwrap();
    assert_eq!(torch.flat("a", 6).unwrap(), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
    assert_eq!(torch.dense_transposed("a", 2, 3).unwrap().to_f32(), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    // A part of a storage, and steps of axes of 1, which say nothing.
    let torch = open(&one("Float", 6, 2, &[1, 1, 3], &[77, 99, 1])).unwrap();
    assert_eq!(torch.vector("a", 3).unwrap(), [2.0, 3.0, 4.0]);
    let torch = open(&one("Float", 6, 5, &[], &[])).unwrap();
    assert_eq!(torch.vector("a", 1).unwrap(), [5.0]);
    // 0.0f32 and 1.0f32 as pairs of bf16.
    let torch = open(&one("BFloat16", 12, 0, &[4], &[1])).unwrap();
    assert_eq!(torch.vector("a", 4).unwrap(), [0.0, 0.0, 0.0, 1.0]);
}

#[test]
fn several_files_are_one_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
    let index = folder.path().join(INDEX);
    let open = |map: serde_json::Value| {
        write(INDEX, serde_json::json!({ "weight_map": map }).to_string().as_bytes());
        Shards::open(&index)
    };
    write("pytorch_model-00001-of-00002.bin", &one("Float", 6, 0, &[2, 3], &[3, 1]));
    let pickle = Writer::new().raw(b"}").text("b").tensor("Float", "0", 1, 0, &[1], &[1]).raw(b"s.").0;
    let other = Zip::default().put("m/data.pkl", &pickle).put("m/data/0", &2.5f32.to_le_bytes());
    write("pytorch_model-00002-of-00002.bin", &other.end());
    let (first, second) = ("pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin");
    let whole = open(serde_json::json!({ "a": first, "b": second })).unwrap();
    assert_eq!(whole.names(), ["a", "b"]);
    assert_eq!((whole.shape("a"), whole.shape("c")), (Some(vec![2, 3]), None));
    assert_eq!(whole.dense_transposed("a", 3, 2).unwrap().to_f32(), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
    assert_eq!(whole.vector("b", 1).unwrap(), [2.5]);
    let says = |result: Result<Vec<f32>>| result.unwrap_err().to_string();
    assert!(says(whole.vector("b", 2)).contains("00002-of-00002.bin: tensor b: expected shape [2], found [1]"));
    assert!(says(whole.vector("c", 1)).contains("tensor c: missing"));
    let fails = |map| open(map).unwrap_err().to_string();
    let swapped = fails(serde_json::json!({ "b": first }));
    assert!(swapped.contains("00001-of-00002.bin: tensor b: missing, though the index names this file"), "{swapped}");
    assert!(fails(serde_json::json!({ "a": format!("../{first}") })).contains("expected a name in the same folder"));
    assert!(fails(serde_json::json!({ "a": "lost.bin" })).contains("lost.bin"));
    write("x.bin", b"garbage that is long enough to be something");
    assert!(fails(serde_json::json!({ "a": "x.bin" })).contains("not a whole zip archive"));
}

#[test]
fn archives_with_sizes_of_64_bits_are_read() {
    let pickle = Writer::new().raw(b"}").text("a").tensor("Float", "0", 1, 0, &[1], &[1]).raw(b"s.").0;
    let zip = Zip { wide: true, ..Zip::default() }.put("m/data.pkl", &pickle).put("m/data/0", &2.5f32.to_le_bytes());
    assert_eq!(open(&zip.end()).unwrap().vector("a", 1).unwrap(), [2.5]);
}

#[test]
fn views_that_do_not_fit_are_errors() {
    let outside = |offset, shape: &[i32], strides: &[i32]| {
        let error = says(&one("Float", 6, offset, shape, strides));
        assert!(error.starts_with("tensor a: shape") && error.contains("outside its storage"), "{error}");
    };
    outside(1, &[2, 3], &[3, 1]);
    outside(7, &[], &[]);
    outside(7, &[0], &[1]);
    outside(0, &[2, 3], &[4, 1]);
    outside(0, &[i32::MAX, i32::MAX, i32::MAX], &[i32::MAX; 3]);
    let refused = |shape: &[i32], strides: &[i32], expected: &str| {
        let error = open(&one("Float", 6, 0, shape, strides)).unwrap().flat("a", 6).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    refused(&[2, 2], &[2, 2], "save it again with .contiguous()");
    refused(&[i32::MAX, i32::MAX, i32::MAX, 6], &[0, 0, 0, 1], "save it again with .contiguous()");
    refused(&[i32::MAX, i32::MAX, i32::MAX, 0], &[1, 1, 1, 1], "holds no numbers");
}

#[test]
fn types_and_sizes_must_agree() {
    let integers = open(&one("Long", 3, 0, &[3], &[1])).unwrap();
    let error = integers.vector("a", 3).unwrap_err().to_string();
    assert_eq!(error, "model.pth: tensor a: expected type Float, Half or BFloat16, found Long");
    let error = says(&one("Float", 5, 0, &[5], &[1]));
    assert_eq!(error, "tensor a: its storage has 24 bytes: expected 5 of type Float");
    assert!(says(&one("Half", 6, 0, &[6], &[1])).contains("its storage has 24 bytes"));
    assert!(says(&one("Float", -1, 0, &[6], &[1])).contains("something else than a storage"));
}

#[test]
fn every_truncation_is_an_error() {
    let whole = one("Float", 6, 0, &[6], &[1]);
    for cut in 0..whole.len() {
        assert!(open(&whole[..cut]).is_err(), "cut at {cut}");
    }
}

#[test]
fn flipped_bits_never_panic() {
    let whole = one("Float", 6, 0, &[2, 3], &[3, 1]);
    for at in 0..whole.len() * 8 {
        let mut bytes = whole.clone();
        bytes[at / 8] ^= 1 << (at % 8);
        if let Ok(torch) = open(&bytes) {
            let _ = torch.names().iter().filter(|name| torch.flat(name, 6).is_ok()).count();
        }
    }
}

#[test]
fn other_archives_are_told_apart() {
    let pickle = Writer::new().raw(b"}.").0;
    let script = Zip::default().put("m/data.pkl", &pickle).put("m/constants.pkl", b"").put("m/code/m.py", b"");
    assert!(says(&script.end()).contains("TorchScript archive"));
    assert!(says(&[LEGACY, b"more"].concat()).contains("before 1.6"));
    assert!(says(&Zip::default().put("hello.txt", b"hi").end()).contains("not a checkpoint of PyTorch"));
    let two = Zip::default().put("a/data.pkl", &pickle).put("b/data.pkl", &pickle);
    assert!(says(&two.end()).contains("without one FOLDER/data.pkl"));
    let big = Zip::default().put("m/data.pkl", &pickle).put("m/byteorder", b"big");
    assert!(says(&big.end()).contains("big endian"));
    assert!(open(&Zip::default().put("m/data.pkl", &pickle).end()).unwrap().names().is_empty());
}

#[test]
fn hostile_archives_are_errors() {
    let whole = one("Float", 6, 0, &[6], &[1]);
    let directory = whole.windows(4).position(|bytes| bytes == b"PK\x01\x02").unwrap();
    let change = |at: usize, value: &[u8]| {
        let mut bytes = whole.clone();
        bytes[directory + at..directory + at + value.len()].copy_from_slice(value);
        says(&bytes)
    };
    // Fields of the first entry in the directory: flags, method, sizes, place.
    assert!(change(8, &[1, 0]).contains("m/data.pkl is compressed or encrypted"));
    assert!(change(10, &[8, 0]).contains("m/data.pkl is compressed or encrypted"));
    assert!(change(20, &[0xF0, 0xFF, 0xFF, 0x7F]).contains("m/data.pkl is not whole in the file"));
    assert!(change(24, &[1, 0, 0, 0]).contains("m/data.pkl has two sizes"));
    assert!(change(42, &[0, 0, 0, 0x7F]).contains("m/data.pkl is not whole in the file"));
    let size = (whole.len() as u32 - 300).to_le_bytes();
    assert!(change(20, &[size, size].concat()).contains("overlap"));
    let missing = Writer::new().raw(b"}").text("a").tensor("Float", "../0", 1, 0, &[1], &[1]).raw(b"s.").0;
    assert!(says(&Zip::default().put("m/data.pkl", &missing).end()).contains("tensor a: no storage data/../0"));
    let system = Writer::new().global("os", "system").text("true").raw(b"\x85R.").0;
    assert!(says(&Zip::default().put("m/data.pkl", &system).end()).contains("its pickle names os.system"));
    let twice = Zip::default().put("m/data.pkl", b"N.").put("m/data.pkl", b"N.");
    assert!(says(&twice.end()).contains("m/data.pkl occurs twice"));
}
