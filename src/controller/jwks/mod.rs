//! Keys of token issuers (`SecurityPolicy.spec.jwt[].jwksUri`): fetched where the publisher wants them, and handed to it as events.
//!
//! Every replica fetches for itself. What was fetched once stays while the server is down: that is the translator's part, which is
//! told of every failure only to say so. [`crate::schedule`] decides when, [`fetch`] does it once.

mod fetch;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use leno_core::names::Name;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use self::fetch::Fetcher;
use crate::schedule::Schedule;
use crate::source::SourceEvent;

/// How long fetched keys go without being asked for again: within this time a key that its issuer withdrew is withdrawn here.
const REFRESH: Duration = Duration::from_mins(5);
/// Servers that are asked at a time.
const FETCHES_MAX: usize = 8;

/// Fetches what `wanted` names, for as long as somebody listens to `events`.
pub async fn run(mut wanted: watch::Receiver<BTreeSet<Name>>, events: mpsc::Sender<SourceEvent>) {
    let fetcher = Arc::new(Fetcher::default());
    let (mut schedule, mut fetches) = (Schedule::new(REFRESH), JoinSet::new());
    schedule.want(&wanted.borrow_and_update(), Instant::now());
    loop {
        let room = FETCHES_MAX - fetches.len();
        for uri in schedule.take_due(Instant::now(), room) {
            let fetcher = Arc::clone(&fetcher);
            fetches.spawn(async move {
                let fetched = fetcher.fetch(&uri).await;
                (uri, fetched)
            });
        }
        let next = schedule.next().filter(|_| fetches.len() < FETCHES_MAX);
        tokio::select! {
            changed = wanted.changed() => {
                if changed.is_err() {
                    return; // The publisher has ended.
                }
                schedule.want(&wanted.borrow_and_update(), Instant::now());
            }
            Some(Ok((uri, fetched))) = fetches.join_next(), if !fetches.is_empty() => {
                schedule.done(&uri, fetched.is_ok(), Instant::now());
                if let Err(error) = &fetched {
                    tracing::warn!(%uri, %error, "cannot fetch the keys of a token issuer; those that are known stay");
                }
                let fetched = fetched.map_err(|error| error.to_string());
                if events.send(SourceEvent::Keys(uri, fetched)).await.is_err() {
                    return;
                }
            }
            () = tokio::time::sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => (),
        }
    }
}
