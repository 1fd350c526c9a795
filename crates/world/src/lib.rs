//! Whole lives of databases under simulation.
//!
//! A seed draws a *world*: how its databases are configured, what their clients do, which
//! faults the disk has, when the process or the power dies, and every choice of the schedule
//! in between. The engine is the one that users run, compiled on the locks, atomics, threads
//! and clocks of the model checker shuttle (`crates/shuttle`), so that all of a world happens
//! on one thread and the seed replays it, step by step.
//!
//! | question | room |
//! |---|---|
//! | What does a seed draw? | [`plan`] |
//! | Which thread runs next? | `schedule` |
//! | What do clients do, and what must they see? | `client`, `script`, `single`, `bulk`, `reads`, `pen` |
//! | What may be seen at which timestamp, and what must survive? | `timeline` |
//! | When must a value expire? | `expiry` |
//! | What does a lease promise? | `transact` |
//! | How does one life begin and end? | `life` |
//! | What did a world come to, and how is a failure made small? | [`run`], `shrink` |
//!
//! What it checks is listed in ARCHITECTURE.md, with the faults that were planted to see that
//! it finds them.

#![forbid(unsafe_code)]

mod board;
mod bulk;
mod chores;
mod client;
mod disk;
mod expiry;
mod files;
mod life;
mod pen;
pub mod plan;
mod reads;
mod rest;
pub mod run;
mod schedule;
mod script;
mod single;
mod timeline;
mod transact;
mod value;
