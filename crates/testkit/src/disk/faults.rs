//! What a test tells the disk to do, and asks of it.

use std::io;
use std::time::Duration;

use super::SimDisk;
use super::state::{Failure, State};

/// Faults. Calls are counted from now on: the next one is the first. Those that
/// change something count, which are `create_dir`, `open` of a new file, `write_at`,
/// `sync`, `rename`, `remove`, `sync_dir` and `lock`; see [`SimDisk::count_reads`]
/// for the others.
impl SimDisk {
    /// How many calls were counted so far.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.state().calls
    }

    /// From now on the calls that change nothing count too, and so can fail or crash.
    pub fn count_reads(&self, on: bool) {
        self.state().count_reads = on;
    }

    /// Lets the `n`-th call from now fail.
    ///
    /// A write that fails may have written a part. After a sync that fails, what it
    /// was to sync is doomed: reads see it, but no later sync makes it durable, so
    /// that a power loss may take it until it is written again.
    ///
    /// # Panics
    ///
    /// If `n` is 0.
    pub fn fail_once(&self, n: u64, kind: io::ErrorKind) {
        let mut state = self.state();
        let call = nth(&state, n);
        state.failures.push(Failure { first: call, last: call, kind });
    }

    /// Lets the `n`-th call from now fail, and all that follow it.
    ///
    /// # Panics
    ///
    /// If `n` is 0.
    pub fn fail_from(&self, n: u64, kind: io::ErrorKind) {
        let mut state = self.state();
        let first = nth(&state, n);
        state.failures.push(Failure { first, last: u64::MAX, kind });
    }

    /// Lets the machine crash at the `n`-th call from now: it has no effect and fails,
    /// and so do all that follow. See [`frozen`](Self::frozen).
    ///
    /// # Panics
    ///
    /// If `n` is 0.
    pub fn crash_at(&self, n: u64) {
        let mut state = self.state();
        state.crash_at = Some(nth(&state, n));
        state.frozen = None;
    }

    /// Takes back every failure and crash that was planned. An instant that was frozen
    /// stays.
    pub fn clear_faults(&self) {
        let mut state = self.state();
        state.failures.clear();
        state.crash_at = None;
    }

    /// Whether it has come to the crash that was planned.
    #[must_use]
    pub fn has_crashed(&self) -> bool {
        self.state().frozen.is_some()
    }

    /// The disk at the instant of the crash, if it came to it: a new one, as it was
    /// just before the call. The process and the power are still to die; see
    /// [`process_death`](Self::process_death) and [`power_cut`](Self::power_cut).
    #[must_use]
    pub fn frozen(&self) -> Option<Self> {
        let state = self.state();
        let frozen = state.frozen.as_ref()?;
        Some(Self::from_state(State::new(state.seed, frozen.before.clone())))
    }

    /// As [`frozen`](Self::frozen), but amid the call: a write is there, whole or its
    /// beginning, as one more that is not synced; so is a new name. Of a sync there is
    /// nothing, since what it was to make durable may be so or not anyhow.
    #[must_use]
    pub fn frozen_midway(&self) -> Option<Self> {
        let state = self.state();
        let frozen = state.frozen.as_ref()?;
        Some(Self::from_state(State::new(state.seed, frozen.midway.clone())))
    }

    /// How many bytes all files together may have. A write beyond that fails with
    /// [`io::ErrorKind::StorageFull`], and may have written what fits, or less.
    pub fn set_capacity(&self, bytes: u64) {
        self.state().capacity = bytes;
    }

    /// How many bytes all files have together.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.state().used()
    }

    /// Refuses all changes with [`io::ErrorKind::PermissionDenied`], and to open for
    /// writing, but for syncs.
    pub fn set_read_only(&self, on: bool) {
        self.state().read_only = on;
    }

    /// Holds up `write_at`, `sync` and `sync_dir` until it is called with `false`.
    /// They are counted when they go on.
    pub fn stall(&self, on: bool) {
        self.state().stalling = on;
        self.shared.released.notify_all();
    }

    /// How many calls are held up.
    #[must_use]
    pub fn stalled(&self) -> usize {
        self.state().stalled
    }

    /// Waits until at least `n` calls are held up, and returns whether it came to
    /// that within the time.
    #[must_use]
    pub fn wait_stalled(&self, n: usize, time: Duration) -> bool {
        let few = |state: &mut State| state.stalled < n;
        let waited = self.shared.arrived.wait_timeout_while(self.state(), time, few);
        waited.is_ok_and(|(_, timeout)| !timeout.timed_out())
    }

    /// The calls that were counted, the earliest first, with what they returned. Those
    /// of long ago are forgotten.
    #[must_use]
    pub fn trace(&self) -> Vec<String> {
        self.state().trace.iter().cloned().collect()
    }
}

/// The number of the `n`-th call from now.
fn nth(state: &State, n: u64) -> u64 {
    assert!(n > 0, "the next call is the first, there is none before it");
    state.calls.saturating_add(n)
}
