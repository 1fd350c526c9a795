//! The largest and smallest values that a user can set must work like any others, because "no
//! limit" is often spelled as the largest number there is.

use crate::common::limits::{EVICTING, limited};
use fluxmap::db::VacuumOptions;
use fluxmap::mem::{EvictionPolicy, MemSize};
use fluxmap::persistence::{DurabilityLevel, PersistenceOptions};
use fluxmap::{Database, DatabaseBuilder, FluxError, TransactOptions};
use fluxmap_testkit::disk::SimDisk;
use futures::executor::block_on;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Small segments, because the simulated disk keeps all of them in memory.
fn options() -> PersistenceOptions {
    PersistenceOptions { wal_segment_size_bytes: 64 << 10, ..PersistenceOptions::new("db") }
}

const AGE: Duration = Duration::from_secs(60);

/// Limits that overflow when an eighth or a 64th of them is added, and other very large ones.
fn limits() -> impl Iterator<Item = u64> {
    let wraps = [u64::MAX / 9 * 8, u64::MAX / 65 * 64].map(|limit| limit + 20_000);
    wraps.into_iter().chain([u64::MAX / 16, u64::MAX / 2, i64::MAX as u64, u64::MAX - 1, u64::MAX])
}

#[test]
fn a_memory_limit_of_any_size_keeps_what_is_there_when_a_database_is_opened() -> Result<(), FluxError> {
    let open = |builder: DatabaseBuilder<u32, String>, disk: &SimDisk| {
        let builder = builder.disk(Arc::new(disk.clone()));
        block_on(builder.durability_full(options()).build())
    };
    for limit in limits() {
        for policy in EVICTING.into_iter().chain([EvictionPolicy::Manual]) {
            let disk = SimDisk::new(1);
            let db = open(Database::builder(), &disk)?;
            for n in 0..100 {
                block_on(db.insert(n, "x".repeat(100)))?;
            }
            block_on(db.close())?;
            let db = open(limited(policy, limit), &disk)?;
            assert_eq!(db.count(..)?, 100, "{policy:?} with a limit of {limit}");
            block_on(db.insert(100, "x".repeat(1000)))?;
            assert_eq!(db.memory_info().evictions.capacity, 0, "{policy:?} with a limit of {limit}");
            block_on(db.close())?;
        }
    }
    Ok(())
}

/// A key that claims to take all memory there is.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Endless(u32);

impl MemSize for Endless {
    fn mem_size(&self) -> usize {
        usize::MAX
    }
}

#[test]
fn sizes_that_cannot_be_counted_are_refused_or_fit_and_never_wrap() -> Result<(), FluxError> {
    for limit in limits().chain([1, 1 << 20]) {
        let db: Database<Endless, Endless> = block_on(limited(EvictionPolicy::Lru, limit).build())?;
        for n in 0..5 {
            let inserted = block_on(db.insert(Endless(n), Endless(n)));
            match limit > u64::from(u32::MAX) * 1024 {
                true => inserted?,
                false => assert!(matches!(inserted, Err(FluxError::ExceedsMemoryLimit { .. })), "{limit}"),
            }
        }
        let info = db.memory_info();
        assert!(info.current_bytes >= info.live_bytes && info.live_bytes <= limit, "{info:?}");
    }
    Ok(())
}

#[test]
fn times_that_never_come_never_come() -> Result<(), FluxError> {
    for life in [Duration::MAX, Duration::from_millis(u64::MAX), Duration::from_secs(u64::MAX / 1000)] {
        let db: Database<u32, u32> = block_on(
            Database::builder()
                .eviction_policy(EvictionPolicy::Ttl)
                .eviction_ttl(life)
                .max_snapshot_age(life)
                .auto_vacuum(VacuumOptions { interval: life })
                .build(),
        )?;
        let before = db.snapshot();
        block_on(db.insert(1, 1))?;
        block_on(db.insert_with_ttl(2, 2, life))?;
        block_on(db.insert(3, 3))?;
        for at in [SystemTime::now().checked_add(life), SystemTime::UNIX_EPOCH.checked_add(life)] {
            block_on(db.expire_at(&3, at.unwrap_or(SystemTime::now() + AGE)))?;
        }
        block_on(db.vacuum())?;
        assert_eq!(db.count(..)?, 3, "{life:?}");
        assert!((1..=3).all(|key| db.ttl(&key).is_ok_and(|left| left.is_some())));
        assert_eq!(before.get(&1)?, None);
        block_on(db.expire_at(&3, SystemTime::UNIX_EPOCH - AGE))?;
        assert_eq!(db.get(&3)?, None, "a time before 1970 is over");
        let options = TransactOptions::default().deadline(life).max_attempts(u32::MAX);
        block_on(db.transact_with(options, async |tx| tx.update(&1, |n| n + 1)))?;
    }
    Ok(())
}

#[test]
fn the_greatest_log_and_the_laziest_syncs_work() -> Result<(), FluxError> {
    for (commits, bytes) in
        [(Some(usize::MAX), None), (None, Some(u64::MAX)), (Some(usize::MAX), Some(u64::MAX))]
    {
        let disk = SimDisk::new(1);
        let open = || {
            let options = PersistenceOptions { wal_pool_size: usize::MAX, ..options() };
            let builder = Database::<u32, u32>::builder().disk(Arc::new(disk.clone()));
            let mut builder = builder.durability_relaxed(options).flush_interval(Duration::MAX);
            if let Some(commits) = commits {
                builder = builder.flush_after_commits(commits);
            }
            if let Some(bytes) = bytes {
                builder = builder.flush_after_bytes(bytes);
            }
            block_on(builder.build())
        };
        let db = open()?;
        (0..100).try_for_each(|n| block_on(db.insert(n, n)))?;
        block_on(db.checkpoint())?;
        (100..200).try_for_each(|n| block_on(db.insert(n, n)))?;
        block_on(db.close())?;
        assert_eq!(open()?.count(..)?, 200);
    }
    Ok(())
}

#[test]
fn what_cannot_be_is_refused_and_not_tried() {
    let options = |wal_pool_size, wal_segment_size_bytes| PersistenceOptions {
        wal_path: "db".into(),
        wal_pool_size,
        wal_segment_size_bytes,
    };
    for options in [options(1, u64::MAX), options(1, (1 << 30) + 1), options(1, 0)] {
        let disk = Arc::new(SimDisk::new(1));
        let builder = Database::<u32, u32>::builder().disk(disk).durability_full(options);
        assert!(matches!(block_on(builder.build()), Err(FluxError::Configuration(_))));
    }
    let never = DurabilityLevel::Relaxed {
        options: PersistenceOptions::new("db"),
        flush_interval_ms: Some(0),
        flush_after_n_commits: Some(usize::MAX),
        flush_after_m_bytes: None,
    };
    assert!(matches!(block_on(Database::<u32, u32>::new(never)), Err(FluxError::Configuration(_))));
    for p in [f64::NAN, f64::INFINITY, -1.0, 0.0, 1.0, f64::MAX] {
        let built = block_on(Database::<u32, u32>::builder().skiplist_p(p).build());
        assert!(matches!(built, Err(FluxError::Configuration(_))), "{p}");
    }
}
