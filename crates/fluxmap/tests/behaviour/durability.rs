//! Durable databases: their content after they are closed and opened again.

use fluxmap::persistence::PersistenceOptions;
use fluxmap::{Database, FluxError, PersistenceError};
use fluxmap_testkit::disk::SimDisk;
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::future::Future;
use std::hash::{Hash, Hasher};
use std::pin::Pin;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Wake, Waker};
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

#[cfg(unix)]
#[tokio::test]
async fn a_link_that_is_moved_leads_to_no_other_database() -> Result<(), FluxError> {
    let dir = tempfile::tempdir().expect("a directory");
    let (first, second, link) = (dir.path().join("v1"), dir.path().join("v2"), dir.path().join("current"));
    std::fs::create_dir(&first).expect("a directory");
    let open =
        |path: &std::path::Path| Database::<u64, u64>::builder().durability_full(options(path)).build();
    let other = open(&second).await?;
    other.insert(1, 1).await?;
    other.close().await?;

    std::os::unix::fs::symlink(&first, &link).expect("a link");
    let db = open(&link).await?;
    std::fs::remove_file(&link).expect("it goes");
    std::os::unix::fs::symlink(&second, &link).expect("a link");
    for n in 0..300 {
        db.insert(n, n).await?;
    }
    db.checkpoint().await?;
    db.close().await?;

    assert_eq!(open(&second).await?.count(..)?, 1, "the other database is as it was");
    assert_eq!(open(&first).await?.count(..)?, 300);
    Ok(())
}

/// A key whose encoding leaves out a part that distinguishes it from others.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct Sharded {
    name: String,
    #[serde(skip)]
    shard: u32,
}

#[tokio::test]
async fn a_key_that_comes_back_as_another_is_refused() -> Result<(), FluxError> {
    let disk = Arc::new(SimDisk::new(1));
    let builder = Database::<Sharded, u32>::builder().disk(disk);
    let db = builder.durability_full(options("keys".as_ref())).build().await?;
    let key = |shard| Sharded { name: "a".into(), shard };
    db.insert(key(0), 1).await?;
    let refused = db.insert(key(1), 2).await;
    assert!(
        matches!(refused, Err(FluxError::Persistence(PersistenceError::Unstorable { what: "key", .. }))),
        "{refused:?}"
    );
    assert_eq!(db.count(..)?, 1);
    Ok(())
}

#[tokio::test]
async fn what_was_found_after_a_crash_is_sealed_when_it_is_closed() -> Result<(), FluxError> {
    let disk = SimDisk::new(2);
    let open = |disk: &SimDisk| {
        let builder = Database::<u64, u64>::builder().disk(Arc::new(disk.clone()));
        builder.durability_full(options("sealed".as_ref())).build()
    };
    let db = open(&disk).await?;
    for n in 0..10 {
        db.insert(n, n).await?;
    }
    let crashed = disk.process_death();
    drop(db);
    open(&crashed).await?.close().await?;
    let segment = std::path::Path::new("sealed/db/wal.0000000001");
    let used = crashed.read(segment).iter().rposition(|byte| *byte != 0).expect("it is used");
    for back in 0..400 {
        let damaged = crashed.deep_clone();
        damaged.flip(segment, (used - back) as u64, 1);
        match open(&damaged).await {
            Ok(db) => assert_eq!(db.count(..)?, 10, "a commit is lost by a flip at {}", used - back),
            Err(FluxError::Persistence(PersistenceError::Damaged { .. })) => {}
            Err(other) => panic!("{other}"),
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_large_commit_leaves_no_large_segments_behind() -> Result<(), FluxError> {
    let disk = SimDisk::new(3);
    let builder = Database::<u64, Vec<u8>>::builder().disk(Arc::new(disk.clone()));
    let db = builder.durability_full(options("large".as_ref())).build().await?;
    for _ in 0..3 {
        db.insert(0, vec![7; 200_000]).await?;
    }
    db.insert(0, Vec::new()).await?;
    for n in 0..400 {
        db.insert(n, vec![1; 100]).await?;
        if n % 50 == 0 {
            db.checkpoint().await?;
        }
    }
    db.close().await?;
    for (path, length) in disk.files() {
        assert!(length <= 100_000, "{} has {length} bytes", path.display());
    }
    Ok(())
}

/// A key whose destructor panics once.
#[derive(Clone, Serialize, Deserialize)]
struct Fragile(u32, #[serde(skip)] Option<Arc<std::sync::atomic::AtomicBool>>);

impl Fragile {
    fn parts(&self) -> u32 {
        self.0
    }
}

impl PartialEq for Fragile {
    fn eq(&self, other: &Self) -> bool {
        self.parts() == other.parts()
    }
}

impl Eq for Fragile {}

impl PartialOrd for Fragile {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Fragile {
    fn cmp(&self, other: &Self) -> Ordering {
        self.parts().cmp(&other.parts())
    }
}

impl Hash for Fragile {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.parts().hash(state);
    }
}

impl Drop for Fragile {
    fn drop(&mut self) {
        let armed =
            self.1.as_ref().is_some_and(|armed| armed.swap(false, std::sync::atomic::Ordering::SeqCst));
        assert!(!armed, "the planted panic");
    }
}

#[tokio::test]
async fn a_commit_whose_keys_panic_when_dropped_becomes_durable_all_the_same() -> Result<(), FluxError> {
    let disk = Arc::new(SimDisk::new(4));
    let builder = Database::<Fragile, u32>::builder().disk(disk);
    let db = builder.durability_full(options("fragile".as_ref())).build().await?;
    db.insert(Fragile(1, None), 1).await?;
    let fuse = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let key = Fragile(1, Some(Arc::clone(&fuse)));
    let insert = tokio::spawn({
        let db = db.clone();
        async move {
            fuse.store(true, std::sync::atomic::Ordering::SeqCst);
            db.insert(key, 2).await
        }
    });
    assert!(insert.await.is_err(), "the key of the second insert is dropped, and panics");
    // A read-only transaction waits until the commits that it has seen are durable.
    let tx = db.begin();
    assert_eq!(tx.get(&Fragile(1, None))?.as_deref(), Some(&2));
    tx.commit().await?;
    Ok(())
}

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A waker that drops its task when it is woken, as an executor does that shuts down, and reports
/// that it has.
struct DroppedWhenWoken(Mutex<Option<Task>>, Sender<()>);

impl Wake for DroppedWhenWoken {
    fn wake(self: Arc<Self>) {
        let task = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if task.is_some() {
            drop(task);
            // Nothing listens any more if the test has failed.
            let _ = self.1.send(());
        }
    }
}

/// Long enough to tell a hang from a slow machine.
const A_HANG: Duration = Duration::from_secs(60);

#[tokio::test]
async fn whoever_a_commit_wakes_may_be_the_last_to_hold_the_database() -> Result<(), FluxError> {
    let disk = SimDisk::new(5);
    let builder = Database::<u64, u64>::builder().disk(Arc::new(disk.clone()));
    let db = builder.durability_full(options("woken".as_ref())).build().await?;
    // Make the checkpoint that is due, so that the checkpoint thread has nothing more to do by
    // itself.
    db.checkpoint().await?;
    disk.stall(true);
    let (sender, dropped) = mpsc::channel();
    let slot = Arc::new(DroppedWhenWoken(Mutex::new(None), sender));
    let mut task: Task = Box::pin({
        let db = db.clone();
        async move { drop(db.insert(1, 1).await) }
    });
    let waker = Waker::from(Arc::clone(&slot));
    assert!(task.as_mut().poll(&mut Context::from_waker(&waker)).is_pending(), "the disk stands still");
    *slot.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(task);
    assert!(disk.wait_stalled(1, A_HANG), "the log thread writes");
    // The checkpoint either waits to sync the log, or syncs it while the log thread waits.
    let mut checkpoint = Box::pin(async { drop(db.checkpoint().await) });
    assert!(checkpoint.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    drop(checkpoint);
    // Now the task holds the last handle, and it will be dropped on one of the database's own
    // threads.
    drop(db);
    disk.stall(false);
    assert!(dropped.recv_timeout(A_HANG).is_ok(), "dropping the last handle hangs");
    Ok(())
}
