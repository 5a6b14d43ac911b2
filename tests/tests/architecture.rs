//! The rules of the house that a machine can check.

use promises::external::checkout;
use std::fs;
use std::path::{Path, PathBuf};

/// A source file: its path in the checkout and its text.
struct Source {
    path: String,
    text: String,
}

impl Source {
    fn read(path: &Path) -> Source {
        let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let path = path.strip_prefix(checkout()).expect("a path in the checkout");
        Source { path: path.to_string_lossy().into_owned(), text }
    }

    /// The code alone: comments and the content of string and character literals blanked out.
    fn code(&self) -> String {
        code_of(&self.text)
    }

    /// The code before the file's own unit tests.
    fn shipped_code(&self) -> String {
        let code = self.code();
        code.split("#[cfg(test)]\nmod tests").next().unwrap_or_default().to_string()
    }
}

/// Blanks comments and literals, keeping line breaks.
fn code_of(text: &str) -> String {
    let mut rest = text;
    let mut code = String::new();
    while let Some(first) = rest.chars().next() {
        let skip = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(raw) = rest.strip_prefix('r').filter(|raw| raw.starts_with(['"', '#'])) {
            let hashes = raw.len() - raw.trim_start_matches('#').len();
            let close = format!("\"{}", "#".repeat(hashes));
            match raw[hashes..].strip_prefix('"').and_then(|body| body.find(&close)) {
                Some(end) => 1 + hashes + 1 + end + close.len(),
                None => 0,
            }
        } else if first == '"' {
            let mut escaped = false;
            let closes = |(_, c): &(usize, char)| {
                let closes = *c == '"' && !escaped;
                escaped = *c == '\\' && !escaped;
                closes
            };
            rest[1..].char_indices().find(closes).map_or(rest.len(), |(end, _)| end + 2)
        } else if let Some(literal) = rest.strip_prefix('\'') {
            // A character literal, not a lifetime: one character or an escape, then the closing quote.
            let body = if literal.starts_with('\\') {
                literal[2..].find('\'').map(|end| end + 2)
            } else {
                literal.chars().next().map(char::len_utf8).filter(|n| literal[*n..].starts_with('\''))
            };
            body.map_or(0, |n| n + 2)
        } else {
            0
        };
        if skip == 0 {
            code.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            code.push(' ');
            code.extend(rest[..skip].chars().filter(|c| *c == '\n'));
            rest = &rest[skip..];
        }
    }
    code
}

/// Whether `word` stands in `code` with no letter, digit or underscore beside it.
fn has_word(code: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).any(|(at, _)| {
        !code[..at].chars().next_back().is_some_and(part) && !code[at + word.len()..].chars().next().is_some_and(part)
    })
}

/// Every file below a folder of the checkout whose name ends so; build outputs left out.
fn files(folder: &str, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![checkout().join(folder)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for path in entries.map(|entry| entry.expect("an entry").path()) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() && name != "target" && !name.starts_with('.') {
                folders.push(path);
            } else if path.is_file() && name.ends_with(ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn sources(folder: &str) -> Vec<Source> {
    files(folder, ".rs").iter().map(|path| Source::read(path)).collect()
}

const CRATES: [&str; 4] = ["kernels", "engines", "harness", "tests"];

#[test]
fn unsafe_stands_only_in_kernels_and_in_the_one_module_that_maps_files() {
    let unsafe_in = |folder: &str| -> Vec<String> {
        let uses = |source: &Source| has_word(&source.code(), "unsafe");
        sources(folder).into_iter().filter(uses).map(|source| source.path).collect()
    };
    assert!(!unsafe_in("kernels").is_empty(), "the search itself must find something");
    for folder in ["harness", "tests"] {
        assert_eq!(unsafe_in(folder), Vec::<String>::new(), "unsafe code in {folder}");
    }
    let engines = unsafe_in("engines");
    let maps = |path: &String| path == "engines/src/weights/map.rs";
    assert!(engines.iter().all(maps), "unsafe code in engines outside weights/map.rs: {engines:?}");
}

#[test]
fn no_source_file_is_longer_than_600_lines() {
    let mut paths: Vec<PathBuf> = CRATES.iter().flat_map(|folder| files(folder, ".rs")).collect();
    paths.extend(files("experiments", ".py"));
    assert!(paths.len() > 20, "only {} source files found", paths.len());
    for path in paths {
        let source = Source::read(&path);
        let lines = source.text.lines().count();
        assert!(lines <= 600, "{} has {lines} lines: look for the two files in it", source.path);
    }
}

#[test]
fn every_source_file_says_at_its_top_what_it_is() {
    for source in CRATES.iter().flat_map(|folder| sources(folder)) {
        // One variant of an op is described by its op's mod.rs.
        let is_variant = ["scalar.rs", "avx2.rs", "avx512.rs"].iter().any(|name| source.path.ends_with(name));
        let first = source.text.lines().find(|line| !line.starts_with("#!")).unwrap_or_default();
        let says = first.strip_prefix("//!").is_some_and(|text| text.trim().len() > 3);
        assert!(says || is_variant, "{} does not begin with a line of //! that says what it is", source.path);
    }
}

#[test]
fn no_file_is_named_for_a_heap_of_things() {
    for path in CRATES.iter().flat_map(|folder| files(folder, ".rs")) {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let folder = path.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy().into_owned();
        for name in [stem, folder] {
            let heap = ["util", "utils", "common", "helper", "helpers", "manager", "misc", "stuff"];
            assert!(!heap.contains(&name.as_str()), "{}: name the thing", path.display());
        }
    }
}

#[test]
fn every_op_says_what_it_computes_its_shapes_its_exactness_and_its_cost() {
    // An op, a layout of a family of products, what they are compared with, or what a family of simple functions shares.
    let marks = [" Op for ", " Packed for ", " Comparator for ", "type GatedVariant", "-> Burst"];
    let is_op =
        |source: &Source| source.path.ends_with("/mod.rs") && marks.iter().any(|mark| source.code().contains(mark));
    let ops: Vec<Source> = sources("kernels/src").into_iter().filter(is_op).collect();
    assert!(ops.len() >= 22, "only {} ops found", ops.len());
    for op in ops {
        for heading in ["Computes", "Shapes", "Exactness", "Cost"] {
            let line = format!("//! **{heading}**");
            assert!(op.text.lines().any(|l| l.starts_with(&line)), "{} lacks the heading {heading}", op.path);
        }
        // Layouts may share the specification of their family.
        let folder = Path::new(&op.path).parent().expect("a folder");
        let plain = folder.ancestors().take(2).any(|folder| checkout().join(folder).join("scalar.rs").is_file());
        assert!(plain, "{} lacks scalar.rs, its specification", folder.display());
    }
}

#[test]
fn every_op_is_in_the_list_that_tests_and_benchmarks_read() {
    let probe = Source::read(&checkout().join("kernels/src/probe.rs")).code();
    let list = probe.split("OPS").nth(1).expect("probe.rs declares OPS");
    for source in sources("kernels/src").iter().filter(|source| source.path.ends_with("/mod.rs")) {
        for implementation in source.code().split("impl Op for ").skip(1) {
            let name: String = implementation.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            assert!(has_word(list, &name), "{}: {name} is missing in OPS", source.path);
        }
    }
}

#[test]
fn crates_depend_in_one_direction() {
    for (name, above) in [("kernels", &["engines", "harness", "promises"][..]), ("engines", &["harness", "promises"])] {
        let manifest = fs::read_to_string(checkout().join(name).join("Cargo.toml")).expect("a manifest");
        let mut section = "";
        for line in manifest.lines() {
            if line.starts_with('[') {
                section = line;
            }
            if !section.contains("dependencies") {
                continue;
            }
            let dependency = line.split(['.', '=', ' ']).next().unwrap_or_default();
            assert!(!above.contains(&dependency), "{name}/Cargo.toml depends on {dependency}: {line}");
        }
        for source in sources(&format!("{name}/src")) {
            let code = source.code();
            for above in above {
                assert!(!has_word(&code, above), "{} names the crate {above}", source.path);
            }
        }
    }
}

#[test]
fn the_example_outside_is_compiled_as_the_workspace_is() {
    let read = |path: &str| fs::read_to_string(checkout().join(path)).expect(path);
    let (ours, theirs) = (read("Cargo.toml"), read("examples/your-kernel/Cargo.toml"));
    // Each table of a profile with its keys; where one differs, all dependencies are compiled a second time.
    let tables = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
        let lines: String = lines.map(|line| format!("{line}\n")).collect();
        let tables = lines.split("\n[").filter(|table| table.starts_with("profile.release"));
        tables.map(|table| table.trim_end().to_string()).collect()
    };
    let (ours, theirs) = (tables(&ours), tables(&theirs));
    assert!(ours.len() > 3, "the profile of Cargo.toml is not found: {ours:?}");
    for table in ours.iter().filter(|table| !table.starts_with("profile.release.package.kernels")) {
        assert!(theirs.contains(table), "examples/your-kernel/Cargo.toml lacks [{table}");
    }
}

#[test]
fn kernels_know_no_files_no_threads_and_no_terminal() {
    forbid(
        "kernels/src",
        &["std::fs", "std::thread", "std::io", "std::net", "println!", "eprintln!", "print!", "dbg!"],
    );
}

#[test]
fn engines_know_no_clock_and_no_terminal() {
    forbid("engines/src", &["std::time", "Instant::now", "SystemTime", "println!", "eprintln!", "print!", "std::net"]);
}

fn forbid(folder: &str, names: &[&str]) {
    let sources = sources(folder);
    assert!(!sources.is_empty(), "no sources in {folder}");
    for source in sources {
        let code = source.shipped_code();
        for name in names {
            assert!(!code.contains(name), "{} uses {name}", source.path);
        }
    }
}

#[test]
fn the_search_for_code_leaves_out_comments_and_literals() {
    let code = code_of("a // unsafe\n/* unsafe */ b(\"unsafe \\\" unsafe\", r#\"unsafe\"#, 'u', '\\'') <'c> d");
    assert!(!code.contains("unsafe"), "{code}");
    for kept in ["a", "b(", "<'c>", "d"] {
        assert!(code.contains(kept), "{kept} is lost in {code}");
    }
    assert!(has_word("unsafe { }", "unsafe") && !has_word("unsafe_op_in_unsafe_fn", "unsafe"));
}
