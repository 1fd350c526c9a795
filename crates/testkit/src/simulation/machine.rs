//! The machine as the application sees it.

use std::fmt;
use std::panic::Location;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use fluxmap::codec::Stored;
use fluxmap::db::{Buildable, RelaxedDurability};
use fluxmap::persistence::PersistenceOptions;
use fluxmap::{Background, Database, DatabaseBuilder, Key, Value};
use rand::Rng;

use super::report::Failed;
use super::shared::SimulationShared;
use super::waits::{Joined, Sleep, Slot};
use crate::disk::SimDisk;

/// The machine of a [`Simulation`](super::Simulation) as the application sees it: a disk, a clock,
/// and tasks. Clones are the same machine. Only tasks should hold it.
#[derive(Clone)]
pub struct Machine {
    shared: Arc<SimulationShared>,
}

impl Machine {
    pub(super) fn new(shared: &Arc<SimulationShared>) -> Self {
        Machine { shared: Arc::clone(shared) }
    }

    /// A builder of a database in the directory `path` of the machine's disk, whose commits survive a
    /// power loss: it has [`persistence`](Self::persistence) at full durability, the [`disk`](Self::disk)
    /// and the [`background`](Self::background) of the machine.
    ///
    /// ```
    /// use fluxmap::{Database, FluxError};
    /// use fluxmap_testkit::simulation::{Ended, Machine, Simulation};
    ///
    /// async fn process(machine: Machine) -> Result<usize, FluxError> {
    ///     let db: Database<u64, String> = machine.database("words").build().await?;
    ///     db.insert(1, "one".into()).await?;
    ///     db.len()
    /// }
    ///
    /// let mut simulation = Simulation::new(1);
    /// let machine = simulation.machine();
    /// assert_eq!(simulation.run(process(machine))?, Ended::Returned(Ok(1)));
    /// # Ok::<(), fluxmap_testkit::simulation::Stuck>(())
    /// ```
    ///
    /// A builder that lacks `disk` writes to the file system of the real machine. One that lacks
    /// `background` starts threads, whose work the simulation does not see: runs then differ under the
    /// same seed, or get [stuck](super::Stuck). For a database in memory, use
    /// `Database::builder().background(machine.background())`.
    pub fn database<K, V>(&self, path: impl Into<PathBuf>) -> DatabaseBuilder<K, V, Buildable>
    where
        K: Key + Stored,
        V: Value + Stored,
    {
        let builder = Database::builder().durability_full(self.persistence(path));
        builder.disk(Arc::new(self.disk())).background(self.background())
    }

    /// As [`database`](Self::database), but commits survive the death of the process only, and a power
    /// loss takes those that were not flushed: set a flush limit next, in virtual time.
    ///
    /// ```
    /// # use fluxmap::{Database, FluxError};
    /// # use fluxmap_testkit::simulation::Machine;
    /// # use std::time::Duration;
    /// # async fn process(machine: Machine) -> Result<(), FluxError> {
    /// let builder = machine.relaxed_database("words").flush_interval(Duration::from_secs(3));
    /// let db: Database<u64, String> = builder.build().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn relaxed_database<K, V>(&self, path: impl Into<PathBuf>) -> DatabaseBuilder<K, V, RelaxedDurability>
    where
        K: Key + Stored,
        V: Value + Stored,
    {
        let builder = Database::builder().durability_relaxed(self.persistence(path));
        builder.disk(Arc::new(self.disk())).background(self.background())
    }

    /// The disk, in the state in which the previous process left it. Pass it to
    /// [`DatabaseBuilder::disk`](fluxmap::DatabaseBuilder::disk), or use [`database`](Self::database).
    ///
    /// Each crash replaces the disk by a new one. Planned failures, a capacity, `set_read_only` and
    /// `count_reads` therefore stay in force when a process returns, as the disk of a machine is the same
    /// for the next process, and they vanish at a crash: set them again for the next life if they are to
    /// last. A handle from before a crash still has the calls and the trace of the old disk. It does not
    /// lead to the new one: ask the machine again.
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
    /// [`DatabaseBuilder::background`](fluxmap::DatabaseBuilder::background), or use
    /// [`database`](Self::database). The simulation drives it.
    #[must_use]
    pub fn background(&self) -> &Background {
        self.shared.background()
    }

    /// The virtual time since the simulation began.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.shared.background().now()
    }

    /// Waits until `time` has passed in virtual time. A sleep of zero returns at once, without letting
    /// other tasks go on: a loop of such sleeps never ends.
    ///
    /// Virtual time ends a hundred years after the simulation began. Longer sleeps, such as one of
    /// [`Duration::MAX`], return then. Sleeps that begin after that never return.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: the future only waits.
    pub fn sleep(&self, time: Duration) -> Sleep {
        Sleep::new(&self.shared, time)
    }

    /// A random number that follows from the seed of the simulation, from 0 to `u64::MAX`. It may seed a
    /// generator of the application. The [trace](super::Simulation::trace) records it.
    ///
    /// The numbers do not affect the order of tasks: a task that draws one number more shifts the numbers
    /// that follow, and nothing else.
    #[must_use]
    pub fn random(&self) -> u64 {
        self.shared.state().draw(|rng| rng.random())
    }

    /// As [`random`](Self::random), but below `end`; zero if `end` is zero.
    #[must_use]
    pub fn choose(&self, end: u64) -> u64 {
        self.shared.state().draw(|rng| if end == 0 { 0 } else { rng.random_range(0..end) })
    }

    /// Starts a task. It is dropped when the process ends. Reports show `name`.
    ///
    /// The task's output is lost unless the returned future is awaited. If nobody waits for the task,
    /// start it with [`spawn_detached`](Self::spawn_detached), which keeps its error.
    #[track_caller]
    pub fn spawn<F>(&self, name: impl Into<String>, future: F) -> Joined<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let slot = Slot::new();
        let filled = Arc::clone(&slot);
        let body = async move { Slot::fill(&filled, future.await) };
        let name = name.into();
        self.shared.add(name.clone(), Location::caller(), Some(Box::pin(body)));
        Joined::new(slot, name, &self.shared)
    }

    /// Starts a task for which nobody waits. It is dropped when the process ends. If it ends with an
    /// error, the simulation goes on and keeps the error: the report of a run that gets
    /// [stuck](super::Stuck) shows it, and [`Simulation::failed`](super::Simulation::failed) returns it.
    ///
    /// ```
    /// use fluxmap_testkit::simulation::Simulation;
    /// use std::time::Duration;
    ///
    /// let mut simulation = Simulation::new(1);
    /// let machine = simulation.machine();
    /// simulation.run(async move {
    ///     machine.spawn_detached("client", async { "12 apples".parse::<u32>() });
    ///     machine.sleep(Duration::from_secs(1)).await;
    /// })?;
    /// assert_eq!(simulation.failed()[0].to_string(), "client: invalid digit found in string");
    /// # Ok::<(), fluxmap_testkit::simulation::Stuck>(())
    /// ```
    #[track_caller]
    pub fn spawn_detached<F, T, E>(&self, name: impl Into<String>, future: F)
    where
        F: Future<Output = Result<T, E>> + Send + 'static,
        E: fmt::Display,
    {
        let (name, spawned) = (name.into(), Location::caller());
        let (shared, own) = (Arc::clone(&self.shared), name.clone());
        let body = async move {
            let Err(error) = future.await else { return };
            // Make the text before locking: it is made by user code.
            let failed = Failed { name: own, spawned, error: error.to_string() };
            shared.state().fail(failed);
        };
        self.shared.add(name, spawned, Some(Box::pin(body)));
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
