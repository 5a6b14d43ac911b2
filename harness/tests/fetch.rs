//! Promises about `harness dataset fetch`, held against a server on this machine that misbehaves on demand.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::thread;

use harness::checksum;
use tempfile::TempDir;

/// What the server does with a request; `None` is a request without a range.
type Answer = dyn Fn(usize, Option<usize>, &[u8]) -> Vec<u8> + Send + Sync;

/// A server of one file, and a repository whose only dataset is that file.
struct Stage {
    root: TempDir,
    content: Vec<u8>,
    /// The first byte that each request asked for.
    requests: Arc<Mutex<Vec<Option<usize>>>>,
}

impl Stage {
    /// Serves 300,000 bytes by `answer(number of the request, first byte, content)`, which gives the raw answer.
    fn new(answer: impl Fn(usize, Option<usize>, &[u8]) -> Vec<u8> + Send + Sync + 'static) -> Stage {
        Stage::with_bytes(300_000, answer)
    }

    fn with_bytes(
        bytes: usize,
        answer: impl Fn(usize, Option<usize>, &[u8]) -> Vec<u8> + Send + Sync + 'static,
    ) -> Stage {
        let content: Vec<u8> = (0..bytes).map(|i| (i * i % 251) as u8).collect();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/data.txt", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (served, heard): (Vec<u8>, _) = (content.clone(), requests.clone());
        let answer: Arc<Answer> = Arc::new(answer);
        thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                serve(stream.unwrap(), number, &served, &heard, &answer);
            }
        });
        Stage { root: repository(&url, &content), content, requests }
    }

    fn fetch(&self) -> Output {
        harness(self.root.path(), &["dataset", "fetch", "toy"])
    }

    fn file(&self) -> PathBuf {
        self.root.path().join(".data/toy/data.txt")
    }

    fn part(&self) -> PathBuf {
        self.root.path().join(".data/toy/data.txt.part")
    }

    fn keep(&self, bytes: &[u8]) {
        std::fs::create_dir_all(self.part().parent().unwrap()).unwrap();
        std::fs::write(self.part(), bytes).unwrap();
    }

    fn asked(&self) -> Vec<Option<usize>> {
        self.requests.lock().unwrap().clone()
    }

    /// The file is there, whole, and nothing else is.
    fn assert_whole(&self) {
        assert_eq!(std::fs::read(self.file()).unwrap(), self.content);
        assert!(!self.part().exists(), "the partial file is still there");
    }
}

fn serve(
    mut stream: TcpStream,
    number: usize,
    content: &[u8],
    heard: &Mutex<Vec<Option<usize>>>,
    answer: &Arc<Answer>,
) {
    let mut first = None;
    for line in BufReader::new(stream.try_clone().unwrap()).lines() {
        let line = line.unwrap().to_lowercase();
        if let Some(range) = line.strip_prefix("range: bytes=") {
            first = range.trim_end_matches('-').parse().ok();
        }
        if line.is_empty() {
            break;
        }
    }
    heard.lock().unwrap().push(first);
    // The client may hang up before everything is sent: that is what some of these tests are about.
    let _ = stream.write_all(&answer(number, first, content));
}

/// A repository with one dataset, `toy`, of one file at `url`.
fn repository(url: &str, content: &[u8]) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(root.path().join("datasets/toy")).unwrap();
    let card = format!(
        "name = 'toy'\ntitle = 'Toy'\ndescription = 'd'\nlicense = 'CC0-1.0'\nhome = 'h'\n\
         [files.'data.txt']\nbytes = {}\nsha256 = '{}'\nurl = '{url}'\n[texts.toy]\nfiles = ['data.txt']\n",
        content.len(),
        checksum::of_bytes(content)
    );
    std::fs::write(root.path().join("datasets/toy/card.toml"), card).unwrap();
    root
}

fn harness(root: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_harness"));
    for proxy in ["ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "http_proxy", "https_proxy"] {
        command.env_remove(proxy);
    }
    command.env("RYZANSTEIN_ROOT", root).env_remove("RYZANSTEIN_DATA").args(arguments).output().unwrap()
}

fn complaint(output: &Output, status: i32) -> String {
    let stderr = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(status), "{stderr}");
    assert_eq!(stderr.lines().filter(|line| line.starts_with("error: ")).count(), 1, "{stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
    stderr
}

fn head(status: &str, length: usize) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n").into_bytes()
}

/// A server that does as it should: 206 for a range, 200 else.
fn well_behaved(_: usize, first: Option<usize>, content: &[u8]) -> Vec<u8> {
    let from = first.unwrap_or(0);
    let mut answer = head(if first.is_some() { "206 Partial Content" } else { "200 OK" }, content.len() - from);
    if first.is_some() {
        answer.extend(format!("Content-Range: bytes {from}-{}/{}\r\n", content.len() - 1, content.len()).bytes());
    }
    answer.extend(b"\r\n");
    answer.extend(&content[from..]);
    answer
}

#[test]
fn a_file_arrives_whole_once_and_is_found_afterwards() {
    let stage = Stage::new(well_behaved);
    assert!(stage.fetch().status.success());
    stage.assert_whole();
    let again = stage.fetch();
    assert!(String::from_utf8(again.stderr).unwrap().contains("already there"));
    assert_eq!(stage.asked(), [None], "the second run downloaded it again");
    let path = harness(stage.root.path(), &["dataset", "path", "toy"]);
    assert_eq!(String::from_utf8(path.stdout).unwrap().trim_end(), stage.file().to_str().unwrap());
}

#[test]
fn a_partial_file_is_resumed_where_it_ended() {
    let stage = Stage::new(well_behaved);
    stage.keep(&stage.content[..100_000]);
    assert!(stage.fetch().status.success());
    stage.assert_whole();
    assert_eq!(stage.asked(), [Some(100_000)]);
}

#[test]
fn a_server_that_knows_no_ranges_sends_it_all_again() {
    let stage = Stage::new(|number, _, content| well_behaved(number, None, content));
    stage.keep(&stage.content[..100_000]);
    assert!(stage.fetch().status.success());
    stage.assert_whole();
}

#[test]
fn a_broken_transfer_is_taken_up_again_by_itself() {
    let stage = Stage::new(|number, first, content| {
        let mut answer = well_behaved(number, first, content);
        if number == 0 {
            answer.truncate(answer.len() - 120_000);
        }
        answer
    });
    assert!(stage.fetch().status.success());
    stage.assert_whole();
    assert_eq!(stage.asked()[0], None);
    assert!(stage.asked()[1].is_some_and(|first| first > 0 && first <= 180_000), "{:?}", stage.asked());
}

#[test]
fn a_server_that_always_stops_early_leaves_no_file_but_what_came() {
    let stage = Stage::new(|_, first, content| {
        let from = first.unwrap_or(0);
        let mut answer = well_behaved(0, first, content);
        answer.truncate(answer.len() - (content.len() - from) / 2);
        answer
    });
    let told = complaint(&stage.fetch(), 1);
    assert!(told.contains("of 300000 bytes") && told.contains("run again to go on"), "{told}");
    assert!(!stage.file().exists());
    let kept = std::fs::read(stage.part()).unwrap();
    assert!(!kept.is_empty() && stage.content.starts_with(&kept), "what was kept is not the start of the file");
}

#[test]
fn a_file_with_another_checksum_is_refused_and_forgotten() {
    let stage = Stage::new(|number, first, content| {
        let mut answer = well_behaved(number, first, content);
        *answer.last_mut().unwrap() ^= 1;
        answer
    });
    let told = complaint(&stage.fetch(), 1);
    assert!(told.contains("sha256") && told.contains("not the file on the card"), "{told}");
    assert!(!stage.file().exists());
    assert_eq!(std::fs::metadata(stage.part()).unwrap().len(), 0, "wrong bytes would be resumed");
}

#[test]
fn a_wrong_partial_file_costs_one_more_run_and_no_more() {
    let stage = Stage::new(well_behaved);
    stage.keep(&[7; 1000]);
    let told = complaint(&stage.fetch(), 1);
    assert!(told.contains("run again to start afresh"), "{told}");
    assert!(stage.fetch().status.success());
    stage.assert_whole();
}

#[test]
fn a_partial_file_that_is_too_long_is_dropped() {
    let stage = Stage::new(well_behaved);
    stage.keep(&vec![0; 400_000]);
    assert!(stage.fetch().status.success());
    stage.assert_whole();
}

#[test]
fn a_missing_page_is_named_with_its_status() {
    let stage = Stage::new(|_, _, _| {
        let mut answer = head("404 Not Found", 4);
        answer.extend(b"\r\nnope");
        answer
    });
    let told = complaint(&stage.fetch(), 1);
    assert!(told.contains("answered 404") && told.contains("/data.txt"), "{told}");
    assert!(!stage.file().exists());
}

#[test]
fn an_absurd_length_is_refused_before_it_is_read() {
    let stage = Stage::new(|_, _, content| {
        let mut answer = head("200 OK", 1 << 50);
        answer.extend(b"\r\n");
        answer.extend(content);
        answer
    });
    let told = complaint(&stage.fetch(), 1);
    assert!(told.contains("1125899906842624 bytes where its card says 300000"), "{told}");
}

#[test]
fn a_server_that_names_no_length_and_never_stops_is_cut_off() {
    let stage = Stage::new(|_, _, content| {
        let mut answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n".to_vec();
        answer.extend(content);
        answer.extend(vec![0; 10_000_000]);
        answer
    });
    let told = complaint(&stage.fetch(), 1);
    assert!(told.contains("more than the 300000 bytes"), "{told}");
    assert!(!stage.file().exists());
}

#[test]
fn a_range_that_was_not_asked_for_is_refused() {
    let stage = Stage::new(|number, _, content| well_behaved(number, Some(5), content));
    stage.keep(&stage.content[..1000]);
    let told = complaint(&stage.fetch(), 1);
    assert!(told.contains("bytes 5-299999/300000") && told.contains("bytes 1000-299999/300000"), "{told}");
}

#[test]
fn a_machine_that_is_offline_is_told_so() {
    // A port that was free a moment ago: nobody listens there.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let root = repository(&format!("http://{address}/data.txt"), b"abc");
    let told = complaint(&harness(root.path(), &["dataset", "fetch", "toy"]), 1);
    assert!(told.contains("online?") && told.contains(&address.to_string()), "{told}");
}

#[test]
fn another_file_under_the_final_name_is_not_overwritten() {
    let stage = Stage::new(well_behaved);
    std::fs::create_dir_all(stage.file().parent().unwrap()).unwrap();
    std::fs::write(stage.file(), "mine").unwrap();
    let told = complaint(&stage.fetch(), 1);
    assert!(told.contains("remove it first"), "{told}");
    assert_eq!(std::fs::read(stage.file()).unwrap(), b"mine");
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let stage = Stage::new(well_behaved);
    std::fs::write(stage.root.path().join("blocked"), "a file").unwrap();
    let directory = stage.root.path().join("blocked");
    let output = harness(stage.root.path(), &["dataset", "fetch", "toy", "--dir", directory.to_str().unwrap()]);
    let told = complaint(&output, 2);
    assert!(told.contains("blocked"), "{told}");
}

#[test]
fn an_unknown_name_is_refused_before_anything_is_fetched() {
    let stage = Stage::new(well_behaved);
    let told = complaint(&harness(stage.root.path(), &["dataset", "fetch", "toy", "tooy"]), 2);
    assert!(told.contains("there is no dataset 'tooy'") && told.contains("did you mean 'toy'"), "{told}");
    assert!(stage.asked().is_empty());
}

#[test]
fn a_named_data_directory_stands_in_for_fetching() {
    let stage = Stage::new(well_behaved);
    let elsewhere = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(elsewhere.path().join("toy")).unwrap();
    std::fs::write(elsewhere.path().join("toy/data.txt"), &stage.content).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_harness"))
        .env("RYZANSTEIN_ROOT", stage.root.path())
        .env("RYZANSTEIN_DATA", elsewhere.path())
        .args(["dataset", "path", "toy"])
        .output()
        .unwrap();
    assert!(output.status.success());
    assert!(String::from_utf8(output.stdout).unwrap().contains(elsewhere.path().to_str().unwrap()));
}

#[test]
fn two_downloads_of_one_file_do_not_write_into_each_other() {
    let stage = Stage::new(well_behaved);
    stage.keep(b"");
    let other = std::fs::File::open(stage.part()).unwrap();
    other.lock().unwrap();
    let told = complaint(&stage.fetch(), 1);
    assert!(told.contains("by another process"), "{told}");
    other.unlock().unwrap();
    assert!(stage.fetch().status.success());
    stage.assert_whole();
}

#[test]
fn data_that_is_not_here_says_how_to_have_it() {
    let root = repository("http://127.0.0.1:9/data.txt", b"abc");
    let told = complaint(&harness(root.path(), &["dataset", "path", "toy"]), 1);
    assert!(told.contains("`harness dataset fetch toy`") && told.contains(".data/toy/data.txt"), "{told}");
    let line = ["perplexity", "--model", "synthetic:bitnet-tiny", "--dataset", "toy"];
    assert!(complaint(&harness(root.path(), &line), 1).contains("`harness dataset fetch toy`"));
    let list = harness(root.path(), &["dataset", "list", "--json"]);
    let list: serde_json::Value = serde_json::from_slice(&list.stdout).unwrap();
    assert_eq!((&list[0]["name"], &list[0]["present"]), (&"toy".into(), &false.into()));
}

#[test]
fn a_misspelt_card_is_named_with_its_key() {
    let root = repository("http://127.0.0.1:9/data.txt", b"abc");
    let card = root.path().join("datasets/toy/card.toml");
    let text = std::fs::read_to_string(&card).unwrap();
    std::fs::write(&card, text.replace("license", "licence")).unwrap();
    let told = complaint(&harness(root.path(), &["dataset", "list"]), 2);
    assert!(told.contains("toy/card.toml") && told.contains("licence") && told.lines().count() == 1, "{told}");
}
