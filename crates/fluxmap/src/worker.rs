//! The background thread: trims what commits left behind, runs the automatic
//! vacuum, ends priority leases whose time is over.
//!
//! It starts when there is first something for it to do, so that a small
//! database has no thread, sleeps until there is, and is joined when the database
//! is dropped. It holds the database weakly.

use crate::error::FluxError;
use crate::key::{Key, Value};
use crate::shared::Core;
use crate::sync::thread::{self, JoinHandle};
use crate::sync::{Condvar, Instant, Mutex};
use crate::txn::own;
use std::sync::{Arc, Weak};
use std::time::Duration;

#[derive(Default)]
pub(crate) struct Worker {
    running: Mutex<Option<Running>>,
}

/// A thread that is there, and what it listens to.
struct Running {
    signal: Arc<Signal>,
    thread: JoinHandle<()>,
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

impl Signal {
    fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock());
        self.changed.notify_one();
    }
}

impl Worker {
    /// Makes the thread look for work, and starts it if it is not there.
    pub(crate) fn wake<K: Key, V: Value>(&self, core: &Arc<Core<K, V>>) -> Result<(), FluxError> {
        let mut running = self.running.lock();
        if let Some(running) = &*running {
            running.signal.set(|state| state.woken = true);
            return Ok(());
        }
        // It looks for work as it starts.
        let signal = Arc::new(Signal::default());
        let (listener, database) = (Arc::clone(&signal), Arc::downgrade(core));
        let builder = thread::Builder::new().name("fluxmap-worker".to_string());
        let thread = builder.spawn(move || run(&listener, &database)).map_err(|error| {
            FluxError::Configuration(format!("the background thread could not be started: {error}"))
        })?;
        *running = Some(Running { signal, thread });
        Ok(())
    }

    /// Ends the thread and waits until it has. Waking starts another.
    pub(crate) fn stop(&self) {
        // Not locked while joining: what the thread drops may want to wake it.
        let Some(Running { signal, thread }) = self.running.lock().take() else {
            return;
        };
        signal.set(|state| state.stopped = true);
        // The last handle of a database can be dropped by a value that its own
        // worker drops.
        if thread.thread().id() != thread::current().id() && thread.join().is_err() {
            tracing::error!("the background thread of a database had panicked");
        }
    }
}

fn run<K: Key, V: Value>(signal: &Signal, database: &Weak<Core<K, V>>) {
    own::pass_always();
    loop {
        let deadline = match database.upgrade() {
            Some(core) => core.background_step(Instant::now()),
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
