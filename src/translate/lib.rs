//! leno-translate.
