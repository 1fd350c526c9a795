//! Models of the index for loom, which runs each model under every interleaving (up
//! to a number of preemptions) and with every result of a load that the memory model
//! allows. `scripts/loom.sh` runs them; in any other build this file is empty.

#![cfg(loom)]

mod order;
mod points;
mod quarantine;
mod reclaim;
#[cfg(wide)]
mod shifts;
mod support;
mod versions;
