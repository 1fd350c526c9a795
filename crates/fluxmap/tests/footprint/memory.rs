//! Peak memory of a process for each kind of work, measured in a process of its own.

use crate::counting::CountingDisk;
use crate::sizes;
use fluxmap::Database;
use fluxmap::inspect::Image;
use fluxmap::persistence::PersistenceOptions;
use futures::executor::block_on;
use std::env;
use std::ops::ControlFlow;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

type Db = Database<u64, String>;

/// The variable that tells a child what to do: `part,directory`.
const CHILD: &str = "FLUXMAP_FOOTPRINT_CHILD";

const MIB: u64 = 1 << 20;
/// The size of each value. All data are stored once in the checkpoint, and `REWRITES` times in the
/// log.
const VALUE: u64 = 64 << 10;
const KEYS: u64 = 160;
const DATA: u64 = KEYS * VALUE;
const REWRITES: u64 = 9;
/// The size of a single large value.
const LARGE: u64 = 24 * MIB;

/// A figure of this process in bytes, on systems that publish it.
fn status(name: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with(name))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
}

/// The child process's work. Does nothing when this runs as an ordinary test.
#[test]
fn child() {
    let Ok(asked) = env::var(CHILD) else { return };
    let (part, dir) = asked.split_once(',').expect("two fields");
    let dir = Path::new(dir);
    // Make the value before the measurement, so that its own memory does not count.
    let value = vec![1; if part == "value" { LARGE as usize } else { 0 }];
    let before = status("VmRSS");
    match part {
        "value" => block_on(async {
            let options = PersistenceOptions::new(dir.to_owned());
            let db = Database::<u64, Vec<u8>>::builder().durability_full(options).build().await;
            db.expect("it opens").insert(1, value).await.expect("it commits");
        }),
        "empty" => {
            let open = |n: u64| block_on(open(&dir.join(n.to_string())));
            let all: Vec<_> = (0..10).map(open).collect();
            assert_eq!(all.len(), 10);
        }
        "open" => assert_eq!(block_on(open(dir)).count(..).expect("a read"), KEYS as usize),
        "dump" => show(&Image::load(dir, |_, _| {}).expect("it is sound")),
        "salvage" => show(&Image::salvage(dir, |_, _| {}).expect("it is sound").0),
        "backup" => {
            let image = Image::load(dir, |_, _| {}).expect("it is sound");
            image.write_to(dir.with_file_name("copy"), |_| {}).expect("a copy");
        }
        part => panic!("no part is called {part}"),
    }
    let grown = before.and_then(|before| Some(status("VmHWM")?.saturating_sub(before)));
    println!("\ngrown {}", grown.unwrap_or(0));
}

fn value(round: u64) -> String {
    round.to_string().repeat(VALUE as usize)
}

fn show(image: &Image) {
    let mut shown = 0;
    image
        .visit(|pair| {
            assert_eq!(pair.value.last(), value(REWRITES).as_bytes().last(), "the last that was written");
            shown += 1;
            ControlFlow::Continue(())
        })
        .expect("it can be read");
    assert_eq!((shown, image.pair_count()), (KEYS, KEYS));
}

async fn open(dir: &Path) -> Db {
    let options = PersistenceOptions::new(dir.to_owned());
    Db::builder().durability_full(options).build().await.expect("it opens")
}

/// The number of bytes by which a process's memory grows while it does `part`.
fn growth(part: &str, dir: &Path) -> u64 {
    let output = Command::new(env::current_exe().expect("this program"))
        .args(["memory::child", "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, format!("{part},{}", dir.display()))
        .output()
        .expect("it can be started");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{part}: {text}{}", String::from_utf8_lossy(&output.stderr));
    let grown = text.lines().find_map(|line| line.strip_prefix("grown ")).expect("it tells");
    grown.parse().expect("a number")
}

#[track_caller]
fn grows_at_most(bound: u64, part: &str, dir: &Path) {
    let grown = growth(part, dir);
    eprintln!("footprint: {part}: {} KiB of {}", grown / 1024, bound / 1024);
    assert!(grown <= bound, "{part}: {} MiB, at most {}", grown / MIB, bound / MIB);
}

#[test]
fn files_are_read_without_being_kept() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("db");
    let options = PersistenceOptions {
        // The pool is large, so that no checkpoint shortens the log.
        wal_pool_size: 32,
        ..PersistenceOptions::new(path.clone())
    };
    block_on(async {
        let disk = Arc::new(CountingDisk::default());
        let builder = Db::builder().durability_full(options).check_writes(false).disk(disk);
        let db = builder.build().await.expect("it opens");
        for round in 0..=REWRITES {
            for key in 0..KEYS {
                db.insert(key, value(round)).await.expect("it commits");
            }
            if round == 0 {
                db.checkpoint().await.expect("a checkpoint");
            }
        }
        db.close().await.expect("it closes");
    });
    let (all, log) = sizes(&path);
    assert!(log >= REWRITES * DATA && all >= log + DATA, "{log} of {all} bytes");
    for part in ["dump", "salvage", "backup"] {
        grows_at_most(4 * MIB, part, &path);
    }
    // Allow twice the stored data, and three batches of 16 MiB: one being gathered, one waiting,
    // one being applied.
    grows_at_most(2 * DATA + 3 * 16 * MIB, "open", &path);
}

#[test]
fn a_large_value_is_copied_twice_at_most() {
    let dir = tempfile::tempdir().expect("a directory");
    grows_at_most(2 * LARGE + 6 * MIB, "value", &dir.path().join("db"));
}

#[test]
fn ten_empty_databases_take_little_memory() {
    let dir = tempfile::tempdir().expect("a directory");
    grows_at_most(10 * 2 * MIB, "empty", dir.path());
}
