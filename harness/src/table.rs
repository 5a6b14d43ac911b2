//! Tables of text for people: aligned columns, or Markdown. Columns of numbers stand right.

use comfy_table::{CellAlignment, Table, TableStyle, presets};

/// `rows` under `header` in aligned columns, without lines around them.
pub fn plain<const N: usize>(header: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    render(header, rows, presets::NOTHING)
}

/// `rows` under `header` as a Markdown table.
pub fn markdown<const N: usize>(header: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let escaped = rows.into_iter().map(|row| row.map(|cell| cell.replace('|', "\\|")));
    render(header, escaped, presets::ASCII_MARKDOWN)
}

fn render<const N: usize>(header: [&str; N], rows: impl IntoIterator<Item = [String; N]>, style: TableStyle) -> String {
    let rows: Vec<[String; N]> = rows.into_iter().collect();
    let mut table = Table::new();
    table.load_style(style).set_header(header);
    for column in 0..N {
        if let Some(column_style) = table.column_mut(column)
            && !rows.is_empty()
            && rows.iter().all(|row| is_number(&row[column]))
        {
            column_style.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.add_rows(rows);
    table.trim_fmt()
}

/// Whether a cell reads as a number, perhaps with a spread or a unit after it.
fn is_number(cell: &str) -> bool {
    let head = cell.split_whitespace().next().unwrap_or_default();
    head == "-" || head.replace(',', "").trim_end_matches('%').parse::<f64>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_right_and_words_left() {
        let rows = [["a", "1"], ["bcd", "1000"]].map(|row| row.map(str::to_string));
        let lines: Vec<String> = plain(["name", "n"], rows.clone()).lines().map(str::to_string).collect();
        assert_eq!(lines, [" name     n", " a        1", " bcd   1000"]);
        assert!(markdown(["name", "n"], rows).starts_with("| name |    n |\n|------|------|"));
    }
}
