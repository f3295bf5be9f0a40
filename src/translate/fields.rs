//! Which fields of an object are in force, in words for its status. They are read off the object itself, so that none is left
//! out: what this version does not do is no field, and the API server and `check` refuse it.

use leno_core::names::Name;
use serde_json::{Map, Value};

/// What says which object or part is meant, and the action of rules, of which the conditions speak in words of their own.
const SAID_OTHERWISE: [&str; 5] = ["action", "name", "selector", "service", "targetRef"];

/// The fields that `spec` writes, with those of its routes: `retry, routes (destinations, timeout)`; empty when there are none.
pub(crate) fn said(spec: &Value) -> Name {
    let Some(fields) = spec.as_object() else { return Name::from("") };
    let words = written(fields).map(|(name, value)| match value.as_array() {
        Some(items) if name == "routes" => with_parts(name, items),
        Some(_) | None => name.clone(),
    });
    words.collect::<Vec<_>>().join(", ").into()
}

/// The sentence for a condition: nothing where there are no fields.
pub(crate) fn sentence(said: &str) -> String {
    if said.is_empty() { String::new() } else { format!(" Fields in force: {said}.") }
}

fn with_parts(name: &str, items: &[Value]) -> String {
    let parts: std::collections::BTreeSet<&String> =
        items.iter().filter_map(Value::as_object).flat_map(written).map(|(name, _)| name).collect();
    if parts.is_empty() {
        return name.to_owned();
    }
    let parts: Vec<&str> = parts.into_iter().map(String::as_str).collect();
    format!("{name} ({})", parts.join(", "))
}

fn written(fields: &Map<String, Value>) -> impl Iterator<Item = (&String, &Value)> {
    let is_empty = |value: &Value| match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => false,
    };
    fields.iter().filter(move |(name, value)| !SAID_OTHERWISE.contains(&name.as_str()) && !is_empty(value))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_are_named_with_those_of_routes_and_what_is_empty_is_left_out() {
        let spec = json!({
            "targetRef": {"name": "payment"}, "timeout": "5s", "retry": {"attempts": 1},
            "routes": [{"name": "a", "timeout": "1s", "mirror": []}, {"name": "b", "destinations": [{"version": "v1"}], "fault": {}}],
        });
        assert_eq!(&*said(&spec), "retry, routes (destinations, fault, timeout), timeout");
        assert_eq!(&*said(&json!({"routes": [{"name": "a"}]})), "routes");
        assert_eq!(sentence(&said(&json!({"targetRef": {"name": "payment"}, "routes": [], "retry": null}))), "");
        assert_eq!(sentence("versions"), " Fields in force: versions.");
    }
}
