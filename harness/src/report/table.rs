//! Tables as data, and their forms in a report: Markdown and HTML.

use std::fmt::Write;

use super::html::{escape, inline};

/// Which side a column keeps to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// A column's heading and side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// With its unit.
    pub title: String,
    /// The side that cells keep to.
    pub align: Align,
}

/// A table: every row has a cell for each column.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// What it shows and how to read it.
    pub caption: String,
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
    /// The heads of the last grouped row.
    group: Vec<String>,
}

impl Table {
    /// A table with the columns of `titles`: those that start with `<` keep to the left, those with `>` to the right.
    ///
    /// # Panics
    /// If a title starts with neither.
    pub fn new(caption: impl Into<String>, titles: &[&str]) -> Table {
        let column = |title: &&str| match title.split_at(1) {
            ("<", title) => Column { title: title.to_string(), align: Align::Left },
            (">", title) => Column { title: title.to_string(), align: Align::Right },
            _ => panic!("the column '{title}' says neither < nor >"),
        };
        Table {
            caption: caption.into(),
            columns: titles.iter().map(column).collect(),
            rows: Vec::new(),
            group: Vec::new(),
        }
    }

    /// Adds a row.
    ///
    /// # Panics
    /// If it has not one cell for each column.
    pub fn row(&mut self, cells: Vec<String>) {
        assert_eq!(cells.len(), self.columns.len(), "cells of a row of '{}'", self.caption);
        self.rows.push(cells);
    }

    /// Adds a row whose first `heads` cells are left empty where the row before says the same in them and in all before
    /// them: rows that belong together then look it.
    ///
    /// # Panics
    /// As [`Table::row`].
    pub fn grouped_row(&mut self, heads: usize, cells: Vec<String>) {
        self.group.truncate(heads);
        let same = self.group.iter().zip(&cells).take_while(|(above, cell)| above == cell).count();
        self.group = cells[..heads.min(cells.len())].to_vec();
        let shown = cells.into_iter().enumerate().map(|(i, cell)| if i < same { String::new() } else { cell });
        let shown = shown.collect();
        self.row(shown);
    }

    /// Whether it has no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Rows.
    pub fn rows(&self) -> &[Vec<String>] {
        &self.rows
    }

    /// As Markdown, with the caption below.
    pub fn markdown(&self) -> String {
        let cell = |text: &str| text.replace('|', "\\|").replace('\n', " ");
        let mut out = String::new();
        let titles: Vec<String> = self.columns.iter().map(|column| cell(&column.title)).collect();
        let rules: Vec<&str> =
            self.columns.iter().map(|c| if c.align == Align::Right { "---:" } else { "---" }).collect();
        for line in [titles.join(" | "), rules.join(" | ")] {
            let _ = writeln!(out, "| {line} |");
        }
        for row in &self.rows {
            let cells: Vec<String> = row.iter().map(|text| cell(text)).collect();
            let _ = writeln!(out, "| {} |", cells.join(" | "));
        }
        out
    }

    /// As HTML, with the caption above. `label` is set before the caption ("Table 3.").
    pub fn html(&self, label: &str) -> String {
        let mut out = String::from("<figure class=\"table\">\n");
        if !self.caption.is_empty() {
            let _ = writeln!(out, "<figcaption><b>{}</b> {}</figcaption>", escape(label), inline(&self.caption));
        }
        let class = |column: &Column| if column.align == Align::Right { " class=\"right\"" } else { "" };
        let heads: String =
            self.columns.iter().map(|c| format!("<th scope=\"col\"{}>{}</th>", class(c), inline(&c.title))).collect();
        let _ = writeln!(out, "<table>\n<thead><tr>{heads}</tr></thead>\n<tbody>");
        for (i, row) in self.rows.iter().enumerate() {
            // A line is drawn only where the next row begins another group.
            let more = self.rows.get(i + 1).is_some_and(|next| next.first().is_some_and(String::is_empty));
            let class_of_row = if more { " class=\"more\"" } else { "" };
            let cells: String =
                row.iter().zip(&self.columns).map(|(t, c)| format!("<td{}>{}</td>", class(c), inline(t))).collect();
            let _ = writeln!(out, "<tr{class_of_row}>{cells}</tr>");
        }
        out + "</tbody></table></figure>\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new("Speeds of `a|b`", &["<name", ">GB/s"]);
        table.row(vec!["a|b".into(), "12.0".into()]);
        table.row(vec!["<c>".into(), "3.5".into()]);
        table
    }

    #[test]
    fn every_form_holds_every_cell() {
        assert_eq!(table().markdown(), "| name | GB/s |\n| --- | ---: |\n| a\\|b | 12.0 |\n| <c> | 3.5 |\n");
        let html = table().html("Table 1.");
        assert!(html.contains("<td>&lt;c&gt;</td><td class=\"right\">3.5</td>"), "{html}");
        assert!(html.contains("<b>Table 1.</b> Speeds of <code>a|b</code>"));
    }

    #[test]
    fn a_group_says_what_it_shares_once() {
        let mut table = Table::new("", &["<op", "<shape", ">speed"]);
        for cells in [["a", "1", "x"], ["a", "1", "y"], ["a", "2", "y"], ["b", "2", "z"]] {
            table.grouped_row(2, cells.map(String::from).into());
        }
        assert_eq!(table.rows()[1], ["", "", "y"]);
        assert_eq!(table.rows()[2], ["", "2", "y"]);
        assert_eq!(table.rows()[3], ["b", "2", "z"]);
        assert_eq!(table.html("").matches("class=\"more\"").count(), 2);
    }

    #[test]
    #[should_panic(expected = "cells of a row")]
    fn a_row_too_short_is_refused() {
        table().row(vec!["x".into()]);
    }
}
