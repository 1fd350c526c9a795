//! Databases on a simulated disk that crashes, fails, fills up and stalls, at every call and with
//! every choice of what survives.
//!
//! | question | module |
//! |---|---|
//! | Is a scripted run recovered after a crash at any call, again and again? | [`every_call`] |
//! | Is a run of several threads recovered? | [`threads`] |
//! | What if a call fails, once or for good? | [`failing`] |
//! | What if the disk is full, read-only, or in use? | [`refused`] |
//! | What if the disk is slower than the writers? | [`pressure`] |
//! | Does a read or an acknowledgement reveal a commit that a crash can undo? | [`visibility`] |
//! | Does a database end promptly? | [`endings`] |
//! | What if a database is opened as something else, or a value cannot be stored? | [`mismatch`] |
//!
//! All choices follow from one seed, which a failure prints. Set `FLUXMAP_SEED` to repeat them, and
//! `FLUXMAP_CALL` to crash at this call only. The schedule of threads does not follow from the
//! seed, so a failure with threads may need several repetitions: `FLUXMAP_SCALE` multiplies the
//! runs of the randomized tests. The scripted tests crash at every call and draw at random what
//! survives.

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
