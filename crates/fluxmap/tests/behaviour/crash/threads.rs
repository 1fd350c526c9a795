//! Several threads commit at the same time, with group commit, and the disk crashes at some call.
//! Every commit increments one counter, so the order of commits is known.

use std::sync::Mutex;

use fluxmap::FluxError;
use fluxmap_testkit::disk::SimDisk;
use fluxmap_testkit::workload::{Seed, scaled};
use futures::executor::block_on;
use rand::Rng;

use crate::crash::support::{Config, Db, Left, Level, left_by_crash, left_now, tail};
use crate::crash::watch::Watch;

const THREADS: u64 = 4;
/// The key of the number of commits.
const TOTAL: u64 = 100;
/// The keys of two accounts, whose sum is always [`SUM`].
const ACCOUNTS: [u64; 2] = [200, 201];
const SUM: i64 = 1000;

/// The commits of one thread.
#[derive(Clone, Debug, Default)]
struct Diary {
    /// The numbers of its acknowledged commits.
    acknowledged: Vec<u64>,
    /// The number of the commit whose outcome the crash left unknown.
    in_doubt: Option<u64>,
}

fn number<T: std::str::FromStr>(text: Option<&str>) -> T
where
    T::Err: std::fmt::Debug,
{
    text.unwrap_or("0").parse().expect("a number")
}

/// One commit: increments the counter, stores the count under the thread's key, and moves money.
/// Each attempt stores its number in `told`, because a commit in doubt does not return it.
async fn count(db: &Db, thread: u64, amount: i64, told: &Mutex<u64>) -> Result<u64, FluxError> {
    db.transact(async |tx| {
        let next = number::<u64>(tx.get(&TOTAL)?.as_deref().map(String::as_str)) + 1;
        let [from, to] = ACCOUNTS;
        let move_to = |key: u64, by: i64| -> Result<(), FluxError> {
            let old: i64 = number(tx.get(&key)?.as_deref().map(String::as_str));
            tx.insert(key, (old + by).to_string())
        };
        move_to(from, -amount)?;
        move_to(to, amount)?;
        tx.insert(TOTAL, next.to_string())?;
        tx.insert(thread, format!("{next:0100}"))?;
        *told.lock().expect("no panic") = next;
        Ok(next)
    })
    .await
}

/// All threads commit until the disk crashes, or each has made its commits. Returns the last commit
/// that was acknowledged, or `base` if the disk crashed before the database was open.
fn work(config: Config, disk: &SimDisk, diaries: &mut [Diary], base: u64, watch: &Watch) -> u64 {
    let db = match config.open(disk) {
        Ok(db) => db,
        Err(error) => {
            assert!(disk.frozen().is_some(), "it must open: {error:?}\n    {}", tail(disk, 40));
            return base;
        }
    };
    check(&db, diaries, base);
    // The first run opens the accounts, and a crash may have undone that.
    if base == 0 && db.get(&ACCOUNTS[0]).expect("reads").is_none() {
        let tx = db.begin();
        tx.insert(ACCOUNTS[0], SUM.to_string()).expect("buffered");
        if block_on(tx.commit()).is_err() {
            return base;
        }
    }
    std::thread::scope(|scope| {
        for (thread, diary) in (0..).zip(diaries.iter_mut()) {
            let db = &db;
            scope.spawn(move || {
                let told = Mutex::new(0);
                for round in 0..12 {
                    match block_on(count(db, thread, round, &told)) {
                        Ok(commit) => diary.acknowledged.push(commit),
                        Err(FluxError::OutcomeUnknown { .. }) => {
                            diary.in_doubt = Some(*told.lock().expect("no panic"));
                            return;
                        }
                        Err(FluxError::FatalPersistenceError { .. }) => return,
                        Err(other) => panic!("{other:?}"),
                    }
                    watch.and(String::new);
                }
            });
        }
    });
    drop(db);
    let all = diaries.iter().flat_map(|diary| &diary.acknowledged);
    all.copied().max().unwrap_or(0).max(base)
}

/// Checks that the content is the state after some commit, not before `floor`, for every thread.
fn check(db: &Db, diaries: &mut [Diary], floor: u64) {
    let snapshot = db.snapshot();
    let read = |key: u64| snapshot.get(&key).expect("reads");
    let total: u64 = number(read(TOTAL).as_deref().map(String::as_str));
    assert!(total >= floor, "{total} commits are there, {floor} must be");
    let sum = ACCOUNTS.iter().map(|key| number::<i64>(read(*key).as_deref().map(String::as_str))).sum();
    assert!([0, SUM].contains(&sum) && (total == 0 || sum == SUM), "half a transaction: {sum}");
    let mut newest = 0;
    for (thread, diary) in (0..).zip(diaries.iter_mut()) {
        let found: u64 = number(read(thread).as_deref().map(String::as_str));
        let own = diary.acknowledged.iter().copied().chain(diary.in_doubt);
        let expected = own.filter(|commit| *commit <= total).max().unwrap_or(0);
        // A commit in doubt may be missing although `total` has passed its number: another one took
        // that number.
        let before = diary.acknowledged.iter().copied().filter(|commit| *commit <= total).max();
        assert!(
            found == expected || (diary.in_doubt == Some(expected) && found == before.unwrap_or(0)),
            "thread {thread}: {found} is there, after {total} commits; {diary:?}"
        );
        newest = newest.max(found);
        diary.acknowledged.retain(|commit| *commit <= total);
        if found > 0 && diary.in_doubt == Some(found) {
            diary.acknowledged.push(found);
        }
        diary.in_doubt = None;
    }
    assert_eq!(newest, total, "the last commit belongs to one of the threads");
}

/// The number of the commit up to which everything must have survived.
fn floor(level: Level, left: &Left, promised: u64) -> u64 {
    match level {
        Level::Commits(commits) if left.lost_power => promised.saturating_sub(commits as u64),
        _ => promised,
    }
}

fn crashes_at_random_calls(test: &str, config: Config, rounds: u64) {
    let watch = Watch::start(test);
    let seed = Seed::from_env();
    for round in 0..scaled(rounds) {
        let mut rng = seed.rng(round);
        let mut disk = SimDisk::new(round);
        let mut diaries = vec![Diary::default(); usize::try_from(THREADS).expect("few")];
        let mut base = 0;
        for generation in 0..4 {
            let call = rng.random_range(1..120);
            watch.doing(|| format!("{seed}, {config:?}, round {round}.{generation}, crash at {call}"));
            disk.crash_at(call);
            let promised = work(config, &disk, &mut diaries, base, &watch);
            let mut ways = left_by_crash(&disk, rng.random());
            if ways.is_empty() {
                disk.clear_faults();
                ways = left_now(&disk, "at the end", rng.random());
            }
            let chosen = rng.random_range(0..ways.len());
            for left in &ways {
                watch.doing(|| format!("{seed}, {config:?}, round {round}.{generation}, {}", left.name));
                let floor = floor(config.level, left, promised);
                let image = left.disk.deep_clone();
                let db = config.open(&image).expect("it opens after a crash");
                check(&db, &mut diaries.clone(), floor);
            }
            let left = ways.swap_remove(chosen);
            base = floor(config.level, &left, promised);
            disk = left.disk;
        }
    }
}

#[test]
fn full() {
    crashes_at_random_calls("threads, full", Config::FULL, 8);
}

#[test]
fn full_with_a_single_segment() {
    crashes_at_random_calls("threads, full, one segment", Config { pool: 1, ..Config::FULL }, 8);
}

#[test]
fn relaxed() {
    crashes_at_random_calls("threads, relaxed", Config::at(Level::Commits(6)), 8);
}
