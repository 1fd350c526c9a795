//! Models of begin, commit, snapshot and vacuum of small transactions, under thousands of schedules
//! each. A failure prints its schedule, which replays it: see the documentation of shuttle.

mod support;

use fluxmap_shuttle::{Database, FluxError, IsolationLevel, Transaction};
use shuttle::future::block_on;
use shuttle::thread;
use support::explore;

type Store = Database<u8, u32>;

/// The number of schedules of each model. All faults listed in ARCHITECTURE.md were found within a
/// tenth of this.
const SCHEDULES: usize = 3_000;

fn open(level: IsolationLevel, pairs: &[(u8, u32)]) -> Store {
    block_on(async {
        let db = Store::builder().isolation_level(level).build().await.expect("valid settings");
        for (key, value) in pairs {
            db.insert(*key, *value).await.expect("a blind write");
        }
        db
    })
}

fn serializable(pairs: &[(u8, u32)]) -> Store {
    open(IsolationLevel::Serializable, pairs)
}

fn read(tx: &Transaction<u8, u32>, key: u8) -> u32 {
    tx.get(&key).expect("a read").map_or(0, |value| *value)
}

fn write(tx: &Transaction<u8, u32>, key: u8, value: u32) {
    tx.insert(key, value).expect("a buffered write");
}

fn commit(tx: Transaction<u8, u32>) -> bool {
    match block_on(tx.commit()) {
        Ok(()) => true,
        Err(FluxError::SerializationConflict | FluxError::WriteConflict) => false,
        Err(other) => panic!("unexpected: {other}"),
    }
}

#[test]
fn of_two_skewed_writes_one_fails() {
    explore(SCHEDULES, || {
        let db = serializable(&[(1, 1), (2, 1)]);
        let go_off_call = |db: Store, me: u8, other: u8| {
            thread::spawn(move || {
                let tx = db.begin();
                if read(&tx, other) == 1 {
                    write(&tx, me, 0);
                }
                commit(tx)
            })
        };
        let (one, two) = (go_off_call(db.clone(), 1, 2), go_off_call(db.clone(), 2, 1));
        let _ = (one.join(), two.join());
        let view = db.begin();
        assert!(read(&view, 1) + read(&view, 2) >= 1, "both went off call");
    });
}

#[test]
fn of_two_inserts_into_a_counted_range_one_fails_or_counts_the_other() {
    explore(SCHEDULES, || {
        let db = serializable(&[]);
        let join = |db: Store, me: u8| {
            thread::spawn(move || {
                let tx = db.begin();
                let present = tx.count(1..=9).expect("a count") as u32;
                write(&tx, me, present);
                commit(tx)
            })
        };
        let (one, two) = (join(db.clone(), 3), join(db.clone(), 6));
        let committed = [one.join().expect("no panic"), two.join().expect("no panic")];
        let mut seen: Vec<u32> = db.snapshot().range(..).map(|(_, count)| *count).collect();
        seen.sort_unstable();
        let expected: Vec<u32> = (0..committed.iter().filter(|won| **won).count() as u32).collect();
        assert_eq!(seen, expected, "each saw the earlier ones");
    });
}

#[test]
fn no_acknowledged_increment_is_lost() {
    for level in [IsolationLevel::Serializable, IsolationLevel::Snapshot] {
        explore(SCHEDULES, move || {
            let db = open(level, &[(1, 0)]);
            let threads: Vec<_> = (0..3)
                .map(|_| {
                    let db = db.clone();
                    thread::spawn(move || {
                        let tx = db.begin();
                        let n = read(&tx, 1);
                        write(&tx, 1, n + 1);
                        commit(tx)
                    })
                })
                .collect();
            let won = threads.into_iter().filter_map(|thread| thread.join().ok()).filter(|won| *won).count();
            assert_eq!(read(&db.begin(), 1) as usize, won);
        });
    }
}

#[test]
fn a_snapshot_sees_whole_commits_and_keeps_them_through_vacuum() {
    explore(SCHEDULES, || {
        let db = serializable(&[(1, 0), (2, 0)]);
        let writer = {
            let db = db.clone();
            thread::spawn(move || {
                for n in 1..3 {
                    let tx = db.begin();
                    write(&tx, 1, n);
                    write(&tx, 2, n);
                    assert!(commit(tx), "blind writes do not conflict");
                }
            })
        };
        let vacuum = {
            let db = db.clone();
            thread::spawn(move || block_on(db.vacuum()).expect("a vacuum"))
        };
        let view = db.snapshot();
        let get = |key| view.get(&key).expect("a read").map(|value| *value);
        let (one, two) = (get(1), get(2));
        assert!(one.is_some() && one == two, "half a commit: {one:?}, {two:?}");
        let all: Vec<u32> = view.range(..).map(|(_, value)| *value).collect();
        assert_eq!(all, [one.unwrap_or(0); 2], "the scan differs from the gets");
        let _ = (writer.join().expect("no panic"), vacuum.join().expect("no panic"));
        assert_eq!((get(1), get(2)), (one, two), "the snapshot has changed");
        drop(view);
        block_on(db.vacuum()).expect("a vacuum");
        assert_eq!(db.memory_info().versions, 2);
    });
}

#[test]
fn single_reads_do_not_run_backwards_or_see_half_a_commit() {
    explore(SCHEDULES, || {
        let db = serializable(&[(1, 0), (2, 0)]);
        let writer = {
            let db = db.clone();
            thread::spawn(move || {
                for n in 1..3 {
                    let tx = db.begin();
                    write(&tx, 2, n);
                    write(&tx, 1, n);
                    commit(tx);
                    block_on(db.vacuum()).expect("a vacuum");
                }
            })
        };
        let get = |key| *db.get(&key).expect("a read").expect("never deleted");
        let mut last = 0;
        for key in [1, 2, 1, 2] {
            let now = get(key);
            assert!(now >= last, "key {key} went back from {last} to {now}");
            last = now;
        }
        writer.join().expect("no panic");
    });
}

#[test]
fn a_get_sees_what_a_transaction_has_seen_before() {
    explore(SCHEDULES, || {
        let db = serializable(&[(1, 0)]);
        let writer = {
            let db = db.clone();
            thread::spawn(move || block_on(db.insert(1, 1)).expect("a blind write"))
        };
        let tx = db.begin();
        let seen = read(&tx, 1);
        assert!(commit(tx), "a read-only transaction commits");
        let later = *db.get(&1).expect("a read").expect("never deleted");
        assert!(later >= seen, "after a transaction saw {seen}, a get saw {later}");
        writer.join().expect("no panic");
    });
}

#[test]
fn a_key_deleted_and_trimmed_is_absent_and_can_come_back() {
    explore(SCHEDULES, || {
        let db = serializable(&[(1, 7)]);
        let old = db.snapshot();
        let deleter = {
            let db = db.clone();
            thread::spawn(move || {
                let tx = db.begin();
                tx.remove(&1).expect("a removal");
                assert!(commit(tx));
                block_on(db.vacuum()).expect("a vacuum");
            })
        };
        let inserter = {
            let db = db.clone();
            thread::spawn(move || {
                let tx = db.begin();
                let absent = tx.get(&1).expect("a read").is_none();
                if absent {
                    write(&tx, 1, 8);
                }
                commit(tx) && absent
            })
        };
        assert_eq!(old.get(&1).expect("a read").as_deref(), Some(&7));
        deleter.join().expect("no panic");
        let back = inserter.join().expect("no panic");
        assert_eq!(old.get(&1).expect("a read").as_deref(), Some(&7), "an old snapshot lost its value");
        assert_eq!(db.get(&1).expect("a read").as_deref().copied(), back.then_some(8));
        assert_eq!(db.count(..).expect("a count"), usize::from(back));
    });
}

#[test]
fn transactions_that_retry_all_commit() {
    explore(SCHEDULES, || {
        let db = serializable(&[(1, 0)]);
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let db = db.clone();
                thread::spawn(move || {
                    block_on(db.transact(async |tx| {
                        let n = read(tx, 1);
                        // Let other threads run here, so that some transactions lose repeatedly.
                        thread::yield_now();
                        tx.insert(1, n + 1)
                    }))
                })
            })
            .collect();
        for thread in threads {
            thread.join().expect("no panic").expect("every transaction commits");
        }
        assert_eq!(db.get(&1).expect("a read").as_deref(), Some(&3));
    });
}
