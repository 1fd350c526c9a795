//! Building blocks for testing applications on FluxMap. FluxMap's own tests use them, too.
//!
//! # How do I test my application?
//!
//! Run the whole application in a [`Simulation`](simulation::Simulation): in one thread, in virtual
//! time, on a disk that crashes. A run follows from a seed, and can be replayed. The module
//! [`simulation`] has an example. A larger one is in `tests/job_queue`: a job queue whose bugs the
//! simulation finds.
//!
//! # How do I test it on threads?
//!
//! Use a [`SimDisk`](disk::SimDisk) alone. It is a [`Disk`](fluxmap::disk::Disk) for
//! [`DatabaseBuilder::disk`](fluxmap::DatabaseBuilder::disk) that loses, tears and reorders unsynced
//! writes, fails, fills up and stalls. Its state at any call can be inspected.
//!
//! # How do I test a store, or a wrapper around one?
//!
//! Implement the trait [`driver::Store`] for it. The checkers know no other interface, so they can
//! check a database, a model, or a wrapper that is broken on purpose, to see that the checker
//! finds the fault.
//!
//! | question | module |
//! |---|---|
//! | Which transactions run? | [`workload`] |
//! | How are they run on threads, and how is the history recorded? | [`driver`] |
//! | What did a transaction do, and what is its effect on a map? | [`op`] |
//! | Is this concurrent history strictly serializable? | [`history`] |
//! | What must every read of an interleaving return, and who may commit? | [`model`] |
//! | Is this small history serializable? (tries every order) | [`serial`] |
//!
//! # How do I test panics, leaks and dropped futures?
//!
//! | question | module |
//! |---|---|
//! | Was every value dropped exactly once? | [`ledger`] |
//! | What if a key's or a value's own code panics? | [`hostile`] |
//! | What if a future is dropped half way? | [`polling`] |
//!
//! # What follows from a seed?
//!
//! In a simulation, the whole run follows from the seed. In tests on threads, only the random choices
//! of the test do: the operating system schedules the threads. Seeds come from the environment: see
//! [`workload`].

#![deny(missing_docs)]
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
pub mod simulation;
pub mod workload;

/// The example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
