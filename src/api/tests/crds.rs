//! `crds/` holds what the types say.
#![expect(clippy::unwrap_used, reason = "a test that cannot read its input fails")]

use std::fs;
use std::path::{Path, PathBuf};

use leno_api::{crd_yaml, crds};
use serde_json::Value;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../crds")
}

#[test]
fn crds_folder_equals_the_types() {
    for crd in crds() {
        let path = folder().join(format!("{}.yaml", crd.spec.names.plural));
        let wanted = crd_yaml(&crd);
        if std::env::var_os("UPDATE_CRDS").is_some() {
            fs::write(&path, &wanted).unwrap();
        }
        let found = fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(found, wanted, "{} is not what the types say: run UPDATE_CRDS=1 cargo test -p leno-api", path.display());
    }
    assert_eq!(fs::read_dir(folder()).unwrap().count(), crds().len(), "crds/ holds a file that no type stands for");
}

/// Every schema node of `schema`, with its path.
fn nodes(schema: &Value, path: &str, visit: &mut impl FnMut(&str, &Value)) {
    visit(path, schema);
    for (name, child) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        nodes(child, &format!("{path}.{name}"), visit);
    }
    for inner in ["items", "additionalProperties"] {
        if let Some(child) = schema.get(inner) {
            nodes(child, &format!("{path}[]"), visit);
        }
    }
}

fn each_node_of_the_schemas(mut visit: impl FnMut(&str, &Value)) {
    for crd in crds() {
        let schema = crd.spec.versions[0].schema.clone().unwrap().open_api_v3_schema;
        nodes(&serde_json::to_value(schema).unwrap(), &crd.spec.names.kind, &mut visit);
    }
}

/// What kubectl and Helm read YAML with takes these words for truth values, as names of fields too.
#[test]
fn no_field_has_a_name_that_yaml_1_1_reads_as_something_else() {
    each_node_of_the_schemas(|path, _| {
        let name = path.rsplit('.').next().unwrap_or(path).trim_end_matches("[]").to_ascii_lowercase();
        assert!(
            !["y", "n", "yes", "no", "on", "off", "true", "false", "null", "~"].contains(&name.as_str()),
            "{path} would have to be quoted"
        );
    });
}

#[test]
fn every_field_is_explained() {
    each_node_of_the_schemas(|path, node| {
        let described = node["description"].as_str().is_some_and(|text| text.len() > 10);
        assert!(described || path.ends_with("[]"), "{path} has no description");
    });
}

#[test]
fn every_list_and_text_of_a_spec_is_bounded() {
    each_node_of_the_schemas(|path, node| {
        let bounded = match node["type"].as_str() {
            Some("array") => node["maxItems"].is_u64(),
            Some("string") => node["maxLength"].is_u64() || node["enum"].is_array(),
            Some("integer") => node["maximum"].is_number(),
            Some("object") => node.get("additionalProperties").is_none() || node["maxProperties"].is_u64(),
            _ => true,
        };
        assert!(bounded || !path.contains(".spec"), "{path} has no bound");
    });
}

/// A pattern is written as a raw string, which a quotation mark within would end; the API server would refuse the whole kind.
#[test]
fn quotation_marks_in_rules_come_in_pairs() {
    each_node_of_the_schemas(|path, node| {
        for rule in node["x-kubernetes-validations"].as_array().into_iter().flatten() {
            let cel = rule["rule"].as_str().unwrap();
            assert!(cel.matches('"').count().is_multiple_of(2), "{path}: {cel}");
        }
    });
}

#[test]
fn every_rule_says_what_to_write() {
    each_node_of_the_schemas(|path, node| {
        for rule in node["x-kubernetes-validations"].as_array().into_iter().flatten() {
            assert!(rule["message"].as_str().is_some_and(|text| text.len() > 20), "{path}: {rule}");
        }
    });
}
