//! Reports the current step of a test when it fails, and when it hangs.

use std::fmt::Write as _;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long a test may go without a step. No step takes a tenth of this.
const LIMIT: Duration = Duration::from_secs(60);

/// Ends the program if a test hangs, and prints at which step a test failed.
pub(crate) struct Watch {
    shared: Arc<Shared>,
    watcher: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    doing: String,
    steps: u64,
    ended: bool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watch {
    pub(crate) fn start(test: &str) -> Self {
        let shared = Arc::new(Shared::default());
        let (watched, test) = (Arc::clone(&shared), test.to_owned());
        let watcher = std::thread::spawn(move || watch(&watched, &test));
        Watch { shared, watcher: Some(watcher) }
    }

    /// Replaces the description of the current step.
    pub(crate) fn doing(&self, what: impl FnOnce() -> String) {
        let mut state = self.shared.state();
        state.doing = what();
        state.steps += 1;
    }

    /// Adds a line to the description.
    pub(crate) fn and(&self, what: impl FnOnce() -> String) {
        let mut state = self.shared.state();
        let more = what();
        write!(state.doing, "\n  {more}").expect("a string takes it");
        state.steps += 1;
    }
}

fn watch(shared: &Shared, test: &str) {
    let mut state = shared.state();
    while !state.ended {
        let seen = state.steps;
        let idle = |state: &mut State| !state.ended && state.steps == seen;
        let waited = shared.changed.wait_timeout_while(state, LIMIT, idle);
        let (now, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        if timeout.timed_out() && now.steps == seen && !now.ended {
            eprintln!("{test} hangs: {}", now.doing);
            std::process::abort();
        }
        state = now;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        if std::thread::panicking() {
            eprintln!("while: {}", state.doing);
        }
        state.ended = true;
        drop(state);
        self.shared.changed.notify_all();
        if let Some(watcher) = self.watcher.take() {
            watcher.join().expect("the watcher does not panic");
        }
    }
}
