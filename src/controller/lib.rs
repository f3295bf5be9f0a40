//! leno-controller.
