//! Where objects come from: a cluster ([`kube`]) or a folder of manifests ([`folder`]). Both yield the same events.

pub mod folder;
pub mod kube;
pub(crate) mod protobuf;
mod watchable;

use std::net::IpAddr;

use leno_core::names::Name;
use leno_translate::{Change, Kind};

/// What a source says.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "changes come one by one and are moved once; boxing each would cost more")]
pub enum SourceEvent {
    /// One object changed.
    Changed(Change),
    /// All objects of a kind, as they are now, as changes that apply them: what is absent is gone.
    Listed(Kind, Vec<Change>),
    /// A list of all objects of a kind begins, which come as changes. One that began before and did not come to its end counts for nothing
    /// but the objects that came.
    Listing(Kind),
    /// That list is whole: objects of the kind that have not come since it began are gone.
    Whole(Kind),
    /// What came of fetching the keys of token issuers at a URL: a key set, or why there is none.
    Keys(Name, Result<Name, String>),
    /// What came of looking up a host name outside the cluster: its addresses, or why there are none.
    Addresses(Name, Result<Vec<IpAddr>, String>),
}
