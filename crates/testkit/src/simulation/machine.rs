//! The machine as the application sees it, and the tasks that run on it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::panic::Location;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use fluxmap::Background;
use fluxmap::persistence::PersistenceOptions;

use super::report::Waiting;
use crate::disk::SimDisk;

type TaskId = u64;

/// The machine of a [`Simulation`](super::Simulation) as the application sees it: a disk, a clock,
/// and tasks. Clones are the same machine. Only tasks should hold it.
#[derive(Clone)]
pub struct Machine {
    shared: Arc<Shared>,
}

pub(super) struct Shared {
    background: Background,
    state: Mutex<State>,
    /// The tasks that were woken. They have their own lock, because a waker may be called while `state` is
    /// locked.
    ready: Arc<Ready>,
}

type Ready = Mutex<BTreeSet<TaskId>>;

struct State {
    disk: SimDisk,
    tasks: BTreeMap<TaskId, Task>,
    last_id: u64,
    /// The task that is being polled.
    current: TaskId,
    /// Wakers of sleeping tasks, by the time at which they wake and the number of the sleep.
    sleepers: BTreeMap<(Duration, u64), Waker>,
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
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Machine {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        Machine { shared: Arc::clone(shared) }
    }

    /// The disk, in the state in which the previous process left it. Pass it to
    /// [`DatabaseBuilder::disk`](fluxmap::DatabaseBuilder::disk).
    #[must_use]
    pub fn disk(&self) -> SimDisk {
        self.shared.disk()
    }

    /// Options for a database in the directory `path` of the disk. They bound the log to two segments of
    /// 4 KiB, so that even a short run changes segments and writes checkpoints. (With the default of
    /// 16 MiB, a run would mostly write zeros.)
    #[must_use]
    pub fn persistence(&self, path: impl Into<PathBuf>) -> PersistenceOptions {
        PersistenceOptions { wal_pool_size: 2, wal_segment_size_bytes: 4096, ..PersistenceOptions::new(path) }
    }

    /// The background work and the clocks of the machine's databases. Pass it to
    /// [`DatabaseBuilder::background`](fluxmap::DatabaseBuilder::background). The simulation drives it.
    #[must_use]
    pub fn background(&self) -> &Background {
        &self.shared.background
    }

    /// The virtual time since the simulation began.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.shared.background.now()
    }

    /// Waits until `time` has passed in virtual time.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: the future only waits.
    pub fn sleep(&self, time: Duration) -> Sleep {
        Sleep { shared: Arc::clone(&self.shared), until: self.now().saturating_add(time), id: None }
    }

    /// Starts a task. It is dropped when the process ends. Reports show `name`.
    #[track_caller]
    pub fn spawn<F>(&self, name: impl Into<String>, future: F) -> Joined<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let slot = Arc::new(Mutex::new(Slot { output: None, waker: None }));
        let filled = Arc::clone(&slot);
        let body = async move {
            let output = future.await;
            let mut slot = lock(&filled);
            slot.output = Some(output);
            let waker = slot.waker.take();
            drop(slot);
            waker.into_iter().for_each(Waker::wake);
        };
        let name = name.into();
        self.shared.add(name.clone(), Location::caller(), Some(Box::pin(body)));
        Joined { slot, name, shared: Arc::clone(&self.shared) }
    }

    /// Waits for `future`. If the run gets [stuck](super::Stuck) meanwhile, the report says that the
    /// task waits for `what`.
    ///
    /// # Cancel safety
    ///
    /// As `future`.
    pub async fn label<F: Future>(&self, what: impl Into<String>, future: F) -> F::Output {
        let (what, mut future) = (what.into(), std::pin::pin!(future));
        std::future::poll_fn(|context| {
            let before = self.shared.set_label(Some(what.clone()));
            let polled = future.as_mut().poll(context);
            if polled.is_ready() {
                self.shared.set_label(before);
            }
            polled
        })
        .await
    }
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine").field("now", &self.now()).finish_non_exhaustive()
    }
}

impl State {
    /// Sets the label of the current task to `what`, unless the task has one.
    fn say(&mut self, what: impl FnOnce() -> String) {
        if let Some(task) = self.tasks.get_mut(&self.current) {
            task.label.get_or_insert_with(what);
        }
    }
}

impl Shared {
    pub(super) fn new(disk: SimDisk, seed: u64) -> Self {
        let state = State { disk, tasks: BTreeMap::new(), last_id: 0, current: 0, sleepers: BTreeMap::new() };
        Shared { background: Background::new(seed), state: Mutex::new(state), ready: Arc::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    pub(super) fn background(&self) -> &Background {
        &self.background
    }

    pub(super) fn disk(&self) -> SimDisk {
        self.state().disk.clone()
    }

    pub(super) fn replace_disk(&self, disk: SimDisk) {
        self.state().disk = disk;
    }

    fn add(
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

    /// The next instant at which a sleep ends or background work is due.
    pub(super) fn next_instant(&self) -> Option<Duration> {
        let now = self.background.now();
        let work = self.background.due_in().map(|due| now.saturating_add(due)).filter(|due| *due > now);
        let sleeper = self.state().sleepers.first_key_value().map(|((until, _), _)| *until);
        work.into_iter().chain(sleeper).min()
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
    fn set_label(&self, label: Option<String>) -> Option<String> {
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

/// The future of [`Machine::sleep`].
#[must_use = "futures do nothing unless they are awaited"]
pub struct Sleep {
    shared: Arc<Shared>,
    until: Duration,
    /// The number under which the sleep is registered; `None` before the first poll.
    id: Option<u64>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.shared.background.now() >= self.until {
            return Poll::Ready(());
        }
        let until = self.until;
        let mut state = self.shared.state();
        let id = self.id.unwrap_or(state.last_id + 1);
        state.last_id = state.last_id.max(id);
        state.sleepers.insert((until, id), context.waker().clone());
        state.say(|| format!("the time {until:?}"));
        drop(state);
        self.id = Some(id);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            let waker = self.shared.state().sleepers.remove(&(self.until, id));
            drop(waker);
        }
    }
}

impl fmt::Debug for Sleep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sleep").field("until", &self.until).finish_non_exhaustive()
    }
}

struct Slot<T> {
    output: Option<T>,
    waker: Option<Waker>,
}

/// A future of the output of a task, from [`Machine::spawn`]. If it is dropped, the task goes on.
pub struct Joined<T> {
    slot: Arc<Mutex<Slot<T>>>,
    /// The name of the task.
    name: String,
    shared: Arc<Shared>,
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
