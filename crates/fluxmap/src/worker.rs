//! The worker: trims old versions that commits left, runs the automatic vacuum, and ends priority leases
//! that have run out of time.
//!
//! It starts when it first has something to do, so that a small database has no thread. It sleeps while
//! there is nothing to do, and ends when the database is dropped. It holds the database weakly.

use crate::error::FluxError;
use crate::host::Host;
use crate::jobs::{Done, Job, Running};
use crate::key::{Key, Value};
use crate::shared::Core;
use crate::sync::{Instant, Mutex};
use crate::txn::own;
use std::sync::{Arc, Weak};
use std::time::Duration;

#[derive(Default)]
pub(crate) struct Worker {
    running: Mutex<Option<Running>>,
}

impl Worker {
    /// Makes the worker look for work, and starts it if it is not running.
    pub(crate) fn wake<K: Key, V: Value>(&self, core: &Arc<Core<K, V>>) -> Result<(), FluxError> {
        let mut running = self.running.lock();
        if let Some(running) = &*running {
            running.ring();
            return Ok(());
        }
        // A new worker looks for work at once.
        let job = WorkerJob { database: Arc::downgrade(core) };
        let started = core.host().start("fluxmap-worker", &Arc::default(), job).map_err(|error| {
            FluxError::Configuration(format!("the background thread could not be started: {error}"))
        })?;
        *running = Some(started);
        Ok(())
    }

    /// Returns whether this is the worker's own thread, on which listeners and destructors may run.
    pub(crate) fn is_on_this_thread(&self) -> bool {
        self.running.lock().as_ref().is_some_and(Running::is_on_this_thread)
    }

    /// Ends the worker and waits until it has ended. Waking starts another one.
    pub(crate) fn stop(&self) {
        // Do not hold the lock while stopping: a value that the worker drops may want to wake it.
        let running = self.running.lock().take();
        match running {
            // A fork has not copied the thread, so joining it would never end.
            Some(running) if running.is_elsewhere() => std::mem::forget(running),
            Some(running) => running.stop(),
            None => {}
        }
    }
}

struct WorkerJob<K: Key, V: Value> {
    database: Weak<Core<K, V>>,
}

impl<K: Key, V: Value> Job for WorkerJob<K, V> {
    fn step(&mut self) -> Done {
        // The worker ends leases, and runs destructors of values, which may commit: they must not wait
        // for a lease that only the worker ends.
        own::pass_always(|| match self.database.upgrade() {
            Some(core) => Done::Idle(core.background_step(core.host().now())),
            None => Done::Ended,
        })
    }
}

/// An event in regular intervals.
pub(crate) struct Schedule {
    every: Duration,
    /// `None` if the time is beyond the range of the clock.
    next: Mutex<Option<Instant>>,
}

impl Schedule {
    pub(crate) fn every(every: Duration, host: &Host) -> Self {
        Schedule { every, next: Mutex::new(host.now().checked_add(every)) }
    }

    /// Returns when the event is due next, after it has been handled at `now`.
    pub(crate) fn next_after(&self, now: Instant) -> Option<Instant> {
        let mut next = self.next.lock();
        if next.is_some_and(|next| next <= now) {
            *next = now.checked_add(self.every);
        }
        *next
    }
}
