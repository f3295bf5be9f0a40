//! Reading the files of a folder.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Every manifest's text by path, or why it cannot be read.
pub type Texts = BTreeMap<PathBuf, Result<String, String>>;

/// Folders within folders beyond this depth are not looked into: links may go in circles.
const DEPTH_MAX: usize = 16;
/// A manifest is written by people: more than this is something else.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Reads every `*.yaml` and `*.yml` under `path`, or the one file it names. Hidden files and folders are left out.
///
/// # Errors
/// When `path` itself cannot be read.
pub fn read(path: &Path) -> io::Result<Texts> {
    let mut texts = Texts::new();
    if fs::metadata(path)?.is_file() {
        texts.insert(path.to_owned(), text(path));
    } else {
        folder(path, 0, &mut texts)?;
    }
    Ok(texts)
}

fn folder(path: &Path, depth: usize, texts: &mut Texts) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let path = entry?.path();
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if hidden {
            continue;
        }
        let manifest = path.extension().is_some_and(|it| it == "yaml" || it == "yml");
        // A file that has just gone is no error.
        match fs::metadata(&path) {
            Ok(about) if about.is_dir() && depth < DEPTH_MAX => folder(&path, depth + 1, texts).or_else(gone)?,
            Ok(about) if about.is_file() && manifest => drop(texts.insert(path.clone(), text(&path))),
            Ok(_) => {}
            Err(error) => gone(error)?,
        }
    }
    Ok(())
}

fn gone(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

fn text(path: &Path) -> Result<String, String> {
    let unreadable = |error: io::Error| format!("the file cannot be read: {error}");
    if fs::metadata(path).map_err(unreadable)?.len() > FILE_BYTES_MAX {
        return Err(format!("the file is larger than {FILE_BYTES_MAX} bytes: keep only manifests in this folder"));
    }
    let bytes = fs::read(path).map_err(unreadable)?;
    String::from_utf8(bytes)
        .map_err(|error| format!("the file is no UTF-8 text (byte {}): save it as UTF-8", error.utf8_error().valid_up_to()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifests_are_found_in_folders_within_and_hidden_ones_are_not() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("a/b")).unwrap();
        fs::create_dir_all(root.path().join(".git")).unwrap();
        for file in ["x.yaml", "a/b/y.yml", "a/readme.md", ".git/z.yaml", "a/.swp.yaml"] {
            fs::write(root.path().join(file), "a: 1\n").unwrap();
        }
        fs::write(root.path().join("a/odd.yaml"), [0xff]).unwrap();
        let texts = read(root.path()).unwrap();
        let found: Vec<_> =
            texts.iter().map(|(path, text)| (path.strip_prefix(root.path()).unwrap().display().to_string(), text.is_ok())).collect();
        assert_eq!(found, [("a/b/y.yml".to_owned(), true), ("a/odd.yaml".to_owned(), false), ("x.yaml".to_owned(), true)]);
        assert_eq!(read(&root.path().join("x.yaml")).unwrap().len(), 1, "a single file will do");
        assert!(read(&root.path().join("none")).is_err());
    }
}
