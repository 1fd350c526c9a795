//! Planned faults, stalls and limits of the simulated disk, and the record of its calls.

use std::io;
use std::time::Duration;

use super::SimDisk;
use super::state::{Failure, State};

/// Faults. An argument `n` numbers the calls from now on: the next call is the first. Only calls that
/// change something count: `create_dir`, `open` with [`OpenMode::Create`](fluxmap::disk::OpenMode::Create),
/// `write_at`, `sync`, `rename`, `remove`, `sync_dir` and `lock`. [`SimDisk::count_reads`] makes the other
/// calls count, too.
impl SimDisk {
    /// The number of calls counted so far.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.state().calls
    }

    /// Whether calls that change nothing count from now on, too, and so can fail or crash.
    pub fn count_reads(&self, on: bool) {
        self.state().count_reads = on;
    }

    /// Makes the `n`-th call from now fail.
    ///
    /// A write that fails may have written a part. A sync that fails dooms the changes that it should
    /// have synced: reads see them, but no later sync makes them durable. A power loss may undo them
    /// until they are written again.
    ///
    /// # Panics
    ///
    /// If `n` is 0.
    pub fn fail_once(&self, n: u64, kind: io::ErrorKind) {
        let mut state = self.state();
        let call = nth(&state, n);
        state.failures.push(Failure { first: call, last: call, kind });
    }

    /// Makes the `n`-th call from now and all calls after it fail.
    ///
    /// # Panics
    ///
    /// If `n` is 0.
    pub fn fail_from(&self, n: u64, kind: io::ErrorKind) {
        let mut state = self.state();
        let first = nth(&state, n);
        state.failures.push(Failure { first, last: u64::MAX, kind });
    }

    /// Makes the machine crash at the `n`-th call from now. This call and all counted calls after it
    /// fail and have no effect. See [`frozen`](Self::frozen).
    ///
    /// # Panics
    ///
    /// If `n` is 0.
    pub fn crash_at(&self, n: u64) {
        let mut state = self.state();
        state.crash_at = Some(nth(&state, n));
        state.frozen = None;
    }

    /// Cancels all planned failures and crashes. A state that a crash has frozen is kept.
    pub fn clear_faults(&self) {
        let mut state = self.state();
        state.failures.clear();
        state.crash_at = None;
    }

    /// Whether the planned crash has happened.
    #[must_use]
    pub fn has_crashed(&self) -> bool {
        self.state().frozen.is_some()
    }

    /// A new disk in the state just before the call at which the machine crashed; `None` if there was
    /// no crash. The state does not yet reflect the death of the process or the loss of power: call
    /// [`process_death`](Self::process_death) or [`power_cut`](Self::power_cut) on it.
    #[must_use]
    pub fn frozen(&self) -> Option<Self> {
        let state = self.state();
        let frozen = state.frozen.as_ref()?;
        Some(Self::from_state(State::new(state.seed, frozen.before.clone())))
    }

    /// As [`frozen`](Self::frozen), but in the middle of the call. A write has happened up to some byte,
    /// and a change of names has happened; both are unsynced. A sync has had no effect: a power loss
    /// decides for each unsynced change whether it survives.
    #[must_use]
    pub fn frozen_midway(&self) -> Option<Self> {
        let state = self.state();
        let frozen = state.frozen.as_ref()?;
        Some(Self::from_state(State::new(state.seed, frozen.midway.clone())))
    }

    /// Limits the bytes of all files together. A write beyond the limit fails with
    /// [`io::ErrorKind::StorageFull`], and may have written the part that fits, or less.
    pub fn set_capacity(&self, bytes: u64) {
        self.state().capacity = bytes;
    }

    /// The bytes of all files together.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.state().used()
    }

    /// While on, refuses all changes except syncs, and opening a file for writing, with
    /// [`io::ErrorKind::PermissionDenied`].
    pub fn set_read_only(&self, on: bool) {
        self.state().read_only = on;
    }

    /// While on, holds up the threads that call `write_at`, `sync` and `sync_dir`. Calls that were held up
    /// go on, and are counted, after `stall(false)`, which another thread must call.
    ///
    /// A simulation has one thread, which would wait for itself. There,
    /// [`Simulation::stall_one_in`](crate::simulation::Simulation::stall_one_in) makes the disk slow: it
    /// holds up no thread, but lets virtual time pass while writes and syncs are waiting.
    ///
    /// # Panics
    ///
    /// If `on`, and the disk belongs to a [`Simulation`](crate::simulation::Simulation).
    pub fn stall(&self, on: bool) {
        let mut state = self.state();
        let refused = on && state.simulated;
        state.stalling = on && !refused;
        // Unlock first, so that a refusal leaves the disk usable.
        drop(state);
        assert!(
            !refused,
            "`SimDisk::stall` holds up threads, and would hold up the only thread of the simulation for \
             ever; `Simulation::stall_one_in` makes the disk of a simulation slow"
        );
        self.shared.released.notify_all();
    }

    /// The number of calls that a stall holds up now.
    #[must_use]
    pub fn stalled(&self) -> usize {
        self.state().stalled
    }

    /// Waits at most `time` until at least `n` calls are held up. Returns whether that happened.
    #[must_use]
    pub fn wait_stalled(&self, n: usize, time: Duration) -> bool {
        let few = |state: &mut State| state.stalled < n;
        let waited = self.shared.arrived.wait_timeout_while(self.state(), time, few);
        waited.is_ok_and(|(_, timeout)| !timeout.timed_out())
    }

    /// The counted calls with their results, the earliest first. Only the last 65,536 are kept.
    #[must_use]
    pub fn trace(&self) -> Vec<String> {
        self.state().trace.iter().cloned().collect()
    }
}

/// The number of the `n`-th call from now.
fn nth(state: &State, n: u64) -> u64 {
    assert!(n > 0, "`n` counts from 1: the next call is the first");
    state.calls.saturating_add(n)
}
