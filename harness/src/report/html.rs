//! A paper as one HTML file that needs nothing else: style and figures are in it.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::paper::{Block, Paper};

const STYLE: &str = include_str!("style.css");

/// Writes a paper down. `figures` holds the SVG of each figure by name.
pub fn page(paper: &Paper, figures: &BTreeMap<String, String>) -> String {
    let mut out = String::new();
    let title = escape(&paper.title);
    let _ = write!(
        out,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n\
         <style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n<header>\n<h1>{title}</h1>\n<p class=\"subtitle\">{}</p>\n\
         </header>\n",
        inline(&paper.subtitle)
    );
    let (mut tables, mut drawn) = (0, 0);
    for block in &paper.blocks {
        match block {
            Block::Heading(level, text) => {
                let _ = writeln!(out, "<h{level} id=\"{}\">{}</h{level}>", anchor(text), inline(text));
            }
            Block::Paragraph(text) => {
                let _ = writeln!(out, "<p>{}</p>", inline(text));
            }
            Block::Question(text) => {
                let _ = writeln!(out, "<p class=\"question\">{}</p>", inline(text));
            }
            Block::Warning(text) => {
                let _ = writeln!(out, "<p class=\"warning\" role=\"note\">{}</p>", inline(text));
            }
            Block::Abstract(paragraphs) => {
                let body: String = paragraphs.iter().map(|text| format!("<p>{}</p>\n", inline(text))).collect();
                let _ = write!(out, "<section class=\"abstract\">\n<h2>Abstract</h2>\n{body}</section>\n");
                out += &contents(paper);
            }
            Block::List(items) => {
                let items: String = items.iter().map(|text| format!("<li>{}</li>\n", inline(text))).collect();
                let _ = write!(out, "<ul>\n{items}</ul>\n");
            }
            Block::Code(text) => {
                let _ = writeln!(out, "<pre><code>{}</code></pre>", escape(text));
            }
            Block::Table(table) => {
                tables += 1;
                out += &table.html(&format!("Table {tables}."));
            }
            Block::Figure(figure) => {
                drawn += 1;
                let caption = inline(&figure.caption);
                let svg = figures.get(&figure.name).map_or("", String::as_str);
                let _ = write!(
                    out,
                    "<figure>\n{svg}<figcaption><b>Figure {drawn}.</b> {caption}</figcaption>\n</figure>\n"
                );
            }
        }
    }
    out + "</main>\n</body>\n</html>\n"
}

fn contents(paper: &Paper) -> String {
    let link = |block: &Block| match block {
        Block::Heading(2, text) => Some(format!("<li><a href=\"#{}\">{}</a></li>\n", anchor(text), inline(text))),
        _ => None,
    };
    format!(
        "<nav aria-label=\"Contents\"><ul>\n{}</ul></nav>\n",
        paper.blocks.iter().filter_map(link).collect::<String>()
    )
}

/// A heading's name in links: letters and digits, words joined by hyphens.
fn anchor(text: &str) -> String {
    let kept: String = text.to_lowercase().chars().map(|c| if c.is_alphanumeric() { c } else { ' ' }).collect();
    kept.split_whitespace().collect::<Vec<_>>().join("-")
}

/// Text with the characters that HTML reserves replaced.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Escaped text with what stands between backticks as code. A backtick without a partner stays as it is.
pub fn inline(text: &str) -> String {
    let escaped = escape(text);
    let parts: Vec<&str> = escaped.split('`').collect();
    let mut out = String::new();
    for (i, part) in parts.iter().enumerate() {
        match (i % 2 == 1, i + 1 == parts.len()) {
            (true, false) => {
                let _ = write!(out, "<code>{part}</code>");
            }
            (true, true) => {
                let _ = write!(out, "`{part}");
            }
            (false, _) => out += part,
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_and_reserved_characters_are_marked() {
        assert_eq!(inline("a `b<c` & d"), "a <code>b&lt;c</code> &amp; d");
        assert_eq!(inline("a ` b"), "a ` b");
        assert_eq!(inline("`x`"), "<code>x</code>");
        assert_eq!(anchor("2. Kernels: how fast?"), "2-kernels-how-fast");
    }
}
