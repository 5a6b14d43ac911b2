//! Where the repository's folders are: `models/`, `datasets/`, `experiments/`, `reports/`.

use std::path::{Path, PathBuf};

/// The environment variable that names the repository's folder.
pub const ENVIRONMENT: &str = "RYZANSTEIN_ROOT";

/// The repository's folder: what `RYZANSTEIN_ROOT` names, else the nearest folder above the current one that holds
/// `models/` and `experiments/`, else the source tree that this program was built from.
///
/// The folder may lack what is looked for in it: whoever looks reports that, with the path.
pub fn root() -> PathBuf {
    if let Some(named) = std::env::var_os(ENVIRONMENT).filter(|value| !value.is_empty()) {
        return PathBuf::from(named);
    }
    std::env::current_dir().ok().and_then(|here| above(&here)).unwrap_or_else(built_from)
}

/// The nearest folder at or above `start` that looks like the repository.
fn above(start: &Path) -> Option<PathBuf> {
    start
        .ancestors()
        .find(|folder| folder.join("models").is_dir() && folder.join("experiments").is_dir())
        .map(Path::to_path_buf)
}

/// The source tree that this program was built from: the folder above the crate's.
fn built_from() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package).to_path_buf()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_folder_with_models_and_experiments_is_the_root() {
        let outer = tempfile::tempdir().unwrap();
        for folder in ["models", "experiments", "inner/models", "inner/experiments", "inner/deep/er"] {
            std::fs::create_dir_all(outer.path().join(folder)).unwrap();
        }
        assert_eq!(above(&outer.path().join("inner/deep/er")), Some(outer.path().join("inner")));
        assert_eq!(above(outer.path()), Some(outer.path().to_path_buf()));
    }

    #[test]
    fn the_source_tree_holds_this_file() {
        assert!(built_from().join("harness/src/root.rs").is_file());
    }
}
