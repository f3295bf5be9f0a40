//! Decoding that takes what is there.

use std::net::IpAddr;

use serde::{Deserialize, Deserializer};

/// `null` is the default. (A nil slice of the API server's is `null`.)
pub(super) fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// The addresses among `texts`.
pub(super) fn addresses<'t>(texts: impl IntoIterator<Item = &'t str>) -> Box<[IpAddr]> {
    texts.into_iter().filter_map(|text| text.parse().ok()).collect()
}

/// `None` for the empty text.
pub(super) fn non_empty(text: String) -> Option<Box<str>> {
    (!text.is_empty()).then(|| text.into_boxed_str())
}

/// The port number, if it is one.
pub(super) fn port(number: i64) -> Option<u16> {
    u16::try_from(number).ok().filter(|port| *port != 0)
}
