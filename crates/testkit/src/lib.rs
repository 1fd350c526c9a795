//! What FluxMap's own tests are built from. Nothing here knows the store: a test
//! brings it in through the [`driver::Store`] trait, so that every checker can be
//! pointed at the real database, at a model, or at a deliberately broken wrapper.
//! Only the simulated disk knows FluxMap's traits for disks, which it implements.
//!
//! | question | room |
//! |---|---|
//! | What did a transaction do, and what does it do to a map? | [`op`] |
//! | What must every read of an interleaving return, and who may commit? | [`model`] |
//! | Is this small history serializable, by trying every order? | [`serial`] |
//! | Is this concurrent history strictly serializable? | [`history`] |
//! | Which transactions shall the threads run? | [`workload`] |
//! | How are they run, and how is the history recorded? | [`driver`] |
//! | Was every value dropped exactly once; what if user code panics? | [`ledger`], [`hostile`] |
//! | What happens when a future is dropped half way? | [`polling`] |
//! | What is left after a power loss, a crash at any call, a disk that fails? | [`disk`] |

#![forbid(unsafe_code)]

pub mod disk;
pub mod driver;
pub mod history;
pub mod hostile;
pub mod ledger;
pub mod model;
pub mod op;
pub mod polling;
pub mod serial;
pub mod workload;
