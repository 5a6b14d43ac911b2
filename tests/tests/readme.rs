//! The README quotes the committed reference run and nothing else.

use std::fs;
use std::path::Path;

#[test]
fn every_figure_in_the_readme_was_printed_by_a_committed_run() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the repository");
    let readme = fs::read_to_string(root.join("README.md")).expect("README.md");
    let summary = readme.split("<!-- summary -->").nth(1).and_then(|rest| rest.split("<!-- /summary -->").next());
    let summary = summary.expect("README.md has a summary between its two marks");
    let link = summary.split("](").nth(1).and_then(|rest| rest.split(')').next()).expect("a link to the report");
    let report = fs::read_to_string(root.join(link)).expect("the report that the summary links to");
    let printed: Vec<&str> = report.lines().collect();
    let quoted: Vec<&str> = summary.lines().filter(|l| l.starts_with('|') || l.starts_with("One `")).collect();
    assert!(quoted.len() > 3, "the summary quotes a table");
    for line in quoted {
        assert!(printed.contains(&line), "{link} does not print this line of the README: {line}");
    }
}
