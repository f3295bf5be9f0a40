//! Limits of time for what is mostly there at once: no timer is made, and no clock asked, before there is something to wait for.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Sleep, sleep};

/// What `work` gives; `None` when it takes longer than `limit` from the moment at which it has to wait.
pub(crate) async fn within<T>(limit: Duration, work: impl Future<Output = T>) -> Option<T> {
    let (mut work, mut over) = (pin!(work), pin!(None::<Sleep>));
    poll_fn(|cx| {
        if let Poll::Ready(done) = work.as_mut().poll(cx) {
            return Poll::Ready(Some(done));
        }
        if over.is_none() {
            over.set(Some(sleep(limit)));
        }
        over.as_mut().as_pin_mut().map_or(Poll::Pending, |over| over.poll(cx)).map(|()| None)
    })
    .await
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, sleep};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_takes_too_long_is_given_up_and_what_does_not_is_not() {
        let start = Instant::now();
        assert_eq!(within(Duration::from_secs(2), std::future::pending::<()>()).await, None);
        assert_eq!(start.elapsed().as_secs(), 2);
        let work = async {
            sleep(Duration::from_secs(1)).await;
            7
        };
        assert_eq!(within(Duration::from_secs(2), work).await, Some(7));
        assert_eq!(within(Duration::ZERO, async { 7 }).await, Some(7), "there at once");
    }
}
