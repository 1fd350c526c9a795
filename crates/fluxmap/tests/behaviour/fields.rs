//! Under a codec that writes no field names, a database refuses to open with types whose fields
//! differ from those it was written with, even if the types have the same names.

use fluxmap::codec::Codec;
use fluxmap::inspect::Image;
use fluxmap::persistence::PersistenceOptions;
use fluxmap::{Database, FluxError, Key, PersistenceError, Value};
use futures::executor::block_on;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

macro_rules! types {
    ($($module:ident: $item:item)*) => {$(
        mod $module {
            #[derive(
                Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
            )]
            $item
        }
    )*};
}

types! {
    shop: pub(super) struct Item { pub(super) price: u32, pub(super) stock: u32 }
    wider: pub(super) struct Item { pub(super) price: u64, pub(super) stock: u32 }
    depot: pub(super) struct Item { pub(super) stock: u32, pub(super) price: u32 }
    renamed: pub(super) struct Item { pub(super) cost: u32, pub(super) stock: u32 }
    own: pub(super) struct String { pub(super) length: u8, pub(super) bytes: (u8, u8) }
    few: pub(super) enum Event { Came, Went { at: u8 } }
    more: pub(super) enum Event { Came, Went { at: u8 }, Stayed(u32) }
    other: pub(super) enum Event { Went { at: u8 }, Came }
}

/// Opens with a codec, with or without the check of fields.
fn open_with<K, V>(path: &Path, codec: Codec, check: bool) -> Result<Database<K, V>, FluxError>
where
    K: Key + Serialize + DeserializeOwned,
    V: Value + Serialize + DeserializeOwned,
{
    let options =
        PersistenceOptions { wal_segment_size_bytes: 64 << 10, ..PersistenceOptions::new(path.to_owned()) };
    block_on(Database::builder().codec(codec).check_fields(check).durability_full(options).build())
}

fn open<K, V>(path: &Path) -> Result<Database<K, V>, FluxError>
where
    K: Key + Serialize + DeserializeOwned,
    V: Value + Serialize + DeserializeOwned,
{
    open_with(path, Codec::Postcard, true)
}

fn files(path: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let paths = fs::read_dir(path).expect("a directory").map(|entry| entry.expect("an entry").path());
    paths.map(|path| (path.clone(), fs::read(path).expect("a file"))).collect()
}

/// Asserts that the files do not open with these types, and returns the part that differs and what
/// the files say of it.
#[track_caller]
fn refused<K, V>(path: &Path) -> (&'static str, String)
where
    K: Key + Serialize + DeserializeOwned,
    V: Value + Serialize + DeserializeOwned,
{
    let before = files(path);
    match open::<K, V>(path) {
        Err(FluxError::Persistence(PersistenceError::Mismatch { what, found, expected, .. })) => {
            assert_ne!(found, expected);
            assert!(files(path) == before, "nothing has changed");
            (what, found.into())
        }
        other => panic!("it was opened: {other:?}"),
    }
}

/// Writes one pair to the log. If `checkpoint` is set, the next opening finds the pair in a
/// checkpoint.
fn written<K, V>(path: &Path, key: K, value: V, checkpoint: bool)
where
    K: Key + Serialize + DeserializeOwned,
    V: Value + Serialize + DeserializeOwned,
{
    let db = open::<K, V>(path).expect("a new database opens");
    block_on(db.insert(key, value)).expect("a commit succeeds");
    if checkpoint {
        block_on(db.checkpoint()).expect("a checkpoint is written");
    }
    block_on(db.close()).expect("it closes");
}

fn item() -> shop::Item {
    shop::Item { price: 100, stock: 7 }
}

#[test]
fn a_value_whose_fields_were_reordered_is_refused() {
    for checkpoint in [false, true] {
        let dir = tempfile::tempdir().expect("a directory");
        written(dir.path(), 1_u64, item(), checkpoint);
        let found = ("value fields", "{price:uint,stock:uint}".to_owned());
        assert_eq!(refused::<u64, depot::Item>(dir.path()), found);
        let db = open::<u64, shop::Item>(dir.path()).expect("the type is the same");
        assert_eq!(db.get(&1).expect("a read succeeds").as_deref(), Some(&item()));
    }
}

#[test]
fn a_key_whose_fields_were_reordered_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    written(dir.path(), item(), 1_u64, false);
    assert_eq!(refused::<depot::Item, u64>(dir.path()).0, "key fields");
}

#[test]
fn a_type_of_ones_own_is_not_taken_for_one_of_the_standard_library() {
    let dir = tempfile::tempdir().expect("a directory");
    written(dir.path(), 1_u64, "ab".to_owned(), false);
    assert_eq!(refused::<u64, own::String>(dir.path()), ("value fields", "text".to_owned()));
}

#[test]
fn what_postcard_reads_as_it_was_is_let_through() {
    let dir = tempfile::tempdir().expect("a directory");
    written(dir.path(), 1_u64, item(), false);
    let db = open::<u64, wider::Item>(dir.path()).expect("a wider number is the same on disk");
    assert_eq!(db.get(&1).expect("a read succeeds").map(|item| item.price), Some(100));

    let dir = tempfile::tempdir().expect("a directory");
    written(dir.path(), 1_u64, few::Event::Went { at: 3 }, true);
    assert_eq!(refused::<u64, other::Event>(dir.path()).0, "value fields");
    let db = open::<u64, more::Event>(dir.path()).expect("a variant at the end is no other");
    assert_eq!(db.get(&1).expect("a read succeeds").as_deref(), Some(&more::Event::Went { at: 3 }));
    block_on(db.insert(2, more::Event::Stayed(1))).expect("a commit succeeds");
    block_on(db.checkpoint()).expect("a checkpoint is written");
    block_on(db.close()).expect("it closes");
    assert_eq!(refused::<u64, few::Event>(dir.path()).0, "value fields", "there may be new ones now");
}

#[test]
fn messagepack_needs_none_of_this() {
    let dir = tempfile::tempdir().expect("a directory");
    let db = open_with::<u64, shop::Item>(dir.path(), Codec::MessagePack, true).expect("a new one");
    block_on(db.insert(1, item())).expect("a commit succeeds");
    block_on(db.close()).expect("it closes");
    let db = open_with::<u64, depot::Item>(dir.path(), Codec::MessagePack, true).expect("it knows names");
    let found = db.get(&1).expect("a read succeeds").expect("it is there");
    assert_eq!(*found, depot::Item { price: 100, stock: 7 });
}

#[test]
fn a_renamed_field_is_let_through_by_whoever_says_so_and_from_then_on() {
    let dir = tempfile::tempdir().expect("a directory");
    written(dir.path(), 1_u64, item(), true);
    assert_eq!(refused::<u64, renamed::Item>(dir.path()).0, "value fields");
    let db = open_with::<u64, renamed::Item>(dir.path(), Codec::Postcard, false).expect("it was said");
    let found = db.get(&1).expect("a read succeeds").expect("it is there");
    assert_eq!((found.cost, found.stock), (100, 7));
    block_on(db.checkpoint()).expect("a checkpoint is written");
    block_on(db.close()).expect("it closes");
    drop(open::<u64, renamed::Item>(dir.path()).expect("the files say the new name"));
    assert_eq!(refused::<u64, shop::Item>(dir.path()).0, "value fields");
}

#[test]
fn copies_know_the_fields_too() {
    let dir = tempfile::tempdir().expect("a directory");
    let [first, backup, image] = ["db", "backup", "image"].map(|name| dir.path().join(name));
    written(&first, 1_u64, item(), false);
    let db = open::<u64, shop::Item>(&first).expect("it opens");
    block_on(db.backup_to(&backup, |_| ())).expect("a backup is written");
    block_on(db.close()).expect("it closes");
    Image::load(&first, |_, _| ()).expect("it is sound").write_to(&image, |_| ()).expect("a copy is written");
    for copy in [backup, image] {
        assert_eq!(refused::<u64, depot::Item>(&copy).0, "value fields");
        drop(open::<u64, shop::Item>(&copy).expect("it opens"));
    }
}
