//! The invariants of ARCHITECTURE.md that a test can hold.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::{CommandFactory as _, Parser as _};

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
    // Of kube it needs the kinds; whoever talks to a cluster asks for the client.
    assert_links_none("leno-translate", |name| ["tokio", "hyper", "kube-client", "kube-runtime"].contains(&name));
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
    let is_of_tests = |file: &PathBuf| file.file_name().is_some_and(|name| name == "tests.rs");
    for file in rust_files("src/core").into_iter().filter(|file| !is_of_tests(file)) {
        let text = std::fs::read_to_string(&file).expect("it can be read");
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for call in ["Instant::now", "SystemTime::now", "env::var", "disallowed_methods"] {
            assert!(!code.contains(call), "{} uses {call}", file.display());
        }
    }
}

/// What decides where a request goes, whether it is sent again, and whether it may pass, is called from one place of the proxy each,
/// and from `leno explain`.
#[test]
fn the_proxy_decides_each_thing_in_one_file() {
    let only = |file: &str| BTreeSet::from([file.to_owned()]);
    assert_eq!(
        files_of_the_proxy_with(&["route::decide(", "decide_connection(", "balance::pick(", "owners().find("]),
        only("src/proxy/target.rs")
    );
    assert_eq!(files_of_the_proxy_with(&["retry::decide("]), only("src/proxy/retry.rs"));
    assert_eq!(files_of_the_proxy_with(&["authorize("]), BTreeSet::from(["src/proxy/authorization.rs".to_owned()]));
}

/// The proxy's files, tests apart, that have one of `texts` outside comments.
fn files_of_the_proxy_with(texts: &[&str]) -> BTreeSet<String> {
    rust_files("src/proxy")
        .into_iter()
        .filter(|file| !file.components().any(|part| part.as_os_str() == "tests"))
        .filter(|file| {
            let text = std::fs::read_to_string(file).expect("it can be read");
            text.lines().any(|line| !line.trim_start().starts_with("//") && texts.iter().any(|text| line.contains(text)))
        })
        .map(|file| file.strip_prefix(root()).expect("below the root").display().to_string())
        .collect()
}

/// A manifest's dependencies: the table that declares each, and its name as code says it.
fn declared(manifest: &str) -> Vec<(&str, String)> {
    let mut table = "";
    let mut found = Vec::new();
    for line in manifest.lines().map(str::trim) {
        if let Some(header) = line.strip_prefix('[') {
            table = header.trim_end_matches(']');
        } else if let (true, Some(end)) = (table.ends_with("dependencies"), line.find(['.', ' ', '='])) {
            found.push((table, line[..end].replace('-', "_")));
        }
    }
    found.retain(|(_, name)| !name.is_empty() && !name.starts_with('#'));
    found
}

/// Whether `text` names the crate at the beginning of a path, outside comments.
fn names_crate(text: &str, name: &str) -> bool {
    let begins = |before: &str| !before.ends_with(|last: char| last.is_alphanumeric() || "_:.".contains(last));
    let follows = |after: &str| after.starts_with("::") || after.starts_with(" as ") || after.starts_with(';') || after.starts_with('!');
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    code.into_iter().any(|line| line.match_indices(name).any(|(at, _)| begins(&line[..at]) && follows(&line[at + name.len()..])))
}

#[test]
fn no_dependency_is_declared_without_being_used() {
    let members = ["core", "api", "translate", "xds", "proxy", "controller", "cli"].map(|member| root().join("src").join(member));
    let read = |path: &Path| std::fs::read_to_string(path).expect("it can be read");
    let mut used_somewhere = BTreeSet::new();
    let mut unused = Vec::new();
    for folder in members.iter().map(PathBuf::as_path).chain([root()]) {
        let sources: Vec<(bool, String)> = sources_of(folder).iter().map(|path| (is_test(path), read(path))).collect();
        let manifest = read(&folder.join("Cargo.toml"));
        let own = declared(&manifest).into_iter().filter(|(table, _)| !table.starts_with("workspace"));
        for (table, name) in own {
            let here = sources.iter().any(|(test, text)| (table != "dependencies" || !test) && names_crate(text, &name));
            if !here {
                unused.push(format!("{}: [{table}] {name}", folder.display()));
            }
            used_somewhere.insert(name);
        }
    }
    let manifest = read(&root().join("Cargo.toml"));
    let shared = declared(&manifest).into_iter().filter(|(table, _)| *table == "workspace.dependencies");
    unused.extend(shared.filter(|(_, name)| !used_somewhere.contains(name)).map(|(table, name)| format!("[{table}] {name}")));
    assert!(unused.is_empty(), "remove what nothing uses:\n{}", unused.join("\n"));
}

/// The Rust files of one package; those of packages below it are not its own.
fn sources_of(folder: &Path) -> Vec<PathBuf> {
    let relative = folder.strip_prefix(root()).expect("below the root").display().to_string();
    if relative.is_empty() {
        let tests =
            std::fs::read_dir(root().join("tests")).expect("the folder is there").map(|entry| entry.expect("it can be read").path());
        return tests.filter(|path| path.extension().is_some_and(|it| it == "rs")).chain([root().join("src/lib.rs")]).collect();
    }
    rust_files(&relative)
}

fn is_test(path: &Path) -> bool {
    let mut inside = path.strip_prefix(root()).expect("below the root").components();
    inside.any(|part| part.as_os_str() == "tests" || part.as_os_str() == "tests.rs")
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

#[test]
fn sidecars_log_the_same_requests_by_default_whoever_sets_them_up() {
    let proxy = leno_proxy::telemetry::AccessLogMode::default();
    let controller = leno_controller::settings::Settings::try_parse_from(["leno-controller"]).expect("every flag has a default").injector();
    assert_eq!(controller.defaults.access_log.and_then(|mode| mode.parse().ok()), Some(proxy));
    let values = std::fs::read_to_string(root().join("charts/leno/values.yaml")).expect("it can be read");
    let values: serde_yaml::Value = serde_yaml::from_str(&values).expect("it is YAML");
    assert_eq!(values["proxy"]["accessLog"].as_str().and_then(|mode| mode.parse().ok()), Some(proxy));
}

/// Helm renders what a template says; a flag that the controller does not know would keep it from starting.
#[test]
fn the_chart_passes_only_flags_that_the_controller_knows() {
    let template = std::fs::read_to_string(root().join("charts/leno/templates/deployment.yaml")).expect("it can be read");
    let command = leno_controller::settings::Settings::command();
    let known: BTreeSet<&str> = command.get_arguments().filter_map(|argument| argument.get_long()).collect();
    let passed: Vec<&str> =
        template.lines().filter_map(|line| line.trim().strip_prefix("- --")).filter_map(|line| line.split('=').next()).collect();
    assert!(passed.len() > 10, "{passed:?}");
    let unknown: Vec<_> = passed.iter().filter(|flag| !known.contains(*flag)).collect();
    assert!(unknown.is_empty(), "the controller knows no {unknown:?}");
}
