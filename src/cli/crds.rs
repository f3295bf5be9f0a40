//! `leno crds`: prints the custom resource definitions.

use std::io::{self, Write};

/// Prints every definition as one YAML document.
///
/// # Errors
/// When `out` cannot be written to.
pub fn run(out: &mut impl Write) -> anyhow::Result<()> {
    let all: Vec<String> = leno_api::crds().iter().map(leno_api::crd_yaml).collect();
    out.write_all(all.join("---\n").as_bytes()).and_then(|()| out.flush()).map_err(io::Error::into)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[test]
    fn the_output_is_one_document_for_each_kind() {
        let mut out = Vec::new();
        run(&mut out).unwrap();
        let documents = serde_yaml::Deserializer::from_slice(&out).map(|it| serde_json::Value::deserialize(it).unwrap());
        let kinds: Vec<_> = documents.map(|it| it["spec"]["names"]["kind"].clone()).collect();
        assert_eq!(kinds, ["MeshService", "TrafficPolicy", "SecurityPolicy"]);
    }
}
