//! The invariants of ARCHITECTURE.md that a test can hold.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Names of every crate that `package` links, itself included.
fn linked_by(package: &str) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "-p", package, "-e", "normal", "--prefix", "none", "--format", "{p}"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tree = String::from_utf8(output.stdout).expect("cargo prints UTF-8");
    let names: BTreeSet<String> = tree.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect();
    assert!(names.contains(package), "cargo tree lists the package itself");
    names
}

fn rust_files(folder: &str) -> Vec<PathBuf> {
    let (mut files, mut folders) = (Vec::new(), vec![root().join(folder)]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("the folder is there") {
            let path = entry.expect("it can be read").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    assert!(!files.is_empty(), "{folder} holds Rust files");
    files
}

fn assert_links_none(package: &str, unwanted: impl Fn(&str) -> bool) {
    let found: Vec<String> = linked_by(package).into_iter().filter(|name| unwanted(name)).collect();
    assert!(found.is_empty(), "{package} links {found:?}");
}

fn is_kubernetes(name: &str) -> bool {
    name.starts_with("kube") || name == "k8s-openapi"
}

#[test]
fn the_proxy_links_no_kubernetes_crate() {
    assert_links_none("leno-proxy", |name| {
        is_kubernetes(name) || name == "leno-controller" || name == "leno-translate" || name == "leno-api"
    });
}

#[test]
fn the_library_links_no_kubernetes_crate() {
    assert_links_none("leno", is_kubernetes);
}

#[test]
fn the_core_knows_no_runtime_no_wire_and_no_kubernetes() {
    assert_links_none("leno-core", |name| {
        is_kubernetes(name) || ["tokio", "hyper", "http", "prost", "rustls", "rand", "fastrand"].contains(&name)
    });
}

#[test]
fn translate_and_xds_do_no_io() {
    assert_links_none("leno-xds", |name| is_kubernetes(name) || ["tokio", "hyper", "tonic"].contains(&name));
    for file in rust_files("src/translate") {
        let text = std::fs::read_to_string(&file).expect("it can be read");
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for io in ["std::fs", "std::net::Tcp", "tokio::", "kube::Client"] {
            assert!(file.components().any(|part| part.as_os_str() == "tests") || !code.contains(io), "{} does I/O: {io}", file.display());
        }
    }
}

/// clippy.toml bans the calls themselves; this holds that the ban is there and is not waived.
#[test]
fn the_core_reads_no_clock_and_no_environment() {
    let bans = std::fs::read_to_string(root().join("src/core/clippy.toml")).expect("it can be read");
    for call in ["std::time::Instant::now", "std::time::SystemTime::now", "std::env::var"] {
        assert!(bans.contains(call), "{call} is banned in src/core/clippy.toml");
    }
    for file in rust_files("src/core") {
        let text = std::fs::read_to_string(&file).expect("it can be read");
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for call in ["Instant::now", "SystemTime::now", "env::var", "disallowed_methods"] {
            assert!(!code.contains(call), "{} uses {call}", file.display());
        }
    }
}

/// What decides where a request goes is called from one place of the proxy, and from `leno explain`.
#[test]
fn the_proxy_decides_in_one_file() {
    let deciding: BTreeSet<String> = rust_files("src/proxy")
        .into_iter()
        .filter(|file| !file.components().any(|part| part.as_os_str() == "tests"))
        .filter(|file| {
            let text = std::fs::read_to_string(file).expect("it can be read");
            text.lines().any(|line| !line.trim_start().starts_with("//") && (line.contains("decide(") || line.contains("balance::pick(")))
        })
        .map(|file| file.strip_prefix(root()).expect("below the root").display().to_string())
        .collect();
    assert_eq!(deciding, BTreeSet::from(["src/proxy/target.rs".to_owned()]));
}

#[test]
fn unsafe_code_is_nowhere() {
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).expect("it can be read");
    assert!(manifest.contains("unsafe_code = \"forbid\""));
}

/// The chart installs exactly the kinds in `crds/`, which equal the types (a test of `leno-api`).
#[test]
fn the_chart_carries_the_same_kinds_as_the_crds_folder() {
    let read = |folder: &str| -> BTreeSet<(String, String)> {
        let entries = std::fs::read_dir(root().join(folder)).expect("the folder is there");
        let paths = entries.map(|entry| entry.expect("it can be read").path());
        paths
            .map(|path| {
                let name = path.file_name().expect("it is a file").to_string_lossy().into_owned();
                (name, std::fs::read_to_string(path).expect("it can be read"))
            })
            .collect()
    };
    assert_eq!(read("charts/leno/files/crds"), read("crds"));
}
