//! The background thread: trims what commits left behind, runs the automatic
//! vacuum, ends turns at the gate that nobody uses.
//!
//! It starts when there is first something for it to do, so that a small
//! database has no thread, sleeps until there is, and is joined when the database
//! is dropped. It holds the database weakly.

use crate::db::Shared;
use crate::error::FluxError;
use crate::key::{Key, Value};
use crate::sync::thread::{self, JoinHandle};
use crate::sync::{Condvar, Mutex};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

#[derive(Default)]
pub(crate) struct Worker {
    signal: Arc<Signal>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct Signal {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    woken: bool,
    stopped: bool,
}

impl Worker {
    /// Makes the thread look for work, and starts it if it is not there.
    pub(crate) fn wake<K: Key, V: Value>(&self, shared: &Arc<Shared<K, V>>) -> Result<(), FluxError> {
        let mut thread = self.thread.lock();
        if thread.as_ref().is_none_or(JoinHandle::is_finished) {
            let (signal, weak) = (Arc::clone(&self.signal), Arc::downgrade(shared));
            let started = thread::Builder::new()
                .name("fluxmap-worker".to_string())
                .spawn(move || run(&signal, &weak))
                .map_err(|error| {
                    FluxError::Configuration(format!("the background thread could not be started: {error}"))
                })?;
            *thread = Some(started);
        }
        drop(thread);
        self.signal.state.lock().woken = true;
        self.signal.changed.notify_one();
        Ok(())
    }

    /// Ends the thread and waits until it has. It can be woken again.
    pub(crate) fn stop(&self) {
        // Not held while joining: what the thread drops may want to wake it.
        let Some(thread) = self.thread.lock().take() else {
            return;
        };
        self.signal.state.lock().stopped = true;
        self.signal.changed.notify_one();
        // The last reference to a database can be dropped by its own worker.
        if thread.thread().id() != thread::current().id() && thread.join().is_err() {
            tracing::error!("the background thread of a database had panicked");
        }
        self.signal.state.lock().stopped = false;
    }
}

fn run<K: Key, V: Value>(signal: &Signal, database: &Weak<Shared<K, V>>) {
    loop {
        let deadline = match database.upgrade() {
            Some(shared) => shared.background_step(Instant::now()),
            None => return,
        };
        let mut state = signal.state.lock();
        while !state.woken && !state.stopped {
            match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
                None => signal.changed.wait(&mut state),
                Some(left) if left.is_zero() => break,
                Some(left) => {
                    signal.changed.wait_for(&mut state, left);
                }
            }
        }
        if state.stopped {
            return;
        }
        state.woken = false;
    }
}

/// Something that comes round in regular intervals.
pub(crate) struct Schedule {
    every: Duration,
    /// `None`: so far in the future that no clock will show it.
    next: Mutex<Option<Instant>>,
}

impl Schedule {
    pub(crate) fn every(every: Duration) -> Self {
        Schedule { every, next: Mutex::new(Instant::now().checked_add(every)) }
    }

    /// When it is due next, after it has been attended to at `now`.
    pub(crate) fn next_after(&self, now: Instant) -> Option<Instant> {
        let mut next = self.next.lock();
        if next.is_some_and(|next| next <= now) {
            *next = now.checked_add(self.every);
        }
        *next
    }
}
