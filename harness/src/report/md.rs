//! A paper as Markdown, with its figures as files beside it.

use std::fmt::Write;

use super::paper::{Block, Paper};

/// Writes a paper down; figures are linked as `figures/NAME.svg`.
pub fn page(paper: &Paper) -> String {
    let mut out = format!("# {}\n\n{}\n\n", paper.title, paper.subtitle);
    let (mut tables, mut drawn) = (0, 0);
    for block in &paper.blocks {
        let _ = match block {
            Block::Heading(level, text) => write!(out, "{} {text}\n\n", "#".repeat(usize::from(*level))),
            Block::Paragraph(text) => write!(out, "{text}\n\n"),
            Block::Question(text) => write!(out, "*{text}*\n\n"),
            Block::Warning(text) => write!(out, "> **Note.** {text}\n\n"),
            Block::Abstract(paragraphs) => write!(out, "**Abstract.** {}\n\n", paragraphs.join("\n\n")),
            Block::List(items) => {
                writeln!(out, "{}", items.iter().map(|text| format!("* {text}\n")).collect::<String>())
            }
            Block::Code(text) => write!(out, "```\n{text}\n```\n\n"),
            Block::Table(table) => {
                tables += 1;
                write!(out, "**Table {tables}.** {}\n\n{}\n", table.caption, table.markdown())
            }
            Block::Figure(figure) => {
                drawn += 1;
                let (name, caption) = (&figure.name, &figure.caption);
                write!(out, "![Figure {drawn}](figures/{name}.svg)\n\n**Figure {drawn}.** {caption}\n\n")
            }
        };
    }
    out.trim_end().to_string() + "\n"
}
