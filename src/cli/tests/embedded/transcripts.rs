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

/// Where the transcript `every-field.txt` shows a field of a policy, a route or a MeshService. What no transcript of this one request
/// can show is `None`, with the reason.
const SHOWN: [(&str, &str, Option<&str>); 30] = [
    ("TrafficPolicy", "targetRef", Some("policy        shop/payment")),
    ("TrafficPolicy", "timeout", None), // its route says another; `timeout-of-the-policy.txt`
    ("TrafficPolicy", "retry", None),   // its route says another; `retry-of-a-get.txt`
    ("TrafficPolicy", "routes", Some("route         everything")),
    ("Route", "name", Some("route         everything")),
    ("Route", "matches", Some("holds         everything, match 1")),
    ("Route", "destinations", Some("90 %  version v1")),
    ("Route", "timeout", Some("timeout       5s, set by route everything")),
    ("Route", "idleTimeout", Some("idle timeout  90s")),
    ("Route", "retry", Some("retry         up to 2 more, set by route everything")),
    ("Route", "mirror", Some("copy to            5 %  version v2")),
    ("Route", "requestHeaders", Some("request       x-team set to \"shop\"")),
    ("Route", "responseHeaders", Some("response      x-served-by set to \"payment\"")),
    ("Route", "rewrite", Some("rewrite       sent on as /v1/orders for host payment.internal")),
    ("Route", "redirect", None), // excludes destinations; `redirect.txt`
    ("Route", "rateLimit", Some("rate limit    100 requests in 1s, up to 200 at once")),
    ("Route", "fault", Some("fault         10 % of requests held for 100ms, 0.5 % answered 503")),
    ("Route", "cors", Some("cors          ")),
    ("MeshService", "service", None),  // which Service it is; by default its name
    ("MeshService", "external", None), // excludes versions; noted with the addresses
    ("MeshService", "hosts", None),    // by which requests are found; `rewrite.txt` is found by another
    ("MeshService", "ports", Some("port          80, protocol HTTP")),
    ("MeshService", "versions", Some("payment-v1 (v1)")),
    ("MeshService", "loadBalancer", Some("balancer      RoundRobin")),
    (
        "MeshService",
        "connections",
        Some("limits of each sidecar: 100 connections, 50 that wait for one, 1000 requests, 3 retries, 1s to connect"),
    ),
    ("MeshService", "circuitBreaker", Some("circuit breaker: opens after 3 failures in a row, for 5s")),
    ("MeshService", "outlierDetection", Some("outlier detection: after 5 failures in a row or 3 gateway failures in a row")),
    ("MeshService", "healthCheck", Some("health check by each sidecar: GET /health answered with 200 to 299 within 1s, every 5s")),
    ("MeshService", "adaptiveConcurrency", Some("adaptive concurrency: each pod gets 4 to 1000 requests at once")),
    ("MeshService", "healthyPanicPercent", Some("panic: with less than 30 % of the endpoints healthy")),
];

/// The fields that the schema has at `path` of the kind `kind`.
fn fields(kind: &str, path: &str) -> Vec<String> {
    let crd = leno_api::crds().into_iter().find(|crd| crd.spec.names.kind == kind).unwrap();
    let schema = serde_json::to_value(&crd.spec.versions[0].schema).unwrap();
    schema.pointer(path).unwrap_or_else(|| panic!("{kind} has {path}")).as_object().unwrap().keys().cloned().collect()
}

#[test]
fn explain_shows_every_field_that_there_is() {
    const SPEC: &str = "/openAPIV3Schema/properties/spec/properties";
    let spec = |kind: &'static str| fields(kind, SPEC).into_iter().map(move |field| (kind, field));
    let route = fields("TrafficPolicy", &format!("{SPEC}/routes/items/properties")).into_iter().map(|field| ("Route", field));
    let all: std::collections::BTreeSet<_> = spec("TrafficPolicy").chain(route).chain(spec("MeshService")).collect();
    let told: std::collections::BTreeSet<_> = SHOWN.iter().map(|(kind, field, _)| (*kind, (*field).to_owned())).collect();
    assert_eq!(
        all, told,
        "a field that is new is shown by leno explain, written in explain/every-field/all.yaml and listed in SHOWN with the words that show it"
    );
    let transcript = run(
        "leno explain GET http://payment.shop/api/v1/orders -H origin:https://www.example.com -f src/cli/tests/embedded/explain/every-field",
    );
    for (kind, field, words) in SHOWN {
        if let Some(words) = words {
            assert!(transcript.contains(words), "{kind} {field}: {words:?} is not in\n{transcript}");
        }
    }
}
