//! Which of two objects is the older: the one that holds when both speak for one service.

/// When an object was made. The default, for objects of files, is older than every time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Age(Option<i64>);

impl Age {
    /// Of an object made at this second (`metadata.creationTimestamp`, which counts whole seconds).
    pub(crate) fn made_at(second: Option<i64>) -> Self {
        Self(second)
    }
}
