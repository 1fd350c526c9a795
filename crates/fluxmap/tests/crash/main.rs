//! Databases on a simulated disk that crashes, fails, fills up and stalls: at every
//! call, and with every choice of what survives.
//!
//! | question | room |
//! |---|---|
//! | Is a scripted run recovered after a crash at any call, again and again? | [`every_call`] |
//! | And one of several threads? | [`threads`] |
//! | What if a call fails, once or for good? | [`failing`] |
//! | What if the disk is full, read-only, or in use? | [`refused`] |
//! | What if the disk is slower than those who write? | [`pressure`] |
//! | Who is shown, and told, what a crash can undo? | [`visibility`] |
//! | Does a database end promptly? | [`endings`] |
//! | What if it is opened as something else, or cannot be stored? | [`mismatch`] |
//!
//! All choices follow from one seed, which a failure prints: set `FLUXMAP_SEED` to
//! make them again, and `FLUXMAP_CALL` to crash at this call only (threads take their turns
//! as they like, so a failure may need some repetitions: `FLUXMAP_SCALE`, which multiplies
//! the runs of the tests that draw lots). The tests of scripts are exhaustive in the calls as
//! they are, and draw lots for what survives.

mod endings;
mod every_call;
mod failing;
mod mismatch;
mod pressure;
mod refused;
mod script;
mod support;
mod threads;
mod visibility;
mod watch;
