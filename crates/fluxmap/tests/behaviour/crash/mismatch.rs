//! Databases that are opened with the wrong types, codec or version, and values that would not come
//! back. Both are refused, and nothing changes.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use fluxmap::codec::Codec;
use fluxmap::{Database, FluxError, Key, PersistenceError, Value};
use fluxmap_testkit::disk::{Loss, SimDisk};
use futures::executor::block_on;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::crash::support::{Config, Db, content};
use crate::crash::watch::Watch;

type Files = BTreeMap<PathBuf, Vec<u8>>;

fn files(disk: &SimDisk) -> Files {
    disk.files().into_keys().map(|path| (path.clone(), disk.read(&path))).collect()
}

/// The part that differs, as the error of opening names it.
fn refused<K: Key, V: Value>(result: Result<Database<K, V>, FluxError>) -> &'static str {
    match result {
        Err(FluxError::Persistence(PersistenceError::Mismatch { path, what, found, expected })) => {
            assert!(path.starts_with("db") && found != expected);
            what
        }
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("it was opened"),
    }
}

#[test]
fn another_type_codec_or_version_is_refused_and_changes_nothing() {
    let _watch = Watch::start("mismatch");
    let config = Config::FULL;
    let clean = SimDisk::new(1);
    let db = config.open(&clean).expect("it opens");
    for key in 0..30 {
        block_on(db.insert(key, "x".repeat(300))).expect("it commits");
    }
    // Try the files of a clean close, and those of a process that died with unfinished drafts.
    let dead = clean.process_death();
    dead.write("db/wal.next", b"half a segment".to_vec());
    dead.write("db/snapshot.tmp", b"half a checkpoint".to_vec());
    let expected = content(&db);
    drop(db);
    for disk in [clean, dead] {
        let before = files(&disk);
        let on = || Arc::new(disk.clone());
        let options = || config.options();
        let open = |builder: fluxmap::db::DatabaseBuilder<u64, String, fluxmap::db::Buildable>| {
            refused(block_on(builder.disk(on()).build()))
        };
        let builder = || Db::builder().durability_full(options());
        for _ in 0..2 {
            let other_key = Database::<String, String>::builder().durability_full(options()).disk(on());
            assert_eq!(refused(block_on(other_key.build())), "key type");
            let other_value = Database::<u64, u64>::builder().durability_full(options()).disk(on());
            assert_eq!(refused(block_on(other_value.build())), "value type");
            assert_eq!(open(builder().codec(Codec::Postcard)), "codec");
            assert_eq!(open(builder().schema_version(1)), "schema version");
            assert_eq!(open(builder().type_names("u64", "Text")), "value type");
        }
        assert_eq!(files(&disk), before);
        assert_eq!(content(&config.open(&disk).expect("it opens with its own types")), expected);
    }
}

/// Encodes as its number. An odd number can be written, but not read back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Even(u64);

impl Serialize for Even {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0 > 1000 {
            return Err(serde::ser::Error::custom("too large"));
        }
        serializer.serialize_u64(self.0)
    }
}

impl<'de> Deserialize<'de> for Even {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = u64::deserialize(deserializer)?;
        if number % 2 == 0 { Ok(Even(number)) } else { Err(D::Error::custom("it is odd")) }
    }
}

#[test]
fn what_cannot_be_stored_is_refused_with_nothing_applied() {
    let _watch = Watch::start("unstorable");
    let disk = SimDisk::new(1);
    let open = |disk: &SimDisk| {
        let builder = Database::<Even, Even>::builder().durability_full(Config::FULL.options());
        block_on(builder.disk(Arc::new(disk.clone())).build()).expect("it opens")
    };
    let db = open(&disk);
    let unstorable = |result: Result<(), FluxError>, part: &str| match result {
        Err(FluxError::Persistence(PersistenceError::Unstorable { what, .. })) => assert_eq!(what, part),
        other => panic!("{other:?}"),
    };
    for bad in [1, 1002] {
        unstorable(block_on(db.insert(Even(2), Even(bad))), "value");
        unstorable(block_on(db.insert(Even(bad), Even(2))), "key");
        let tx = db.begin();
        tx.insert(Even(4), Even(4)).expect("buffered");
        tx.insert(Even(6), Even(bad)).expect("buffered");
        tx.insert(Even(8), Even(8)).expect("buffered");
        unstorable(block_on(tx.commit()), "value");
        assert_eq!(db.count(..).expect("reads"), 0);
        assert_eq!(db.begin().count(..).expect("reads"), 0);
    }
    block_on(db.insert(Even(2), Even(2))).expect("the database goes on");
    assert_eq!(open(&disk.power_cut(Loss::Everything)).count(..).expect("reads"), 1);
    block_on(db.close()).expect("it closes");
    assert_eq!(open(&disk).recovery_info().expect("durable").last_commit, 1, "no commit was lost");
}
