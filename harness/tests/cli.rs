//! Promises about the command line: what it says of bad input, and that its numbers do not depend on the machine.

mod toy;

use std::io::Read;
use std::process::{Output, Stdio};

use serde_json::Value;
use toy::{LAYERS, Toy, VOCAB, WIDTH, command, harness};

const TEXT: &str = "It was a bright cold day in April, and the tide mill turned. Nobody had slept; the miller least.";

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_str(&stdout(output)).unwrap()
}

/// Holds a failure to the house's form: the status, nothing on standard output, one sentence that says `parts`.
fn refused(toy: &Toy, arguments: &[&str], status: i32, parts: &[&str]) {
    let output = command(toy.folder.path()).env("RUST_BACKTRACE", "1").args(arguments).output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    let line = format!("harness {}", arguments.join(" "));
    assert_eq!(output.status.code(), Some(status), "{line}: {told}");
    assert!(output.stdout.is_empty(), "{line} printed something");
    assert!(told.starts_with("error: ") && !told.contains("panicked") && !told.contains("stack backtrace"), "{told}");
    assert_eq!(told.matches("error: ").count(), 1, "{line}: {told}");
    for part in parts {
        assert!(told.contains(part), "{line}: '{part}' is not in: {told}");
    }
}

#[test]
fn every_command_teaches_itself_with_examples() {
    let toy = Toy::new();
    for name in ["perplexity", "bench", "generate", "logits", "dataset", "gate"] {
        let help = stdout(&harness(toy.folder.path(), &[name, "--help"]));
        assert!(help.contains("Example") && help.contains(&format!("harness {name}")), "{help}");
    }
}

#[test]
fn unknown_names_are_refused_with_what_there_is() {
    let toy = Toy::new();
    let text = &toy.write("text", TEXT.as_bytes());
    let model = &toy.model();
    let cases: &[(&[&str], &[&str])] = &[
        (&["perplexity", "--model", "nobody", "--text", text], &["nobody", "synthetic:SHAPE", "bitnet-2b-4t"]),
        (&["perplexity", "--model", "./nobody", "--text", text], &["./nobody"]),
        (&["perplexity", "--model", "synthetic:nobody", "--text", text], &["nobody", "bitnet-2b-4t"]),
        (&["bench", "--model", "synthetic:bitnet-tiny:x"], &["'x'", "seed"]),
        (&["perplexity", "--model", model, "--dataset", "almanak"], &["almanak", "did you mean 'almanac'"]),
        (&["dataset", "fetch", "almanak"], &["almanak", "did you mean 'almanac'", "wikitext2"]),
        (&["dataset", "path", ""], &["there is no dataset ''"]),
        (&["generate", "--model", model, "--prompt", "a", "--isa", "sse9"], &["sse9", "avx512"]),
        (&["bench", "--model", model, "--isa", "scalar,neon"], &["neon", "avx2"]),
        (&["logits", "--model", model, "--tokens", "1", "--out", "x", "--cache", "f16"], &["f16", "bf16"]),
    ];
    for (arguments, parts) in cases {
        refused(&toy, arguments, 2, parts);
    }
}

#[test]
fn absurd_numbers_are_refused() {
    let toy = Toy::new();
    let text = &toy.write("text", TEXT.as_bytes());
    let model = &toy.model();
    let perplexity = |flag, value| vec!["perplexity", "--model", model, "--text", text, flag, value];
    let generate = |flag, value| vec!["generate", "--model", model, "--prompt", "a", flag, value];
    let bench = |flag, value| vec!["bench", "--model", model, flag, value];
    let cases: Vec<(Vec<&str>, &[&str])> = vec![
        (perplexity("--threads", "0"), &["'0'", "expected 1 to"]),
        (perplexity("--threads", "99999999999999999999"), &["expected 1 to"]),
        (perplexity("--context", "0"), &["'0'", "at least 1"]),
        (perplexity("--context", "65"), &["context 65", "1 to 64"]),
        (perplexity("--max-tokens", "-3"), &["-3"]),
        (perplexity("--skip", "1"), &["--documents"]),
        (generate("--tokens", "0"), &["at least 1"]),
        (generate("--temperature", "-1"), &["temperature"]),
        (generate("--temperature", "NaN"), &["temperature", "NaN"]),
        (generate("--top-p", "0"), &["top_p", "above 0"]),
        (generate("--min-p", "2"), &["min_p"]),
        (generate("--repetition-penalty", "0"), &["repetition_penalty"]),
        (generate("--stop", ""), &["--stop", "empty"]),
        (bench("-p", "65"), &["65 tokens after 0", "64"]),
        (bench("-d", "18446744073709551615"), &["do not fit"]),
        (bench("-r", "0"), &["at least 1"]),
        (bench("-t", "1,0"), &["'0'"]),
        (bench("-o", "xml"), &["xml", "csv"]),
        (vec!["bench", "--model", model, "-p", "0", "-n", "0"], &["nothing to measure"]),
        (bench("--profile", "/no/such/folder/x.svg"), &["cannot write /no/such/folder/x.svg"]),
    ];
    for (arguments, parts) in cases {
        refused(&toy, &arguments, 2, parts);
    }
}

#[test]
fn texts_that_cannot_be_read_are_refused() {
    let toy = Toy::new();
    let model = &toy.model();
    let cases: &[(&str, &[u8], &[&str])] = &[
        ("empty", b"", &["text empty is empty"]),
        ("blank", b" \n\t\n", &["text blank is empty"]),
        ("binary", b"abc\xff\xfe", &["not UTF-8", "byte 3 is 0xff"]),
    ];
    for (name, content, parts) in cases {
        let path = toy.write(name, content);
        refused(&toy, &["perplexity", "--model", model, "--text", &path], 2, parts);
    }
    refused(&toy, &["perplexity", "--model", model, "--text", "/no/such/text"], 2, &["/no/such/text"]);
    refused(&toy, &["perplexity", "--model", model, "--text", "/"], 2, &["is a folder"]);
    refused(&toy, &["perplexity", "--model", model], 2, &["--text"]);
    let stories = &toy.write("stories", b"one<|endoftext|>\n<|endoftext|>two");
    let line = ["perplexity", "--model", model, "--text", stories, "--documents", "--skip", "2"];
    refused(&toy, &line, 2, &["--skip 2", "has 2"]);
}

#[test]
fn models_that_cannot_be_used_are_refused() {
    let toy = Toy::new();
    let text = &toy.write("text", TEXT.as_bytes());
    let whole = std::fs::read(toy.model()).unwrap();
    let cut = &toy.write("cut.bin", &whole[..whole.len() / 2]);
    refused(&toy, &["perplexity", "--model", cut, "--text", text], 1, &["cut.bin", "bytes"]);
    let junk = &toy.write("junk.bin", b"not a model at all, but long enough to have a header");
    refused(&toy, &["perplexity", "--model", junk, "--text", text], 1, &["junk.bin"]);
    let folder = toy.folder.path().to_str().unwrap();
    refused(&toy, &["perplexity", "--model", folder, "--text", text], 1, &["config.json"]);
    let silent = "synthetic:bitnet-tiny";
    refused(&toy, &["perplexity", "--model", silent, "--text", text], 2, &["no tokenizer"]);
    refused(&toy, &["generate", "--model", silent, "--prompt", "a"], 2, &["no tokenizer"]);
}

#[test]
fn prompts_and_tokens_that_do_not_fit_are_refused() {
    let toy = Toy::new();
    let model = &toy.model();
    refused(&toy, &["generate", "--model", model, "--prompt", ""], 2, &["prompt is empty"]);
    let long = "a".repeat(100);
    refused(&toy, &["generate", "--model", model, "--prompt", &long], 2, &["102 tokens", "holds 64"]);
    let logits = |tokens| ["logits", "--model", model, "--tokens", tokens, "--out", "out.safetensors"];
    refused(&toy, &logits("1,259"), 2, &["token 259", "259"]);
    refused(&toy, &logits("1,4294967296"), 2, &["4294967296"]);
    refused(&toy, &logits("1,x"), 2, &["'x'"]);
    refused(&toy, &logits(""), 2, &["--tokens"]);
    let many = vec!["5"; 65].join(",");
    refused(&toy, &logits(&many), 2, &["65 tokens", "64"]);
    let line = ["logits", "--model", model, "--tokens", "1", "--out", "/no/such/folder/out"];
    refused(&toy, &line, 2, &["cannot write /no/such/folder/out"]);
}

#[test]
fn a_gate_without_baseline_says_so_before_it_runs() {
    let toy = Toy::new();
    refused(&toy, &["gate", "check", "--baseline", "none.json"], 2, &["none.json"]);
    toy.write("bad.json", b"{\"format\": 1, \"experimants\": {}}");
    refused(&toy, &["gate", "check", "--baseline", "bad.json"], 2, &["bad.json", "experimants"]);
    toy.write("good.json", b"{\"format\": 1, \"experiments\": {}, \"instructions\": null}");
    let line = ["gate", "check", "--baseline", "good.json", "--rows", "nowhere"];
    refused(&toy, &line, 1, &["nowhere"]);
}

#[test]
fn perplexity_has_the_same_bits_on_every_level_and_any_number_of_threads() {
    let toy = Toy::new();
    let (model, text) = (toy.model(), toy.write("text", TEXT.as_bytes()));
    let mut seen: Vec<(Value, Value)> = Vec::new();
    for isa in kernels::Isa::available() {
        for threads in ["1", "2", "3"] {
            let flags = ["--isa", isa.name(), "-t", threads, "--context", "20", "--json"];
            let line = [&["perplexity", "--model", &model, "--text", &text][..], &flags].concat();
            let found = json(&harness(toy.folder.path(), &line));
            assert_eq!(found["isa"], isa.name());
            assert_eq!(found["protocol"]["windows"], 5);
            seen.push((found["nats_per_token"].clone(), found["bits_per_byte_error"].clone()));
        }
    }
    assert!(seen.iter().all(|numbers| *numbers == seen[0]), "{seen:?}");
    assert!(seen[0].0.as_f64().unwrap() > 0.0);
}

#[test]
fn perplexity_counts_each_document_alone() {
    let toy = Toy::new();
    let model = toy.model();
    let score = |content: &str, flags: &[&str]| {
        let text = toy.write("text", content.as_bytes());
        let line = [&["perplexity", "--model", &model, "--text", &text, "--json"][..], flags].concat();
        let found = json(&harness(toy.folder.path(), &line));
        (found["nats_per_token"].as_f64().unwrap(), found["tokens"].as_u64().unwrap(), found["bytes"].as_u64().unwrap())
    };
    let (a, b) = (score("first tale", &[]), score("second", &[]));
    let both = score("zeroth<|endoftext|>\nfirst tale\n<|endoftext|> second ", &["--documents", "--skip", "1"]);
    assert_eq!((both.1, both.2), (a.1 + b.1, a.2 + b.2));
    let sum = a.0 * a.1 as f64 + b.0 * b.1 as f64;
    assert!((both.0 * both.1 as f64 - sum).abs() < 1e-9 * sum);
    assert_eq!(score("x|first tale|y", &["--documents", "--separator", "|", "--skip", "1", "--limit", "1"]), a);
}

#[test]
fn text_streams_as_json_tells_it_and_does_not_depend_on_level_or_threads() {
    let toy = Toy::new();
    let model = toy.model();
    let line = ["generate", "--model", &model, "--prompt", "Hello", "-n", "40", "--temperature", "0.9", "--seed", "5"];
    let streamed = stdout(&harness(toy.folder.path(), &line));
    for isa in kernels::Isa::available() {
        let flags = ["--isa", isa.name(), "-t", "2", "--json"];
        let found = json(&harness(toy.folder.path(), &[&line[..], &flags].concat()));
        assert_eq!(streamed, format!("Hello{}\n", found["text"].as_str().unwrap()), "{isa}");
        assert!(found["tokens"].as_array().unwrap().len() <= 40);
    }
    let other = [&line[..line.len() - 2], &["--seed", "6"]].concat();
    assert_ne!(streamed, stdout(&harness(toy.folder.path(), &other)), "another seed gave the same text");
}

#[test]
fn a_stop_text_ends_the_text_and_is_not_printed() {
    let toy = Toy::new();
    let model = toy.model();
    let line = ["generate", "--model", &model, "--prompt", "Hello", "-n", "40", "--json"];
    let whole = json(&harness(toy.folder.path(), &line));
    let text = whole["text"].as_str().unwrap();
    let stop: String = text.chars().skip(3).take(2).collect();
    let cut = json(&harness(toy.folder.path(), &[&line[..], &["--stop", &stop]].concat()));
    assert_eq!(cut["text"].as_str().unwrap(), &text[..text.find(&stop).unwrap()]);
    assert!(cut["ended_by"].as_str().unwrap().contains("the text"), "{cut}");
}

#[test]
fn a_reader_that_leaves_ends_the_program_quietly() {
    let toy = Toy::new();
    let mut child = command(toy.folder.path())
        .args(["generate", "--model", &toy.model(), "--prompt", "Hello", "-n", "50"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut told = String::new();
    child.stderr.take().unwrap().read_to_string(&mut told).unwrap();
    let status = child.wait().unwrap();
    assert!(status.success(), "{status}: {told}");
    assert!(!told.contains("error") && !told.contains("panicked"), "{told}");
}

#[test]
fn logits_are_written_whole_and_stepwise_bits_are_the_same() {
    let toy = Toy::new();
    let (model, tokens) = (toy.model(), "1,72,105,36,120");
    let read = |name: &str, flags: &[&str]| {
        let line = [&["logits", "--model", &model, "--tokens", tokens, "--out", name][..], flags].concat();
        assert!(stdout(&harness(toy.folder.path(), &line)).is_empty());
        std::fs::read(toy.path(name)).unwrap()
    };
    let plain = read("plain", &[]);
    let plain = safetensors::SafeTensors::deserialize(&plain).unwrap();
    assert_eq!(plain.names(), ["logits"]);
    assert_eq!(plain.tensor("logits").unwrap().shape(), [5, VOCAB]);
    let (whole, steps) = (read("whole", &["--hidden"]), read("steps", &["--hidden", "--stepwise"]));
    assert_eq!(whole, steps, "one token at a time gives other bits");
    let whole = safetensors::SafeTensors::deserialize(&whole).unwrap();
    assert_eq!(whole.tensor("logits").unwrap().data(), plain.tensor("logits").unwrap().data());
    assert_eq!(whole.names().len(), LAYERS + 2);
    for layer in 0..=LAYERS {
        assert_eq!(whole.tensor(&format!("hidden.{layer:02}")).unwrap().shape(), [5, WIDTH]);
    }
}

#[test]
fn bench_times_every_combination_in_every_format() {
    let toy = Toy::new();
    let model = toy.model();
    let line = ["bench", "-m", &model, "-p", "8", "-n", "4", "-d", "0,16", "-t", "1,2", "-r", "3"];
    let rows = json(&harness(toy.folder.path(), &[&line[..], &["-o", "json"]].concat()));
    let rows = rows.as_array().unwrap();
    let tests: Vec<&str> = rows.iter().map(|row| row["test"].as_str().unwrap()).collect();
    assert_eq!(tests, ["pp8", "tg4", "pp8 @ d16", "tg4 @ d16", "pp8", "tg4", "pp8 @ d16", "tg4 @ d16"]);
    for row in rows {
        let speed = &row["tokens_per_s"];
        let (low, median, high) = (&speed["low"], &speed["median"], &speed["high"]);
        assert!(low.as_f64() > Some(0.0) && low.as_f64() <= median.as_f64() && median.as_f64() <= high.as_f64());
        assert_eq!(row["samples"].as_array().unwrap().len(), 3);
    }
    let csv = stdout(&harness(toy.folder.path(), &[&line[..], &["-o", "csv"]].concat()));
    assert_eq!(csv.lines().count(), 9);
    let columns = csv.lines().next().unwrap().split(',').count();
    assert!(csv.lines().skip(1).all(|line| line.replace("\"f32, f32 tied head\"", "x").split(',').count() == columns));
    let table = stdout(&harness(toy.folder.path(), &line));
    assert!(table.starts_with("| model") && table.lines().count() == 10 && table.contains('±'), "{table}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_profile_is_a_flame_graph() {
    let toy = Toy::new();
    let line = ["bench", "-m", "synthetic:bitnet-tiny", "-p", "256", "-n", "0", "-r", "8", "--profile", "flames.svg"];
    assert!(stdout(&harness(toy.folder.path(), &line)).contains("pp256"));
    let svg = std::fs::read_to_string(toy.path("flames.svg")).unwrap();
    assert!(svg.contains("<svg") && svg.contains("engines"), "no frame of the engines in the flame graph");
}
