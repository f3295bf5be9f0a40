//! One file of manifests: a pure function of its text.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use leno_api as api;
use leno_api::k8s::Watched;
use leno_translate::{Object, ObjectKey};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::lines::Lines;

/// The namespace of an object that names none.
const NAMESPACE: &str = "default";

/// One object of a file.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// Names it.
    pub key: ObjectKey,
    /// The object.
    pub object: Object,
    /// As it was written: equal values are equal objects.
    pub value: Value,
    /// Where it begins.
    pub place: Place,
}

/// A line of a file; displayed `FILE:LINE`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The file.
    pub file: Arc<Path>,
    /// The line, counted from 1.
    pub line: usize,
}

/// Something to tell about a line of a file; displayed `FILE:LINE: what`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[error("{place}: {message}")]
pub struct Note {
    /// Where.
    pub place: Place,
    /// What is wrong and what to do, or what was left out.
    pub message: String,
}

/// What a file says.
#[derive(Clone, Debug, Default)]
pub struct Parsed {
    /// Its objects of the kinds the mesh reads.
    pub manifests: Vec<Manifest>,
    /// Objects of other kinds, which are left out.
    pub skipped: Vec<Note>,
    /// What is wrong with it. A file with problems is not to be used.
    pub problems: Vec<Note>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// Reads every object in `text`: several documents, and lists, are taken apart. Unknown fields are problems.
pub fn parse(file: &Path, text: &str) -> Parsed {
    let mut reader = Reader { file: file.into(), lines: Lines::of(text), parsed: Parsed::default() };
    for (document, yaml) in serde_yaml::Deserializer::from_str(text).enumerate() {
        let value = serde_yaml::Value::deserialize(yaml).and_then(|mut value| {
            value.apply_merge()?;
            Ok(value)
        });
        match value {
            Ok(value) if value.is_null() => {}
            Ok(value) => match serde_json::to_value(value) {
                Ok(value) => reader.document(&Position { document, prefix: String::new() }, value),
                Err(error) => reader.problem_at(reader.lines.find(document, ""), error.to_string()),
            },
            Err(error) => {
                let line = error.location().map_or_else(|| reader.lines.find(document, ""), |place| place.line());
                reader.problem_at(line, in_words(&error.to_string()));
                // What follows a text that is no YAML cannot be told apart.
                break;
            }
        }
    }
    reader.parsed
}

/// The object that `value` is, if it is of a kind that the mesh reads.
///
/// # Errors
/// When a field has a form that the kind does not have: its path and what is wrong.
pub fn decode(value: &Value) -> Option<Result<Object, (String, String)>> {
    Some(match (text(value, "apiVersion"), text(value, "kind")) {
        ("v1", "Service") => typed::<Watched<api::k8s::Service>>(value).map(|it| Object::Service(it.object)),
        ("v1", "Pod") => typed::<Watched<api::k8s::Pod>>(value).map(|it| Object::Pod(it.object)),
        ("discovery.k8s.io/v1", "EndpointSlice") => {
            typed::<Watched<api::k8s::EndpointSlice>>(value).map(|it| Object::EndpointSlice(it.object))
        }
        ("gateway.networking.k8s.io/v1" | "gateway.networking.k8s.io/v1beta1", "ReferenceGrant") => {
            typed::<Watched<api::k8s::ReferenceGrant>>(value).map(|it| Object::ReferenceGrant(it.object))
        }
        ("leno.dev/v1alpha1", "MeshService") => typed(value).map(Object::MeshService),
        ("leno.dev/v1alpha1", "TrafficPolicy") => typed(value).map(Object::TrafficPolicy),
        ("leno.dev/v1alpha1", "SecurityPolicy") => typed(value).map(Object::SecurityPolicy),
        ("leno.dev/v1alpha1", "Workload") => typed(value).map(Object::Workload),
        _ => return None,
    })
}

fn typed<T: DeserializeOwned>(value: &Value) -> Result<T, (String, String)> {
    serde_path_to_error::deserialize(value).map_err(|error| (error.path().to_string(), error.inner().to_string()))
}

fn text<'v>(value: &'v Value, field: &str) -> &'v str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// The library names its place itself, which is said already, and its words for tabs are not everybody's.
fn in_words(error: &str) -> String {
    let what = error.split(" at line ").next().unwrap_or(error);
    if what.contains("cannot start any token") {
        return format!("this is no YAML: {what}; indent with spaces, not tabs, and put texts with special characters in quotes");
    }
    format!("this is no YAML: {what}; mend this line or the one before it")
}

/// Where an object stands: in which document, and at which path of it (`items[3]`).
struct Position {
    document: usize,
    prefix: String,
}

struct Reader {
    file: Arc<Path>,
    lines: Lines,
    parsed: Parsed,
}

impl Reader {
    fn document(&mut self, at: &Position, mut value: Value) {
        let (kind, api_version) = (text(&value, "kind").to_owned(), text(&value, "apiVersion").to_owned());
        if kind.is_empty() || api_version.is_empty() {
            let message = "this is no object: it begins with apiVersion and kind, such as `apiVersion: v1` and `kind: Service`";
            return self.problem(at, "", message.into());
        }
        let items = value.get_mut("items").map(Value::take);
        match (kind.strip_suffix("List"), items) {
            (Some(item_kind), Some(Value::Array(items))) => self.list(at, item_kind, &api_version, items),
            (_, Some(items)) => {
                value["items"] = items;
                self.object(at, value);
            }
            (_, None) => self.object(at, value),
        }
    }

    /// The items of a `List`, or of a `ServiceList`, whose items need not say what they are.
    fn list(&mut self, at: &Position, item_kind: &str, api_version: &str, items: Vec<Value>) {
        for (index, mut item) in items.into_iter().enumerate() {
            if let Some(fields) = item.as_object_mut().filter(|_| !item_kind.is_empty()) {
                fields.entry("kind").or_insert_with(|| item_kind.into());
                fields.entry("apiVersion").or_insert_with(|| api_version.into());
            }
            self.document(&Position { document: at.document, prefix: format!("{}items[{index}].", at.prefix) }, item);
        }
    }

    fn object(&mut self, at: &Position, mut value: Value) {
        let before = self.parsed.problems.len();
        for problem in api::check(&value) {
            self.problem(at, if problem.path == "object" { "" } else { &problem.path }, problem.to_string());
        }
        if self.parsed.problems.len() > before {
            return;
        }
        if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
            let named = metadata.get("namespace").and_then(Value::as_str).is_some_and(|it| !it.is_empty());
            if !named {
                metadata.insert("namespace".into(), NAMESPACE.into());
            }
        }
        let place = self.place(at, "");
        match decode(&value) {
            None => {
                let message = format!(
                    "{} {} is left out: the mesh reads Service, EndpointSlice, Pod, ReferenceGrant, MeshService, TrafficPolicy, SecurityPolicy and Workload",
                    text(&value, "kind"),
                    text(&value["metadata"], "name")
                );
                self.parsed.skipped.push(Note { place, message });
            }
            Some(Err((path, message))) => self.problem(at, &path, format!("{path}: {message}")),
            Some(Ok(object)) => {
                let key = object.key();
                if key.name.is_empty() {
                    return self.problem(at, "metadata.name", "metadata.name: give the object a name".into());
                }
                self.parsed.manifests.push(Manifest { key, object, value, place });
            }
        }
    }

    fn place(&self, at: &Position, path: &str) -> Place {
        let path = format!("{}{path}", at.prefix);
        Place { file: Arc::clone(&self.file), line: self.lines.find(at.document, path.strip_suffix('.').unwrap_or(&path)) }
    }

    fn problem(&mut self, at: &Position, path: &str, message: String) {
        let place = self.place(at, path);
        self.parsed.problems.push(Note { place, message });
    }

    fn problem_at(&mut self, line: usize, message: String) {
        self.parsed.problems.push(Note { place: Place { file: Arc::clone(&self.file), line }, message });
    }
}

impl Note {
    /// Something to tell about the file at `path` as a whole.
    pub fn about_file(path: &Path, message: String) -> Self {
        Self { place: Place { file: PathBuf::from(path).into(), line: 1 }, message }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<String> {
        parse(Path::new("m/a.yaml"), text).problems.iter().map(ToString::to_string).collect()
    }

    fn keys(text: &str) -> Vec<String> {
        let parsed = parse(Path::new("a.yaml"), text);
        assert_eq!(parsed.problems, []);
        parsed.manifests.iter().map(|it| format!("{} at {}", it.key, it.place)).collect()
    }

    const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: payment, namespace: shop}\nspec: {ports: [{port: 80}]}\n";

    #[test]
    fn documents_and_lists_are_taken_apart() {
        let text = format!(
            "---\n# nothing but a comment\n---\n{SERVICE}---\napiVersion: v1\nkind: List\nitems:\n- apiVersion: leno.dev/v1alpha1\n  kind: Workload\n  metadata: {{name: web-1}}\n  spec: {{}}\n---\napiVersion: v1\nkind: ServiceList\nitems:\n- metadata: {{name: cart, namespace: shop}}\n  spec: {{ports: [{{port: 80}}]}}\n"
        );
        assert_eq!(
            keys(&text),
            ["Service shop/payment at a.yaml:4", "Workload default/web-1 at a.yaml:12", "Service shop/cart at a.yaml:20"]
        );
    }

    #[test]
    fn other_kinds_are_left_out_with_a_note() {
        let text = format!("apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: payment}}\n---\n{SERVICE}");
        let parsed = parse(Path::new("a.yaml"), &text);
        let skipped: Vec<_> = parsed.skipped.iter().map(ToString::to_string).collect();
        assert_eq!(skipped.len(), 1);
        assert!(skipped[0].starts_with("a.yaml:1: Deployment payment is left out"), "{}", skipped[0]);
        assert_eq!(parsed.manifests.len(), 1);
    }

    #[test]
    fn a_problem_names_its_line_and_says_what_to_do() {
        let policy =
            "apiVersion: leno.dev/v1alpha1\nkind: TrafficPolicy\nmetadata:\n  name: payment\nspec:\n  targetRef: {name: payment}\n";
        let cases = [
            ("unknown field", format!("{policy}  timeoutt: 5s\n"), "m/a.yaml:7: ", "did you mean timeout?"),
            (
                "nested field",
                format!("{policy}  routes:\n  - name: a\n    destinations:\n    - version: v1\n      wieght: 9\n"),
                "m/a.yaml:11: ",
                "weight",
            ),
            ("wrong type", format!("{policy}  timeout: 5\n"), "m/a.yaml:7: ", "text"),
            ("second document", format!("{SERVICE}---\n{policy}  timeout: never\n"), "m/a.yaml:12: ", "duration"),
            ("no name", "apiVersion: v1\nkind: Pod\nmetadata:\n  labels: {a: b}\n".into(), "m/a.yaml:3: ", "name"),
            ("no object", "a: 1\n".into(), "m/a.yaml:1: ", "apiVersion"),
            ("no YAML", format!("{SERVICE}spec: [\n"), "m/a.yaml:", "no YAML"),
            ("field twice", "apiVersion: v1\nkind: Service\nkind: Service\n".into(), "m/a.yaml:", "duplicate"),
            (
                "kind that is not there",
                "apiVersion: leno.dev/v1alpha1\nkind: TraficPolicy\nmetadata: {name: a}\n".into(),
                "m/a.yaml:2: ",
                "TrafficPolicy",
            ),
        ];
        for (name, text, place, words) in cases {
            let told = problems(&text);
            assert!(told.len() == 1 && told[0].starts_with(place) && told[0].contains(words), "{name}: {told:?}");
        }
    }
}
