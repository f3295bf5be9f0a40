//! What proxies are current or behind with: a service, or a SecurityPolicy.

use std::fmt;
use std::str::FromStr;

use leno_core::names::{InvalidId, Name, ServiceId};
use leno_translate::ObjectKey;

/// What receipts are counted for; displayed `shop/payment` for a service and `SecurityPolicy shop/payment` for a policy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Topic {
    /// A service, which callers' proxies are told of.
    Service(ServiceId),
    /// A SecurityPolicy, by namespace and name, which is part of what proxies are told of their own workload.
    Security(ServiceId),
}

impl Topic {
    /// Of a SecurityPolicy.
    pub fn of_policy(policy: &ObjectKey) -> Self {
        Self::Security(ServiceId::new(policy.namespace.clone(), policy.name.clone()))
    }
}

/// The version of a policy, as replicas compare it: its generation, which they all read of the same object.
pub fn generation_name(generation: Option<i64>) -> Name {
    generation.unwrap_or_default().to_string().into()
}

const SECURITY: &str = "SecurityPolicy ";

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(id) => id.fmt(f),
            Self::Security(id) => write!(f, "{SECURITY}{id}"),
        }
    }
}

impl FromStr for Topic {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        match text.strip_prefix(SECURITY) {
            Some(id) => id.parse().map(Self::Security),
            None => text.parse().map(Self::Service),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_read_back_what_they_display() {
        let id = ServiceId::new("shop", "payment");
        for topic in [Topic::Service(id.clone()), Topic::Security(id)] {
            assert_eq!(topic.to_string().parse(), Ok(topic));
        }
    }
}
