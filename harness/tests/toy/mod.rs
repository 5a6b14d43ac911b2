//! A tiny llama2.c model with a vocabulary of bytes, written by the tests: real files through the real loader.

#![allow(dead_code, reason = "each test uses a part of this")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

/// V: three special tokens and the 256 bytes.
pub(crate) const VOCAB: usize = 259;
/// Positions.
pub(crate) const CONTEXT: usize = 64;
/// D, and L.
pub(crate) const WIDTH: usize = 16;
pub(crate) const LAYERS: usize = 2;

/// A folder with `model.bin` and `tokenizer.bin`.
pub(crate) struct Toy {
    pub(crate) folder: TempDir,
}

impl Toy {
    pub(crate) fn new() -> Toy {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("model.bin"), checkpoint()).unwrap();
        std::fs::write(folder.path().join("tokenizer.bin"), vocabulary()).unwrap();
        Toy { folder }
    }

    pub(crate) fn model(&self) -> String {
        self.path("model.bin").to_str().unwrap().to_string()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file and gives its path.
    pub(crate) fn write(&self, name: &str, content: &[u8]) -> String {
        std::fs::write(self.path(name), content).unwrap();
        self.path(name).to_str().unwrap().to_string()
    }
}

/// Version 0: seven sizes, then the tensors; values are small and differ.
fn checkpoint() -> Vec<u8> {
    let (inner, heads, kv_heads) = (24, 4, 2);
    let head = WIDTH / heads;
    let per_layer = [
        WIDTH * WIDTH,
        WIDTH * kv_heads * head,
        WIDTH * kv_heads * head,
        WIDTH * WIDTH,
        WIDTH * inner,
        WIDTH * inner,
        WIDTH * inner,
    ];
    let mut bytes: Vec<u8> = [WIDTH, inner, LAYERS, heads, kv_heads, VOCAB, CONTEXT]
        .iter()
        .flat_map(|size| i32::try_from(*size).unwrap().to_le_bytes())
        .collect();
    let mut seed = 1u32;
    let mut random = || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (f64::from(seed >> 8) / f64::from(1 << 24) - 0.5) as f32
    };
    let mut push = |count: usize, value: &mut dyn FnMut() -> f32| {
        for _ in 0..count {
            bytes.extend(value().to_le_bytes());
        }
    };
    push(VOCAB * WIDTH, &mut || 2.0 * random());
    push(LAYERS * WIDTH, &mut || 1.0);
    per_layer[..4].iter().for_each(|size| push(LAYERS * size, &mut || random()));
    push(LAYERS * WIDTH, &mut || 1.0);
    per_layer[4..].iter().for_each(|size| push(LAYERS * size, &mut || random()));
    push(WIDTH, &mut || 1.0);
    push(CONTEXT * head, &mut || 0.0);
    bytes
}

fn vocabulary() -> Vec<u8> {
    let special = ["<unk>", "\n<s>\n", "\n</s>\n"].map(str::to_string);
    let pieces = special.into_iter().chain((0..=255u8).map(|byte| format!("<0x{byte:02X}>")));
    let mut bytes = 6i32.to_le_bytes().to_vec();
    for piece in pieces {
        bytes.extend(0f32.to_le_bytes());
        bytes.extend(i32::try_from(piece.len()).unwrap().to_le_bytes());
        bytes.extend(piece.bytes());
    }
    bytes
}

/// Runs the program in `folder`, away from the environment's settings.
pub(crate) fn harness(folder: &Path, arguments: &[&str]) -> Output {
    command(folder).args(arguments).output().unwrap()
}

/// The program in `folder`, away from the environment's settings.
pub(crate) fn command(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_harness"));
    for variable in ["RYZANSTEIN_ROOT", "RYZANSTEIN_DATA", "RYZANSTEIN_ISA", "RUST_BACKTRACE"] {
        command.env_remove(variable);
    }
    command.current_dir(folder);
    command
}
