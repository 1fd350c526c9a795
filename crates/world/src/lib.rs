//! Simulates databases over their whole lives. A *life* lasts from opening a database to its close,
//! its drop or a crash.
//!
//! A seed draws a *world*: how its databases are configured, which operations their clients run, which
//! faults the disk has, when the process or the power dies, and every choice of the schedule
//! in between. The engine is the one that users run, compiled on the locks, atomics, threads
//! and clocks of the model checker shuttle (`crates/shuttle`), so that a whole world runs
//! on one thread and the seed replays it, step by step.
//!
//! | question | module |
//! |---|---|
//! | What does a seed draw? | [`plan`] |
//! | Which thread runs next? | `schedule` |
//! | What do clients do, and what must they see? | `client`, `script`, `single`, `bulk`, `reads`, `pen` |
//! | What may be seen at which timestamp, and what must survive? | `timeline` |
//! | When must a value expire? | `expiry` |
//! | What does a lease promise? | `transact` |
//! | How does a life begin and end? | `life` |
//! | What is the result of a world, and how is a failing world made smaller? | [`run`], `shrink` |
//!
//! ARCHITECTURE.md lists the checks, and the faults that were planted to see whether the checks find
//! them.

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
