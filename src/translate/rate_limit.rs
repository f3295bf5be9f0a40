//! What a policy's rate limits mean.

use std::time::Duration;

use leno_api::rate_limit as spec;
use leno_core::rate_limit::{RateKey, RateLimit};

use crate::policy::Reader;

/// The time that requests are counted over where the policy does not say.
const PER: Duration = Duration::from_secs(1);

impl Reader {
    /// The limit at `path`.
    pub(crate) fn rate_limit(&mut self, path: &str, spec: &spec::RateLimit) -> Option<RateLimit> {
        let per = self.duration(&format!("{path}.per"), spec.per.as_ref()).unwrap_or(PER);
        let burst = spec.burst.unwrap_or(spec.requests);
        if spec.requests == 0 || burst == 0 {
            self.problem(path, "write at least 1 for requests and for burst.");
            return None;
        }
        let key = match spec.key.as_deref() {
            None => RateKey::Route,
            Some("source") => RateKey::Source,
            Some(text) => match text.strip_prefix("header:").filter(|name| !name.is_empty()) {
                Some(name) => RateKey::Header(name.to_ascii_lowercase().into()),
                None => {
                    self.problem(&format!("{path}.key"), "write source or header:NAME, such as header:x-user; or leave it out.");
                    return None;
                }
            },
        };
        Some(RateLimit { requests: spec.requests, per, burst, key })
    }
}
