//! How a database is configured.

use crate::db::Database;
use crate::error::FluxError;
use crate::info::{IsolationLevel, VacuumOptions};
use crate::key::{Key, Value};
use crate::mem::{EvictionPolicy, MemSize};
use crate::persistence::{DurabilityLevel, PersistenceOptions};
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

/// How far the configuration of durability has come.
pub trait BuilderState: sealed::Sealed {}

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
    max_memory: Option<u64>,
    eviction: Option<EvictionPolicy>,
    eviction_ttl: Option<Duration>,
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
                max_memory: None,
                eviction: None,
                eviction_ttl: None,
            },
            types: PhantomData,
        }
    }

    pub(crate) fn durability(mut self, level: DurabilityLevel) -> Self {
        self.settings.durability = match level {
            DurabilityLevel::InMemory => None,
            DurabilityLevel::Relaxed { options, .. } | DurabilityLevel::Full { options } => Some(options),
        };
        self
    }

    /// Asks for commits that survive a power loss. Not built yet:
    /// [`build`](Self::build) will answer with [`FluxError::Configuration`].
    pub fn durability_full(self, options: PersistenceOptions) -> DatabaseBuilder<K, V, Buildable> {
        self.with_durability(options)
    }

    /// Asks for commits that survive the death of the process. Not built yet:
    /// `build` will answer with [`FluxError::Configuration`].
    pub fn durability_relaxed(self, options: PersistenceOptions) -> DatabaseBuilder<K, V, RelaxedDurability> {
        self.with_durability(options)
    }

    fn with_durability<S: BuilderState>(mut self, options: PersistenceOptions) -> DatabaseBuilder<K, V, S> {
        self.settings.durability = Some(options);
        self.into_state()
    }
}

impl<K, V, S: BuilderState> DatabaseBuilder<K, V, S> {
    fn into_state<T: BuilderState>(self) -> DatabaseBuilder<K, V, T> {
        DatabaseBuilder { settings: self.settings, types: PhantomData }
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

    /// Limits the memory of keys and values, in bytes. Not built yet: `build` will
    /// answer with [`FluxError::Configuration`].
    pub fn max_memory(mut self, bytes: u64) -> Self
    where
        K: MemSize,
        V: MemSize,
    {
        self.settings.max_memory = Some(bytes);
        self
    }

    /// What goes when the memory limit is reached. Not built yet: `build` will
    /// answer with [`FluxError::Configuration`].
    pub fn eviction_policy(mut self, policy: EvictionPolicy) -> Self {
        self.settings.eviction = Some(policy);
        self
    }

    /// How long keys live under [`EvictionPolicy::Ttl`]. Not built yet: `build`
    /// will answer with [`FluxError::Configuration`].
    pub fn eviction_ttl(mut self, ttl: Duration) -> Self {
        self.settings.eviction_ttl = Some(ttl);
        self
    }
}

/// Says when relaxed durability syncs; the first condition that is met counts.
macro_rules! flush_conditions {
    ($state:ty) => {
        impl<K, V> DatabaseBuilder<K, V, $state> {
            /// Syncs when this long has passed since the last time.
            pub fn flush_interval(self, _interval: Duration) -> DatabaseBuilder<K, V, Buildable> {
                self.into_state()
            }

            /// Syncs after this many commits.
            pub fn flush_after_commits(self, _commits: usize) -> DatabaseBuilder<K, V, Buildable> {
                self.into_state()
            }

            /// Syncs after this many bytes.
            pub fn flush_after_bytes(self, _bytes: u64) -> DatabaseBuilder<K, V, Buildable> {
                self.into_state()
            }
        }
    };
}

flush_conditions!(RelaxedDurability);
flush_conditions!(Buildable);

/// Builds the database from a state in which nothing is left to be said.
macro_rules! build {
    ($state:ty) => {
        impl<K: Key, V: Value> DatabaseBuilder<K, V, $state> {
            /// Builds the database.
            ///
            /// # Errors
            ///
            /// [`FluxError::Configuration`] if the settings do not fit together or ask
            /// for something that is not built yet; nothing has been created then.
            pub async fn build(self) -> Result<Database<K, V>, FluxError> {
                self.settings.check()?;
                Database::open(self.settings.isolation_level, self.settings.skiplist_p, self.settings.vacuum)
            }
        }
    };
}

build!(Initial);
build!(Buildable);

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
        if let Some(options) = &self.durability {
            let path = options.wal_path.display();
            return refuse(format!(
                "durability (at {path}) is not available in this version; leave out `durability_full` and `durability_relaxed`"
            ));
        }
        if self.max_memory.is_some() || self.eviction.is_some() || self.eviction_ttl.is_some() {
            return refuse(
                "memory limits are not available in this version; leave out `max_memory`, `eviction_policy` and `eviction_ttl`"
                    .into(),
            );
        }
        Ok(())
    }
}

impl<K, V, S: BuilderState> fmt::Debug for DatabaseBuilder<K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.settings.fmt(f)
    }
}
