//! leno-cli.
