//! An object that a person wrote: its present version, and the last good one, which holds while the present one is bad.

use std::sync::Arc;

use crate::age::Age;

/// One MeshService, TrafficPolicy or SecurityPolicy, `T` being what a good version of it means.
#[derive(Debug, PartialEq)]
pub(crate) struct Tracked<T> {
    /// How old the object is.
    pub(crate) age: Age,
    /// `metadata.generation` of the present version.
    pub(crate) generation: Option<i64>,
    /// The last good version; `None` when there was none yet.
    pub(crate) good: Option<Good<T>>,
    /// What is wrong with the present version; empty when it is the good one.
    pub(crate) problems: Vec<String>,
}

/// A good version.
#[derive(Debug, PartialEq)]
pub(crate) struct Good<T> {
    /// Its `metadata.generation`.
    pub(crate) generation: Option<i64>,
    /// What it means.
    pub(crate) value: Arc<T>,
}

impl<T> Tracked<T> {
    /// The object after a new version of it was read: the version's meaning, or what is wrong with it.
    pub(crate) fn next(before: Option<&Self>, age: Age, generation: Option<i64>, read: Result<T, Vec<String>>) -> Self {
        match read {
            Ok(value) => Self { age, generation, good: Some(Good { generation, value: Arc::new(value) }), problems: Vec::new() },
            Err(problems) => Self { age, generation, good: before.and_then(|it| it.good.as_ref()).map(Good::shared), problems },
        }
    }

    /// The object after a version of it that did not decode.
    pub(crate) fn unreadable(before: Option<&Self>, generation: Option<i64>, error: String) -> Self {
        let age = before.map(|it| it.age).unwrap_or_default();
        Self::next(before, age, generation, Err(vec![error]))
    }

    /// What the object means now, if it ever meant something.
    pub(crate) fn value(&self) -> Option<&Arc<T>> {
        self.good.as_ref().map(|good| &good.value)
    }
}

impl<T> Good<T> {
    fn shared(&self) -> Self {
        Self { generation: self.generation, value: Arc::clone(&self.value) }
    }
}
