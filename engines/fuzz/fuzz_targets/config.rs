//! Any bytes as config.json, over fixed weights, give a model that answers or an error. Bytes that are a JSON object are also
//! laid over a config that fits, so that changed keys are reached at once.
#![no_main]

mod tiny;

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use std::sync::LazyLock;

static WEIGHTS: LazyLock<Vec<u8>> = LazyLock::new(tiny::weights);

fuzz_target!(|bytes: &[u8]| {
    tiny::ask(bytes, &WEIGHTS);
    if let Ok(Value::Object(changes)) = serde_json::from_slice(bytes) {
        let mut config = tiny::config();
        for (key, value) in changes {
            config[key.as_str()] = value;
        }
        tiny::ask(config.to_string().as_bytes(), &WEIGHTS);
    }
});
