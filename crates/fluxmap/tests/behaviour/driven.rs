//! Databases without threads: the holder of the `Background` does the work, in virtual time.
//!
//! `crash/every_call.rs` tests, beside the databases with threads, that such databases lose nothing
//! in a crash at any call.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};
use std::thread::{self, ThreadId};
use std::time::Duration;

use fluxmap::background::Step;
use fluxmap::db::VacuumOptions;
use fluxmap::disk::{Disk, DiskFile, Lock, OpenMode};
use fluxmap::persistence::PersistenceOptions;
use fluxmap::{Background, Database, DatabaseBuilder, FluxError, TransactOptions, db};
use fluxmap_testkit::disk::{Loss, SimDisk};
use fluxmap_testkit::polling::yield_once;
use futures::FutureExt;
use futures::executor::block_on;
use futures::future::{BoxFuture, poll_immediate};

type Db = Database<u64, String>;

const SECOND: Duration = Duration::from_secs(1);

fn options(pool: usize) -> PersistenceOptions {
    PersistenceOptions { wal_pool_size: pool, wal_segment_size_bytes: 4096, ..PersistenceOptions::new("db") }
}

fn full(background: &Background, disk: &SimDisk, pool: usize) -> Db {
    let builder = Db::builder().durability_full(options(pool)).disk(Arc::new(disk.clone()));
    // Opening must complete without anything driving the background.
    now(builder.background(background).build()).expect("it opens")
}

fn relaxed(background: &Background, disk: &SimDisk) -> DatabaseBuilder<u64, String, db::Buildable> {
    let builder = Db::builder().durability_relaxed(options(4)).flush_interval(SECOND);
    builder.disk(Arc::new(disk.clone())).background(background)
}

/// Does all background work that is due, in the order of `choose`, which the result must not depend
/// on.
fn settle(background: &Background, mut choose: impl FnMut() -> u64) -> Step {
    loop {
        match background.step_with(choose()) {
            Step::Worked => {}
            idle => return idle,
        }
    }
}

/// The output of a future that must be ready without background work.
#[track_caller]
fn now<F: Future>(future: F) -> F::Output {
    future.now_or_never().expect("it needs no background work")
}

/// Waits for `future`, and does the background work that it waits for.
#[track_caller]
fn wait<F: Future>(background: &Background, future: F) -> F::Output {
    // As long as there is work to do, `drive` completes within one poll.
    background.drive(future).now_or_never().expect("it waits, and there is nothing to do")
}

fn work(background: &Background) -> Step {
    settle(background, || 0)
}

fn read(disk: &SimDisk, path: &Path) -> Vec<u8> {
    let file = disk.open(path, OpenMode::Read).expect("it is there");
    let mut bytes = vec![0; file.len().expect("a length") as usize];
    let mut filled = 0;
    while filled < bytes.len() {
        filled += file.read_at(&mut bytes[filled..], filled as u64).expect("it is read");
    }
    bytes
}

/// A small generator of its own, so that the choices of the test do not come from the engine.
fn lots(mut state: u64) -> impl FnMut() -> u64 {
    move || {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        state >> 33
    }
}

/// Runs a script. Returns every call to the disk, and every byte that is on it in the end.
fn run(seed: u64) -> (Vec<String>, Vec<Vec<u8>>) {
    let disk = SimDisk::new(9);
    let background = Background::new(seed);
    let mut draw = lots(seed);
    for _ in 0..3 {
        let db = full(&background, &disk, 2);
        let mut commits = Vec::new();
        for _ in 0..40 {
            let key = draw() % 10;
            let mut commit = db.insert(key, "x".repeat(draw() as usize % 900)).boxed();
            if commit.as_mut().now_or_never().is_none() {
                commits.push(commit);
            }
            for _ in 0..draw() % 4 {
                let _ = background.step_with(draw());
            }
        }
        wait(&background, db.checkpoint()).expect("it is written");
        for commit in commits {
            wait(&background, commit).expect("it commits");
        }
        background.advance(SECOND);
        settle(&background, &mut draw);
        now(db.close()).expect("it closes");
    }
    let files = disk.files().into_keys().map(|path| read(&disk, &path)).collect();
    (disk.trace(), files)
}

#[test]
fn a_run_replays_from_its_seed_to_the_byte() {
    let (trace, files) = run(1);
    assert!(trace.len() > 300, "it does much: {}", trace.len());
    let again = run(1);
    assert_eq!(trace, again.0);
    assert!(files == again.1, "the same calls wrote other bytes");
    let other = run(2);
    assert_ne!(trace, other.0, "the seed chooses the order");
}

/// The order in which keys that expire at one instant are removed. It is the order of their hashes.
fn order(seed: u64) -> Vec<u64> {
    let background = Background::new(seed);
    let (told, gone) = std::sync::mpsc::channel();
    let builder = Db::builder().on_evict(move |key, _, _| told.send(key).expect("the test listens"));
    let db = now(builder.background(&background).build()).expect("it opens");
    for key in 0..50 {
        now(db.insert_with_ttl(key, "x".into(), SECOND)).expect("it commits");
    }
    background.advance(SECOND);
    work(&background);
    drop(db);
    gone.iter().collect()
}

#[test]
fn keys_are_hashed_as_the_seed_says() {
    assert_eq!(order(1).len(), 50);
    assert_eq!(order(1), order(1));
    assert_ne!(order(1), order(2));
}

/// A disk that records on which threads it is called.
struct Watched {
    disk: SimDisk,
    seen: Arc<Mutex<Vec<ThreadId>>>,
    /// Whether a sync panics.
    panics: Arc<AtomicBool>,
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.disk.fmt(f)
    }
}

#[derive(Debug)]
struct WatchedFile {
    file: Box<dyn DiskFile>,
    seen: Arc<Mutex<Vec<ThreadId>>>,
    panics: Arc<AtomicBool>,
}

fn note(seen: &Mutex<Vec<ThreadId>>) {
    let (mut seen, this) = (seen.lock().expect("no panic"), thread::current().id());
    if !seen.contains(&this) {
        seen.push(this);
    }
}

impl Disk for Watched {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        note(&self.seen);
        self.disk.create_dir(path)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        note(&self.seen);
        let (seen, panics) = (Arc::clone(&self.seen), Arc::clone(&self.panics));
        Ok(Box::new(WatchedFile { file: self.disk.open(path, mode)?, seen, panics }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        note(&self.seen);
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        note(&self.seen);
        self.disk.remove(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        note(&self.seen);
        self.disk.list(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        note(&self.seen);
        self.disk.sync_dir(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        note(&self.seen);
        self.disk.lock(path)
    }
}

impl DiskFile for WatchedFile {
    fn len(&self) -> io::Result<u64> {
        note(&self.seen);
        self.file.len()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        note(&self.seen);
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        note(&self.seen);
        self.file.write_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        note(&self.seen);
        assert!(!self.panics.load(Ordering::SeqCst), "the disk's own code panics");
        self.file.sync()
    }
}

/// The names of those threads of this process that FluxMap has started.
#[cfg(target_os = "linux")]
fn threads() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").expect("linux has it");
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|name| name.starts_with("fluxmap")).collect()
}

#[cfg(not(target_os = "linux"))]
fn threads() -> Vec<String> {
    Vec::new()
}

#[test]
fn no_thread_is_started_and_the_disk_is_used_on_the_calling_one() -> Result<(), FluxError> {
    let background = Background::new(3);
    let seen = Arc::default();
    let disk = Arc::new(Watched { disk: SimDisk::new(1), seen: Arc::clone(&seen), panics: Arc::default() });
    for _ in 0..2 {
        let builder = Db::builder().durability_relaxed(options(2)).flush_interval(SECOND);
        let builder = builder.disk(disk.clone()).background(&background).max_snapshot_age(SECOND);
        let db = now(builder.auto_vacuum(VacuumOptions { interval: SECOND }).build())?;
        for key in 0..40 {
            let ttl = Duration::from_secs(key + 1);
            wait(&background, db.insert_with_ttl(key, "x".repeat(500), ttl))?;
        }
        let old = db.snapshot();
        background.advance(2 * SECOND);
        work(&background);
        assert!(old.get(&39).is_err(), "the worker has ended it");
        drop(old);
        wait(&background, db.flush())?;
        wait(&background, db.checkpoint())?;
        assert_eq!(threads(), [""; 0]);
        now(db.close())?;
    }
    let db = now(relaxed(&background, &disk.disk).disk(disk.clone()).build())?;
    assert!(db.recovery_info().is_some_and(|info| !info.created && info.checkpoint_pairs > 30));
    now(db.backup_to("copy", |_| {}))?;
    drop(db);
    assert_eq!(*seen.lock().expect("no panic"), [thread::current().id()]);
    assert_eq!(threads(), [""; 0]);
    Ok(())
}

/// Begins commits that fill the log's pool, does `steps` steps of background work, and ends the
/// database without waiting for a commit and without driving anything. Returns whether the work ran
/// out within these steps.
fn end_under_pressure(steps: u64, close: bool) -> bool {
    const COMMITS: u64 = 30;
    let (background, disk) = (Background::new(steps), SimDisk::new(1));
    let db = full(&background, &disk, 1);
    let mut draw = lots(steps);
    let all: Vec<_> = (0..COMMITS)
        .map(|key| {
            let mut commit = Box::pin(db.insert(key, "x".repeat(900)));
            assert!(poll_immediate(&mut commit).now_or_never().flatten().is_none());
            commit
        })
        .collect();
    let is_over = (0..steps).any(|_| background.step_with(draw()) != Step::Worked);
    drop(all);
    match close {
        true => now(db.close()).expect("it closes"),
        false => drop(db),
    }
    assert_eq!(background.step(), Step::Idle, "nothing is left to do");
    // Every commit is there, although nothing waited for it.
    let again = full(&background, &disk.power_cut(Loss::Everything), 1);
    assert_eq!(again.count(..).expect("reads") as u64, COMMITS);
    is_over
}

#[test]
fn to_close_ends_with_the_log_waiting_for_whatever_it_waits_for() {
    let last = (0..).find(|steps| end_under_pressure(*steps, true)).expect("it comes to an end");
    assert!(last > 30, "{last} steps");
    assert!((0..=last).any(|steps| end_under_pressure(steps, false)));
}

#[test]
fn writers_get_on_beside_checkpoints_that_they_have_to_wait_for() -> Result<(), FluxError> {
    let (background, disk) = (Background::new(4), SimDisk::new(1));
    let db = full(&background, &disk, 1);
    for n in 0..60 {
        wait(&background, db.insert(n % 3, format!("{n:1000}")))?;
    }
    let segments = disk.files().into_keys().filter(|path| path.display().to_string().contains("wal.0"));
    assert!(segments.count() <= 2, "checkpoints were made: {:?}", disk.files());
    Ok(())
}

#[test]
fn commits_go_on_between_the_steps_of_a_checkpoint() -> Result<(), FluxError> {
    let (background, disk) = (Background::new(4), SimDisk::new(1));
    let builder = Db::builder().durability_full(PersistenceOptions::new("db"));
    let builder = builder.disk(Arc::new(disk.clone())).background(&background);
    let db = now(builder.build())?;
    // Enough data for several blocks of the checkpoint.
    for key in 0..12 {
        wait(&background, db.insert(key, "x".repeat(100_000)))?;
    }
    work(&background);
    let mut checkpoint = Box::pin(db.checkpoint());
    let mut commits = 0;
    let written = loop {
        if let Some(written) = poll_immediate(&mut checkpoint).now_or_never().flatten() {
            break written?;
        }
        let _ = background.step();
        let mut commit = Box::pin(db.insert(100 + commits, "meanwhile".into()));
        if poll_immediate(&mut commit).now_or_never().flatten().is_none() {
            // The jobs take turns, so the checkpoint does not end before this commit.
            wait(&background, commit)?;
        }
        commits += 1;
    };
    assert!(commits >= 3, "{commits} commits");
    assert!((12..12 + commits).contains(&written.pairs), "{written:?}");
    let again = full(&background, &disk.power_cut(Loss::Everything), 4);
    assert_eq!(again.count(..)? as u64, 12 + commits);
    Ok(())
}

#[test]
fn a_flush_interval_passes_on_the_virtual_clock_only() -> Result<(), FluxError> {
    let (background, disk) = (Background::new(5), SimDisk::new(1));
    let db = now(relaxed(&background, &disk).build())?;
    work(&background);
    now(db.insert(1, "one".into()))?;
    // The full interval remains: it counts the time of the virtual clock, not that of the machine.
    assert_eq!(work(&background), Step::In(SECOND));
    background.advance(SECOND - Duration::from_nanos(1));
    let syncs = disk.calls();
    assert_eq!(work(&background), Step::In(Duration::from_nanos(1)));
    assert_eq!((disk.calls(), background.due_in()), (syncs, Some(Duration::from_nanos(1))));
    let survives = |background: &Background| -> Result<bool, FluxError> {
        let left = disk.power_cut(Loss::Everything);
        Ok(now(relaxed(background, &left).build())?.get(&1)?.is_some())
    };
    assert!(!survives(&background)?);
    background.advance(Duration::from_nanos(1));
    assert_eq!(background.due_in(), Some(Duration::ZERO));
    assert_eq!(work(&background), Step::Idle);
    assert!(survives(&background)?);
    Ok(())
}

#[test]
fn vacuum_ages_and_expiry_go_by_the_virtual_clock_only() -> Result<(), FluxError> {
    let background = Background::new(6);
    let builder = Db::builder().auto_vacuum(VacuumOptions { interval: 5 * SECOND });
    let db = now(builder.max_snapshot_age(10 * SECOND).background(&background).build())?;
    now(db.insert_with_ttl(1, "one".into(), 60 * SECOND))?;
    work(&background);
    let old = db.snapshot();
    background.advance(9 * SECOND);
    work(&background);
    assert!(old.get(&1)?.is_some());
    assert_eq!(db.memory_info().oldest_snapshot_age, Some(9 * SECOND));
    background.advance(SECOND);
    work(&background);
    assert!(matches!(old.get(&1), Err(FluxError::SnapshotTooOld { .. })));
    drop(old);
    background.advance(50 * SECOND - Duration::from_millis(1));
    work(&background);
    assert_eq!(db.ttl(&1)?, Some(Duration::from_millis(1)));
    background.advance(Duration::from_millis(1));
    work(&background);
    assert!(db.get(&1)?.is_none());
    assert_eq!(db.memory_info().keys, 0, "it was removed, not only hidden");
    // The vacuum is due at every interval.
    assert_eq!(work(&background), Step::In(5 * SECOND - Duration::from_millis(1)));
    Ok(())
}

#[test]
fn the_time_of_day_can_be_set_and_is_read_by_the_next_who_opens() -> Result<(), FluxError> {
    let (background, disk) = (Background::new(6), SimDisk::new(1));
    let db = full(&background, &disk, 2);
    let begin = background.time_of_day();
    wait(&background, db.insert_with_ttl(1, "one".into(), 60 * SECOND))?;
    background.set_time_of_day(begin + 3600 * SECOND);
    work(&background);
    assert!(db.get(&1)?.is_some(), "an open database goes by the steady clock");
    drop(db);
    assert_eq!(background.time_of_day(), begin + 3600 * SECOND);
    assert!(full(&background, &disk, 2).get(&1)?.is_none());
    Ok(())
}

#[test]
fn a_deadline_passes_on_the_virtual_clock_only() -> Result<(), FluxError> {
    let background = Background::new(6);
    let db = now(Db::builder().background(&background).build())?;
    let attempts = Cell::new(0);
    let outcome = block_on(db.transact_with(TransactOptions::default().deadline(SECOND), async |tx| {
        attempts.set(attempts.get() + 1);
        tx.get(&1)?;
        // Another thread overwrites the key that this transaction has read.
        let rival = || block_on(db.insert(1, "rival".into()));
        thread::scope(|scope| scope.spawn(rival).join().expect("no panic"))?;
        background.advance(SECOND / 2);
        tx.insert(2, "mine".into())
    }));
    assert!(matches!(outcome, Err(FluxError::DeadlineExceeded { attempts: 2, .. })), "{outcome:?}");
    assert_eq!(attempts.get(), 2);
    Ok(())
}

#[test]
fn several_databases_share_a_driver_and_end_each_on_its_own() -> Result<(), FluxError> {
    let background = Background::new(7);
    let disks = [SimDisk::new(1), SimDisk::new(2), SimDisk::new(3)];
    let [one, two, three] = [0, 1, 2].map(|n| full(&background, &disks[n], 2));
    for key in 0..20 {
        for db in [&one, &two, &three] {
            let commit = db.insert(key, "x".repeat(700));
            wait(&background, commit)?;
        }
    }
    drop(two);
    wait(&background, one.insert(20, "more".into()))?;
    now(three.close())?;
    assert_eq!(one.count(..)?, 21);
    assert_eq!(full(&background, &disks[1], 2).count(..)?, 20);
    Ok(())
}

#[test]
fn what_no_longer_fits_goes_while_it_is_opened_with_nobody_who_drives() -> Result<(), FluxError> {
    let (background, disk) = (Background::new(8), SimDisk::new(1));
    let db = full(&background, &disk, 4);
    for key in 0..50 {
        wait(&background, db.insert(key, "x".repeat(1000)))?;
    }
    drop(db);
    let builder = Db::builder().durability_full(options(4)).disk(Arc::new(disk));
    let db = now(builder.max_memory(20_000).background(&background).build())?;
    assert!((1..30).contains(&db.count(..)?));
    Ok(())
}

/// A waker that drops a future when it is woken, and with it the last handle of a database.
struct Drops(Mutex<Option<BoxFuture<'static, Result<(), FluxError>>>>);

impl Wake for Drops {
    fn wake(self: Arc<Self>) {
        let last = self.0.lock().expect("no panic").take();
        drop(last);
    }
}

#[test]
fn a_waker_that_drops_the_last_handle_leaves_the_rest_to_later_steps() -> Result<(), FluxError> {
    let (background, disk) = (Background::new(9), SimDisk::new(1));
    let db = full(&background, &disk, 2);
    work(&background);
    let mut commit = async move { db.insert(1, "one".into()).await }.boxed();
    let waker = Arc::new(Drops(Mutex::default()));
    let woken = Waker::from(Arc::clone(&waker));
    assert!(commit.as_mut().poll(&mut Context::from_waker(&woken)).is_pending());
    *waker.0.lock().expect("no panic") = Some(commit);
    let steps = std::iter::repeat_with(|| background.step());
    let steps = steps.take_while(|step| *step == Step::Worked).count();
    assert!(waker.0.lock().expect("no panic").is_none(), "it was woken");
    assert!(steps > 3, "the log was closed by further steps: {steps}");
    // The lock has been released, and the commit is there.
    assert_eq!(full(&background, &disk, 2).get(&1)?.as_deref().map(String::as_str), Some("one"));
    Ok(())
}

#[test]
fn a_step_within_a_step_goes_on_with_other_work() -> Result<(), FluxError> {
    struct Steps(Background, Mutex<Vec<Step>>);

    impl Wake for Steps {
        fn wake(self: Arc<Self>) {
            let step = self.0.step();
            self.1.lock().expect("no panic").push(step);
        }
    }

    let (background, disk) = (Background::new(9), SimDisk::new(1));
    let db = full(&background, &disk, 2);
    let waker = Arc::new(Steps(background.clone(), Mutex::default()));
    let woken = Waker::from(Arc::clone(&waker));
    let mut commit = Box::pin(db.insert(1, "one".into()));
    assert!(commit.as_mut().poll(&mut Context::from_waker(&woken)).is_pending());
    work(&background);
    assert_eq!(waker.1.lock().expect("no panic").len(), 1);
    now(commit)
}

#[test]
fn a_panic_in_a_step_is_that_of_whoever_steps_and_leaves_nobody_waiting() {
    let background = Background::new(10);
    let panics = Arc::new(AtomicBool::new(false));
    let disk = Watched { disk: SimDisk::new(1), seen: Arc::default(), panics: Arc::clone(&panics) };
    let builder = Db::builder().durability_full(options(2)).disk(Arc::new(disk));
    let db = now(builder.background(&background).build()).expect("it opens");
    work(&background);
    let mut commit = Box::pin(db.insert(1, "one".into()));
    assert!(poll_immediate(&mut commit).now_or_never().flatten().is_none());
    panics.store(true, Ordering::SeqCst);
    assert!(catch_unwind(AssertUnwindSafe(|| work(&background))).is_err());
    panics.store(false, Ordering::SeqCst);
    let failed = wait(&background, commit);
    assert!(matches!(failed, Err(FluxError::OutcomeUnknown { .. })), "{failed:?}");
    assert!(wait(&background, db.insert(2, "two".into())).is_err(), "it takes no more commits");
    drop(db);
    assert_eq!(work(&background), Step::Idle);
}

#[test]
fn the_lease_of_a_transaction_that_keeps_losing_runs_out_on_the_virtual_clock_only() -> Result<(), FluxError>
{
    let background = Background::new(11);
    let db = now(Db::builder().background(&background).build())?;
    let mut loser = Box::pin(db.transact(async |tx| {
        tx.get(&1)?;
        // Let rivals commit in every attempt.
        yield_once().await;
        tx.insert(2, "at last".into())
    }));
    let mut rounds = 0;
    let mut rival = loop {
        // Poll the loser, then let a rival overtake it, until a rival has to wait.
        assert!(poll_immediate(&mut loser).now_or_never().flatten().is_none());
        let mut rival = Box::pin(db.insert(1, "rival".into()));
        if poll_immediate(&mut rival).now_or_never().flatten().is_none() {
            break rival;
        }
        rounds += 1;
        assert!(rounds < 100, "it is let run ahead in the end");
    };
    // From now on the loser is not polled, so the rival waits only for the lease to end.
    let Step::In(lease) = work(&background) else { panic!("a lease has an end") };
    assert!(lease >= Duration::from_millis(100), "{lease:?}");
    // A time from the machine's clock is never such a round number.
    assert_eq!(lease.as_nanos() % 1_000_000, 0, "{lease:?}");
    background.advance(lease - Duration::from_nanos(1));
    work(&background);
    assert!(poll_immediate(&mut rival).now_or_never().flatten().is_none());
    background.advance(Duration::from_nanos(1));
    work(&background);
    now(rival)
}

/// A transaction reads a commit when a key has expired, and returns when that commit is durable. A read of
/// the stable state that begins later sees that the key has expired, too, although the next commit, which
/// was made at the later time, is not durable yet.
#[test]
fn stable_reads_do_not_go_back_to_a_time_before_what_a_transaction_has_seen() {
    let mut later_commits_waited = 0;
    // The log takes several steps to write a commit; one that is made in between is written after it.
    for steps in 0..8 {
        let (background, disk) = (Background::new(1), SimDisk::new(1));
        let db = full(&background, &disk, 4);
        wait(&background, db.insert_with_ttl(1, "brief".into(), SECOND)).expect("an insert commits");
        let mut first = db.insert(2, "first".into()).boxed();
        assert!(first.as_mut().now_or_never().is_none(), "it is not durable yet");
        for _ in 0..steps {
            background.step();
        }
        background.advance(2 * SECOND);
        let tx = db.begin();
        assert_eq!(tx.get(&1).expect("a read"), None, "it has expired");
        let mut later = db.insert(3, "later".into()).boxed();
        let mut is_done = later.as_mut().now_or_never().is_some();
        let mut returns = tx.commit().boxed();
        while returns.as_mut().now_or_never().is_none() {
            background.step();
        }
        is_done = is_done || later.as_mut().now_or_never().is_some();
        later_commits_waited += u32::from(!is_done);
        assert_eq!(db.get(&1).expect("a read"), None, "after {steps} steps");
        assert_eq!(db.snapshot().get(&1).expect("a read"), None, "after {steps} steps");
        match is_done {
            true => drop(later),
            false => wait(&background, later).expect("an insert commits"),
        }
        wait(&background, first).expect("an insert commits");
        drop(returns);
        now(db.close()).expect("it closes");
    }
    assert!(later_commits_waited > 0, "no commit was late");
}
