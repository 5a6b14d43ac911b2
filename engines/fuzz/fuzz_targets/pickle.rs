//! Any bytes as the pickle of a checkpoint of PyTorch give its tensors or an error. Bytes also serve as edits (two bytes of
//! place, one of value) of a pickle and of a whole file that fit.
#![no_main]

mod look;

use libfuzzer_sys::fuzz_target;

/// Two tensors: `a` `[2, 3]` of f32 in order, `b` `[3, 2]` of the same storage transposed.
fn pickle() -> Vec<u8> {
    let tensor = |name: &str, sizes: [u8; 4]| {
        let [rows, cols, down, right] = sizes;
        let mut bytes = b"X".to_vec();
        bytes.extend((name.len() as u32).to_le_bytes());
        bytes.extend(name.bytes());
        bytes.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000");
        bytes.extend(b"X\x03\0\0\0cpuK\x06tQK\0");
        bytes.extend([b'K', rows, b'K', cols, 0x86, b'K', down, b'K', right, 0x86]);
        bytes.extend(b"\x89ccollections\nOrderedDict\n)RtR");
        bytes
    };
    [b"\x80\x02}(", &tensor("a", [2, 3, 3, 1])[..], &tensor("b", [3, 2, 1, 3]), b"u."].concat()
}

/// A zip archive of the pickle and of a storage of 24 bytes.
fn archive(pickle: &[u8]) -> Vec<u8> {
    let (mut bytes, mut directory) = (Vec::new(), Vec::new());
    for (name, data) in [("m/data.pkl", pickle), ("m/data/0", &[0x3F; 24])] {
        let (size, at) = ((data.len() as u32).to_le_bytes(), (bytes.len() as u32).to_le_bytes());
        let common = [&[0; 14][..], &size, &size, &(name.len() as u16).to_le_bytes(), &[0, 0]].concat();
        bytes.extend([b"PK\x03\x04", &common[..], name.as_bytes(), data].concat());
        directory.extend([b"PK\x01\x02\0\0", &common[..], &[0; 10], &at, name.as_bytes()].concat());
    }
    let (size, at) = ((directory.len() as u32).to_le_bytes(), (bytes.len() as u32).to_le_bytes());
    [&bytes[..], &directory, b"PK\x05\x06\0\0\0\0\x02\0\x02\0", &size, &at, &[0, 0]].concat()
}

fuzz_target!(|bytes: &[u8]| {
    look::at(&archive(bytes));
    let pickle = pickle();
    assert_eq!(look::at(&archive(&pickle)), 2, "the pickle that is edited fits");
    look::at(&archive(&look::edited(pickle.clone(), bytes)));
    look::at(&look::edited(archive(&pickle), bytes));
});
