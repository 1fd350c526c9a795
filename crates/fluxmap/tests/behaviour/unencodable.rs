//! A value was stored and cannot be encoded any more, because its `Serialize` depends on something
//! other than the value. Checkpoints and backups fail and name the value; commits go on for as long
//! as the log has room, and then the database takes no more. Nothing that was acknowledged is lost,
//! because the log has the value as it was encoded when it was written.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use fluxmap::persistence::PersistenceOptions;
use fluxmap::{Database, FluxError, PersistenceError};
use fluxmap_testkit::disk::SimDisk;
use futures::executor::block_on;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

const ENCODES: u8 = 0;
const FAILS: u8 = 1;
const PANICS: u8 = 2;

/// A number whose encoding depends on a mood, which its clones share.
#[derive(Clone, Debug, Default)]
struct Fickle {
    number: u64,
    mood: Arc<AtomicU8>,
}

impl Serialize for Fickle {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.mood.load(Ordering::SeqCst) {
            ENCODES => self.number.serialize(serializer),
            FAILS => Err(S::Error::custom("not in the mood")),
            _ => panic!("not in the mood at all"),
        }
    }
}

impl<'de> Deserialize<'de> for Fickle {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        u64::deserialize(deserializer).map(steady)
    }
}

fn steady(number: u64) -> Fickle {
    Fickle { number, ..Fickle::default() }
}

type Db = Database<u64, Fickle>;

fn open(disk: &SimDisk) -> Db {
    let options = PersistenceOptions {
        wal_pool_size: 2,
        wal_segment_size_bytes: 4096,
        ..PersistenceOptions::new("db")
    };
    let builder = Db::builder().durability_full(options).disk(Arc::new(disk.clone()));
    block_on(builder.build()).expect("it opens")
}

fn content(db: &Db) -> BTreeMap<u64, u64> {
    db.range(..).map(|(key, value)| (key, value.number)).collect()
}

/// Whether an error says that a value cannot be stored, or that encoding it panicked.
fn is_about_the_value(error: &PersistenceError, mood: u8) -> bool {
    match error {
        PersistenceError::Unstorable { what, source } => {
            mood == FAILS && *what == "value" && source.to_string().contains("not in the mood")
        }
        PersistenceError::Unavailable(why) => mood == PANICS && why.contains("panicked"),
        _ => false,
    }
}

#[test]
fn checkpoints_and_backups_fail_and_name_it_until_it_is_gone() {
    for mood in [FAILS, PANICS] {
        let disk = SimDisk::new(1);
        let db = open(&disk);
        let fickle = steady(1);
        block_on(db.insert(1, fickle.clone())).expect("it can be stored");
        fickle.mood.store(mood, Ordering::SeqCst);
        for _ in 0..2 {
            match block_on(db.checkpoint()) {
                Err(FluxError::Persistence(error)) => assert!(is_about_the_value(&error, mood), "{error}"),
                other => panic!("{other:?}"),
            }
        }
        // A backup runs on the caller's thread, so a panic reaches the caller.
        match catch_unwind(AssertUnwindSafe(|| block_on(db.backup_to("copy", |_| ())))) {
            Ok(Err(FluxError::Persistence(error))) => assert!(is_about_the_value(&error, mood), "{error}"),
            Ok(other) => panic!("{other:?}"),
            Err(_) => assert_eq!(mood, PANICS),
        }
        // The value was stored before, so reads and commits go on.
        assert_eq!(db.get(&1).expect("a read succeeds").map(|value| value.number), Some(1));
        block_on(db.insert(2, steady(2))).expect("the log has room");
        block_on(db.remove(&1)).expect("the log has room");
        assert_eq!(block_on(db.checkpoint()).expect("all that is left can be encoded").pairs, 1);
        assert_eq!(block_on(db.close()), Ok(()));
        assert_eq!(content(&open(&disk)), BTreeMap::from([(2, 2)]));
    }
}

#[test]
fn when_the_log_is_full_the_database_takes_no_more_and_all_that_was_acknowledged_is_there() {
    for mood in [FAILS, PANICS] {
        let disk = SimDisk::new(1);
        let db = open(&disk);
        let fickle = steady(0);
        block_on(db.insert(0, fickle.clone())).expect("it can be stored");
        fickle.mood.store(mood, Ordering::SeqCst);
        let mut acknowledged = BTreeMap::from([(0, 0)]);
        let error = loop {
            let key = acknowledged.len() as u64;
            match block_on(db.insert(key, steady(key))) {
                Ok(()) => acknowledged.insert(key, key),
                Err(error) => break error,
            };
            assert!(key < 10_000, "the log is bounded");
        };
        let (FluxError::FatalPersistenceError { source } | FluxError::OutcomeUnknown { source }) = &error
        else {
            panic!("{error:?}");
        };
        assert!(is_about_the_value(source, mood), "{error:?}");
        assert_eq!(content(&db), acknowledged, "reads go on");
        let refused = block_on(db.insert(99_999, steady(0)));
        assert!(matches!(refused, Err(FluxError::FatalPersistenceError { .. })), "{refused:?}");
        assert!(block_on(db.close()).is_err(), "closing tells, too");

        let mut found = content(&open(&disk));
        if matches!(error, FluxError::OutcomeUnknown { .. }) {
            found.remove(&(acknowledged.len() as u64));
        }
        assert_eq!(found, acknowledged, "the value is as it was when it was written");
    }
}
