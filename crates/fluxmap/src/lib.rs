//! FluxMap.
