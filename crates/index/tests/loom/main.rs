//! Models of the index for loom, which runs each under every interleaving (up
//! to a number of preemptions) and every outcome of a load that the memory model
//! allows. Run by `scripts/loom.sh`; empty in any other build.

#![cfg(loom)]

mod order;
mod points;
mod quarantine;
mod reclaim;
#[cfg(wide)]
mod shifts;
mod support;
mod versions;
