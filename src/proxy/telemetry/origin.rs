//! Where a failure comes from: who has to look.

use std::fmt;

/// Where a failure comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// Who asked: it broke off, sent something invalid, or may not ask.
    Downstream,
    /// Who was asked: it is not to be reached, broke off, is too slow, or answered nonsense.
    Upstream,
    /// The mesh itself: its configuration, its limits, this proxy.
    Internal,
}

impl Origin {
    /// The origin of a reason, as records carry it. What is not listed is the mesh's own.
    pub fn of(reason: &str) -> Self {
        match reason {
            "client-gone" | "client-too-slow" | "body-too-slow" | "cut" | "bad-chunk" | "denied" | "ambiguous-path" | "unknown-service"
            | "not-registered" | "rate-limited" => Self::Downstream,
            // Heads that are refused.
            "head-too-large" | "head-too-slow" | "target-too-long" | "unknown-coding" => Self::Downstream,
            "no-endpoint" | "connect-failed" | "identity-mismatch" | "tls-failed" | "disconnected" | "bad-response" | "timeout"
            | "response-cut" | "no-protocol" | "idle-timeout" | "circuit-open" | "unhealthy" => Self::Upstream,
            // An issuer's keys are to be there before tokens are.
            "token-no-keys" => Self::Internal,
            _ if reason.starts_with("bad-") || reason.starts_with("token-") => Self::Downstream,
            _ => Self::Internal,
        }
    }

    /// Metric label and log field.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Downstream => "downstream",
            Self::Upstream => "upstream",
            Self::Internal => "internal",
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::Refusal;

    #[test]
    fn each_refusal_says_who_has_to_look() {
        let cases = [
            (Refusal::Denied, Origin::Downstream),
            (Refusal::AmbiguousPath, Origin::Downstream),
            (Refusal::UnknownService, Origin::Downstream),
            (Refusal::NotRegistered, Origin::Downstream),
            (Refusal::NoEndpoint, Origin::Upstream),
            (Refusal::ConnectFailed, Origin::Upstream),
            (Refusal::IdentityMismatch, Origin::Upstream),
            (Refusal::TlsFailed, Origin::Upstream),
            (Refusal::Disconnected, Origin::Upstream),
            (Refusal::BadResponse, Origin::Upstream),
            (Refusal::Timeout, Origin::Upstream),
            (Refusal::MissingDestination, Origin::Internal),
            (Refusal::NoWeight, Origin::Internal),
            (Refusal::NoCertificate, Origin::Internal),
            (Refusal::NoRules, Origin::Internal),
        ];
        for (refusal, origin) in cases {
            assert_eq!(refusal.origin(), origin, "{refusal:?}");
        }
        assert_eq!(Origin::of("client-gone"), Origin::Downstream);
        assert_eq!(Origin::of("bad-first-line"), Origin::Downstream);
        assert_eq!(Origin::of("what nobody knows"), Origin::Internal);
    }
}
