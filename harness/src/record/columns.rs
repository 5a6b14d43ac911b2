//! Rows as columns: nested fields become `outer_inner`, determined numbers lose their mark.

use std::fs::File;
use std::path::Path;

use anyhow::Result;
use polars::prelude::*;
use serde_json::Value;

/// Writes rows as a Parquet file. A column is of truth values, whole numbers, numbers or texts, whichever holds all its
/// values; a row that lacks it has a null there.
pub(super) fn write(path: &Path, rows: &[Value]) -> Result<()> {
    let mut names: Vec<String> = Vec::new();
    let flat: Vec<Vec<(String, &Value)>> = rows.iter().map(flatten).collect();
    for (name, _) in flat.iter().flatten() {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    let find = |row: &[(String, &Value)], name: &str| row.iter().find(|(n, _)| n == name).map(|(_, v)| (*v).clone());
    let columns = names.iter().map(|name| {
        let values: Vec<Option<Value>> = flat.iter().map(|row| find(row, name).filter(|v| !v.is_null())).collect();
        column(name, &values)
    });
    let mut frame = DataFrame::new(rows.len(), columns.collect())?;
    let file = File::create(path)?;
    ParquetWriter::new(&file).with_compression(ParquetCompression::Uncompressed).finish(&mut frame)?;
    file.sync_all()?;
    Ok(())
}

fn flatten(row: &Value) -> Vec<(String, &Value)> {
    fn walk<'a>(prefix: &str, value: &'a Value, out: &mut Vec<(String, &'a Value)>) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    let name = match (prefix, name.as_str()) {
                        ("", name) => name.to_string(),
                        (prefix, "exact") => prefix.to_string(),
                        (prefix, name) => format!("{prefix}_{name}"),
                    };
                    walk(&name, value, out);
                }
            }
            value => out.push((prefix.to_string(), value)),
        }
    }
    let mut out = Vec::new();
    walk("", row, &mut out);
    out
}

fn column(name: &str, values: &[Option<Value>]) -> Column {
    let all = |test: fn(&Value) -> bool| values.iter().flatten().all(test);
    let name: PlSmallStr = name.into();
    if all(Value::is_boolean) {
        let cells: Vec<Option<bool>> = values.iter().map(|v| v.as_ref().and_then(Value::as_bool)).collect();
        Column::new(name, cells)
    } else if all(Value::is_i64) {
        let cells: Vec<Option<i64>> = values.iter().map(|v| v.as_ref().and_then(Value::as_i64)).collect();
        Column::new(name, cells)
    } else if all(Value::is_number) {
        let cells: Vec<Option<f64>> = values.iter().map(|v| v.as_ref().and_then(Value::as_f64)).collect();
        Column::new(name, cells)
    } else {
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), ToString::to_string);
        let cells: Vec<Option<String>> = values.iter().map(|v| v.as_ref().map(text)).collect();
        Column::new(name, cells)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_row_can_be_read_back_from_the_columns() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.parquet");
        let rows = [
            json!({"op": "a", "n": 1, "share": 1, "t": {"median": 0.5, "n": 3}, "d": {"exact": 7}, "own": true}),
            json!({"op": "b", "n": 2, "share": 0.5, "none": null, "list": [1, 2]}),
        ];
        write(&path, &rows).unwrap();
        let frame = ParquetReader::new(File::open(&path).unwrap()).finish().unwrap();
        assert_eq!(frame.height(), 2);
        assert_eq!(frame.column("t_median").unwrap().f64().unwrap().to_vec(), [Some(0.5), None]);
        assert_eq!(frame.column("share").unwrap().f64().unwrap().to_vec(), [Some(1.0), Some(0.5)]);
        assert_eq!(frame.column("n").unwrap().i64().unwrap().to_vec(), [Some(1), Some(2)]);
        assert_eq!(frame.column("d").unwrap().i64().unwrap().get(0), Some(7));
        assert_eq!(frame.column("list").unwrap().str().unwrap().get(1), Some("[1,2]"));
        assert_eq!(frame.column("own").unwrap().bool().unwrap().get(1), None);
    }

    #[test]
    fn no_rows_make_an_empty_file_that_can_be_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.parquet");
        write(&path, &[]).unwrap();
        assert_eq!(ParquetReader::new(File::open(&path).unwrap()).finish().unwrap().height(), 0);
    }
}
