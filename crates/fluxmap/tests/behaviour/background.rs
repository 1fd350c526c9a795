//! The background thread: it removes old versions although nothing calls `vacuum`, and it ends with
//! the database.

use fluxmap::db::VacuumOptions;
use fluxmap::mem::TimeSource;
use fluxmap::{Database, FluxError};
use futures::executor::block_on;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant, SystemTime};

/// A bound for a test that fails, far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// A value that reports when it is dropped.
struct Told {
    number: u32,
    dropped: Sender<u32>,
}

impl Drop for Told {
    fn drop(&mut self) {
        // The receiver may be gone at the end of a test.
        let _ = self.dropped.send(self.number);
    }
}

fn values() -> (impl Fn(u32) -> Told, Receiver<u32>) {
    let (dropped, told) = channel();
    (move |number| Told { number, dropped: dropped.clone() }, told)
}

#[test]
fn auto_vacuum_removes_old_versions_of_a_database_that_is_left_alone() -> Result<(), FluxError> {
    let (value, told) = values();
    let vacuum = VacuumOptions { interval: Duration::from_millis(1) };
    let db = block_on(Database::<u32, Told>::builder().auto_vacuum(vacuum).build())?;
    block_on(db.insert(1, value(10)))?;
    let view = db.snapshot();
    block_on(db.insert(1, value(20)))?;
    assert_eq!(view.get(&1)?.map(|value| value.number), Some(10));
    drop(view);
    assert_eq!(told.recv_timeout(PATIENCE), Ok(10));
    assert_eq!(db.get(&1)?.map(|value| value.number), Some(20));
    Ok(())
}

#[test]
fn the_end_of_a_snapshot_that_kept_much_frees_it_without_another_commit() -> Result<(), FluxError> {
    const KEYS: u32 = 10_000;
    let (value, told) = values();
    let db = block_on(Database::<u32, Told>::new_in_memory())?;
    for key in 0..KEYS {
        block_on(db.insert(key, value(key)))?;
    }
    let view = db.snapshot();
    for key in 0..KEYS {
        block_on(db.insert(key, value(KEYS + key)))?;
    }
    assert_eq!(view.get(&0)?.map(|value| value.number), Some(0), "the snapshot keeps what it sees");
    assert!(told.try_recv().is_err(), "nothing may be dropped while the snapshot sees it");
    drop(view);
    let mut dropped: Vec<u32> = (0..KEYS).map_while(|_| told.recv_timeout(PATIENCE).ok()).collect();
    dropped.sort_unstable();
    assert_eq!(dropped, (0..KEYS).collect::<Vec<_>>());
    Ok(())
}

/// The number of background threads of databases in this process.
#[cfg(target_os = "linux")]
fn workers() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").expect("a process has threads");
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|name| name.trim() == "fluxmap-worker").count()
}

/// Waits until there are this many workers, and returns whether it came to that. A thread gets its
/// name only once it runs, and is still listed for a moment after it has been joined.
#[cfg(target_os = "linux")]
fn comes_to(expected: usize) -> bool {
    let started = Instant::now();
    while workers() != expected && started.elapsed() < PATIENCE {
        std::thread::yield_now();
    }
    workers() == expected
}

/// The test runs itself in a child process, because it counts the threads of its process.
#[cfg(target_os = "linux")]
#[test]
fn the_thread_ends_with_the_last_clone_whatever_its_interval() -> Result<(), FluxError> {
    const CHILD: &str = "FLUXMAP_TEST_CHILD";
    if std::env::var_os(CHILD).is_none() {
        let this = std::env::current_exe().expect("a test is a program");
        let name = "background::the_thread_ends_with_the_last_clone_whatever_its_interval";
        let output = std::process::Command::new(this).args([name, "--exact"]).env(CHILD, "1").output();
        let output = output.expect("the test starts");
        let told = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && told.contains("1 passed"), "{told}");
        return Ok(());
    }
    for interval in [Duration::from_nanos(1), Duration::from_secs(3600), Duration::MAX] {
        let vacuum = VacuumOptions { interval };
        let db = block_on(Database::<u32, u32>::builder().auto_vacuum(vacuum).build())?;
        let clone = db.clone();
        let view = db.snapshot();
        assert!(comes_to(1));
        drop(db);
        drop(clone);
        assert_eq!(workers(), 1, "a snapshot keeps the database");
        drop(view);
        assert!(comes_to(0), "it ends with the last of them");

        let db = block_on(Database::<u32, u32>::builder().auto_vacuum(vacuum).build())?;
        block_on(db.close())?;
        assert!(comes_to(0));
    }
    Ok(())
}

/// A clock that panics a number of times when the background thread asks it.
struct Fragile(AtomicUsize);

impl TimeSource for Fragile {
    fn now(&self) -> SystemTime {
        if std::thread::current().name() == Some("fluxmap-worker") {
            let left = self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
            assert!(left.is_err(), "it is to panic");
        }
        SystemTime::now()
    }
}

#[test]
fn a_time_source_that_panics_does_not_end_the_background_thread() -> Result<(), FluxError> {
    let (value, told) = values();
    let builder = Database::<u32, Told>::builder()
        .time_source(Arc::new(Fragile(AtomicUsize::new(3))))
        .max_snapshot_age(Duration::from_millis(1));
    let db = block_on(builder.build())?;
    block_on(db.insert_with_ttl(1, value(10), Duration::from_millis(1)))?;
    assert_eq!(told.recv_timeout(PATIENCE), Ok(10), "expired keys go");
    let view = db.snapshot();
    let begin = Instant::now();
    while view.get(&1).is_ok() {
        assert!(begin.elapsed() < PATIENCE, "old snapshots end");
        std::thread::yield_now();
    }
    let said = format!("{db:?}");
    assert!(said.contains("background_panics: 3"), "{said}");
    Ok(())
}

/// A commit asks for the time in its middle. A panic there must not leave the commit half-done.
#[test]
fn a_time_source_that_panics_costs_no_commit() -> Result<(), FluxError> {
    struct Broken;
    impl TimeSource for Broken {
        fn now(&self) -> SystemTime {
            panic!("it is to panic")
        }
    }
    let dir = tempfile::tempdir().expect("a directory");
    let options = fluxmap::persistence::PersistenceOptions::new(dir.path().join("db"));
    let db = block_on(
        Database::<u32, String>::builder()
            .durability_full(options)
            .max_memory(100 << 10)
            .time_source(Arc::new(Broken))
            .build(),
    )?;
    block_on(db.insert_with_ttl(0, "x".into(), Duration::from_secs(60)))?;
    for key in 1..500 {
        block_on(db.insert(key, "x".repeat(300)))?;
        assert!(db.contains_key(&key)?);
    }
    assert!(db.memory_info().evictions.capacity > 100);
    Ok(())
}
