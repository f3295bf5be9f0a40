//! The tables in `objects/`: what `check` accepts, and what it refuses in which words. The real API server is held to the same
//! tables by the tests on a cluster.
#![expect(clippy::unwrap_used, reason = "a test that cannot read its input fails")]

use std::fs;
use std::path::Path;

use leno_api::check;
use serde_json::{Value, json};

/// Every file of a table: its name, its text and its object.
fn table(folder: &str) -> Vec<(String, String, Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/objects").join(folder);
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let read = |path: &std::path::PathBuf| {
        let text = fs::read_to_string(path).unwrap();
        let object = serde_yaml::from_str(&text).unwrap();
        (path.file_name().unwrap().to_string_lossy().into_owned(), text, object)
    };
    files.iter().map(read).collect()
}

/// The words after `# NAME: ` at the head of a file.
fn words<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    text.lines().take_while(|line| line.starts_with('#')).find_map(|line| line.strip_prefix(&format!("# {name}: ")))
}

fn told(object: &Value) -> String {
    check(object).iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[test]
fn good_objects_are_accepted() {
    let table = table("good");
    assert!(table.len() >= 10);
    for (file, _, object) in table {
        assert_eq!(told(&object), "", "{file}");
    }
}

#[test]
fn bad_objects_are_refused_in_words() {
    let table = table("bad");
    assert!(table.len() >= 25);
    for (file, text, object) in table {
        let refused = words(&text, "refused").unwrap_or_else(|| panic!("{file} does not say how it is refused"));
        let wanted = words(&text, "check").unwrap_or(refused);
        let told = told(&object);
        assert!(told.contains(wanted), "{file}\nwanted: {wanted}\ntold: {told}");
        assert_eq!(check(&object).len(), 1, "{file} is to be wrong in one way only: {told}");
    }
}

#[test]
fn problems_say_where_they_are() {
    let object = json!({
        "apiVersion": "leno.dev/v1alpha1", "kind": "TrafficPolicy", "metadata": {"name": "payment", "labells": {}},
        "spec": {"targetRef": {"name": "payment"}, "routes": [{"name": "a"}, {"name": "b", "timeout": "x", "matches": [{"path": null}]}]},
    });
    let paths: Vec<_> = check(&object).into_iter().map(|problem| problem.path).collect();
    assert_eq!(paths, ["metadata.labells", "spec.routes[1].matches[0].path", "spec.routes[1].timeout"]);
}

#[test]
fn workloads_and_services_of_a_folder_are_checked_too() {
    let workload =
        |spec: Value| json!({"apiVersion": "leno.dev/v1alpha1", "kind": "Workload", "metadata": {"name": "web-1"}, "spec": spec});
    assert_eq!(told(&workload(json!({"address": "127.0.0.2", "ports": [{"name": "http", "port": 8080}, {"port": 9090}]}))), "");
    assert_eq!(told(&workload(json!({}))), "");
    assert!(told(&workload(json!({"address": "localhost"}))).contains("spec.address: \"localhost\" is not an IP address"));
    assert!(told(&workload(json!({"ports": [{"port": 70000}]}))).contains("spec.ports[0].port: 70000 is too large"));
    assert_eq!(told(&workload(json!({"weight": 0}))), "");
    assert!(told(&workload(json!({"weight": 1001}))).contains("spec.weight: 1001 is too large"));
    assert!(told(&workload(json!({"port": 80}))).contains("unknown field \"spec.port\": did you mean ports?"));

    let service =
        |spec: Value| json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "creationTimestamp": null}, "spec": spec});
    assert_eq!(told(&service(json!({"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http"}]}))), "");
    assert!(told(&service(json!({"selectr": {"app": "web"}}))).contains("unknown field \"spec.selectr\": did you mean selector?"));
    assert!(told(&service(json!({"ports": [{"port": "80"}]}))).contains("write a whole number here"));
}

#[test]
fn kinds_that_are_not_lenos_are_left_alone_and_misspelt_ones_are_not() {
    assert_eq!(told(&json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"}, "spec": {"what": "ever"}})), "");
    assert!(told(&json!({"apiVersion": "leno.dev/v1alpha1", "kind": "TraficPolicy"})).contains("there is no kind \"TraficPolicy\""));
    assert!(told(&json!({"apiVersion": "leno.dev/v1", "kind": "TrafficPolicy"})).contains("leno.dev/v1alpha1"));
}

#[test]
fn an_object_without_a_name_is_refused() {
    assert!(told(&json!({"apiVersion": "leno.dev/v1alpha1", "kind": "MeshService", "spec": {}})).contains("give the object a name"));
}
