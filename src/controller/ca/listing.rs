//! Who holds which certificate at one replica, and what that replica trusts: what `GET /identities` answers, and what
//! [`super::rotation`] and the command line read.

use leno_core::trust::Held;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::authority::hex;
use crate::publish::Standing;

/// Path of the listing on the replica's HTTPS port.
pub const PATH: &str = "/identities";

/// One replica's listing. Fingerprints are SHA-256 of DER, hexadecimal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Listing {
    /// The mesh's trust domain; empty while the replica has no authority.
    pub trust_domain: String,
    /// Fingerprints of the roots that it tells proxies to trust.
    pub roots: Vec<String>,
    /// Fingerprint of the certificate that signs; empty while there is none.
    pub issuer: String,
    /// Version of what it tells proxies, as [`Listed::trust`] gives it back.
    pub trust_version: String,
    /// The proxies connected to it.
    pub proxies: Vec<Listed>,
}

/// One proxy, as it says itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Listed {
    /// Whose proxy it is, `namespace/pod`.
    pub workload: String,
    /// The SPIFFE ID it holds a certificate for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// Serial number of that certificate, hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// Its end, seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<i64>,
    /// Fingerprint of the certificate that signed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// Version of the trust that it says it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust: Option<String>,
}

impl Listing {
    /// The listing of a replica whose proxies are as far as `standing` says.
    pub fn new(standing: Standing) -> Self {
        let trust = standing.trust;
        let mut proxies: Vec<Listed> = standing
            .proxies
            .into_iter()
            .map(|proxy| Listed {
                workload: proxy.workload.to_string(),
                trust: proxy.trust.map(|version| version.to_string()),
                ..proxy.held.as_ref().map(held).unwrap_or_default()
            })
            .collect();
        proxies.sort();
        Self {
            trust_domain: trust.as_ref().map(|it| it.trust_domain.to_string()).unwrap_or_default(),
            roots: trust.iter().flat_map(|it| &it.roots).map(|root| hex(&Sha256::digest(root))).collect(),
            issuer: trust.as_ref().map(|it| hex(&it.issuer)).unwrap_or_default(),
            trust_version: standing.trust_version.map(|version| version.to_string()).unwrap_or_default(),
            proxies,
        }
    }
}

fn held(held: &Held) -> Listed {
    Listed {
        workload: String::new(),
        identity: Some(held.identity.to_string()),
        serial: Some(held.serial.to_string()),
        not_after: Some(held.not_after),
        issuer: (!held.issuer.is_empty()).then(|| hex(&held.issuer)),
        trust: None,
    }
}
