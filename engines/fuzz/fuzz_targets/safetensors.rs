//! Any bytes as model.safetensors, under a fixed config, give a model that answers or an error. Bytes also serve as edits of a
//! file that fits (two bytes of place, one of value), so that what lies behind a valid header is reached without a corpus.
#![no_main]

mod tiny;

use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

static CONFIG: LazyLock<String> = LazyLock::new(|| tiny::config().to_string());
static WEIGHTS: LazyLock<Vec<u8>> = LazyLock::new(tiny::weights);

fuzz_target!(|bytes: &[u8]| {
    tiny::ask(CONFIG.as_bytes(), bytes);
    let mut weights = WEIGHTS.clone();
    for edit in bytes.chunks_exact(3) {
        let place = usize::from(u16::from_le_bytes([edit[0], edit[1]])) % weights.len();
        weights[place] = edit[2];
    }
    tiny::ask(CONFIG.as_bytes(), &weights);
});
