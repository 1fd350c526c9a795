//! What tests of an application on FluxMap are made of, and FluxMap's own.
//!
//! # How do I test my application?
//!
//! As a whole, in one thread, in virtual time, on a disk that crashes: with a
//! [`Simulation`](simulation::Simulation). A run follows from a seed, and replays. The module
//! [`simulation`] has an example; a larger one, a job queue with bugs that are found, is in
//! `tests/job_queue`.
//!
//! # How do I test it on threads?
//!
//! With a [`SimDisk`](disk::SimDisk) alone, which is a [`Disk`](fluxmap::disk::Disk) for
//! [`DatabaseBuilder::disk`](fluxmap::DatabaseBuilder::disk): it loses, tears and reorders what
//! was not synced, fails, fills up, stands still, and can be looked at as of any call.
//!
//! # How do I test a store, or a wrapper around one?
//!
//! Nothing here knows the store: a test brings it in through the [`driver::Store`] trait, so
//! that every checker can be pointed at a database, at a model, or at a wrapper that is broken
//! on purpose, to see the checker find it.
//!
//! | question | room |
//! |---|---|
//! | Which transactions shall run? | [`workload`] |
//! | How are they run on threads, and how is the history recorded? | [`driver`] |
//! | What did a transaction do, and what does it do to a map? | [`op`] |
//! | Is this concurrent history strictly serializable? | [`history`] |
//! | What must every read of an interleaving return, and who may commit? | [`model`] |
//! | Is this small history serializable, by trying every order? | [`serial`] |
//!
//! # How do I test what goes wrong on the way?
//!
//! | question | room |
//! |---|---|
//! | Was every value dropped exactly once? | [`ledger`] |
//! | What if a key's or a value's own code panics? | [`hostile`] |
//! | What if a future is dropped half way? | [`polling`] |
//!
//! # What follows from a seed?
//!
//! In a simulation, everything. Elsewhere the choices that are drawn; threads take their turns
//! as they like. Seeds come from the environment: see [`workload`].

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
