//! Tensors in several files of a folder, and the index that says which file holds which: `model.safetensors.index.json`,
//! `pytorch_model.bin.index.json`.

use crate::{Error, Result};
use std::collections::HashMap;
use std::path::{Component, Path};

/// The largest index file that is read.
const MAX_BYTES: u64 = 64 << 20;

/// The files that an index names, and which of them holds each tensor. `open` opens one, and `holds` says whether a tensor is
/// in it.
pub(crate) fn open<F>(
    index: &Path,
    open: impl Fn(&Path) -> Result<F>,
    holds: impl Fn(&F, &str) -> bool,
) -> Result<(Vec<F>, HashMap<String, usize>)> {
    let (mut files, mut numbers) = (Vec::new(), HashMap::new());
    let mut places = HashMap::new();
    for (tensor, file) in weight_map(index)? {
        let path = index.with_file_name(&file);
        let at = match numbers.get(&file) {
            Some(at) => *at,
            None => {
                files.push(open(&path)?);
                numbers.insert(file, files.len() - 1);
                files.len() - 1
            }
        };
        if !holds(&files[at], &tensor) {
            return Err(Error::tensor(path.display(), tensor, "missing, though the index names this file"));
        }
        places.insert(tensor, at);
    }
    Ok((files, places))
}

/// The tensors and their files in an index.
fn weight_map(path: &Path) -> Result<Vec<(String, String)>> {
    let wrong = |problem: String| Error::format(path.display(), problem);
    let size = std::fs::metadata(path).map_err(|e| Error::read(path, e))?.len();
    if size > MAX_BYTES {
        return Err(wrong(format!("{size} bytes: expected at most {MAX_BYTES}")));
    }
    let bytes = std::fs::read(path).map_err(|e| Error::read(path, e))?;
    let json: serde_json::Value = serde_json::from_slice(&bytes).map_err(|e| wrong(format!("not JSON: {e}")))?;
    let entries = json["weight_map"].as_object().ok_or_else(|| wrong("no object weight_map".to_string()))?;
    let mut map = Vec::with_capacity(entries.len());
    for (tensor, file) in entries {
        let file = file.as_str().ok_or_else(|| wrong(format!("the file of {tensor} is not a string: {file}")))?;
        // A plain name: an index must not reach outside its folder.
        let mut components = Path::new(file).components();
        if !matches!((components.next(), components.next()), (Some(Component::Normal(_)), None)) {
            return Err(wrong(format!("the file of {tensor} is '{file}': expected a name in the same folder")));
        }
        map.push((tensor.clone(), file.to_string()));
    }
    Ok(map)
}
