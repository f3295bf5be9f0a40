//! leno-xds.
