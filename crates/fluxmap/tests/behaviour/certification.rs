//! The rules that decide a commit, beyond the named anomalies. Every way to learn whether a key is
//! present or absent counts as a read, at whatever time it happened, and nothing else does. Every
//! test says what each isolation level must allow and forbid.
//!
//! At `Serializable` a transaction is refused if anything that it read has changed since its
//! snapshot; blind writes never conflict. At `Snapshot` it is refused if another transaction has
//! since committed a write to a key that it wrote. A transaction that wrote nothing always commits.

use crate::common::bench::{
    Commits, Overwritten, Tx, Unserializable, commits, ends, get, now, put, scan, two,
};
use crate::common::{LEVELS, content};
use fluxmap::IsolationLevel;
use futures::executor::block_on;

/// Write skew on keys that do not exist: both transactions find a and b absent, one inserts a, the
/// other b. Serializable refuses the second, Snapshot commits it. Every way to learn of an absence
/// counts.
#[test]
fn write_skew_on_absent_keys() {
    let absences: [fn(&Tx, &str); 7] = [
        |tx, key| assert_eq!(get(tx, key), None),
        |tx, key| assert!(!tx.contains_key(key).expect("succeeds")),
        |tx, key| assert!(tx.remove(key).expect("succeeds").is_none()),
        |tx, key| assert!(tx.update(key, |old| *old).expect("succeeds").is_none()),
        |tx, key| assert!(!tx.compare_and_swap(key.into(), Some(&1), Some(2)).expect("succeeds")),
        |tx, key| assert_eq!(tx.count(key..=key).expect("succeeds"), 0),
        |tx, key| assert!(tx.prefix(key).expect("succeeds").next().is_none()),
    ];
    for level in LEVELS {
        for learn in absences {
            let db = two(level);
            let (t1, t2) = (db.begin(), db.begin());
            learn(&t1, "b");
            learn(&t2, "a");
            put(&t1, "a", 1);
            put(&t2, "b", 1);
            commits(t1);
            ends(t2, Unserializable, Commits);
        }
    }
}

/// Write skew on keys that exist, with every way to learn of a presence. Serializable refuses the
/// second, Snapshot commits it.
#[test]
fn write_skew_on_present_keys() {
    let presences: [fn(&Tx, &str); 7] = [
        |tx, key| assert!(get(tx, key).is_some()),
        |tx, key| assert!(tx.contains_key(key).expect("succeeds")),
        |tx, key| assert!(!tx.compare_and_swap(key.into(), None, Some(2)).expect("succeeds")),
        |tx, key| assert!(*tx.get_or_insert_with(key.into(), || 0).expect("succeeds") >= 10),
        |tx, key| assert_eq!(tx.count(key..=key).expect("succeeds"), 1),
        |tx, key| assert!(tx.prefix(key).expect("succeeds").next().is_some()),
        |tx, key| assert_eq!(tx.range(key..).expect("succeeds").next().expect("present").0, key),
    ];
    for level in LEVELS {
        for learn in presences {
            let db = two(level);
            let (t1, t2) = (db.begin(), db.begin());
            learn(&t1, "y");
            learn(&t2, "x");
            put(&t1, "x", 1);
            put(&t2, "y", 1);
            commits(t1);
            ends(t2, Unserializable, Commits);
        }
    }
}

/// `remove` returns the value that was there, so it counts as a read, whether the key is present or
/// not. Both levels refuse a `remove` whose key was changed meanwhile, although the key would be
/// gone either way.
#[test]
fn a_remove_is_a_read() {
    for level in LEVELS {
        let db = two(level);
        let t1 = db.begin();
        assert_eq!(t1.remove("x").expect("a remove succeeds").as_deref(), Some(&10));
        put(&t1, "z", 1);
        block_on(db.insert("x".into(), 11)).expect("an insert commits");
        ends(t1, Unserializable, Overwritten);
        now(&db, "x", Some(11));
    }
}

/// The read may come after the commit that overwrites the key: it still returns the old value, and
/// still counts. Serializable refuses, Snapshot commits.
#[test]
fn write_skew_when_the_read_comes_last() {
    for level in LEVELS {
        let db = two(level);
        let t1 = db.begin();
        put(&t1, "y", 0);
        let t2 = db.begin();
        assert_eq!(get(&t2, "y"), Some(20));
        put(&t2, "x", 0);
        commits(t2);
        assert_eq!(get(&t1, "x"), Some(10));
        ends(t1, Unserializable, Commits);
    }
}

/// A transaction that wrote nothing commits at both levels, whatever happened to the keys that it
/// read. So does a transaction that undid all its writes by a rollback to a savepoint.
#[test]
fn a_reader_always_commits() {
    for level in LEVELS {
        let db = two(level);
        let (reader, undone) = (db.begin(), db.begin());
        let start = undone.savepoint().expect("a savepoint is set");
        for tx in [&reader, &undone] {
            assert_eq!((scan(tx).len(), get(tx, "q")), (2, None));
        }
        put(&undone, "x", 1);
        for key in ["x", "y", "q"] {
            block_on(db.insert(key.into(), 7)).expect("an insert commits");
        }
        undone.rollback_to(&start).expect("the savepoint is there");
        commits(reader);
        commits(undone);
        now(&db, "x", Some(7));
    }
}

/// Reads before a rollback to a savepoint still count, because the caller has seen their results
/// and may have acted upon them. Serializable refuses, Snapshot commits.
#[test]
fn a_return_to_a_savepoint_forgets_no_reads() {
    for level in LEVELS {
        let db = two(level);
        let point = db.begin();
        let range = db.begin();
        type Read = fn(&Tx);
        let reads: [(&Tx, &str, Read); 2] = [
            (&point, "p", |tx| assert_eq!(get(tx, "x"), Some(10))),
            (&range, "r", |tx| assert_eq!(scan(tx).len(), 2)),
        ];
        for (tx, own, read) in reads {
            let savepoint = tx.savepoint().expect("a savepoint is set");
            read(tx);
            tx.rollback_to(&savepoint).expect("the savepoint is there");
            put(tx, own, 1);
        }
        block_on(db.insert("x".into(), 11)).expect("an insert commits");
        ends(point, Unserializable, Commits);
        ends(range, Unserializable, Commits);
    }
}

/// Reading an own write depends on no other transaction. At Serializable the write stays blind and
/// commits. At Snapshot the write itself conflicts.
#[test]
fn reading_an_own_write_is_no_read_of_the_database() {
    for level in LEVELS {
        let db = two(level);
        let t1 = db.begin();
        put(&t1, "x", 11);
        assert_eq!(get(&t1, "x"), Some(11));
        block_on(db.insert("x".into(), 99)).expect("an insert commits");
        ends(t1, Commits, Overwritten);
        now(&db, "x", Some(if level == IsolationLevel::Serializable { 11 } else { 99 }));
    }
}

/// A write that restores the value that was read is a change like any other, because the rule
/// compares versions, not values. Serializable refuses, Snapshot commits.
#[test]
fn a_value_that_came_back_counts_as_changed() {
    for level in LEVELS {
        let db = two(level);
        let t1 = db.begin();
        assert_eq!(get(&t1, "x"), Some(10));
        put(&t1, "y", 0);
        for value in [11, 10] {
            block_on(db.insert("x".into(), value)).expect("an insert commits");
        }
        ends(t1, Unserializable, Commits);
    }
}

/// A refused transaction leaves no trace at either level, neither of its conflicting write nor of
/// the others.
#[test]
fn a_refused_transaction_leaves_nothing() {
    for level in LEVELS {
        let db = two(level);
        let loser = db.begin();
        let x = get(&loser, "x").expect("x is there");
        put(&loser, "x", x + 1);
        put(&loser, "new", 1);
        loser.remove("y").expect("a remove succeeds");
        block_on(db.insert("x".into(), 50)).expect("an insert commits");
        ends(loser, Unserializable, Overwritten);
        block_on(db.vacuum()).expect("vacuum succeeds");
        let rest = content(&db);
        assert_eq!(rest, [("x".to_owned(), 50), ("y".to_owned(), 20)]);
    }
}
