//! How files of tensors are looked into.

use engines::TensorFile;

/// Reads all tensors of whatever opens; gives how many can be read.
pub fn at(bytes: &[u8]) -> usize {
    let Ok(file) = TensorFile::from_bytes("file", bytes) else { return 0 };
    let names = file.names();
    let readable = names.iter().filter(|name| {
        let shape = file.shape(name).expect("a name of its own");
        file.read(name).is_ok_and(|numbers| {
            assert_eq!(numbers.len(), shape.iter().product::<usize>());
            true
        })
    });
    readable.count()
}

/// `bytes` with a new value at each place that `edits` names.
pub fn edited(mut bytes: Vec<u8>, edits: &[u8]) -> Vec<u8> {
    for edit in edits.chunks_exact(3) {
        let place = usize::from(u16::from_le_bytes([edit[0], edit[1]])) % bytes.len();
        bytes[place] = edit[2];
    }
    bytes
}
