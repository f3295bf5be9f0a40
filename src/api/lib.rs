//! leno-api.
