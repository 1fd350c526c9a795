//! The configuration of a database.

use crate::background::Background;
use crate::codec::{Codec, Coder, Stored};
use crate::commit::MemoryOptions;
use crate::db::Database;
use crate::disk::{Disk, OsDisk};
use crate::error::FluxError;
use crate::host::Host;
use crate::info::{IsolationLevel, VacuumOptions};
use crate::key::{Key, Value};
use crate::mem::weigher::Weigher;
use crate::mem::{EvictionCause, EvictionPolicy, MemSize, TimeSource};
use crate::persistence::{DurabilityLevel, FlushLimits, PersistenceOptions};
use crate::recovery::Files;
use crate::shared::{Open, Setup};
use crate::storage::Options;
use crate::wal::SyncPolicy;
use crate::wal::directory::Directory;
use crate::wal::format::{FileIdentity, Shapes, clip_shape, clip_type_name};
use crate::wal::limits::LogSize;
use crate::wal::segment::{MAX_SIZE, MIN_SIZE};
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

/// The state of the durability settings, in the type of a [`DatabaseBuilder`].
pub trait BuilderState: sealed::Sealed {}

/// A state in which nothing is missing, so that the database can be built.
#[diagnostic::on_unimplemented(
    message = "relaxed durability needs to know when to sync before the database can be built",
    label = "no flush limit has been set",
    note = "set at least one of `flush_interval`, `flush_after_commits` and `flush_after_bytes` after `durability_relaxed`"
)]
pub trait Complete: BuilderState {}
impl Complete for Initial {}
impl Complete for Buildable {}

mod sealed {
    pub trait Sealed {}
}

/// No durability was set: the database is in memory.
#[derive(Debug)]
pub struct Initial;

/// Relaxed durability was set, but no flush limit yet.
#[derive(Debug)]
pub struct RelaxedDurability;

/// Durability is fully configured.
#[derive(Debug)]
pub struct Buildable;

impl sealed::Sealed for Initial {}
impl sealed::Sealed for RelaxedDurability {}
impl sealed::Sealed for Buildable {}
impl BuilderState for Initial {}
impl BuilderState for RelaxedDurability {}
impl BuilderState for Buildable {}

/// Configures a [`Database`]; returned by [`Database::builder`].
///
/// ```
/// use fluxmap::{Database, IsolationLevel};
/// use fluxmap::db::VacuumOptions;
/// use std::time::Duration;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), fluxmap::FluxError> {
/// let db = Database::<u64, String>::builder()
///     .isolation_level(IsolationLevel::Serializable)
///     .auto_vacuum(VacuumOptions { interval: Duration::from_secs(30) })
///     .build()
///     .await?;
/// # Ok(())
/// # }
/// ```
#[must_use = "a builder does nothing until `build` is called"]
pub struct DatabaseBuilder<K, V, S: BuilderState = Initial> {
    settings: Settings,
    /// The encoding of K and V, captured where the bounds of `serde` are known.
    coder: Option<Coder<K, V>>,
    pub(crate) memory: MemoryOptions<K, V>,
    types: Types<K, V, S>,
}

/// A builder holds no key and no value, so it is `Send` whatever they are.
type Types<K, V, S> = PhantomData<fn() -> (K, V, S)>;

#[derive(Clone, Debug)]
struct Settings {
    isolation_level: IsolationLevel,
    vacuum: Option<VacuumOptions>,
    skiplist_p: f64,
    durability: Option<PersistenceOptions>,
    /// The flush limits, at relaxed durability.
    flush: Option<FlushLimits>,
    codec: Option<Codec>,
    check_writes: bool,
    check_fields: bool,
    schema_version: u32,
    /// The names of the key and value types, if they differ from the compiler's.
    type_names: Option<(String, String)>,
    disk: Arc<dyn Disk>,
    /// The eviction policy, if one was set.
    eviction: Option<EvictionPolicy>,
    background: Option<Background>,
}

/// A quarter of the nodes of each level reach the next: Pugh's recommendation.
const DEFAULT_SKIPLIST_P: f64 = 0.25;
/// Outside this range the index would be nearly a list, or mostly links.
const SKIPLIST_P: std::ops::RangeInclusive<f64> = 0.05..=0.75;

impl<K, V> DatabaseBuilder<K, V> {
    pub(crate) fn new() -> Self {
        DatabaseBuilder {
            settings: Settings {
                isolation_level: IsolationLevel::default(),
                vacuum: None,
                skiplist_p: DEFAULT_SKIPLIST_P,
                durability: None,
                flush: None,
                codec: None,
                check_writes: true,
                check_fields: true,
                schema_version: 0,
                type_names: None,
                disk: Arc::new(OsDisk),
                eviction: None,
                background: None,
            },
            coder: None,
            memory: MemoryOptions::default(),
            types: PhantomData,
        }
    }

    pub(crate) fn durability(self, level: DurabilityLevel) -> DatabaseBuilder<K, V, Buildable>
    where
        K: Stored,
        V: Stored,
    {
        match level {
            DurabilityLevel::InMemory => self.into_state(),
            DurabilityLevel::Full { options } => self.durability_full(options),
            DurabilityLevel::Relaxed {
                options,
                flush_interval_ms,
                flush_after_n_commits,
                flush_after_m_bytes,
            } => {
                let mut builder = self.durability_relaxed(options);
                builder.settings.flush = Some(FlushLimits {
                    interval: flush_interval_ms.map(Duration::from_millis),
                    after_commits: flush_after_n_commits.map(|commits| commits as u64),
                    after_bytes: flush_after_m_bytes,
                });
                builder.into_state()
            }
        }
    }

    /// Asks for commits that survive a power loss: `commit` returns when the commit would survive one.
    /// Commits that wait at the same time share one sync, so concurrent commits are much faster than one
    /// after the other.
    pub fn durability_full(self, options: PersistenceOptions) -> DatabaseBuilder<K, V, Buildable>
    where
        K: Stored,
        V: Stored,
    {
        self.with_durability(options)
    }

    /// Asks for commits that survive the death of the process. A power loss takes no more commits than
    /// the flush limits say; at least one limit must be set next. The surviving state is always the
    /// state after some commit, with all commits before it.
    ///
    /// ```compile_fail,E0277
    /// # use fluxmap::{Database, persistence::PersistenceOptions};
    /// # async fn f() -> Result<(), fluxmap::FluxError> {
    /// let builder = Database::<u64, String>::builder();
    /// // No flush limit: this does not compile.
    /// builder.durability_relaxed(PersistenceOptions::new("ledger")).build().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn durability_relaxed(self, options: PersistenceOptions) -> DatabaseBuilder<K, V, RelaxedDurability>
    where
        K: Stored,
        V: Stored,
    {
        self.with_durability(options)
    }

    fn with_durability<S: BuilderState>(mut self, options: PersistenceOptions) -> DatabaseBuilder<K, V, S>
    where
        K: Stored,
        V: Stored,
    {
        self.settings.durability = Some(options);
        self.coder = Some(Coder::new());
        self.into_state()
    }
}

impl<K, V, S: BuilderState> DatabaseBuilder<K, V, S> {
    fn into_state<T: BuilderState>(self) -> DatabaseBuilder<K, V, T> {
        let DatabaseBuilder { settings, coder, memory, types: _ } = self;
        DatabaseBuilder { settings, coder, memory, types: PhantomData }
    }

    /// Sets the isolation level of all transactions, by default [`IsolationLevel::Serializable`].
    pub fn isolation_level(mut self, level: IsolationLevel) -> Self {
        self.settings.isolation_level = level;
        self
    }

    /// Removes versions that no reader can see any more in regular intervals, on a background thread.
    /// Commits remove most of these versions as they go; this serves a database that is written in
    /// bursts. Off by default.
    pub fn auto_vacuum(mut self, options: VacuumOptions) -> Self {
        self.settings.vacuum = Some(options);
        self
    }

    /// Sets the share of the index's nodes that reach the next level of its skiplist: from 0.05 to 0.75,
    /// by default 0.25. A larger share takes more memory and, up to a point, less time.
    pub fn skiplist_p(mut self, p: f64) -> Self {
        self.settings.skiplist_p = p;
        self
    }

    /// Sets how a durable database encodes keys and values, by default [`Codec::MessagePack`]. A
    /// database can be opened only with the codec that it was created with.
    pub fn codec(mut self, codec: Codec) -> Self {
        self.settings.codec = Some(codec);
        self
    }

    /// Sets whether every key and value that is written to a durable database is decoded at the same
    /// time, to make sure that it can be read back. On by default. Without this check, a value that its
    /// type encodes but cannot decode is found only when the database is opened next, and then the
    /// opening fails.
    pub fn check_writes(mut self, check: bool) -> Self {
        self.settings.check_writes = check;
        self
    }

    /// Sets whether a durable database is refused if its keys or values were written with other fields
    /// than their types have now. On by default. The check concerns [`Codec::Postcard`], which writes no
    /// names: a struct whose fields were reordered, or another type of the same name, would be misread.
    /// New variants at the end of an enum, and integers of another width, are accepted.
    ///
    /// The fields are determined when the database is built, by letting the types' `Deserialize` read
    /// made-up values. Fields behind a value that `Deserialize` rejects stay unknown, and unknown fields
    /// match everything. The files of a database last written by the unpublished version 0.4 do not record
    /// the fields; they do so from the next checkpoint on.
    ///
    /// The [error](crate::PersistenceError::Mismatch) shows both sides in a notation of one line:
    ///
    /// | | |
    /// |---|---|
    /// | `{price:uint,name:text}` | a struct with its fields, in their order |
    /// | `(uint,int)` | a tuple |
    /// | `[f64]`, `map(text,u8)`, `?bool` | a sequence, a map, an `Option` |
    /// | `<Came \|Went {at:u8}>` | an enum: each variant with its content |
    /// | `uint`, `int` | an unsigned or signed integer of 16 bits or more, whatever its width |
    /// | `_` | a part that is unknown and matches everything |
    /// | `@0`, `@1` | a type that contains itself: the outermost type around this place, the next within it |
    /// | `#1500:1a2b3c4d` | more than 800 bytes of this notation: their number and checksum |
    ///
    /// So a list's node is `{value:uint,next:?@0}`, and a tree whose only field is `Vec<Tree>` is
    /// `{children:[@0]}`.
    ///
    /// Turn the check off, once, after renaming a field: renaming changes nothing in the files. The next
    /// checkpoint records the new fields.
    ///
    /// ```
    /// # use fluxmap::{Database, FluxError, PersistenceError, codec::Codec, persistence::PersistenceOptions};
    /// mod v1 {
    ///     #[derive(serde::Serialize, serde::Deserialize)]
    ///     pub struct Item { pub price: u32, pub stock: u32 }
    /// }
    /// mod v2 {
    ///     #[derive(serde::Serialize, serde::Deserialize)]
    ///     pub struct Item { pub stock: u32, pub price: u32 }
    /// }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), FluxError> {
    /// # let dir = tempfile::tempdir().expect("a directory");
    /// # let options = || PersistenceOptions::new(dir.path().join("db"));
    /// let builder = Database::<u64, v1::Item>::builder().codec(Codec::Postcard);
    /// let db = builder.durability_full(options()).build().await?;
    /// db.insert(1, v1::Item { price: 100, stock: 7 }).await?;
    /// db.close().await?;
    ///
    /// let builder = Database::<u64, v2::Item>::builder().codec(Codec::Postcard);
    /// let refused = builder.durability_full(options()).build().await;
    /// assert!(matches!(refused, Err(FluxError::Persistence(PersistenceError::Mismatch { .. }))));
    /// # Ok(())
    /// # }
    /// ```
    pub fn check_fields(mut self, check: bool) -> Self {
        self.settings.check_fields = check;
        self
    }

    /// Sets the version of your types, by default 0. A durable database that was written with another
    /// version is not opened.
    pub fn schema_version(mut self, version: u32) -> Self {
        self.settings.schema_version = version;
        self
    }

    /// Sets the names of the key and value types in the files of a durable database, by default the
    /// compiler's names without their modules. A database that was written with other names is not
    /// opened. Use this when a type is renamed. See also [`check_fields`](Self::check_fields).
    pub fn type_names(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.type_names = Some((key.into(), value.into()));
        self
    }

    /// Sets the disk that holds the files of a durable database, by default the machine's file system.
    pub fn disk(mut self, disk: Arc<dyn Disk>) -> Self {
        self.settings.disk = disk;
        self
    }

    /// Limits the memory, in bytes, that keys, values and the index take. When a commit exceeds the
    /// limit, other keys are evicted at once, in a further commit: see
    /// [`eviction_policy`](Self::eviction_policy). Off by default.
    ///
    /// Versions kept for open snapshots do not count against the limit, nor do commits that have not
    /// been written to the log yet, nor free space in the index: [`memory_info`](Database::memory_info)
    /// reports all of these. See also [`max_snapshot_age`](Self::max_snapshot_age).
    ///
    /// **A durable database that is opened with a smaller limit evicts keys as it is read, and these
    /// keys are gone from its files when `build` returns.** Under [`EvictionPolicy::Manual`] nothing is
    /// evicted: the database opens above the limit, and refuses commits until there is room.
    ///
    /// ```
    /// # use fluxmap::{Database, mem::EvictionPolicy};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fluxmap::FluxError> {
    /// let cache = Database::<u64, Vec<u8>>::builder()
    ///     .max_memory(1 << 20)
    ///     .eviction_policy(EvictionPolicy::S3Fifo)
    ///     .build()
    ///     .await?;
    /// for key in 0..10_000 {
    ///     cache.insert(key, vec![0; 1000]).await?;
    /// }
    /// let info = cache.memory_info();
    /// assert!(info.current_bytes <= 1 << 20);
    /// assert!(info.evictions.capacity > 9_000);
    /// # Ok(())
    /// # }
    /// ```
    pub fn max_memory(mut self, bytes: u64) -> Self
    where
        K: MemSize,
        V: MemSize,
    {
        self.memory.limit = Some((bytes, Weigher::new()));
        self
    }

    /// Sets the policy that chooses keys to evict at the memory limit, by default
    /// [`EvictionPolicy::Lru`].
    pub fn eviction_policy(mut self, policy: EvictionPolicy) -> Self {
        self.settings.eviction = Some(policy);
        self
    }

    /// Sets how long keys live under [`EvictionPolicy::Ttl`], counted from the last write. A value that
    /// is written with a time to live of its own keeps it, and `update` and `compare_and_swap` keep the
    /// expiry time of the old value. Needs no memory limit.
    ///
    /// Keys in the files of a durable database that have no expiry time, such as keys written without
    /// this policy, get this time to live when the database is opened, counted from then. Keys that have
    /// an expiry time keep it, even a later one.
    pub fn eviction_ttl(mut self, ttl: Duration) -> Self {
        self.memory.default_ttl = Some(ttl);
        self
    }

    /// Calls `listener` once for every key that is removed without a transaction (by an eviction or an
    /// expiry), with the key's value and the cause. The call comes after the removal, on the thread that
    /// made the room (a committing thread or the background thread), with no lock held, so the listener
    /// may use the database. The key is also copied for the listener, and encoded for the log, without a
    /// lock (the [crate's documentation](crate) lists which code runs under which lock). The listener
    /// should be quick; its panics are contained. In a durable database, the removal may not be durable
    /// yet when it is reported. Not reported are keys evicted because there is no room for them while the
    /// files of a database are read, and expired keys that are written again before they were removed.
    ///
    /// **Calls before `build` has returned.** A durable database may call the listener while it is being
    /// opened: for keys that expired while it was closed, and for keys that must make room for the first
    /// commits. [`WeakDatabase`](crate::WeakDatabase) shows a listener that allows for that.
    ///
    /// **Commits.** The listener is a plain function, and commits are futures. Send the key to a task
    /// that commits, as in the second example. Do not use `block_on` within the listener: it blocks the
    /// thread that runs the listener, which may be a thread of your executor (some executors panic then,
    /// and the key is lost to the listener) or the background thread, which then removes no expired keys
    /// and ends no old snapshots.
    ///
    /// If the listener does commit, evictions caused by that commit are reported after the listener has
    /// returned, in their order, by the outermost call on that thread; so the listener must not wait for
    /// one of them. A listener that puts back every key that is reported keeps the commit that evicted
    /// the first of them from ever returning: put a key back at most once.
    ///
    /// The database holds the listener, so a listener that uses the database must hold it as a
    /// [`WeakDatabase`](crate::WeakDatabase), whose documentation has an example. A clone of the
    /// [`Database`] inside the listener would keep the database open for ever.
    ///
    /// ```
    /// # use fluxmap::{Database, mem::EvictionCause};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fluxmap::FluxError> {
    /// let (sender, evicted) = std::sync::mpsc::channel();
    /// let db = Database::<u64, String>::builder()
    ///     .on_evict(move |key, value, cause| sender.send((key, value, cause)).unwrap_or_default())
    ///     .build()
    ///     .await?;
    /// db.insert(1, "one".into()).await?;
    /// db.evict(&1).await?;
    /// assert_eq!(evicted.recv().ok(), Some((1, "one".to_string().into(), EvictionCause::Explicit)));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// A task moves evicted values to another database:
    ///
    /// ```
    /// # use fluxmap::{Database, FluxError};
    /// use futures::StreamExt;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), FluxError> {
    /// let (sender, mut evicted) = futures::channel::mpsc::unbounded();
    /// let cache = Database::<u64, String>::builder()
    ///     .on_evict(move |key, value, _cause| {
    ///         // Fails only if the task has ended.
    ///         let _ = sender.unbounded_send((key, value));
    ///     })
    ///     .build()
    ///     .await?;
    /// let archive = Database::<u64, String>::builder().build().await?;
    /// let to = archive.clone();
    /// let task = tokio::spawn(async move {
    ///     while let Some((key, value)) = evicted.next().await {
    ///         to.insert_arc(key, value).await?;
    ///     }
    ///     Ok::<_, FluxError>(())
    /// });
    /// cache.insert(1, "one".into()).await?;
    /// cache.evict(&1).await?;
    /// cache.close().await?; // drops the listener, so the task ends
    /// task.await.expect("no panic")?;
    /// assert_eq!(archive.get(&1)?.as_deref().map(String::as_str), Some("one"));
    /// # Ok(())
    /// # }
    /// ```
    pub fn on_evict(mut self, listener: impl Fn(K, Arc<V>, EvictionCause) + Send + Sync + 'static) -> Self {
        self.memory.listener = Some(Arc::new(listener));
        self
    }

    /// Ends snapshots and transactions that have been open for this long: their next read fails with
    /// [`FluxError::SnapshotTooOld`], and the versions kept for them are freed. Iterators of a
    /// [`Snapshot`](crate::Snapshot), which cannot return an error, panic: use `try_next` or streams.
    /// Off by default: readers then keep their versions for as long as they are open.
    pub fn max_snapshot_age(mut self, age: Duration) -> Self {
        self.memory.max_snapshot_age = Some(age);
        self
    }

    /// Sets the source of the time by which keys expire.
    ///
    /// By default the time is the larger of two: the machine's clock, and the last known time plus the
    /// time passed since on the steady (monotonic) clock. So it follows, within a second, a clock that
    /// is set forward or a machine that has slept, and when the clock is set back it neither runs back
    /// nor stands still. A durable database keeps the time in its checkpoints, and continues from there
    /// if the clock shows an earlier time when it is opened.
    ///
    /// So a time that was wrong once, and too late, stays with a durable database. With a source of your
    /// own the time then stands still until the source has reached it again. If it was the end of the
    /// range (2<sup>64</sup> - 1 milliseconds after 1970, to which later times are rounded), it is never
    /// reached again, no later time exists, and a value that is given a time to live expires at once:
    /// copy the values to a new database.
    pub fn time_source(mut self, source: Arc<dyn TimeSource>) -> Self {
        self.memory.time_source = Some(source);
        self
    }

    /// Starts no threads: the holder of `background` does the work of the database, in virtual time.
    /// Several databases may share one `Background`. See [`background`](crate::background).
    ///
    /// If a [`time_source`](Self::time_source) is set, it still decides when keys expire.
    pub fn background(mut self, background: &Background) -> Self {
        self.settings.background = Some(background.clone());
        self
    }
}

/// Says when relaxed durability syncs; the first condition that is met counts.
macro_rules! flush_conditions {
    ($state:ty) => {
        impl<K, V> DatabaseBuilder<K, V, $state> {
            /// At relaxed durability, starts to sync a commit at most this long after it: a power loss
            /// takes no more than the commits of that time and of the time that one sync takes.
            pub fn flush_interval(mut self, interval: Duration) -> DatabaseBuilder<K, V, Buildable> {
                self.settings.flush.get_or_insert_default().interval = Some(interval);
                self.into_state()
            }

            /// At relaxed durability, a power loss takes no more than this many commits. A sync starts
            /// when half as many are waiting; at the limit, commits wait for the sync.
            pub fn flush_after_commits(mut self, commits: usize) -> DatabaseBuilder<K, V, Buildable> {
                self.settings.flush.get_or_insert_default().after_commits = Some(commits as u64);
                self.into_state()
            }

            /// At relaxed durability, a power loss takes no more than commits of this many bytes
            /// together. A sync starts at half of the limit; at the limit, commits wait for the sync.
            pub fn flush_after_bytes(mut self, bytes: u64) -> DatabaseBuilder<K, V, Buildable> {
                self.settings.flush.get_or_insert_default().after_bytes = Some(bytes);
                self.into_state()
            }
        }
    };
}

flush_conditions!(RelaxedDurability);
flush_conditions!(Buildable);

impl<K: Key, V: Value, S: BuilderState> DatabaseBuilder<K, V, S> {
    /// Builds the database. A durable database is created, or read back from its files, on a thread of
    /// its own, unless it has a [`background`](Self::background).
    ///
    /// # Errors
    ///
    /// [`FluxError::Configuration`] if the settings do not fit together; nothing has then been created.
    ///
    /// [`FluxError::Persistence`] if the files cannot be created or read, are
    /// damaged, in use, or were written with other types or settings: see
    /// [`PersistenceError`](crate::PersistenceError). Nothing has then been changed.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, a durable database is still opened, and closed at once.
    pub async fn build(self) -> Result<Database<K, V>, FluxError>
    where
        S: Complete,
    {
        self.settings.check()?;
        let setup = self.setup()?;
        let host = setup.host.clone();
        let opened = match setup.durability {
            None => Open::open(setup),
            Some(_) => host.run("fluxmap-open", move || Open::open(setup)).await?,
        }?;
        host.drive(opened.shared.forget(opened.evicted)).await?;
        Ok(Database::from_shared(opened.shared))
    }
}

impl Settings {
    fn check(&self) -> Result<(), FluxError> {
        let refuse = |why: String| Err(FluxError::Configuration(why));
        if !SKIPLIST_P.contains(&self.skiplist_p) {
            let (least, most) = (SKIPLIST_P.start(), SKIPLIST_P.end());
            return refuse(format!("skiplist_p is {}, and must be from {least} to {most}", self.skiplist_p));
        }
        if self.vacuum.is_some_and(|vacuum| vacuum.interval.is_zero()) {
            return refuse(
                "the interval of auto_vacuum is zero; leave auto_vacuum out to turn it off".into(),
            );
        }
        self.check_durability()?;
        Ok(())
    }
}

impl<K, V, S: BuilderState> DatabaseBuilder<K, V, S> {
    fn setup(mut self) -> Result<Setup<K, V>, FluxError> {
        self.check_memory()?;
        self.memory.policy = self.settings.eviction.unwrap_or_default();
        Ok(Setup {
            level: self.settings.isolation_level,
            skiplist_p: self.settings.skiplist_p,
            vacuum: self.settings.vacuum,
            memory: self.memory,
            host: Host::new(self.settings.background.clone()),
            durability: self.settings.storage(self.coder),
        })
    }

    fn check_memory(&self) -> Result<(), FluxError> {
        let refuse = |why: &str| Err(FluxError::Configuration(why.into()));
        let is_ttl = self.settings.eviction == Some(EvictionPolicy::Ttl);
        // `Manual` without a limit is allowed: it evicts nothing in any case.
        let is_manual = self.settings.eviction == Some(EvictionPolicy::Manual);
        if self.memory.limit.is_some_and(|(limit, _)| limit == 0) {
            return refuse("`max_memory` is 0, which leaves room for nothing; leave it out for no limit");
        }
        if self.settings.eviction.is_some() && self.memory.limit.is_none() && !is_ttl && !is_manual {
            return refuse("an `eviction_policy` needs `max_memory`: without a limit, nothing is evicted");
        }
        if is_ttl && self.memory.default_ttl.is_none() {
            return refuse("`EvictionPolicy::Ttl` needs `eviction_ttl`, which says how long keys live");
        }
        if !is_ttl && self.memory.default_ttl.is_some() {
            return refuse(
                "`eviction_ttl` needs `eviction_policy(EvictionPolicy::Ttl)`; for single keys, use `insert_with_ttl`",
            );
        }
        if self.memory.default_ttl.is_some_and(|default_ttl| default_ttl.is_zero()) {
            return refuse("`eviction_ttl` is zero: every key would expire at once");
        }
        match self.memory.max_snapshot_age.is_some_and(|age| age.is_zero()) {
            true => refuse("`max_snapshot_age` is zero; leave it out for no limit"),
            false => Ok(()),
        }
    }
}

impl Settings {
    fn check_durability(&self) -> Result<(), FluxError> {
        let refuse = |why: &str| Err(FluxError::Configuration(why.into()));
        let Some(options) = &self.durability else {
            let is_default = self.codec.is_none() && self.schema_version == 0 && self.type_names.is_none();
            return match is_default {
                true => Ok(()),
                false => refuse("`codec`, `schema_version` and `type_names` are for durable databases"),
            };
        };
        if options.wal_path.as_os_str().is_empty() {
            return refuse("`wal_path` is empty; name a directory for the files");
        }
        let size = options.wal_segment_size_bytes;
        if !(MIN_SIZE..=MAX_SIZE).contains(&size) {
            return refuse(&format!(
                "`wal_segment_size_bytes` is {size}, and must be from {MIN_SIZE} to {MAX_SIZE}; for more log, raise `wal_pool_size`"
            ));
        }
        let Some(flush) = self.flush else {
            return Ok(());
        };
        if flush.is_empty() {
            return refuse("relaxed durability needs to know when to sync; set at least one flush limit");
        }
        let zero = flush.interval.is_some_and(|interval| interval.is_zero())
            || flush.after_commits == Some(0)
            || flush.after_bytes == Some(0);
        match zero {
            true => refuse("a flush limit is zero; use `durability_full` to sync every commit"),
            false => Ok(()),
        }
    }

    /// Turns the settings into the options for opening a durable database; `None` for one in memory.
    fn storage<K, V>(self, coder: Option<Coder<K, V>>) -> Option<Options<K, V>> {
        let (options, coder) = (self.durability?, coder?.with_codec(self.codec.unwrap_or_default()));
        let (key_type, value_type) =
            self.type_names.unwrap_or_else(|| (coder.key_type().into(), coder.value_type().into()));
        let identity = FileIdentity {
            codec: coder.codec(),
            schema_version: self.schema_version,
            database: 0,
            key_type: clip_type_name(key_type),
            value_type: clip_type_name(value_type),
            shapes: coder
                .shapes()
                .map(|(key, value)| Shapes { key: clip_shape(key), value: clip_shape(value) }),
        };
        let files = Files {
            directory: Directory::new(self.disk, options.wal_path, Host::new(self.background)),
            identity,
            log_size: LogSize::new(options.wal_pool_size, options.wal_segment_size_bytes),
            check_fields: self.check_fields,
        };
        let policy = self.flush.map_or(SyncPolicy::Full, SyncPolicy::Relaxed);
        Some(Options { files, policy, coder, check: self.check_writes })
    }
}

impl<K, V, S: BuilderState> fmt::Debug for DatabaseBuilder<K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.settings.fmt(f)
    }
}
