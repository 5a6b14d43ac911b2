//! The dialect of llama-bench, the benchmark of llama.cpp and of programs that descend from it.
//!
//! Asked for one repetition (`-r 1`) of one test (`-p P -n 0` or `-p 0 -n N`) it warms itself up, times the test
//! without loading, and prints a JSON array with one object. Fields that are not named here are not looked at: programs
//! differ in them.

use std::ffi::OsString;

use serde::Deserialize;

use super::{Answer, Question, Work};

/// How far the stated speed may lie from tokens over stated time before one of them is taken for another unit.
const AGREEMENT: f64 = 0.01;

/// One test of the answer.
#[derive(Deserialize)]
struct Test {
    build_commit: String,
    #[serde(default)]
    build_number: u64,
    model_type: String,
    model_n_params: u64,
    n_threads: u64,
    n_prompt: u64,
    n_gen: u64,
    #[serde(default)]
    n_depth: u64,
    avg_ts: f64,
    samples_ns: Vec<u64>,
}

pub(super) fn arguments(question: &Question<'_>) -> Vec<OsString> {
    let (prompt, generated) = match question.work {
        Work::Prefill(tokens) => (tokens, 0),
        Work::Decode(tokens) => (0, tokens),
    };
    let mut arguments: Vec<OsString> = vec!["-m".into(), question.model.into()];
    for (flag, value) in [("-t", question.threads), ("-p", prompt), ("-n", generated), ("-r", 1)] {
        arguments.push(flag.into());
        arguments.push(value.to_string().into());
    }
    arguments.extend(["-o".into(), "json".into()]);
    arguments
}

pub(super) fn answer(question: &Question<'_>, text: &str) -> Result<Answer, String> {
    let tests: Vec<Test> = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let [test] = tests.as_slice() else {
        return Err(format!("{} tests where one was asked for", tests.len()));
    };
    let [nanoseconds] = test.samples_ns.as_slice() else {
        return Err(format!("samples_ns has {} samples where one was asked for", test.samples_ns.len()));
    };
    let (prompt, generated) = match question.work {
        Work::Prefill(tokens) => (tokens as u64, 0),
        Work::Decode(tokens) => (0, tokens as u64),
    };
    let expected = [
        ("n_threads", test.n_threads, question.threads as u64),
        ("n_prompt", test.n_prompt, prompt),
        ("n_gen", test.n_gen, generated),
        ("n_depth", test.n_depth, 0),
    ];
    for (name, found, asked) in expected {
        if found != asked {
            return Err(format!("{name} is {found} where {asked} was asked for"));
        }
    }
    let seconds = *nanoseconds as f64 / 1e9;
    let tokens_per_s = question.work.tokens() as f64 / seconds;
    let apart = (test.avg_ts / tokens_per_s - 1.0).abs();
    if apart.is_nan() || apart > AGREEMENT {
        return Err(format!("avg_ts is {} where samples_ns give {tokens_per_s}", test.avg_ts));
    }
    let version = match test.build_number {
        0 => test.build_commit.clone(),
        number => format!("{} ({number})", test.build_commit),
    };
    Ok(Answer { version, model: test.model_type.clone(), parameters: test.model_n_params, seconds })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn question(work: Work) -> Question<'static> {
        Question { model: Path::new("m.gguf"), work, threads: 2 }
    }

    /// What llama-bench prints, shortened.
    const PRINTED: &str = r#"[
  {
    "build_commit": "8337e4cd",
    "build_number": 4711,
    "cpu_info": "",
    "model_filename": "m.gguf",
    "model_type": "bitnet 2B IQ2_BN",
    "model_size": 794844160,
    "model_n_params": 2412820480,
    "n_threads": 2,
    "n_prompt": 0,
    "n_gen": 32,
    "avg_ns": 1600000000,
    "avg_ts": 20.000000,
    "samples_ns": [ 1600000000 ],
    "samples_ts": [ 20 ]
  }
]"#;

    #[test]
    fn one_test_is_asked_for_with_one_repetition() {
        let told = |work| arguments(&question(work)).join(" ".as_ref()).into_string().unwrap();
        assert_eq!(told(Work::Prefill(128)), "-m m.gguf -t 2 -p 128 -n 0 -r 1 -o json");
        assert_eq!(told(Work::Decode(32)), "-m m.gguf -t 2 -p 0 -n 32 -r 1 -o json");
    }

    #[test]
    fn an_answer_is_the_stated_time_of_what_was_asked() {
        let found = answer(&question(Work::Decode(32)), PRINTED).unwrap();
        let (version, model) = ("8337e4cd (4711)".to_string(), "bitnet 2B IQ2_BN".to_string());
        assert_eq!(found, Answer { version, model, parameters: 2_412_820_480, seconds: 1.6 });
    }

    #[test]
    fn an_answer_to_another_question_is_refused() {
        let refused = |work, text: &str| answer(&question(work), text).unwrap_err();
        assert!(refused(Work::Decode(16), PRINTED).contains("n_gen is 32 where 16 was asked for"));
        assert!(refused(Work::Prefill(32), PRINTED).contains("n_prompt is 0"));
        let change = |from: &str, to: &str| refused(Work::Decode(32), &PRINTED.replace(from, to));
        assert!(change("_threads\": 2", "_threads\": 4").contains("n_threads is 4 where 2"));
        assert!(change("\"avg_ts\": 20", "\"avg_ts\": 40").contains("avg_ts is 40"));
        assert!(change("[ 1600000000 ]", "[ 0 ]").contains("avg_ts"));
        assert!(change("[ 1600000000 ]", "[]").contains("0 samples"));
        assert!(change("2412820480", "99999999999999999999999").contains("line"), "a number beyond 64 bits");
        assert!(change("avg_ts", "avg").contains("missing field `avg_ts`"));
        assert!(refused(Work::Decode(32), "[]").contains("0 tests"));
        assert!(refused(Work::Decode(32), "").contains("EOF"));
        assert!(refused(Work::Decode(32), "| model | t/s |").contains("line 1"));
    }
}
