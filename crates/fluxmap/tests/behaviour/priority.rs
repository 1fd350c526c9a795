//! Priority leases: a transaction that keeps losing wins in the end, and only commits that would
//! undo what it has read wait for it. No test measures time: a commit that must not wait is ready
//! at the first poll, and a commit that must wait is not.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::common::bench::{Db, Tx, fresh, now, two, works_on};
use crate::common::limits::{EVICTING, limited};
use crate::common::rivals::{UNPROTECTED, on_another_task, on_another_thread};
use crate::common::{LEVELS, assert_nothing_pinned};
use fluxmap::mem::EvictionPolicy;
use fluxmap::persistence::PersistenceOptions;
use fluxmap::{Background, Database, FluxError, IsolationLevel, TransactOptions};
use fluxmap_testkit::disk::SimDisk;
use fluxmap_testkit::polling::{poll_times, yield_once};
use futures::FutureExt as _;
use futures::channel::oneshot;
use futures::executor::block_on;
use futures::future::join;

type Commit<'c> = Pin<Box<dyn Future<Output = Result<(), FluxError>> + Send + 'c>>;

/// Whether a future is ready at once. If it is not, it can be polled again later.
fn is_ready<F: Future<Output = Result<T, FluxError>> + ?Sized, T>(future: &mut Pin<Box<F>>) -> bool {
    match future.as_mut().now_or_never() {
        None => false,
        Some(done) => {
            done.expect("it commits");
            true
        }
    }
}

/// Runs a transaction that does `read`, loses until it has a lease, and then stays in its body
/// while `meanwhile` runs. After that it commits. Returns the number of its attempts.
fn with_priority(db: &Db, rival: &str, read: impl Fn(&Tx), meanwhile: impl FnOnce()) -> u32 {
    let attempts = Cell::new(0);
    let leases = db.priority_info().leases;
    let (go, stay) = oneshot::channel::<()>();
    let stay = RefCell::new(Some(stay));
    let mut favourite = Box::pin(db.transact(async |tx| {
        attempts.set(attempts.get() + 1);
        read(tx);
        if attempts.get() <= UNPROTECTED {
            on_another_thread(db, rival, 100 + u64::from(attempts.get()));
        } else if let Some(stay) = stay.take() {
            stay.await.expect("it is told to go on");
        }
        tx.insert("won".into(), 1)?;
        tx.insert(rival.to_owned(), 1)
    }));
    while attempts.get() <= UNPROTECTED {
        assert!(!is_ready(&mut favourite), "it has not won yet");
    }
    assert_eq!(db.priority_info().leases, leases + 1);
    meanwhile();
    go.send(()).expect("it is there");
    block_on(favourite).expect("no rival has overtaken it");
    now(db, "won", Some(1));
    attempts.get()
}

/// Commits of others that write other keys are made at once. Commits that would undo a read of the
/// lease's holder are made after the holder has committed.
#[test]
fn only_those_wait_who_would_undo_what_the_holder_has_read() {
    let db = fresh();
    let read = |tx: &Tx| {
        assert!(tx.get("x").expect("a read").is_some());
        assert!(tx.get("absent").expect("a read").is_none());
        assert_eq!(tx.range("m".."p").expect("a range").count(), 0);
        // Stop early: only the part of the range that was passed is protected.
        let _ = tx.range("r"..).expect("a range").next();
    };
    block_on(db.insert("s".into(), 0)).expect("an insert commits");
    let mut waiting: Vec<Commit<'_>> = Vec::new();
    let attempts = with_priority(&db, "x", read, || {
        for key in ["y", "l", "p", "t", "anything"] {
            assert!(is_ready(&mut Box::pin(db.insert(key.into(), 7))), "the holder has not read {key}");
        }
        assert!(is_ready(&mut Box::pin(db.update("y", |y| y + 1))));
        assert!(is_ready(&mut Box::pin(db.evict("t"))));
        assert!(is_ready(&mut Box::pin(db.extend(["l", "y"].map(|key| (key.to_owned(), 7))))));
        let tx = db.begin();
        assert!(tx.get("x").expect("a read").is_some(), "reads never wait");
        tx.insert("beside".into(), 1).expect("a write is buffered");
        assert!(is_ready(&mut Box::pin(tx.commit())));
        assert_eq!(db.priority_info().held_back, 0);

        for key in ["x", "absent", "n", "r", "rr", "s"] {
            waiting.push(Box::pin(db.insert(key.into(), 8)));
        }
        waiting.push(Box::pin(db.update("x", |x| x + 1).map(|done| done.map(drop))));
        waiting.push(Box::pin(db.remove("x").map(|done| done.map(drop))));
        waiting.push(Box::pin(db.evict("x").map(|done| done.map(drop))));
        let tx = db.begin();
        tx.insert("elsewhere".into(), 1).expect("a write is buffered");
        tx.insert("o".into(), 1).expect("a write is buffered");
        waiting.push(Box::pin(tx.commit()));
        // The first of its keys undoes nothing, the second does.
        waiting.push(Box::pin(db.extend(["elsewhere", "x"].map(|key| (key.to_owned(), 1)))));
        for (number, commit) in waiting.iter_mut().enumerate() {
            assert!(!is_ready(commit), "number {number} would undo a read");
        }
        assert_eq!(db.priority_info().held_back, 11);
        now(&db, "elsewhere", None);
    });
    assert_eq!(attempts, UNPROTECTED + 1);
    waiting.into_iter().for_each(|commit| block_on(commit).expect("it was only held back"));
    now(&db, "elsewhere", Some(1));
    let info = db.priority_info();
    assert_eq!((info.leases, info.exclusive_leases, info.held_back), (1, 0, 11));
    works_on(&db);
}

/// A scan in progress protects its whole range.
#[test]
fn a_scan_under_way_protects_its_whole_range() {
    let db = fresh();
    let attempts = Cell::new(0);
    let reached = Cell::new(false);
    let (go, stay) = oneshot::channel::<()>();
    let stay = RefCell::new(Some(stay));
    let mut favourite = Box::pin(db.transact(async |tx| {
        attempts.set(attempts.get() + 1);
        if attempts.get() <= UNPROTECTED {
            let _ = tx.get("x")?;
            on_another_thread(&db, "x", u64::from(attempts.get()));
        } else {
            let mut range = tx.range("a".."x")?;
            let _ = range.next();
            if let Some(stay) = stay.take() {
                reached.set(true);
                stay.await.expect("it is told to go on");
            }
        }
        tx.insert("won".into(), 1)
    }));
    while !reached.get() {
        assert!(!is_ready(&mut favourite));
    }
    let mut late = Box::pin(db.insert("w".into(), 1));
    assert!(!is_ready(&mut late), "the scan may still come there");
    assert!(is_ready(&mut Box::pin(db.insert("y".into(), 1))));
    go.send(()).expect("it is there");
    block_on(join(favourite, late)).0.expect("it wins");
    assert_nothing_pinned(&db);
}

/// At the snapshot level reads are not certified, so the lease protects the keys that the holder
/// writes.
#[test]
fn at_the_snapshot_level_those_wait_who_write_what_the_holder_writes() {
    let db = two(IsolationLevel::Snapshot);
    let mut waiting = None;
    let attempts = Cell::new(0);
    let (go, stay) = oneshot::channel::<()>();
    let stay = RefCell::new(Some(stay));
    let mut favourite = Box::pin(db.transact(async |tx| {
        attempts.set(attempts.get() + 1);
        let _ = tx.get("y")?;
        tx.insert("x".into(), 1)?;
        if attempts.get() <= UNPROTECTED {
            on_another_thread(&db, "x", 2);
        } else if let Some(stay) = stay.take() {
            stay.await.expect("it is told to go on");
        }
        Ok::<_, FluxError>(())
    }));
    while attempts.get() <= UNPROTECTED {
        assert!(!is_ready(&mut favourite));
    }
    assert!(is_ready(&mut Box::pin(db.insert("y".into(), 7))), "it was only read");
    let write = waiting.insert(Box::pin(db.insert("x".into(), 9)));
    assert!(!is_ready(write));
    go.send(()).expect("it is there");
    block_on(favourite).expect("it wins");
    block_on(waiting.take().expect("it waits")).expect("it commits");
    now(&db, "x", Some(9));
    works_on(&db);
}

/// A transaction that reads another key in each attempt loses although its reads are protected. It
/// then gets an exclusive lease, during which all other commits wait.
#[test]
fn only_reads_that_move_get_an_exclusive_lease() {
    let db = fresh();
    let attempts = Cell::new(0);
    let moves = UNPROTECTED + 2;
    let (go, stay) = oneshot::channel::<()>();
    let stay = RefCell::new(Some(stay));
    let mut favourite = Box::pin(db.transact(async |tx| {
        attempts.set(attempts.get() + 1);
        let key = format!("moves {}", attempts.get());
        if attempts.get() <= moves {
            // Commit between the snapshot and the read of this key, which the lease does not
            // protect yet.
            on_another_thread(&db, &key, 1);
        }
        let _ = tx.get(key.as_str())?;
        if attempts.get() > moves
            && let Some(stay) = stay.take()
        {
            stay.await.expect("it is told to go on");
        }
        tx.insert("won".into(), 1)
    }));
    while attempts.get() <= moves {
        assert!(!is_ready(&mut favourite));
    }
    assert_eq!(db.priority_info().exclusive_leases, 1);
    let mut anybody = Box::pin(db.insert("unrelated".into(), 1));
    assert!(!is_ready(&mut anybody), "everybody waits");
    go.send(()).expect("it is there");
    block_on(favourite).expect("it wins");
    block_on(anybody).expect("it commits");
    works_on(&db);
}

/// A loss to the holder of a lease, after a wait for it, was to be expected. It hardly counts: if each
/// lease made all that had waited for it claim one soon, everybody would wait for ever more leases.
#[test]
fn losses_to_leases_do_not_lead_to_more_leases() {
    let db = fresh();
    let attempts = Cell::new(0);
    let mut other = Box::pin(db.transact(async |tx| {
        attempts.set(attempts.get() + 1);
        let x = tx.get("x")?.map_or(0, |x| *x);
        tx.insert("x".into(), x + 1)
    }));
    for round in 1..=2 * UNPROTECTED {
        with_priority(
            &db,
            "x",
            |tx| drop(tx.get("x")),
            || {
                assert!(!is_ready(&mut other), "it waits for the lease");
                assert_eq!(attempts.get(), round);
            },
        );
        assert!(!is_ready(&mut other), "it has lost, and lets others run");
        assert_eq!(db.priority_info().leases, u64::from(round), "it has claimed no lease");
    }
    assert!(is_ready(&mut other), "there is no rival any more");
}

/// A nested transaction that keeps losing inside a body with a lease shares that lease, which then
/// protects the nested reads, too. Neither transaction waits for the other.
#[test]
fn a_nested_transaction_runs_under_the_lease_around_it() {
    for level in LEVELS {
        let db = two(level);
        let (outer, inner) = (Cell::new(0), Cell::new(0));
        let won = block_on(db.transact(async |tx| {
            outer.set(outer.get() + 1);
            tx.update("x", |x| x + 1)?;
            if outer.get() <= UNPROTECTED {
                on_another_task(&db, "x", 100).await;
                return Ok(());
            }
            db.transact(async |nested| {
                inner.set(inner.get() + 1);
                nested.update("y", |y| y + 1)?;
                match inner.get() <= UNPROTECTED {
                    true => on_another_task(&db, "y", 200).await,
                    false => {
                        let mut rival = Box::pin(db.clone().begin_and_put("y"));
                        // On another thread, so that it does not count as a commit of the body's.
                        let is_held = std::thread::scope(|scope| {
                            scope.spawn(|| poll_times(rival.as_mut(), 1).is_none()).join()
                        });
                        assert!(is_held.expect("no panic"), "{level:?}: y is protected");
                    }
                }
                Ok::<_, FluxError>(())
            })
            .await
        }));
        won.expect("both win");
        assert_eq!((outer.get(), inner.get()), (UNPROTECTED + 1, UNPROTECTED + 1), "{level:?}");
        now(&db, "x", Some(101));
        now(&db, "y", Some(201));
        assert_eq!(db.priority_info().leases, 1, "{level:?}: the nested one has none of its own");
        works_on(&db);
    }
}

/// A write whose future owns everything that it needs, so that another thread can poll it.
trait Put {
    fn begin_and_put(self, key: &str) -> impl Future<Output = Result<(), FluxError>> + Send;
}

impl Put for Db {
    fn begin_and_put(self, key: &str) -> impl Future<Output = Result<(), FluxError>> + Send {
        let key = key.to_owned();
        async move { self.insert(key, 7).await }
    }
}

/// Leases are granted one after the other. If a deadline passes while a transaction waits for its
/// lease, no further attempt is made.
#[test]
fn a_deadline_that_passes_while_a_lease_is_waited_for_begins_no_attempt() {
    let db = fresh();
    let attempts = Cell::new(0);
    let mut late = None;
    with_priority(
        &db,
        "x",
        |tx| drop(tx.get("x")),
        || {
            let deadline = std::time::Duration::from_millis(1);
            let options = TransactOptions::default().deadline(deadline);
            let late = late.insert(Box::pin(db.transact_with(options, async |tx| {
                attempts.set(attempts.get() + 1);
                let _ = tx.get("y")?;
                on_another_thread(&db, "y", u64::from(attempts.get()));
                yield_once().await;
                tx.insert("z".into(), 1)
            })));
            // Poll it until it waits for its lease, unless its time runs out first.
            for _ in 0..20 {
                if let Some(ended) = late.as_mut().now_or_never() {
                    assert!(matches!(ended, Err(FluxError::DeadlineExceeded { .. })), "{ended:?}");
                    return;
                }
            }
        },
    );
    assert!(attempts.get() <= UNPROTECTED, "{attempts:?}");
    drop(late);
    works_on(&db);
}

/// Room for about 1,500 short keys.
const LIMIT: u64 = 256 << 10;

/// The digits of short keys, and of long ones, of which there is room for 13.
const SHORT: usize = 6;
const LONG: usize = 16 << 10;

/// The number of keys that the holder of a lease counts in the tests of evictions.
const COUNTED: u64 = 700;

/// Fills a database with a memory limit: with keys that begin with a, which are the oldest, and then,
/// until the limit is reached, with others.
fn full(policy: EvictionPolicy, is_told: bool, digits: usize) -> Db {
    let db = empty(policy, is_told);
    let others = (0..).map(|number| key('b', digits, number));
    for key in (0..COUNTED).map(|number| key('a', digits, number)).chain(others) {
        block_on(db.insert(key, 0)).expect("room is made");
        if db.memory_info().evictions.capacity > 0 {
            return db;
        }
    }
    unreachable!("it is full in the end");
}

/// A database whose time stands still, so that no lease runs out.
fn empty(policy: EvictionPolicy, is_told: bool) -> Db {
    let builder = limited(policy, LIMIT).background(&Background::new(1));
    let builder = if is_told { builder.on_evict(|_, _, _| ()) } else { builder };
    block_on(builder.build()).expect("the database opens")
}

fn key(first: char, digits: usize, number: u64) -> String {
    // Concatenated, because `format!` allocates up to twice the length.
    [first.to_string(), "0".repeat(digits - SHORT), format!("{number:0SHORT$}")].concat()
}

fn assert_within_limit(db: &Db) {
    let info = db.memory_info();
    assert!(info.current_bytes <= LIMIT, "{info:?}");
}

/// A commit of another key does not wait for a lease, and the room for it is not made at the expense of
/// the lease's holder: keys that the holder has not read are evicted, even if the policy would rather
/// evict the others. So the holder commits in its first lease.
#[test]
fn room_for_others_is_not_made_by_evicting_what_the_holder_has_read() {
    for (policy, is_told) in EVICTING.into_iter().flat_map(|policy| [(policy, false), (policy, true)]) {
        let db = full(policy, is_told, SHORT);
        let count = || db.count("a".to_owned().."b".to_owned()).expect("a count succeeds");
        let read = |tx: &Tx| {
            let _ = tx.get("x").expect("a read");
            assert!(tx.prefix("a").expect("a prefix").count() > 100);
        };
        let attempts = with_priority(&db, "x", read, || {
            let (counted, evicted) = (count(), db.memory_info().evictions.capacity);
            for number in 0..1_000 {
                let insert = db.insert(key('y', SHORT, number), 1);
                assert!(is_ready(&mut Box::pin(insert)), "it is not protected");
                assert_within_limit(&db);
            }
            // A commit of many keys makes room for all of them.
            let many = (0..100).map(|number| (key('z', SHORT, number), 1));
            assert!(is_ready(&mut Box::pin(db.extend(many))));
            assert_within_limit(&db);
            assert!(db.memory_info().evictions.capacity >= evicted + 1_000, "{policy:?}");
            assert_eq!(count(), counted, "{policy:?}, told: {is_told}");
            assert!(db.contains_key("x").expect("a read"), "{policy:?}");
        });
        assert_eq!(attempts, UNPROTECTED + 1, "{policy:?}");
        let info = db.priority_info();
        assert_eq!((info.leases, info.exclusive_leases, info.held_back), (1, 0, 0), "{policy:?}");
    }
}

/// If the holder of a lease has read all keys, the memory limit takes precedence: its keys are evicted,
/// and no commit waits.
#[test]
fn the_limit_holds_though_everything_is_protected() {
    // With long keys, all others are keys of the commit that needs the room.
    for (policy, digits, many) in
        EVICTING.into_iter().flat_map(|policy| [(policy, SHORT, 200), (policy, LONG, 12)])
    {
        let db = full(policy, false, digits);
        let read = |tx: &Tx| {
            let _ = tx.get("x").expect("a read");
            let _ = tx.range(..="x").expect("a range").count();
        };
        let attempts = with_priority(&db, "x", read, || {
            let writes = (0..many).map(|number| (key('y', digits, number), 1));
            assert!(is_ready(&mut Box::pin(db.extend(writes))), "it is not protected");
            let count = db.count("y".to_owned()..).expect("a count succeeds") as u64;
            assert_eq!(count, many, "{policy:?}");
            assert_within_limit(&db);
        });
        assert_eq!(attempts, UNPROTECTED + 2, "{policy:?}: keys that it has read were evicted");
        assert_within_limit(&db);
        assert_eq!(db.priority_info().exclusive_leases, 0, "{policy:?}");
    }
}

/// The policy offers the keys of the commit that needs the room again and again if all others are
/// protected. The limit holds all the same.
#[test]
fn the_only_other_key_is_evicted_though_it_is_protected() {
    for policy in EVICTING {
        let db = empty(policy, false);
        block_on(db.insert(key('a', LONG, 0), 0)).expect("an insert commits");
        let read = |tx: &Tx| {
            let _ = tx.get("x").expect("a read");
            let _ = tx.prefix("a").expect("a prefix").count();
        };
        with_priority(&db, "x", read, || {
            let writes = (0..15).map(|number| (key('y', LONG, number), 1));
            assert!(is_ready(&mut Box::pin(db.extend(writes))), "it is not protected");
            assert_eq!(db.count("y".to_owned()..).expect("a count succeeds"), 15, "{policy:?}");
            assert!(!db.contains_key(key('a', LONG, 0).as_str()).expect("a read"), "{policy:?}");
            assert_within_limit(&db);
        });
    }
}

/// The time of a lease does not pass while its holder waits for the log.
#[test]
fn a_durable_database_has_leases_too() {
    let options = PersistenceOptions { wal_segment_size_bytes: 64 << 10, ..PersistenceOptions::new("db") };
    let builder = Database::<String, u64>::builder().disk(Arc::new(SimDisk::new(1)));
    let db: Db = block_on(builder.durability_full(options).build()).expect("the database opens");
    block_on(db.insert("x".into(), 1)).expect("an insert commits");
    let mut waiting = None;
    with_priority(
        &db,
        "x",
        |tx| drop(tx.get("x")),
        || {
            block_on(db.insert("y".into(), 1)).expect("an insert commits");
            let rival = waiting.insert(Box::pin(db.insert("x".into(), 5)));
            assert!(!is_ready(rival));
        },
    );
    block_on(waiting.take().expect("it waits")).expect("it commits");
    now(&db, "x", Some(5));
}
