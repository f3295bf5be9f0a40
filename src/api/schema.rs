//! The custom resource definitions: generated from the types, and put in the form that the API server takes without warnings.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::Value;

use crate::{MeshService, SecurityPolicy, TrafficPolicy};

/// The custom resource definitions of Leno, as they are installed.
pub fn crds() -> Vec<CustomResourceDefinition> {
    [MeshService::crd(), TrafficPolicy::crd(), SecurityPolicy::crd()].into_iter().map(tidy).collect()
}

/// One definition in YAML, as it stands in `crds/`.
pub fn crd_yaml(crd: &CustomResourceDefinition) -> String {
    let mut json = serde_json::to_value(crd).expect("a definition is plain data");
    whole_numbers(&mut json);
    let body = serde_yaml::to_string(&json).expect("a definition is plain data");
    format!("# Generated from the types in src/api. Change those, then run: UPDATE_CRDS=1 cargo test -p leno-api\n{body}")
}

/// Writes bounds as `65535`, not `65535.0`.
fn whole_numbers(value: &mut Value) {
    match value {
        Value::Object(object) => object.values_mut().for_each(whole_numbers),
        Value::Array(items) => items.iter_mut().for_each(whole_numbers),
        Value::Number(number) => {
            let digits = number.to_string();
            if let Some(whole) = digits.strip_suffix(".0").and_then(|whole| whole.parse::<i64>().ok()) {
                *number = whole.into();
            }
        }
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

/// `crd` with its schema tidied.
pub(crate) fn tidy(crd: CustomResourceDefinition) -> CustomResourceDefinition {
    let mut json = serde_json::to_value(crd).expect("a definition is plain data");
    tidy_schema(&mut json);
    serde_json::from_value(json).expect("tidying keeps a definition's form")
}

/// Takes out `additionalProperties: false`, which the API server does not take beside properties (it drops unknown fields), takes
/// out `nullable` (an absent field is absent, not null: CEL's `has` means what it says), and replaces the formats of
/// Rust's integers, which the API server does not know.
fn tidy_schema(value: &mut Value) {
    match value {
        Value::Object(object) => {
            object.remove("nullable");
            if object.get("additionalProperties") == Some(&Value::Bool(false)) {
                object.remove("additionalProperties");
            }
            // A field called `title` would be a schema, so an object; only the text is noise.
            if object.get("title").is_some_and(Value::is_string) {
                object.remove("title");
            }
            let rust_format = object.get("format").and_then(Value::as_str).is_some_and(|format| format.starts_with("uint"));
            if rust_format {
                object.insert("format".into(), "int32".into());
            }
            object.values_mut().for_each(tidy_schema);
        }
        Value::Array(items) => items.iter_mut().for_each(tidy_schema),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
