//! Ordered multi-version index.
