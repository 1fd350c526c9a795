//! The futures of a machine: sleeps, and the outputs of tasks.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::shared::{SimulationShared, lock};

/// The future of [`Machine::sleep`](super::Machine::sleep).
#[must_use = "futures do nothing unless they are awaited"]
pub struct Sleep {
    shared: Arc<SimulationShared>,
    /// `Duration::MAX` if the sleep began when time had ended.
    until: Duration,
    /// The number under which the sleep is registered; `None` before the first poll.
    id: Option<u64>,
}

impl Sleep {
    pub(super) fn new(shared: &Arc<SimulationShared>, time: Duration) -> Self {
        let (now, end) = (shared.background().now(), shared.end());
        // At the end of time, a sleep that returned at once would make its loop spin in a single step.
        let is_over = now >= end && !time.is_zero();
        let until = if is_over { Duration::MAX } else { now.saturating_add(time).min(end) };
        Sleep { shared: Arc::clone(shared), until, id: None }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.shared.background().now() >= self.until {
            return Poll::Ready(());
        }
        let until = self.until;
        let shared = Arc::clone(&self.shared);
        let mut state = shared.state();
        if until > shared.end() {
            state.say(|| "a later time, but virtual time has ended".to_owned());
            return Poll::Pending;
        }
        self.id = Some(state.add_sleeper(until, self.id, context.waker()));
        state.say(|| format!("the time {until:?}"));
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            let waker = self.shared.state().remove_sleeper(self.until, id);
            drop(waker);
        }
    }
}

impl fmt::Debug for Sleep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sleep").field("until", &self.until).finish_non_exhaustive()
    }
}

pub(super) struct Slot<T> {
    output: Option<T>,
    waker: Option<Waker>,
}

impl<T> Slot<T> {
    pub(super) fn new() -> Arc<Mutex<Self>> {
        Arc::new(Mutex::new(Slot { output: None, waker: None }))
    }

    /// Fills the slot, and wakes the task that waits for it.
    pub(super) fn fill(this: &Mutex<Self>, output: T) {
        let mut slot = lock(this);
        slot.output = Some(output);
        let waker = slot.waker.take();
        drop(slot);
        waker.into_iter().for_each(Waker::wake);
    }
}

/// A future of the output of a task, from [`Machine::spawn`](super::Machine::spawn). If it is dropped,
/// the task goes on, but its output is lost, and with it an error.
///
/// A task that nobody awaits is started with
/// [`Machine::spawn_detached`](super::Machine::spawn_detached), which keeps its error. The compiler warns of a
/// `Joined` that is dropped at once:
///
/// ```compile_fail
/// #![deny(unused_must_use)]
/// # use fluxmap_testkit::simulation::Machine;
/// # fn start(machine: Machine) {
/// machine.spawn("client", async { Err::<(), _>("lost") });
/// # }
/// ```
///
/// # Cancel safety
///
/// Cancel-safe: the output stays until the future returns it.
#[must_use = "the task's output is lost, and so is its error; await it, or use `Machine::spawn_detached`"]
pub struct Joined<T> {
    slot: Arc<Mutex<Slot<T>>>,
    /// The name of the task.
    name: String,
    shared: Arc<SimulationShared>,
}

impl<T> Joined<T> {
    pub(super) fn new(slot: Arc<Mutex<Slot<T>>>, name: String, shared: &Arc<SimulationShared>) -> Self {
        Joined { slot, name, shared: Arc::clone(shared) }
    }
}

impl<T> Future for Joined<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let mut slot = lock(&self.slot);
        match slot.output.take() {
            Some(output) => Poll::Ready(output),
            None => {
                slot.waker = Some(context.waker().clone());
                drop(slot);
                self.shared.state().say(|| format!("the task {}", self.name));
                Poll::Pending
            }
        }
    }
}

impl<T> fmt::Debug for Joined<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Joined").field("task", &self.name).finish_non_exhaustive()
    }
}
