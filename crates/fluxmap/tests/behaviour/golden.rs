//! Opens databases that earlier versions wrote, which are kept in `golden/`, and compares their
//! content.
//!
//! To add databases of a new format version (never change old ones):
//!
//! ```text
//! FLUXMAP_GOLDEN_OUT=crates/fluxmap/tests/golden/v3 \
//!     cargo test -p fluxmap --test behaviour -- --ignored write_golden_files
//! ```

use fluxmap::codec::Codec;
use fluxmap::disk::Disk;
use fluxmap::persistence::PersistenceOptions;
use fluxmap::{Database, FluxError, PersistenceError};
use fluxmap_testkit::disk::SimDisk;
use futures::executor::block_on;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Record {
    id: u32,
    tags: Vec<String>,
    note: Option<String>,
}

type Db = Database<String, Record>;
type Content = BTreeMap<String, Record>;
type Files = BTreeMap<PathBuf, Vec<u8>>;

const SCHEMA: u32 = 7;
const CODECS: [Codec; 2] = [Codec::MessagePack, Codec::Postcard];
/// The number of commits in each database.
const COMMITS: u32 = 60;

/// A way in which a database was left, and its content afterwards.
#[derive(Clone, Copy, Debug)]
struct Case {
    name: &'static str,
    full: bool,
    /// The last commit that survives.
    last: u32,
    torn: bool,
}

const CASES: [Case; 4] = [
    Case { name: "closed", full: true, last: COMMITS, torn: false },
    Case { name: "torn", full: true, last: COMMITS - 1, torn: true },
    Case { name: "relaxed", full: false, last: COMMITS, torn: false },
    Case { name: "backup", full: true, last: COMMITS, torn: false },
];

fn key(n: u32) -> String {
    format!("key {:02}", n % 20)
}

fn record(n: u32) -> Record {
    let tags = (0..n % 4).map(|tag| format!("tag-{tag}")).collect();
    Record { id: n * 1000, tags, note: n.is_multiple_of(3).then(|| "ä note".repeat(n as usize % 5)) }
}

/// The content after the first `commits` commits.
fn content_after(commits: u32) -> Content {
    let mut content = Content::new();
    for n in 1..=commits {
        match n % 10 {
            0 => drop(content.remove(&key(n - 1))),
            _ => drop(content.insert(key(n), record(n))),
        }
    }
    content
}

/// Long enough that these files will be of no use by then.
const THOUSAND_YEARS: Duration = Duration::from_secs(1000 * 365 * 24 * 60 * 60);

/// Whether the `n`-th commit writes a value that expires. Files have such values since format
/// version 2.
fn expires(n: u32) -> bool {
    n % 7 == 3
}

/// The keys that have an expiry after the first `commits` commits.
fn expiring_after(commits: u32) -> BTreeSet<String> {
    let mut expiring = BTreeSet::new();
    for n in 1..=commits {
        match n % 10 {
            0 => expiring.remove(&key(n - 1)),
            _ if expires(n) => expiring.insert(key(n)),
            _ => expiring.remove(&key(n)),
        };
    }
    expiring
}

async fn commit(db: &Db, n: u32) -> Result<(), FluxError> {
    match n % 10 {
        0 => db.remove(&key(n - 1)).await.map(drop),
        _ if expires(n) => db.insert_with_ttl(key(n), record(n), THOUSAND_YEARS).await,
        _ => db.insert(key(n), record(n)).await,
    }
}

/// The settings of opening a database, each of which must agree with its files.
#[derive(Clone, Debug)]
struct Opened {
    path: PathBuf,
    codec: Codec,
    schema: u32,
    names: (&'static str, &'static str),
    full: bool,
}

impl Opened {
    fn new(path: impl Into<PathBuf>, codec: Codec, full: bool) -> Self {
        Opened { path: path.into(), codec, schema: SCHEMA, names: ("String", "Record"), full }
    }

    fn open(&self, disk: Option<Arc<dyn Disk>>) -> Result<Db, FluxError> {
        let options = PersistenceOptions {
            wal_pool_size: 8,
            wal_segment_size_bytes: 4096,
            ..PersistenceOptions::new(self.path.clone())
        };
        let mut builder = Database::builder().codec(self.codec).schema_version(self.schema);
        builder = builder.type_names(self.names.0, self.names.1);
        if let Some(disk) = disk {
            builder = builder.disk(disk);
        }
        match self.full {
            true => block_on(builder.durability_full(options).build()),
            false => {
                let builder = builder.durability_relaxed(options);
                block_on(builder.flush_interval(Duration::from_secs(3600)).build())
            }
        }
    }
}

fn content(db: &Db) -> Content {
    db.snapshot().range(..).map(|(key, record)| (key, Record::clone(&record))).collect()
}

fn files_in(path: &Path) -> Files {
    let entries = fs::read_dir(path).expect("a directory").map(|entry| entry.expect("an entry").path());
    entries.map(|path| (path.clone(), fs::read(path).expect("a file"))).collect()
}

/// A copy of a golden database that may be written to.
fn copy_of(golden: &Path) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    for (path, bytes) in files_in(golden) {
        fs::write(dir.path().join(path.file_name().expect("a name")), bytes).expect("a file");
    }
    // Create the lock file in advance, so that a failed opening has nothing to create.
    fs::write(dir.path().join("lock"), []).expect("a file");
    dir
}

/// Every golden database: its directory, codec and case.
fn golden() -> Vec<(PathBuf, Codec, Case)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut all = Vec::new();
    for version in fs::read_dir(root).expect("golden files").map(|entry| entry.expect("an entry").path()) {
        for (codec, case) in CODECS.into_iter().flat_map(|codec| CASES.map(|case| (codec, case))) {
            all.push((version.join(directory_of(codec, case)), codec, case));
        }
    }
    assert!(all.len() >= CODECS.len() * CASES.len(), "there are golden files");
    all
}

fn directory_of(codec: Codec, case: Case) -> String {
    format!("{}-{}", codec.to_string().to_lowercase(), case.name)
}

#[test]
fn golden_files_open_and_go_on() -> Result<(), FluxError> {
    for (golden, codec, case) in golden() {
        let what = golden.display();
        let copy = copy_of(&golden);
        let opened = Opened::new(copy.path(), codec, case.full);
        let db = opened.open(None)?;
        assert_eq!(content(&db), content_after(case.last), "{what}");
        let is_first = golden.parent().is_some_and(|version| version.ends_with("v1"));
        let expiring = if is_first { BTreeSet::new() } else { expiring_after(case.last) };
        for key in content(&db).keys() {
            assert_eq!(db.ttl(key)?.is_some(), expiring.contains(key), "{what}: {key}");
        }
        let info = db.recovery_info().expect("it is durable");
        assert_eq!(info.torn_tail.is_some(), case.torn, "{what}: {info:?}");
        assert_eq!(info.last_commit, u64::from(case.last), "{what}");
        // A commit that this version appends comes back, too.
        block_on(db.insert("new".into(), record(1)))?;
        drop(db);
        let db = opened.open(None)?;
        assert_eq!(content(&db).len(), content_after(case.last).len() + 1, "{what}");
    }
    Ok(())
}

/// Version 0.4, which was never published, recorded neither the fields of the types nor the time. Their files open, and
/// the next checkpoint records both.
#[test]
fn golden_files_learn_of_fields_and_time() -> Result<(), FluxError> {
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Reordered {
        note: Option<String>,
        id: u32,
        tags: Vec<String>,
    }
    let golden = golden().into_iter().filter(|(_, codec, case)| *codec == Codec::Postcard && !case.torn);
    for (golden, codec, case) in golden {
        let copy = copy_of(&golden);
        let opened = Opened::new(copy.path(), codec, case.full);
        let header = || {
            let bytes = fs::read(copy.path().join("snapshot.db")).expect("a file");
            u16::from_le_bytes([bytes[14], bytes[15]])
        };
        let before = header();
        let db = opened.open(None)?;
        block_on(db.checkpoint())?;
        block_on(db.close())?;
        assert!(header() > before, "{}", golden.display());
        let options = PersistenceOptions::new(copy.path());
        let builder = Database::<String, Reordered>::builder().codec(codec).schema_version(SCHEMA);
        let builder = builder.type_names("String", "Record").durability_full(options);
        let Err(FluxError::Persistence(PersistenceError::Mismatch { what, .. })) = block_on(builder.build())
        else {
            panic!("{} was opened with other fields", golden.display())
        };
        assert_eq!(what, "value fields");
        assert_eq!(content(&opened.open(None)?), content_after(case.last));
    }
    Ok(())
}

/// Opens a copy with wrong settings and returns the error. No file may change.
#[track_caller]
fn refused(path: &Path, opened: &Opened) -> PersistenceError {
    let before = files_in(path);
    let error = match opened.open(None) {
        Err(FluxError::Persistence(error)) => error,
        other => panic!("{opened:?} was not refused: {other:?}"),
    };
    assert!(before == files_in(path), "{opened:?} was refused ({error}), and has changed a file");
    error
}

#[test]
fn other_types_codecs_and_schemas_are_refused() {
    for (golden, codec, case) in golden() {
        let copy = copy_of(&golden);
        let right = Opened::new(copy.path(), codec, case.full);
        let other = CODECS[usize::from(codec == CODECS[0])];
        let wrong = [
            ("codec", Opened { codec: other, ..right.clone() }),
            ("schema version", Opened { schema: SCHEMA + 1, ..right.clone() }),
            ("schema version", Opened { schema: 0, ..right.clone() }),
            ("key type", Opened { names: ("Vec<u8>", "Record"), ..right.clone() }),
            ("value type", Opened { names: ("String", "Recording"), ..right.clone() }),
        ];
        for (differs, opened) in wrong {
            let error = refused(copy.path(), &opened);
            let PersistenceError::Mismatch { path, what, .. } = &error else { panic!("{error}") };
            assert_eq!((path, *what), (&copy.path().join("snapshot.db"), differs), "{error}");
        }
        assert_eq!(content(&right.open(None).expect("it opens")), content_after(case.last));
    }
}

#[test]
fn other_format_versions_are_refused() {
    for (golden, codec, case) in golden() {
        let mut names: Vec<PathBuf> = files_in(&golden).into_keys().collect();
        // Segments that the checkpoint covers are not read.
        let checkpoint = fs::read(golden.join("snapshot.db")).expect("a file");
        let from = format!("wal.{:010}", u64::from_le_bytes(checkpoint[48..56].try_into().expect("eight")));
        names.retain(|path| path.file_name().is_some_and(|name| name == "snapshot.db" || *name >= *from));
        for name in names {
            let copy = copy_of(&golden);
            let path = copy.path().join(name.file_name().expect("a name"));
            let mut bytes = fs::read(&path).expect("a file");
            let end = usize::from(u16::from_le_bytes([bytes[14], bytes[15]]));
            bytes[12..14].copy_from_slice(&3_u16.to_le_bytes());
            let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..8]), &bytes[12..end]);
            bytes[8..12].copy_from_slice(&crc.to_le_bytes());
            fs::write(&path, bytes).expect("a file");
            let error = refused(copy.path(), &Opened::new(copy.path(), codec, case.full));
            let PersistenceError::UnsupportedFormat { path: blamed, found: 3, supported: 2, .. } = &error
            else {
                panic!("{error}")
            };
            assert_eq!(*blamed, path);
        }
    }
}

/// Writes one database on a simulated disk, and returns its files.
fn write(codec: Codec, case: Case) -> Files {
    let disk = SimDisk::new(1);
    let opened = Opened::new("db", codec, case.full);
    let db = opened.open(Some(Arc::new(disk.clone()))).expect("a new database opens");
    for n in 1..=COMMITS {
        block_on(commit(&db, n)).expect("a commit succeeds");
        if n == COMMITS / 3 {
            block_on(db.checkpoint()).expect("a checkpoint can be written");
        }
    }
    let mut directory = PathBuf::from("db");
    let left = match case.name {
        "torn" => disk.process_death(),
        "backup" => {
            block_on(db.backup_to("copy", |_| {})).expect("a backup can be written");
            directory = PathBuf::from("copy");
            disk.clone()
        }
        _ => {
            block_on(db.close()).expect("it closes");
            disk.clone()
        }
    };
    let mut files: Files = left
        .files()
        .into_keys()
        .filter(|path| path.starts_with(&directory) && !path.ends_with("lock"))
        .map(|path| (PathBuf::from(path.file_name().expect("a name")), left.read(&path)))
        .collect();
    if case.torn {
        tear(&mut files);
    }
    files
}

/// Cuts off the end of the last commit.
fn tear(files: &mut Files) {
    let salt = |bytes: &[u8]| bytes[32..36].to_vec();
    let written = |bytes: &[u8]| {
        let start = usize::from(u16::from_le_bytes([bytes[14], bytes[15]]));
        bytes[start + 4..start + 8] == salt(bytes)[..]
    };
    let segments = files.iter_mut().filter(|(name, _)| name.display().to_string().starts_with("wal.0"));
    let (_, bytes) = segments.filter(|(_, bytes)| written(bytes)).last().expect("a segment in use");
    let last = bytes.iter().rposition(|byte| *byte != 0).expect("it is in use");
    bytes[last - 5..=last].fill(0);
}

#[test]
#[ignore = "writes golden files, for a new format version only; see the top of this file"]
fn write_golden_files() {
    let out = std::env::var("FLUXMAP_GOLDEN_OUT")
        .expect("FLUXMAP_GOLDEN_OUT says where to, for instance …/golden/v3");
    for (codec, case) in CODECS.into_iter().flat_map(|codec| CASES.map(|case| (codec, case))) {
        // The path is relative to the repository's root, where cargo was called. Tests run in their
        // crate's directory.
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let directory = root.join(&out).join(directory_of(codec, case));
        assert!(!directory.exists(), "{} is there already; golden files do not change", directory.display());
        fs::create_dir_all(&directory).expect("a directory");
        for (name, bytes) in write(codec, case) {
            fs::write(directory.join(name), bytes).expect("a file");
        }
    }
}
