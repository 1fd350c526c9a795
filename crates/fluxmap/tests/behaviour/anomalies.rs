//! The catalogue of isolation anomalies (Adya's and Fekete's names, in the order of the Hermitage
//! test suite) as deterministic tests. Every test says what each isolation level must allow and
//! forbid, and asserts both.

use crate::common::LEVELS;
use crate::common::bench::{
    Commits, Overwritten, Tx, Unserializable, commits, ends, filled, get, keys_where, now, put, scan, two,
};
use fluxmap::IsolationLevel;

/// G0, dirty write: two transactions write x and y, interleaved.
/// Both levels: the writes of one never mix with those of the other.
/// Serializable: both commit, as if one ran after the other, because their writes are blind.
/// Snapshot: the second to commit is refused (first committer wins).
#[test]
fn g0_dirty_write() {
    for level in LEVELS {
        let db = two(level);
        let (t1, t2) = (db.begin(), db.begin());
        put(&t1, "x", 11);
        put(&t2, "x", 12);
        put(&t1, "y", 21);
        commits(t1);
        now(&db, "x", Some(11));
        put(&t2, "y", 22);
        ends(t2, Commits, Overwritten);
        let second_won = level == IsolationLevel::Serializable;
        now(&db, "x", Some(if second_won { 12 } else { 11 }));
        now(&db, "y", Some(if second_won { 22 } else { 21 }));
    }
}

/// G1a, aborted read: at both levels no transaction sees a write that is rolled back, before or
/// after the rollback. The reader commits.
#[test]
fn g1a_aborted_read() {
    for level in LEVELS {
        let db = two(level);
        let (t1, t2) = (db.begin(), db.begin());
        put(&t1, "x", 101);
        assert_eq!(get(&t2, "x"), Some(10));
        t1.rollback();
        assert_eq!(get(&t2, "x"), Some(10));
        commits(t2);
        now(&db, "x", Some(10));
    }
}

/// G1b, intermediate read: at both levels no transaction sees a value that its own transaction
/// overwrites. A later reader sees only the last value.
#[test]
fn g1b_intermediate_read() {
    for level in LEVELS {
        let db = two(level);
        let (t1, t2) = (db.begin(), db.begin());
        put(&t1, "x", 101);
        assert_eq!(get(&t2, "x"), Some(10));
        put(&t1, "x", 11);
        commits(t1);
        assert_eq!(get(&t2, "x"), Some(10));
        commits(t2);
        now(&db, "x", Some(11));
    }
}

/// G1c, circular information flow: at both levels neither transaction may see the other's write.
/// Serializable: each has read a key that the other wrote, so the second is refused.
/// Snapshot: both commit, because they wrote different keys.
#[test]
fn g1c_circular_information_flow() {
    for level in LEVELS {
        let db = two(level);
        let (t1, t2) = (db.begin(), db.begin());
        put(&t1, "x", 11);
        put(&t2, "y", 22);
        assert_eq!(get(&t1, "y"), Some(20));
        assert_eq!(get(&t2, "x"), Some(10));
        commits(t1);
        ends(t2, Unserializable, Commits);
    }
}

/// OTV, observed transaction vanishes: at both levels no reader may see T1 in one key and T2, which
/// overwrote T1, in another.
/// Serializable: T2 is blind and commits. Snapshot: T2 is refused.
#[test]
fn otv_observed_transaction_vanishes() {
    for level in LEVELS {
        let db = two(level);
        let (t1, t2) = (db.begin(), db.begin());
        put(&t1, "x", 11);
        put(&t1, "y", 19);
        put(&t2, "x", 12);
        commits(t1);
        let t3 = db.begin();
        assert_eq!(get(&t3, "x"), Some(11));
        put(&t2, "y", 18);
        assert_eq!(get(&t3, "y"), Some(19));
        ends(t2, Commits, Overwritten);
        assert_eq!(get(&t3, "y"), Some(19));
        assert_eq!(get(&t3, "x"), Some(11));
        commits(t3);
    }
}

/// PMP, predicate-many-preceders, read predicate: at both levels a predicate finds the same keys
/// the second time. A transaction that only reads commits.
/// Serializable: a transaction that wrote because of what it found is refused. Snapshot: it commits.
#[test]
fn pmp_read_predicate() {
    for level in LEVELS {
        let db = two(level);
        let (reader, writer) = (db.begin(), db.begin());
        for tx in [&reader, &writer] {
            assert!(keys_where(tx, |value| value == 30).is_empty());
        }
        let t2 = db.begin();
        put(&t2, "z", 30);
        commits(t2);
        for tx in [&reader, &writer] {
            assert!(keys_where(tx, |value| value == 30).is_empty());
        }
        commits(reader);
        put(&writer, "w", 1);
        ends(writer, Unserializable, Commits);
    }
}

/// PMP, write predicate: T1 adds 10 to all values, T2 deletes the keys whose value is 20. Both
/// levels refuse T2, because it deletes a key that T1 has changed.
#[test]
fn pmp_write_predicate() {
    for level in LEVELS {
        let db = two(level);
        let (t1, t2) = (db.begin(), db.begin());
        for (key, value) in scan(&t1) {
            put(&t1, &key, value + 10);
        }
        let doomed = keys_where(&t2, |value| value == 20);
        assert_eq!(doomed, ["y"]);
        t2.remove("y").expect("a remove succeeds");
        commits(t1);
        ends(t2, Unserializable, Overwritten);
        now(&db, "x", Some(20));
        now(&db, "y", Some(30));
    }
}

/// P4, lost update: both levels refuse the second of two transactions that read and write x, in
/// whichever way they change it.
#[test]
fn p4_lost_update() {
    let increments: [fn(&Tx); 3] = [
        |tx| put(tx, "x", get(tx, "x").expect("x is there") + 1),
        |tx| assert!(tx.update("x", |old| old + 1).expect("succeeds").is_some()),
        |tx| assert!(tx.compare_and_swap("x".into(), Some(&10), Some(11)).expect("succeeds")),
    ];
    for level in LEVELS {
        for increment in increments {
            let db = two(level);
            let (t1, t2) = (db.begin(), db.begin());
            increment(&t1);
            increment(&t2);
            commits(t1);
            ends(t2, Unserializable, Overwritten);
            now(&db, "x", Some(11));
        }
    }
}

/// G-single, read skew: at both levels no reader may see x as before T2 and y as after it. The
/// reader commits.
#[test]
fn g_single_read_skew() {
    for level in LEVELS {
        let db = two(level);
        let (t1, t2) = (db.begin(), db.begin());
        assert_eq!(get(&t1, "x"), Some(10));
        put(&t2, "x", 12);
        put(&t2, "y", 18);
        commits(t2);
        assert_eq!(get(&t1, "y"), Some(20));
        commits(t1);
    }
}

/// G-single with predicates: at both levels a scan after T2's commit must agree with one before it.
/// The reader commits.
#[test]
fn g_single_predicate() {
    for level in LEVELS {
        let db = two(level);
        let (t1, t2) = (db.begin(), db.begin());
        let fifths = |tx: &Tx| keys_where(tx, |value| value % 5 == 0);
        assert_eq!(fifths(&t1), ["x", "y"]);
        put(&t2, "x", 12);
        commits(t2);
        assert_eq!(keys_where(&t1, |value| value % 3 == 0), [""; 0]);
        assert_eq!(fifths(&t1), ["x", "y"]);
        commits(t1);
    }
}

/// G-single through a write: T1 saw the old x and then deletes y, which T2 changed together with x.
/// Both levels refuse T1.
#[test]
fn g_single_write() {
    for level in LEVELS {
        let db = two(level);
        let (t1, t2) = (db.begin(), db.begin());
        assert_eq!(get(&t1, "x"), Some(10));
        put(&t2, "x", 12);
        put(&t2, "y", 18);
        commits(t2);
        t1.remove("y").expect("a remove succeeds");
        ends(t1, Unserializable, Overwritten);
        now(&db, "y", Some(18));
    }
}

/// G2-item, write skew: both transactions read x and y, one writes x, the other y. Serializable
/// refuses the second. Snapshot commits both, which is the one anomaly that it allows.
#[test]
fn g2_item_write_skew() {
    for level in LEVELS {
        let db = two(level);
        let (t1, t2) = (db.begin(), db.begin());
        for tx in [&t1, &t2] {
            assert_eq!((get(tx, "x"), get(tx, "y")), (Some(10), Some(20)));
        }
        put(&t1, "x", 11);
        put(&t2, "y", 21);
        commits(t1);
        ends(t2, Unserializable, Commits);
    }
}

/// G2, write skew through a predicate: both transactions look for values divisible by three, find
/// none, and insert one each. Serializable refuses the second, Snapshot commits it.
#[test]
fn g2_predicate() {
    for level in LEVELS {
        let db = two(level);
        let (t1, t2) = (db.begin(), db.begin());
        for tx in [&t1, &t2] {
            assert!(keys_where(tx, |value| value % 3 == 0).is_empty());
        }
        put(&t1, "v", 30);
        put(&t2, "w", 42);
        commits(t1);
        ends(t2, Unserializable, Commits);
    }
}

/// G2 with two anti-dependency edges: T1 scanned before T2 changed y; T3 saw T2 but not T1; then T1
/// writes x. Serializable refuses T1, Snapshot commits it. The reader T3 commits at both.
#[test]
fn g2_two_edges() {
    for level in LEVELS {
        let db = two(level);
        let t1 = db.begin();
        assert_eq!(scan(&t1).len(), 2);
        let t2 = db.begin();
        let y = get(&t2, "y").expect("y is there");
        put(&t2, "y", y + 5);
        commits(t2);
        let t3 = db.begin();
        assert_eq!((get(&t3, "x"), get(&t3, "y")), (Some(10), Some(25)));
        commits(t3);
        put(&t1, "x", 0);
        ends(t1, Unserializable, Commits);
    }
}

/// The read-only anomaly (Fekete, O'Neil & O'Neil 2004): checking x and savings y are 0. T2 reads
/// both and will withdraw; T1 deposits 20 into y and commits; the reader T3 sees (0, 20); T2 then
/// withdraws with the overdraft fee. No serial order explains both T3's reads and the fee.
/// Serializable refuses T2. Snapshot commits it. T3 commits at both.
#[test]
fn read_only_anomaly() {
    for level in LEVELS {
        let db = filled(level, &[("x", 0), ("y", 0)]);
        let (t1, t2) = (db.begin(), db.begin());
        assert_eq!((get(&t2, "x"), get(&t2, "y")), (Some(0), Some(0)));
        let y = get(&t1, "y").expect("y is there");
        put(&t1, "y", y + 20);
        commits(t1);
        let t3 = db.begin();
        assert_eq!((get(&t3, "x"), get(&t3, "y")), (Some(0), Some(20)));
        commits(t3);
        put(&t2, "x", 11);
        ends(t2, Unserializable, Commits);
    }
}

/// Long fork: T1 writes x, T2 writes y. At both levels it must not happen that one reader sees only
/// T1 and another only T2, wherever the two begin.
#[test]
fn long_fork() {
    for level in LEVELS {
        let db = two(level);
        let (t1, t2) = (db.begin(), db.begin());
        let mut readers = vec![db.begin()];
        put(&t1, "x", 11);
        put(&t2, "y", 21);
        readers.push(db.begin());
        commits(t1);
        readers.push(db.begin());
        commits(t2);
        readers.push(db.begin());
        // All readers read only now, half of them x first: neither may change what they see.
        let seen: Vec<(bool, bool)> = readers
            .iter()
            .enumerate()
            .map(|(i, tx)| {
                let x_first = (i % 2 == 0).then(|| get(tx, "x"));
                let y = get(tx, "y");
                let x = x_first.unwrap_or_else(|| get(tx, "x"));
                (x == Some(11), y == Some(21))
            })
            .collect();
        assert_eq!(seen, [(false, false), (false, false), (true, false), (true, true)]);
        readers.into_iter().for_each(commits);
    }
}
