//! The demo's little services: hidden commands of `leno`, started by `leno up -f manifests/demo`.

pub mod app;
pub mod client;
pub mod traffic;

use std::time::Duration;

fn duration(text: &str) -> Result<Duration, String> {
    leno_api::Duration(text.to_owned()).parse().map_err(|error| error.to_string())
}
