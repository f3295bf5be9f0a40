//! leno-core.
