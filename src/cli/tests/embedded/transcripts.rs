//! Transcripts of `leno explain`: each file of `explain/` is a command and what it prints. They are read by people too.
//!
//! `UPDATE_TRANSCRIPTS=1 cargo test -p leno-cli --test embedded transcripts` writes them anew; read the diff.

use std::fs;
use std::path::Path;
use std::process::Command;

/// What a command line (`$ leno …`) prints, from the top of the repository.
fn run(command: &str) -> String {
    let words = words(command);
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let output = Command::new(env!("CARGO_BIN_EXE_leno")).args(&words[1..]).current_dir(root).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    format!("$ {command}\n{}{}(exit code {})\n", text(output.stdout), text(output.stderr), output.status.code().unwrap())
}

/// Words of a command line; double quotes keep one together.
fn words(command: &str) -> Vec<String> {
    let parts = command.split('"').enumerate();
    let words = parts.flat_map(
        |(index, part)| if index % 2 == 1 { vec![part.to_owned()] } else { part.split_whitespace().map(str::to_owned).collect() },
    );
    words.collect()
}

#[test]
fn explain_prints_what_its_transcripts_say() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/embedded/explain");
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|it| it == "txt"))
        .collect();
    files.sort();
    assert!(files.len() >= 8, "{files:?}");
    for file in files {
        let want = fs::read_to_string(&file).unwrap();
        let command =
            want.lines().next().and_then(|line| line.strip_prefix("$ ")).unwrap_or_else(|| panic!("{file:?} begins with `$ leno …`"));
        let got = run(command);
        if std::env::var_os("UPDATE_TRANSCRIPTS").is_some() {
            fs::write(&file, got).unwrap();
        } else {
            assert_eq!(got, want, "{file:?}");
        }
    }
}

#[test]
fn every_folder_of_manifests_is_without_problems() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../manifests");
    let examples = fs::read_dir(root.join("examples")).unwrap().map(|entry| entry.unwrap().path());
    let folders: Vec<_> = examples.chain([root.join("demo")]).collect();
    assert!(folders.len() >= 4);
    for folder in folders {
        let output =
            Command::new(env!("CARGO_BIN_EXE_leno")).args(["explain", "GET", "http://nobody.shop/", "-f"]).arg(&folder).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(1), "{folder:?}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(said.contains("no service is called nobody.shop"), "{said}");
        let mut folder_now = leno_controller::source::folder::Folder::default();
        folder_now.update(leno_controller::source::folder::read(&folder).unwrap());
        assert_eq!(folder_now.notes(), leno_controller::source::folder::Notes::default(), "{folder:?}");
    }
}
