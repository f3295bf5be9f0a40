//! Idle streams: something must come or go now and then, or the stream ends.

use std::cell::Cell;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// When the last byte of a stream came or went, and how long ago that may be.
#[derive(Debug)]
pub struct Idle {
    last: Cell<Instant>,
    limit: Duration,
}

impl Idle {
    /// The last byte has come or gone just now.
    pub fn new(limit: Duration) -> Rc<Self> {
        Rc::new(Self { last: Cell::new(Instant::now()), limit })
    }

    /// A byte has come or gone.
    pub fn touch(&self) {
        self.last.set(Instant::now());
    }

    /// Ends when nothing has come or gone for too long.
    async fn expired(&self) {
        loop {
            let last = self.last.get();
            sleep_until(last + self.limit).await;
            if self.last.get() == last {
                return;
            }
        }
    }
}

/// Does `work` while something comes or goes; `None` when nothing did for too long. Without `idle`, for as long as it takes.
pub(crate) async fn within<T>(idle: Option<&Rc<Idle>>, work: impl Future<Output = T>) -> Option<T> {
    let Some(idle) = idle else { return Some(work.await) };
    let (mut work, mut expired) = (pin!(work), pin!(idle.expired()));
    std::future::poll_fn(|cx| match work.as_mut().poll(cx) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending => expired.as_mut().poll(cx).map(|()| None),
    })
    .await
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn work_goes_on_while_something_moves_and_ends_when_nothing_does() {
        let idle = Idle::new(Duration::from_secs(5));
        let start = Instant::now();
        let work = async {
            for _ in 0..10 {
                sleep(Duration::from_secs(4)).await;
                idle.touch();
            }
            std::future::pending::<()>().await;
        };
        assert_eq!(within(Some(&idle), work).await, None);
        assert_eq!(start.elapsed().as_secs(), 45);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_limit_work_takes_its_time() {
        let work = async {
            sleep(Duration::from_secs(86_400)).await;
            7
        };
        assert_eq!(within(None, work).await, Some(7));
    }
}
