//! Multi-version concurrency control: the clock, the live snapshots, certification and garbage
//! collection.

pub(crate) mod active;
pub(crate) mod certify;
pub(crate) mod clock;
pub(crate) mod gc;
