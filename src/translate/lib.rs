//! Kubernetes objects to the core's model, one service at a time.
//!
//! [`Translator`] is fed with changes of objects, in any order, and says after each one what it touched; the present value of
//! a service, of its endpoints or of a workload is computed when it is asked for. It never fails as a whole: an object that
//! cannot be used becomes a [`Report`], its last good version stays in force, and everything else goes on.
//!
//! Reading order: [`object`], [`translator`], [`report`].

pub mod object;
pub mod report;
pub mod touched;
pub mod translator;

pub use object::{Change, Kind, Object, ObjectKey};
pub use report::{Condition, EndpointCounts, Report};
pub use touched::Touched;
pub use translator::Translator;
