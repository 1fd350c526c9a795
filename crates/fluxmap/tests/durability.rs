//! Durable databases: what comes back after they are closed.

mod common;

use fluxmap::persistence::PersistenceOptions;
use fluxmap::{Database, FluxError};
use std::time::Duration;

fn options(path: &std::path::Path) -> PersistenceOptions {
    PersistenceOptions {
        wal_pool_size: 2,
        wal_segment_size_bytes: 8192,
        ..PersistenceOptions::new(path.join("db"))
    }
}

#[tokio::test]
async fn everything_comes_back_through_several_generations() -> Result<(), FluxError> {
    let dir = tempfile::tempdir().expect("a directory");
    for generation in 0..5_u64 {
        let db = Database::<u64, String>::builder().durability_full(options(dir.path())).build().await?;
        let info = db.recovery_info().expect("durable").clone();
        assert_eq!(info.created, generation == 0);
        assert_eq!(info.torn_tail, None);
        assert_eq!(db.count(..)?, 100 * generation as usize, "{info:?}");
        for n in 0..100 {
            db.insert(generation * 100 + n, format!("value {n}")).await?;
        }
        if generation > 0 {
            db.remove(&((generation - 1) * 100)).await?;
            db.insert((generation - 1) * 100, "again".into()).await?;
        }
        if generation % 2 == 0 {
            db.close().await?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn relaxed_commits_come_back_after_a_drop() -> Result<(), FluxError> {
    let dir = tempfile::tempdir().expect("a directory");
    for generation in 0..4_u64 {
        let builder = Database::<u64, u64>::builder().durability_relaxed(options(dir.path()));
        let db =
            builder.flush_after_commits(1_000_000).flush_interval(Duration::from_secs(3600)).build().await?;
        assert_eq!(db.count(..)?, 500 * generation as usize);
        for n in 0..500 {
            db.insert(generation * 500 + n, n).await?;
            assert_eq!(db.get(&(generation * 500 + n))?.as_deref(), Some(&n));
        }
    }
    Ok(())
}
