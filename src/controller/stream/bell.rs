//! Which part of a connection's task was woken.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;

/// Wakes a task for one of the things that it looks at, which is then looked at; when the task is woken for others, it is not.
///
/// One that rang, or is muted, does not wake the task again before it was looked at. So what streams put into their connection, which
/// rings for it, does not make the task run once more only to find that all was written in the same turn.
#[derive(Debug)]
pub(super) struct Bell {
    ringer: Arc<Ringer>,
    waker: Waker,
}

#[derive(Debug)]
struct Ringer {
    has_rung: AtomicBool,
    task: AtomicWaker,
}

impl Wake for Ringer {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.has_rung.swap(true, Ordering::AcqRel) {
            self.task.wake();
        }
    }
}

impl Bell {
    /// A bell that has rung, as everything is to be looked at once.
    pub(super) fn new() -> Self {
        let ringer = Arc::new(Ringer { has_rung: AtomicBool::new(true), task: AtomicWaker::new() });
        Self { waker: Waker::from(ringer.clone()), ringer }
    }

    /// The task is at work and comes to [`Bell::look`] before it rests: it need not be woken.
    pub(super) fn mute(&self) {
        self.ringer.has_rung.fetch_or(true, Ordering::AcqRel);
    }

    /// Polls what the bell is for, if it rang or was muted. What rings from now on wakes the task.
    pub(super) fn look<R>(&self, context: &Context<'_>, poll: impl FnOnce(&mut Context<'_>) -> Poll<R>) -> Poll<R> {
        self.ringer.task.register(context.waker());
        if !self.ringer.has_rung.swap(false, Ordering::AcqRel) {
            return Poll::Pending;
        }
        poll(&mut Context::from_waker(&self.waker))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_task_is_woken_once_for_what_rang_and_not_for_what_it_will_look_at_anyway() {
        let (count, bell) = (Arc::new(Count::default()), Bell::new());
        let task = Waker::from(count.clone());
        let context = Context::from_waker(&task);
        let woken = || count.0.load(Ordering::Relaxed);
        let mut looked = 0;
        let mut look = |rings_itself: bool| {
            let before = looked;
            let _pending = bell.look(&context, |context| {
                looked += 1;
                if rings_itself {
                    context.waker().wake_by_ref();
                }
                Poll::<()>::Pending
            });
            looked > before
        };
        assert!(look(false), "at first");
        assert!(!look(false), "it did not ring");

        bell.waker.wake_by_ref();
        bell.waker.wake_by_ref();
        assert_eq!(woken(), 1, "the task has not come yet");
        assert!(look(false));

        bell.mute();
        bell.waker.wake_by_ref();
        assert_eq!(woken(), 1, "the task comes anyway");
        assert!(look(true));
        assert_eq!(woken(), 2, "what was looked at asks to be looked at again");
        assert!(look(false));
    }
}
