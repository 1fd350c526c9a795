//! The inner state of the machine: its tasks, its sleepers, its disk, and its trace.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::Location;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use fluxmap::Background;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::report::{Failed, Trace, Waiting};
use crate::disk::SimDisk;

type TaskId = u64;

pub(super) struct SimulationShared {
    background: Background,
    state: Mutex<State>,
    /// The tasks that were woken. They have their own lock, because a waker may be called while `state` is
    /// locked.
    ready: Arc<Ready>,
    /// The instant at which virtual time ends.
    end: Duration,
}

type Ready = Mutex<BTreeSet<TaskId>>;

pub(super) struct State {
    disk: SimDisk,
    tasks: BTreeMap<TaskId, Task>,
    last_id: u64,
    /// The task that is being polled.
    current: TaskId,
    /// Wakers of sleeping tasks, by the time at which they wake and the number of the sleep.
    sleepers: BTreeMap<(Duration, u64), Waker>,
    /// The random numbers of the tasks.
    rng: StdRng,
    trace: Trace,
    /// The detached tasks of this life that have ended with an error.
    failed: Vec<Failed>,
}

struct Task {
    name: String,
    spawned: &'static Location<'static>,
    polls: u64,
    /// Text that says what the task waits for; `None` if it is not known.
    label: Option<String>,
    /// `None` while the task is being polled, and always for the main task: `Simulation::live` has its
    /// future.
    future: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

struct Woken {
    task: TaskId,
    ready: Arc<Ready>,
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        lock(&self.ready).insert(self.task);
    }
}

/// Locks a mutex and ignores poisoning: a panic in a task must not make others panic, too.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    /// Sets the label of the current task to `what`, unless the task has one.
    pub(super) fn say(&mut self, what: impl FnOnce() -> String) {
        if let Some(task) = self.tasks.get_mut(&self.current) {
            task.label.get_or_insert_with(what);
        }
    }

    /// Draws a number for the current task, and records it.
    pub(super) fn draw(&mut self, number: impl FnOnce(&mut StdRng) -> u64) -> u64 {
        let number = number(&mut self.rng);
        let task = self.tasks.get(&self.current).map_or("the test", |task| &task.name);
        self.trace.note(format!("{task} drew {number}"));
        number
    }

    /// Records that a task has ended with an error.
    pub(super) fn fail(&mut self, failed: Failed) {
        self.trace.note(format!("{} failed: {}", failed.name, failed.error));
        self.failed.push(failed);
    }

    /// Registers a sleep until `until`. Returns its number, `id` if it has one already.
    pub(super) fn add_sleeper(&mut self, until: Duration, id: Option<u64>, waker: &Waker) -> u64 {
        let id = id.unwrap_or(self.last_id + 1);
        self.last_id = self.last_id.max(id);
        self.sleepers.insert((until, id), waker.clone());
        id
    }

    pub(super) fn remove_sleeper(&mut self, until: Duration, id: u64) -> Option<Waker> {
        self.sleepers.remove(&(until, id))
    }
}

impl SimulationShared {
    pub(super) fn new(disk: SimDisk, seed: u64) -> Self {
        let state = State {
            disk: disk.simulated(),
            tasks: BTreeMap::new(),
            last_id: 0,
            current: 0,
            sleepers: BTreeMap::new(),
            rng: StdRng::seed_from_u64(seed),
            trace: Trace::default(),
            failed: Vec::new(),
        };
        // The clocks of FluxMap decide when time ends: ask them.
        let ended = Background::new(0);
        ended.advance(Duration::MAX);
        let (background, ready) = (Background::new(seed), Arc::default());
        SimulationShared { background, state: Mutex::new(state), ready, end: ended.now() }
    }

    pub(super) fn end(&self) -> Duration {
        self.end
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    pub(super) fn background(&self) -> &Background {
        &self.background
    }

    pub(super) fn disk(&self) -> SimDisk {
        self.state().disk.clone()
    }

    pub(super) fn replace_disk(&self, disk: SimDisk) {
        self.state().disk = disk.simulated();
    }

    pub(super) fn note(&self, step: String) {
        self.state().trace.note(step);
    }

    pub(super) fn trace(&self) -> Vec<String> {
        self.state().trace.all()
    }

    pub(super) fn last_steps(&self) -> Vec<String> {
        self.state().trace.last()
    }

    pub(super) fn failed(&self) -> Vec<Failed> {
        self.state().failed.clone()
    }

    pub(super) fn failed_count(&self) -> usize {
        self.state().failed.len()
    }

    /// Forgets all failed tasks but the first `count`.
    pub(super) fn forget_failed(&self, count: usize) {
        self.state().failed.truncate(count);
    }

    pub(super) fn add(
        &self,
        name: String,
        spawned: &'static Location<'static>,
        future: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    ) -> TaskId {
        let mut state = self.state();
        state.last_id += 1;
        let id = state.last_id;
        state.tasks.insert(id, Task { name, spawned, polls: 0, label: None, future });
        lock(&self.ready).insert(id);
        id
    }

    /// Registers the main task of a process. Returns its identity and its waker.
    #[track_caller]
    pub(super) fn begin_main(&self) -> (TaskId, Waker) {
        let id = self.add("main".to_owned(), Location::caller(), None);
        (id, self.waker(id))
    }

    fn waker(&self, task: TaskId) -> Waker {
        Waker::from(Arc::new(Woken { task, ready: Arc::clone(&self.ready) }))
    }

    /// The tasks that can go on, in the order in which they were spawned.
    pub(super) fn ready(&self) -> Vec<TaskId> {
        let state = self.state();
        let mut ready = lock(&self.ready);
        // A task may be woken after it has ended.
        ready.retain(|id| state.tasks.contains_key(id));
        ready.iter().copied().collect()
    }

    pub(super) fn name_of(&self, task: TaskId) -> String {
        self.state().tasks.get(&task).map_or_else(String::new, |task| task.name.clone())
    }

    /// Prepares to poll a task. Returns its future; `None` for the main task.
    pub(super) fn begin_poll(&self, task: TaskId) -> Option<Pin<Box<dyn Future<Output = ()> + Send>>> {
        lock(&self.ready).remove(&task);
        let mut state = self.state();
        state.current = task;
        let task = state.tasks.get_mut(&task)?;
        task.polls += 1;
        task.label = None;
        task.future.take()
    }

    pub(super) fn poll(&self, task: TaskId) {
        let Some(mut future) = self.begin_poll(task) else { return };
        let polled = future.as_mut().poll(&mut Context::from_waker(&self.waker(task)));
        let mut state = self.state();
        match polled {
            Poll::Pending => {
                if let Some(task) = state.tasks.get_mut(&task) {
                    task.future = Some(future);
                }
            }
            Poll::Ready(()) => {
                state.tasks.remove(&task);
                drop(state);
                // Drop the future without the lock: its destructor is user code, and may call the machine.
                drop(future);
            }
        }
    }

    /// Ends the process: drops all tasks.
    pub(super) fn drop_tasks(&self) {
        loop {
            let mut state = self.state();
            let tasks = std::mem::take(&mut state.tasks);
            drop(state);
            lock(&self.ready).clear();
            if tasks.is_empty() {
                return;
            }
            // The destructors may spawn further tasks, so the loop looks again.
            drop(tasks);
        }
    }

    /// The next instant at which a sleep ends or background work is due; `None` at the end of time.
    pub(super) fn next_instant(&self) -> Option<Duration> {
        let now = self.background.now();
        // The clock stands still from then on: jumping on the spot would take steps without end.
        if now >= self.end {
            return None;
        }
        let work = self.background.due_in().map(|due| now.saturating_add(due)).filter(|due| *due > now);
        let sleeper = self.state().sleepers.first_key_value().map(|((until, _), _)| *until);
        work.into_iter().chain(sleeper).min().map(|next| next.min(self.end))
    }

    /// Lets time pass until `instant`, and wakes the tasks whose sleep is over.
    pub(super) fn advance_to(&self, instant: Duration) {
        self.background.advance(instant.saturating_sub(self.background.now()));
        let mut state = self.state();
        let later = state.sleepers.split_off(&(instant, u64::MAX));
        let woken = std::mem::replace(&mut state.sleepers, later);
        drop(state);
        woken.into_values().for_each(Waker::wake);
    }

    /// Sets the label of the current task, and returns the old one.
    pub(super) fn set_label(&self, label: Option<String>) -> Option<String> {
        let mut state = self.state();
        let current = state.current;
        state.tasks.get_mut(&current).and_then(|task| std::mem::replace(&mut task.label, label))
    }

    pub(super) fn waiting(&self) -> Vec<Waiting> {
        let state = self.state();
        let ready = lock(&self.ready);
        let waiting = state.tasks.iter().map(|(id, task)| {
            let label = match &task.label {
                _ if ready.contains(id) => "can go on".to_owned(),
                Some(label) => format!("waits for {label}"),
                None => "waits to be woken".to_owned(),
            };
            Waiting { name: task.name.clone(), spawned: task.spawned, polls: task.polls, label }
        });
        waiting.collect()
    }
}
