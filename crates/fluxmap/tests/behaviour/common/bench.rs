//! Small databases and helpers to state exactly how each commit ends, at each isolation level. The
//! anomaly tests use the keys x and y, the phantom tests walk ranges.

use std::fmt::Debug;
use std::hash::Hash;

use fluxmap::{Database, FluxError, IsolationLevel, Transaction};
use futures::executor::block_on;

use super::{LEVELS, assert_nothing_pinned, commit, content, open_at};

pub(crate) type Db = Database<String, u64>;
pub(crate) type Tx = Transaction<String, u64>;

/// How a commit ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ends {
    Commits,
    /// `FluxError::SerializationConflict`.
    Unserializable,
    /// `FluxError::WriteConflict`.
    Overwritten,
}
pub(crate) use Ends::{Commits, Overwritten, Unserializable};

/// Commits `tx`, and asserts that it ends as expected for its isolation level.
#[track_caller]
pub(crate) fn ends(tx: Tx, serializable: Ends, snapshot: Ends) {
    let level = tx.isolation_level();
    let expected = match level {
        IsolationLevel::Serializable => serializable,
        IsolationLevel::Snapshot => snapshot,
    };
    let actual = match commit(tx) {
        Ok(()) => Commits,
        Err(FluxError::SerializationConflict) => Unserializable,
        Err(FluxError::WriteConflict) => Overwritten,
        Err(other) => panic!("neither committed nor refused: {other}"),
    };
    assert_eq!(actual, expected, "at {level:?}");
}

#[track_caller]
pub(crate) fn commits(tx: Tx) {
    ends(tx, Commits, Commits);
}

/// A database with x = 10 and y = 20.
pub(crate) fn two(level: IsolationLevel) -> Db {
    filled(level, &[("x", 10), ("y", 20)])
}

pub(crate) fn filled(level: IsolationLevel, items: &[(&str, u64)]) -> Db {
    let db = open_at(level);
    for &(key, value) in items {
        block_on(db.insert(key.into(), value)).expect("an insert commits");
    }
    db
}

pub(crate) fn get(tx: &Tx, key: &str) -> Option<u64> {
    tx.get(key).expect("a read succeeds").map(|value| *value)
}

pub(crate) fn put(tx: &Tx, key: &str, value: u64) {
    tx.insert(key.into(), value).expect("a write is buffered");
}

/// All entries that the transaction sees.
pub(crate) fn scan(tx: &Tx) -> Vec<(String, u64)> {
    let all = tx.range(..).expect("a range succeeds");
    all.map(|(key, value)| (key, *value)).collect()
}

/// The keys whose value passes `test`, found by scanning everything: a predicate read.
pub(crate) fn keys_where(tx: &Tx, test: impl Fn(u64) -> bool) -> Vec<String> {
    let all = scan(tx).into_iter();
    all.filter(|(_, value)| test(*value)).map(|(key, _)| key).collect()
}

#[track_caller]
pub(crate) fn now(db: &Db, key: &str, value: Option<u64>) {
    let actual = db.get(key).expect("a read succeeds").map(|value| *value);
    assert_eq!(actual, value, "{key}");
}

/// A database at the default level with x = 10 and y = 20.
pub(crate) fn fresh() -> Db {
    two(IsolationLevel::Serializable)
}

/// Builds a list of items in the form that [`content`] returns.
pub(crate) fn items(items: &[(&str, u64)]) -> Vec<(String, u64)> {
    items.iter().map(|&(key, value)| (key.to_owned(), value)).collect()
}

/// Asserts that the store works as if nothing had happened.
#[track_caller]
pub(crate) fn works_on(db: &Db) {
    assert_nothing_pinned(db);
    let before = content(db);
    block_on(db.vacuum()).expect("vacuum succeeds");
    assert_eq!(content(db), before, "nothing comes back");
    let counted = block_on(db.transact(async |tx| {
        let old = tx.get("counter")?.map_or(0, |value| *value);
        tx.insert("counter".into(), old + 1)?;
        Ok::<_, FluxError>(old)
    }));
    assert_eq!(counted.expect("a transaction commits"), 0);
    assert_eq!(content(db).len(), before.len() + 1);
    assert_nothing_pinned(db);
}

/// A transaction reads through `walk` and writes `own`; before it commits, `change` commits. At
/// Serializable the transaction must be refused if `conflicts`, and commit otherwise. At Snapshot
/// it must commit.
#[track_caller]
pub(crate) fn certified<K>(
    items: &[K],
    walk: impl Fn(&Transaction<K, u64>),
    own: &K,
    change: impl Fn(&Database<K, u64>),
    conflicts: bool,
    what: &str,
) where
    K: Ord + Hash + Clone + Send + Sync + Debug + 'static,
{
    for level in LEVELS {
        let db = open_at(level);
        let filler = db.begin();
        for key in items {
            filler.insert(key.clone(), 0).expect("a write is buffered");
        }
        commit(filler).expect("no other transaction writes");
        let walker = db.begin();
        walk(&walker);
        walker.insert(own.clone(), 1).expect("a write is buffered");
        change(&db);
        let end = commit(walker);
        if conflicts && level == IsolationLevel::Serializable {
            assert!(
                matches!(end, Err(FluxError::SerializationConflict)),
                "{what}: must be refused, was {end:?}"
            );
        } else {
            assert!(end.is_ok(), "{what} at {level:?}: must commit, was {end:?}");
        }
    }
}

pub(crate) fn insert<K>(db: &Database<K, u64>, key: K)
where
    K: Ord + Hash + Clone + Send + Sync + 'static,
{
    block_on(db.insert(key, 7)).expect("an insert commits");
}

pub(crate) fn remove<K>(db: &Database<K, u64>, key: &K)
where
    K: Ord + Hash + Clone + Send + Sync + 'static,
{
    let was = block_on(db.remove(key)).expect("a remove commits");
    assert!(was.is_some(), "the key was there");
}
