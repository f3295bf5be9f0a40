//! The custom resource definitions: generated from the types, and put in the form that the API server takes without warnings.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::Value;

use crate::{MeshService, TrafficPolicy};

/// The custom resource definitions of Leno, as they are installed.
pub fn crds() -> Vec<CustomResourceDefinition> {
    [MeshService::crd(), TrafficPolicy::crd()].into_iter().map(tidy).collect()
}

/// One definition in YAML, as it stands in `crds/`.
pub fn crd_yaml(crd: &CustomResourceDefinition) -> String {
    let body = serde_yaml::to_string(crd).expect("a definition is plain data");
    format!("# Generated from the types in src/api. Change those, then run: UPDATE_CRDS=1 cargo test -p leno-api\n{body}")
}

/// `crd` with its schema tidied.
pub(crate) fn tidy(crd: CustomResourceDefinition) -> CustomResourceDefinition {
    let mut json = serde_json::to_value(crd).expect("a definition is plain data");
    tidy_schema(&mut json);
    serde_json::from_value(json).expect("tidying keeps a definition's form")
}

/// Takes out `nullable` (an absent field is absent, not null: CEL's `has` means what it says), and replaces the formats of
/// Rust's integers, which the API server does not know.
fn tidy_schema(value: &mut Value) {
    match value {
        Value::Object(object) => {
            object.remove("nullable");
            if let Some(format) = object.get_mut("format").filter(|format| format.as_str().is_some_and(|text| text.starts_with("uint"))) {
                *format = "int32".into();
            }
            object.values_mut().for_each(tidy_schema);
        }
        Value::Array(items) => items.iter_mut().for_each(tidy_schema),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
