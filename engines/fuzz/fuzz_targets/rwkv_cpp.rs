//! Any bytes as a model of rwkv.cpp give its tensors or an error. Bytes also serve as edits (two bytes of place, one of
//! value) of a file that fits.
#![no_main]

mod look;

use libfuzzer_sys::fuzz_target;

fn put(file: &mut Vec<u8>, name: &str, kind: u32, shape: &[u32], data: &[u8]) {
    let head = [shape.len() as u32, name.len() as u32, kind];
    file.extend(head.iter().chain(shape.iter().rev()).flat_map(|word| word.to_le_bytes()));
    file.extend(name.bytes());
    file.extend(data);
}

/// Each kind of tensor once.
fn model() -> Vec<u8> {
    let mut file: Vec<u8> = [0x6767_6D66u32, 101, 2, 3, 1, 0].iter().flat_map(|word| word.to_le_bytes()).collect();
    put(&mut file, "emb.weight", 0, &[2, 3], &[0x3F; 24]);
    put(&mut file, "blocks.0.ln1.weight", 0, &[3], &[0x3F; 12]);
    put(&mut file, "blocks.0.att.k_k", 0, &[1, 1, 3], &[0x3F; 12]);
    put(&mut file, "blocks.0.att.x_rwkvag", 0, &[6, 1, 1], &[0x3F; 24]);
    put(&mut file, "blocks.0.att.time_decay", 0, &[3, 1, 1], &[0x3E; 12]);
    put(&mut file, "blocks.0.att.w1", 1, &[2, 3], &[0x3C; 12]);
    for (kind, bytes) in [(2, 18), (3, 20), (7, 22), (8, 24), (9, 34)] {
        put(&mut file, &format!("q{kind}"), kind, &[1, 32], &vec![0x31; bytes]);
    }
    file
}

fuzz_target!(|bytes: &[u8]| {
    let model = model();
    assert_eq!(look::at(&model), 16, "the file that is edited fits");
    // Past the magic number.
    look::at(&[&model[..4], bytes].concat());
    look::at(&[&model[..24], bytes].concat());
    look::at(&look::edited(model, bytes));
});
