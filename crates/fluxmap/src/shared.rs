//! What a database is made of, shared by everything that works on it.

use crate::commit::Committer;
use crate::error::FluxError;
use crate::info::{IsolationLevel, VacuumOptions, VacuumStats};
use crate::key::{Key, Value};
use crate::txn::gate::Gate;
use crate::worker::{Schedule, Worker};
use fluxmap_index::Timestamp;
use std::sync::Arc;
use std::time::Instant;

/// What all clones, handles, transactions and snapshots of a database share.
pub(crate) struct Shared<K: Key, V: Value> {
    pub(crate) level: IsolationLevel,
    pub(crate) committer: Committer<K, V>,
    pub(crate) gate: Gate,
    worker: Worker,
    vacuum: Option<Schedule>,
}

/// Chains trimmed under one hold of the commit lock, outside commits.
const TRIM_STEP: usize = 256;

impl<K: Key, V: Value> Shared<K, V> {
    pub(crate) fn new(
        level: IsolationLevel,
        skiplist_p: f64,
        vacuum: Option<VacuumOptions>,
    ) -> Result<Arc<Self>, FluxError> {
        let shared = Arc::new(Shared {
            level,
            committer: Committer::new(skiplist_p),
            gate: Gate::default(),
            worker: Worker::default(),
            vacuum: vacuum.map(|options| Schedule::every(options.interval)),
        });
        if vacuum.is_some() {
            shared.wake_worker()?;
        }
        Ok(shared)
    }

    /// Ends background work and waits until it has ended.
    pub(crate) fn stop_worker(&self) {
        self.worker.stop();
    }

    /// Makes the background thread look for work.
    pub(crate) fn wake_worker(self: &Arc<Self>) -> Result<(), FluxError> {
        self.worker.wake(self)
    }

    /// What the background thread does when it wakes; returns when it is to wake
    /// next without being asked to.
    pub(crate) fn background_step(&self, now: Instant) -> Option<Instant> {
        self.gate.expire(now);
        let vacuum = self.vacuum.as_ref().and_then(|schedule| schedule.next_after(now));
        self.trim_everything();
        self.gate.deadline().into_iter().chain(vacuum).min()
    }

    /// Trims every chain that waits now, a step at a time.
    pub(crate) fn trim_everything(&self) -> VacuumStats {
        let mut left = self.committer.backlog();
        let mut stats = VacuumStats::default();
        while left > 0 {
            let (trimmed, _) = self.committer.trim(TRIM_STEP.min(left));
            stats.versions_removed += trimmed.versions;
            stats.keys_removed += trimmed.keys;
            left = if trimmed.visited == 0 { 0 } else { left - trimmed.visited.min(left) };
        }
        stats
    }

    /// A snapshot at this timestamp has ended.
    pub(crate) fn after_release(self: &Arc<Self>, timestamp: Timestamp) {
        if self.committer.is_blocker(timestamp)
            && let Err(error) = self.wake_worker()
        {
            tracing::warn!(%error, "old versions wait for the next commits");
        }
    }
}

impl<K: Key, V: Value> Drop for Shared<K, V> {
    fn drop(&mut self) {
        self.worker.stop();
    }
}
