//! Strict reading of a person's file: the object is held against the schema that the API server enforces.
//!
//! The API server drops fields it does not know; kubectl refuses them. So does [`check`], and it gives the same answers as
//! the API server to everything else: types, bounds, enumerations, and the rules of [`crate::rules`].

use std::collections::BTreeSet;
use std::sync::OnceLock;

use kube::CustomResourceExt;
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

use crate::rules;
use crate::schema::{crds, tidy};

/// One thing wrong with an object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct Problem {
    /// Where, such as `spec.routes[0].timeout`.
    pub path: String,
    /// What is wrong, and what to write instead.
    pub message: String,
}

/// Everything wrong with `object`, a MeshService, TrafficPolicy, SecurityPolicy, Workload or v1 Service. Of other kinds nothing is known, so
/// nothing is wrong with them, except for those of Leno's own group that do not exist.
pub fn check(object: &Value) -> Vec<Problem> {
    let (api_version, kind) = (text(object, "apiVersion"), text(object, "kind"));
    let Some((schema, nulls)) = schema_of(api_version, kind) else {
        let own_group = api_version.split('/').next() == Some(crate::GROUP);
        let message = format!(
            "there is no kind {kind:?} in {api_version}: write MeshService, TrafficPolicy, SecurityPolicy or Workload of leno.dev/v1alpha1"
        );
        return if own_group { vec![Problem { path: "kind".into(), message }] } else { Vec::new() };
    };
    let mut checker = Checker { problems: Vec::new(), nulls };
    checker.object_root(schema, object);
    checker.problems
}

struct Checker {
    problems: Vec<Problem>,
    /// Whether null stands for an absent field, as in Kubernetes' own kinds.
    nulls: bool,
}

impl Checker {
    /// The whole object: metadata as of every kind, the rest by the kind's schema.
    fn object_root(&mut self, schema: &Value, object: &Value) {
        if text(&object["metadata"], "name").is_empty() {
            self.problem("metadata.name", "give the object a name".into());
        }
        let nulls = std::mem::replace(&mut self.nulls, true);
        self.value(metadata_schema(), &object["metadata"], "metadata");
        self.nulls = nulls;
        let mut rest = object.clone();
        if let Some(fields) = rest.as_object_mut() {
            fields.remove("metadata");
        }
        self.value(schema, &rest, "");
    }

    fn value(&mut self, schema: &Value, value: &Value, path: &str) {
        if value.is_null() {
            if !self.nulls {
                self.problem(path, "has no value: give it one, or remove the field".into());
            }
            return;
        }
        let before = self.problems.len();
        match (text(schema, "type"), value) {
            ("object", Value::Object(fields)) => self.fields(schema, fields, path),
            ("array", Value::Array(items)) => self.items(schema, items, path),
            ("string", Value::String(text)) => self.text(schema, text, path),
            ("integer", Value::Number(number)) if number.is_i64() || number.is_u64() => self.number(schema, value, path),
            ("number", Value::Number(_)) => self.number(schema, value, path),
            ("boolean", Value::Bool(_)) | ("", _) => {}
            (wanted, other) => self.problem(path, format!("write {} here, not {}", article(wanted), described(other))),
        }
        // Like the API server: rules are for values of the right form.
        if self.problems.len() == before {
            self.rules(schema, value, path);
        }
    }

    fn fields(&mut self, schema: &Value, fields: &Map<String, Value>, path: &str) {
        let known = schema.get("properties").and_then(Value::as_object);
        for (name, value) in fields {
            let at = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            match (known.and_then(|known| known.get(name)), schema.get("additionalProperties")) {
                (Some(schema), _) => self.value(schema, value, &at),
                (None, Some(schema)) => self.value(schema, value, &at),
                (None, None) if known.is_some() => self.problem(&at, unknown(&at, name, known)),
                (None, None) => {}
            }
        }
        for name in elements(schema, "required").filter_map(Value::as_str).filter(|name| !fields.contains_key(*name)) {
            self.problem(path, format!("lacks the field {name:?}"));
        }
        self.count(schema, fields.len(), ["minProperties", "maxProperties"], "entries", path);
    }

    fn items(&mut self, schema: &Value, items: &[Value], path: &str) {
        self.count(schema, items.len(), ["minItems", "maxItems"], "items", path);
        for (index, item) in items.iter().enumerate() {
            self.value(&schema["items"], item, &format!("{path}[{index}]"));
        }
        let mut seen = BTreeSet::new();
        for (index, item) in items.iter().enumerate() {
            let key = match text(schema, "x-kubernetes-list-type") {
                "set" => item.to_string(),
                "map" => {
                    let keys = elements(schema, "x-kubernetes-list-map-keys").filter_map(Value::as_str);
                    keys.map(|key| format!("{key}: {}", item[key])).collect::<Vec<_>>().join(", ")
                }
                _ => continue,
            };
            if !seen.insert(key.clone()) {
                self.problem(&format!("{path}[{index}]"), format!("{key} is there twice: write it once"));
            }
        }
    }

    fn text(&mut self, schema: &Value, value: &str, path: &str) {
        let mut allowed = elements(schema, "enum").filter_map(Value::as_str).peekable();
        if allowed.peek().is_some() {
            let allowed: Vec<_> = allowed.collect();
            if !allowed.contains(&value) {
                self.problem(path, format!("{value:?} is not one of {}", allowed.join(", ")));
            }
        }
        if text(schema, "format") == "ip" && value.parse::<std::net::IpAddr>().is_err() {
            self.problem(path, format!("{value:?} is not an IP address: write one such as 127.0.0.1"));
        }
        self.count(schema, value.chars().count(), ["minLength", "maxLength"], "characters", path);
    }

    fn number(&mut self, schema: &Value, value: &Value, path: &str) {
        let bound = |name| schema.get(name).and_then(Value::as_f64);
        let number = value.as_f64().unwrap_or_default();
        match (bound("minimum"), bound("maximum")) {
            (Some(least), _) if number < least => self.problem(path, format!("{value} is too small: write at least {least}")),
            (_, Some(most)) if number > most => self.problem(path, format!("{value} is too large: write at most {most}")),
            (_, _) => {}
        }
    }

    fn count(&mut self, schema: &Value, count: usize, [least, most]: [&str; 2], what: &str, path: &str) {
        let bound = |name| schema.get(name).and_then(Value::as_u64).and_then(|bound| usize::try_from(bound).ok());
        match (bound(least), bound(most)) {
            (Some(least), _) if count < least => self.problem(path, format!("has {count} {what}: write at least {least}")),
            (_, Some(most)) if count > most => self.problem(path, format!("has {count} {what}: write at most {most}")),
            (_, _) => {}
        }
    }

    fn rules(&mut self, schema: &Value, value: &Value, path: &str) {
        for rule in elements(schema, "x-kubernetes-validations") {
            let twin = rules::all().find(|it| it.message == text(rule, "message"));
            if let Some(twin) = twin.filter(|twin| !twin.holds(value)) {
                self.problem(path, format!("{}{}", shown(value), twin.message));
            }
        }
    }

    fn problem(&mut self, path: &str, message: String) {
        let path = if path.is_empty() { "object".to_owned() } else { path.to_owned() };
        self.problems.push(Problem { path, message });
    }
}

/// The schema of a kind, and whether null is absence there.
fn schema_of(api_version: &str, kind: &str) -> Option<(&'static Value, bool)> {
    static OWN: OnceLock<Vec<(String, Value)>> = OnceLock::new();
    static SERVICE: OnceLock<Value> = OnceLock::new();
    if (api_version, kind) == ("v1", "Service") {
        return Some((SERVICE.get_or_init(inlined::<k8s_openapi::api::core::v1::Service>), true));
    }
    let own = OWN.get_or_init(|| {
        let all = crds().into_iter().chain([tidy(crate::Workload::crd())]);
        all.map(|crd| {
            let mut versions = crd.spec.versions.into_iter();
            let schema = versions.next().and_then(|version| version.schema?.open_api_v3_schema);
            (crd.spec.names.kind, with_root_fields(serde_json::to_value(schema).unwrap_or_default()))
        })
        .collect()
    });
    let of_kind = own.iter().find(|(name, _)| name == kind).filter(|_| api_version == format!("{}/{}", crate::GROUP, crate::VERSION));
    of_kind.map(|(_, schema)| (schema, false))
}

/// `schema` with the fields of every object; `metadata` is looked at apart.
fn with_root_fields(mut schema: Value) -> Value {
    schema["properties"]["apiVersion"] = serde_json::json!({"type": "string"});
    schema["properties"]["kind"] = serde_json::json!({"type": "string"});
    schema
}

fn metadata_schema() -> &'static Value {
    static METADATA: OnceLock<Value> = OnceLock::new();
    METADATA.get_or_init(inlined::<kube::core::ObjectMeta>)
}

/// The schema of a Kubernetes type, without references. `metadata` is not required: it is looked at apart.
fn inlined<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::openapi3().with(|settings| settings.inline_subschemas = true);
    let mut schema = settings.into_generator().into_root_schema_for::<T>().to_value();
    schema.as_object_mut().map(|root| root.remove("required"));
    schema
}

/// `unknown field "timeoutt": did you mean timeout?`
fn unknown(path: &str, name: &str, known: Option<&Map<String, Value>>) -> String {
    let near = known.into_iter().flat_map(Map::keys).map(|known| (distance(name, known), known)).min();
    match near.filter(|(distance, _)| *distance <= 2) {
        Some((_, known)) => format!("unknown field {path:?}: did you mean {known}?"),
        None => {
            let names: Vec<_> = known.into_iter().flat_map(Map::keys).map(String::as_str).collect();
            format!("unknown field {path:?}: there are {}", names.join(", "))
        }
    }
}

/// Edit distance (Levenshtein), letters compared without case.
pub fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.to_ascii_lowercase().chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (index, letter) in left.to_ascii_lowercase().chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], index + 1);
        for (place, other) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *other);
            diagonal = row[place + 1];
            row[place + 1] = replaced.min(row[place] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

fn text<'v>(value: &'v Value, field: &str) -> &'v str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

fn elements<'v>(value: &'v Value, field: &str) -> impl Iterator<Item = &'v Value> {
    value.get(field).and_then(Value::as_array).into_iter().flatten()
}

/// A short text as it stands, for the beginning of a message; nothing for everything else.
fn shown(value: &Value) -> String {
    value.as_str().filter(|text| text.len() <= 64).map(|text| format!("{text:?} will not do: ")).unwrap_or_default()
}

fn article(wanted: &str) -> &str {
    match wanted {
        "object" => "fields",
        "array" => "a list",
        "string" => "a text (in quotes if it looks like a number)",
        "integer" => "a whole number",
        "number" => "a number",
        "boolean" => "true or false",
        other => other,
    }
}

fn described(value: &Value) -> String {
    match value {
        Value::Null => "nothing".into(),
        Value::Bool(truth) => truth.to_string(),
        Value::Number(number) => format!("the number {number}"),
        Value::String(text) => format!("the text {text:?}"),
        Value::Array(_) => "a list".into(),
        Value::Object(_) => "fields".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every rule in `schema`, with its message.
    fn rules_in(schema: &Value, found: &mut Vec<(String, String)>) {
        found.extend(
            elements(schema, "x-kubernetes-validations").map(|rule| (text(rule, "rule").to_owned(), text(rule, "message").to_owned())),
        );
        let children = schema.get("properties").and_then(Value::as_object).into_iter().flat_map(Map::values);
        for child in children.chain(["items", "additionalProperties"].iter().filter_map(|inner| schema.get(*inner))) {
            rules_in(child, found);
        }
    }

    #[test]
    fn every_rule_of_the_schemas_has_its_twin_and_no_other_has_its_message() {
        let mut found = Vec::new();
        for kind in ["MeshService", "TrafficPolicy", "SecurityPolicy", "Workload"] {
            rules_in(schema_of("leno.dev/v1alpha1", kind).unwrap().0, &mut found);
        }
        for (cel, message) in &found {
            let twins: Vec<_> = rules::all().filter(|rule| rule.message == message).collect();
            assert!(twins.len() == 1 && twins[0].cel() == *cel, "{cel}: {message}");
        }
        for rule in rules::all() {
            assert!(found.iter().any(|(cel, message)| *cel == rule.cel() && message == rule.message), "no schema uses {}", rule.message);
        }
    }
}
