//! What a policy's mirrors mean.

use leno_api::mirror as spec;
use leno_core::percentage::Percentage;

use crate::policy::{Destination, Named, Reader};

/// Who else gets copies of a route's requests, as the policy spells it.
pub(crate) type Mirror = (Destination, Percentage);

impl Reader {
    /// The mirrors of the route at `path`.
    pub(crate) fn mirrors(&mut self, path: &str, mirrors: &[spec::Mirror]) -> Vec<Mirror> {
        let mirrors = mirrors.iter().enumerate();
        mirrors.filter_map(|(place, it)| self.mirror(&format!("{path}.mirror[{place}]"), it)).collect()
    }

    fn mirror(&mut self, path: &str, spec: &spec::Mirror) -> Option<Mirror> {
        let percentage = Percentage::from_percent(spec.percentage);
        let percentage = percentage.map_err(|error| self.problem(&format!("{path}.percentage"), &format!("{error}."))).ok()?;
        let named = Named {
            version: spec.version.as_deref(),
            service: spec.service.as_deref(),
            namespace: spec.namespace.as_deref(),
            port: spec.port,
        };
        let target = self.target(path, named)?;
        Some((target, percentage))
    }
}
