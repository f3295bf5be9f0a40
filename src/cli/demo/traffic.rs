//! `leno demo-traffic`: calls services of the mesh, so that there is something to see.

use std::str::FromStr;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use http::Uri;
use tokio::time::MissedTickBehavior;

use super::client::Client;

/// Arguments of `leno demo-traffic`.
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// Calls in a second
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    per_second: u32,
    /// What to call, one after the other: URL or URL,NAME:VALUE with a header field
    #[arg(long = "call", required = true)]
    calls: Vec<Call>,
}

/// One thing to call.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Call {
    url: Uri,
    field: Option<(String, String)>,
}

impl FromStr for Call {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (url, field) = text.split_once(',').map_or((text, None), |(url, field)| (url, Some(field)));
        let url: Uri = url.parse().with_context(|| format!("{url:?} is no URL"))?;
        let field = field.map(|field| field.split_once(':').context("write a header field as NAME:VALUE")).transpose()?;
        Ok(Self { url, field: field.map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned())) })
    }
}

/// Calls until the process is ended. Tells when calls begin to fail and when they succeed again.
///
/// # Errors
/// When the process was not started by `leno up`.
#[expect(clippy::print_stdout, reason = "`leno up` shows it")]
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut client = Client::from_env()?;
        let mut ticks = tokio::time::interval(Duration::from_secs(1) / arguments.per_second);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut failing = false;
        for call in arguments.calls.iter().cycle() {
            ticks.tick().await;
            let field = call.field.as_ref().map(|(name, value)| (name.as_str(), value.as_str()));
            let failure = match client.get(&call.url, field).await {
                Ok((status, _)) if status.is_success() => None,
                Ok((status, said)) => Some(format!("{} answers {status}: {said}", call.url)),
                Err(error) => Some(format!("{} cannot be called: {error:#}", call.url)),
            };
            match (&failure, failing) {
                (Some(failure), false) => println!("{failure}"),
                (None, true) => println!("{} answers again", call.url),
                (Some(_), true) | (None, false) => {}
            }
            failing = failure.is_some();
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_a_url_perhaps_with_a_header_field() {
        let call: Call = "http://payment/a,x-user-type: premium".parse().unwrap();
        assert_eq!((call.url.path(), call.field), ("/a", Some(("x-user-type".to_owned(), "premium".to_owned()))));
        assert_eq!("http://payment/".parse::<Call>().unwrap().field, None);
        assert!("http://payment/,premium".parse::<Call>().is_err());
    }
}
