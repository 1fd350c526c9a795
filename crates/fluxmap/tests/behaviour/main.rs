//! The behaviour of the library, a module for each subject. They are one program, because each program
//! of tests takes longer to build than most of these take to run.
//!
//! Tests that need a process of their own are beside this directory: `footprint` and `rss` measure what
//! the process takes, `kill` kills it, `histories` is also run optimized, and `tidy` reads source code.

mod common;

mod anomalies;
mod background;
mod backups;
mod cancellation;
mod certification;
mod closing;
mod codecs;
mod corners;
mod crash;
mod damage;
mod diagnostics;
mod driven;
mod durability;
mod early_stop;
mod eviction;
mod expiry;
mod extremes;
mod failures;
mod fields;
mod get_many;
mod golden;
mod hostile_types;
mod inspect;
mod key_forms;
mod large;
mod lawless_keys;
mod like_0_3;
mod limit;
mod listeners;
mod many_keys;
mod memory;
mod model;
mod own_conflicts;
mod panics;
mod phantoms;
mod priority;
mod progress;
mod runtimes;
mod shrinking;
mod snapshot_age;
mod unencodable;
mod user_code;
mod visit;
