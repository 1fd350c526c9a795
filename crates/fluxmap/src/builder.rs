//! How a database is configured.

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
use crate::shared::{Setup, Shared};
use crate::storage::Options;
use crate::wal::Policy;
use crate::wal::directory::Directory;
use crate::wal::format::{Identity, Shapes, clip_shape, clip_type_name};
use crate::wal::limits::LogSize;
use crate::wal::segment::{MAX_SIZE, MIN_SIZE};
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

/// How far the configuration of durability has come.
pub trait BuilderState: sealed::Sealed {}

/// A configuration that leaves nothing to be said, so that the database can be built.
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

/// Nothing has been said about durability: a database in memory.
#[derive(Debug)]
pub struct Initial;

/// Relaxed durability was asked for, and it has not been said yet when to sync.
#[derive(Debug)]
pub struct RelaxedDurability;

/// Durability is configured.
#[derive(Debug)]
pub struct Buildable;

impl sealed::Sealed for Initial {}
impl sealed::Sealed for RelaxedDurability {}
impl sealed::Sealed for Buildable {}
impl BuilderState for Initial {}
impl BuilderState for RelaxedDurability {}
impl BuilderState for Buildable {}

/// Configures a [`Database`]: from [`Database::builder`].
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
    /// How to encode K and V, captured where their bounds are known.
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
    /// At relaxed durability.
    flush: Option<FlushLimits>,
    codec: Option<Codec>,
    check_writes: bool,
    check_fields: bool,
    schema_version: u32,
    /// Of the key and the value, if not what the compiler calls them.
    type_names: Option<(String, String)>,
    disk: Arc<dyn Disk>,
    /// If it was said.
    eviction: Option<EvictionPolicy>,
    background: Option<Background>,
}

/// A quarter of the nodes of each level reach the next: Pugh's recommendation.
const DEFAULT_SKIPLIST_P: f64 = 0.25;
/// Outside these the index would be a list, or mostly links.
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

    /// Asks for commits that survive a power loss: `commit` returns when it would.
    /// Commits that wait at the same time share one sync, so many of them together are
    /// much faster than one after the other.
    pub fn durability_full(self, options: PersistenceOptions) -> DatabaseBuilder<K, V, Buildable>
    where
        K: Stored,
        V: Stored,
    {
        self.with_durability(options)
    }

    /// Asks for commits that survive the death of the process, and lose no more to a
    /// power loss than the flush limits say, of which at least one is to be set next.
    /// What survives is always the state after some commit, with all before it.
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

    /// The isolation level of all transactions. [`IsolationLevel::Serializable`]
    /// by default.
    pub fn isolation_level(mut self, level: IsolationLevel) -> Self {
        self.settings.isolation_level = level;
        self
    }

    /// Looks for versions that nobody can see any more in regular intervals, on a
    /// background thread. Commits remove most of them as they go; this serves a
    /// database that is written in bursts. Off by default.
    pub fn auto_vacuum(mut self, options: VacuumOptions) -> Self {
        self.settings.vacuum = Some(options);
        self
    }

    /// The share of the index's nodes that reach the next level of its skiplist:
    /// from 0.05 to 0.75, by default 0.25. Larger takes more memory and, up to a
    /// point, less time.
    pub fn skiplist_p(mut self, p: f64) -> Self {
        self.settings.skiplist_p = p;
        self
    }

    /// How keys and values are encoded in a durable database.
    /// [`Codec::MessagePack`] by default. A database is opened with the codec that it was
    /// created with.
    pub fn codec(mut self, codec: Codec) -> Self {
        self.settings.codec = Some(codec);
        self
    }

    /// Whether every key and value that is written to a durable database is decoded on
    /// the way, to make sure that it will come back. On by default; without, what a type
    /// encodes but cannot decode is found when the database is opened next, which fails
    /// then.
    pub fn check_writes(mut self, check: bool) -> Self {
        self.settings.check_writes = check;
        self
    }

    /// Whether a durable database is refused whose keys or values were written with other fields
    /// than their types have now. On by default. It concerns [`Codec::Postcard`], which writes no
    /// names: a struct whose fields were reordered, or another type of the same name, would be
    /// read as something that it is not. New variants at the end of an enum, and integers of
    /// another width, are let through.
    ///
    /// The fields are looked for when the database is built, by having the types' `Deserialize`
    /// read made-up values; what it does not take stays unknown, and agrees with everything.
    /// Databases that were last written to by a version before 0.5 do not say what fields they were
    /// written with, and do so from their next checkpoint on.
    ///
    /// To be turned off, once, after a field was renamed: that changes nothing in the files. The
    /// next checkpoint says what the fields are now.
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

    /// The version of the user's types, by default 0. A durable database that was written
    /// with another version is not opened.
    pub fn schema_version(mut self, version: u32) -> Self {
        self.settings.schema_version = version;
        self
    }

    /// What the types of keys and values are called in the files of a durable database,
    /// by default what the compiler calls them, without the modules they are in. A
    /// database that was written with other types is not opened. To be used when a
    /// type is renamed. See also [`check_fields`](Self::check_fields).
    pub fn type_names(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.type_names = Some((key.into(), value.into()));
        self
    }

    /// Where the files of a durable database are: by default in the file system of the
    /// machine.
    pub fn disk(mut self, disk: Arc<dyn Disk>) -> Self {
        self.settings.disk = disk;
        self
    }

    /// Limits the memory that keys and values take, with what it takes to find them, in bytes.
    /// When a commit exceeds it, others go at once, in a commit that follows it:
    /// see [`eviction_policy`](Self::eviction_policy). Off by default.
    ///
    /// What is kept for open snapshots counts beside the limit, and so do commits that have not
    /// been written to the log yet and room in the index that keys have left:
    /// [`memory_info`](Database::memory_info) tells of all of these. See also
    /// [`max_snapshot_age`](Self::max_snapshot_age).
    ///
    /// **A durable database that is opened with a smaller limit evicts as it is read, and what it
    /// evicts is gone from its files when `build` returns.** Under
    /// [`EvictionPolicy::Manual`] nothing goes then either: it opens above the limit, and takes
    /// no more until there is room.
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

    /// What goes when the memory limit is reached. [`EvictionPolicy::Lru`] by default.
    pub fn eviction_policy(mut self, policy: EvictionPolicy) -> Self {
        self.settings.eviction = Some(policy);
        self
    }

    /// How long keys live under [`EvictionPolicy::Ttl`], from when they were last written;
    /// values that are written with a time of their own keep to that, and `update` and
    /// `compare_and_swap` keep the time that there is. Needs no memory limit.
    ///
    /// Keys that are in the files of a durable database and have no time, such as those written
    /// without this policy, get this life when the database is opened, from then on. Those that
    /// have one keep it, also if it is longer.
    pub fn eviction_ttl(mut self, ttl: Duration) -> Self {
        self.memory.life = Some(ttl);
        self
    }

    /// Has `listener` told of every key that goes without a transaction that removed it, once,
    /// with what it held and why. It is called after that has happened, on the thread of
    /// whoever made the room (a committing one, or the background thread), with no lock held:
    /// it may use the database. The copy of the key that it is given is made, and that for the log is
    /// encoded, without a lock as well (the [crate's documentation](crate) lists what runs
    /// under which). It should be quick, and panics in it are contained. In a durable database, what it is
    /// told of may not be durable yet; of keys for which there is no room when it is opened,
    /// it is not told. Neither is it of a key that is written again after its time is over and
    /// before it was removed.
    ///
    /// The listener may use the database, and commit. Evictions for the sake of what it commits are
    /// told when it has returned, by the listener's outermost call on that thread, in their order;
    /// so it must not wait for one of those. A listener that puts back every key that it is told of
    /// keeps the commit that evicted the first of them from ever returning: give each key one more
    /// chance, and not more.
    ///
    /// The database holds the listener, so a listener that uses the database must hold it as a
    /// [`WeakDatabase`](crate::WeakDatabase), whose documentation has an example: a clone of the
    /// [`Database`] in it would keep the database open for ever.
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
    pub fn on_evict(mut self, listener: impl Fn(K, Arc<V>, EvictionCause) + Send + Sync + 'static) -> Self {
        self.memory.listener = Some(Arc::new(listener));
        self
    }

    /// Ends snapshots and transactions that have been open for this long: their next read
    /// fails with [`FluxError::SnapshotTooOld`], and what was kept for them goes. Iterators of a
    /// [`Snapshot`](crate::Snapshot), which have no place for an error, panic: use `try_next` or
    /// streams. Off by default: they keep what they see for as long as they are held.
    pub fn max_snapshot_age(mut self, age: Duration) -> Self {
        self.memory.max_snapshot_age = Some(age);
        self
    }

    /// Where the time comes from by which keys expire.
    ///
    /// By default it is the larger of the machine's clock and the last time with what has passed
    /// since on its steady clock. So it follows a clock that is set forward and a machine that has
    /// slept, within a second, and neither runs back nor stands still when the clock is set
    /// back. A durable database keeps the time in its checkpoints, and goes on from there when it
    /// is opened with an earlier one.
    pub fn time_source(mut self, source: Arc<dyn TimeSource>) -> Self {
        self.memory.time_source = Some(source);
        self
    }

    /// Starts no threads: the holder of `background` does the work of the database, in its
    /// virtual time. Several databases may share one. See [`background`](crate::background).
    ///
    /// A [`time_source`](Self::time_source) still says by which time keys expire.
    pub fn background(mut self, background: &Background) -> Self {
        self.settings.background = Some(background.clone());
        self
    }
}

/// Says when relaxed durability syncs; the first condition that is met counts.
macro_rules! flush_conditions {
    ($state:ty) => {
        impl<K, V> DatabaseBuilder<K, V, $state> {
            /// At relaxed durability, begins to sync a commit at the latest this long after
            /// it: a power loss takes no more than what was committed in that time and
            /// in the time that one sync takes.
            pub fn flush_interval(mut self, interval: Duration) -> DatabaseBuilder<K, V, Buildable> {
                self.settings.flush.get_or_insert_default().interval = Some(interval);
                self.into_state()
            }

            /// At relaxed durability, a power loss takes no more than this many commits. A
            /// sync begins at half of them; commits wait for it at the limit.
            pub fn flush_after_commits(mut self, commits: usize) -> DatabaseBuilder<K, V, Buildable> {
                self.settings.flush.get_or_insert_default().after_commits = Some(commits as u64);
                self.into_state()
            }

            /// At relaxed durability, a power loss takes no more than commits of this many
            /// bytes together. A sync begins at half of them; commits wait for it at the
            /// limit.
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
    /// Builds the database. A durable one is created, or read back from its files,
    /// on a thread of its own, unless it has a [`background`](Self::background).
    ///
    /// # Errors
    ///
    /// [`FluxError::Configuration`] if the settings do not fit together or ask
    /// for something that is not built yet; nothing has been created then.
    ///
    /// [`FluxError::Persistence`] if the files cannot be created or read, are
    /// damaged, in use, or were written with other types or settings: see
    /// [`PersistenceError`](crate::PersistenceError). Nothing has been changed then.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, a durable database is opened nevertheless, and
    /// closed at once.
    pub async fn build(self) -> Result<Database<K, V>, FluxError>
    where
        S: Complete,
    {
        self.settings.check()?;
        let setup = self.setup()?;
        let host = setup.host.clone();
        let opened = match setup.durability {
            None => Shared::open(setup),
            Some(_) => host.run("fluxmap-open", move || Shared::open(setup)).await?,
        }?;
        host.drive(opened.shared.forget(opened.gone)).await?;
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
        // Under `Manual` nothing is evicted with a limit either.
        let is_manual = self.settings.eviction == Some(EvictionPolicy::Manual);
        if self.memory.limit.is_some_and(|(limit, _)| limit == 0) {
            return refuse("`max_memory` is 0, which leaves room for nothing; leave it out for no limit");
        }
        if self.settings.eviction.is_some() && self.memory.limit.is_none() && !is_ttl && !is_manual {
            return refuse("an `eviction_policy` needs `max_memory`: without a limit, nothing is evicted");
        }
        if is_ttl && self.memory.life.is_none() {
            return refuse("`EvictionPolicy::Ttl` needs `eviction_ttl`, which says how long keys live");
        }
        if !is_ttl && self.memory.life.is_some() {
            return refuse(
                "`eviction_ttl` needs `eviction_policy(EvictionPolicy::Ttl)`; for single keys, use `insert_with_ttl`",
            );
        }
        if self.memory.life.is_some_and(|life| life.is_zero()) {
            return refuse("`eviction_ttl` is zero: no key would ever be there");
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

    /// How a durable database is to be opened; `None` for one in memory.
    fn storage<K, V>(self, coder: Option<Coder<K, V>>) -> Option<Options<K, V>> {
        let (options, coder) = (self.durability?, coder?.with_codec(self.codec.unwrap_or_default()));
        let (key_type, value_type) =
            self.type_names.unwrap_or_else(|| (coder.key_type().into(), coder.value_type().into()));
        let identity = Identity {
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
        let policy = self.flush.map_or(Policy::Full, Policy::Relaxed);
        Some(Options { files, policy, coder, check: self.check_writes })
    }
}

impl<K, V, S: BuilderState> fmt::Debug for DatabaseBuilder<K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.settings.fmt(f)
    }
}
