//! Group commit, checkpoints and closing, under hundreds of schedules each, on a disk
//! in memory that can say at any moment what a power loss would leave.

use fluxmap_shuttle::disk::{Disk, DiskFile, Lock, OpenMode};
use fluxmap_shuttle::persistence::PersistenceOptions;
use fluxmap_shuttle::{Database, FluxError};
use shuttle::future::block_on;
use shuttle::thread;
use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};

type Store = Database<u8, Vec<u8>>;

const SCHEDULES: usize = 2_000;

fn explore(model: impl Fn() + Send + Sync + 'static) {
    let model = Arc::new(model);
    let again = Arc::clone(&model);
    shuttle::check_random(move || model(), SCHEDULES / 2);
    shuttle::check_pct(move || again(), SCHEDULES / 2, 3);
}

/// What a file holds, and what of it is synced. Names are durable at once.
#[derive(Clone, Debug, Default)]
struct Content {
    written: Vec<u8>,
    synced: Vec<u8>,
}

#[derive(Clone, Debug, Default)]
struct MemDisk(Arc<Mutex<BTreeMap<PathBuf, Arc<Mutex<Content>>>>>);

#[derive(Debug)]
struct MemFile(Arc<Mutex<Content>>);

#[derive(Debug)]
struct NoLock;

impl Lock for NoLock {}

/// Not shuttle's: recovery reads on a real thread, and nothing is decided here.
fn open_up<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl MemDisk {
    /// What would be left now, by the death of the process or by a power loss.
    fn left(&self, power_loss: bool) -> MemDisk {
        let files = open_up(&self.0);
        let left = files.iter().map(|(path, content)| {
            let mut content = open_up(content).clone();
            if power_loss {
                content.written = content.synced.clone();
            }
            (path.clone(), Arc::new(Mutex::new(content)))
        });
        MemDisk(Arc::new(Mutex::new(left.collect())))
    }
}

impl Disk for MemDisk {
    fn create_dir(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        let mut files = open_up(&self.0);
        if mode == OpenMode::Create {
            files.insert(path.to_owned(), Arc::default());
        }
        let file = files.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(MemFile(Arc::clone(file))))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut files = open_up(&self.0);
        let file = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        open_up(&self.0).remove(path).map(|_| ()).ok_or(io::ErrorKind::NotFound.into())
    }

    fn list(&self, _path: &Path) -> io::Result<Vec<String>> {
        let files = open_up(&self.0);
        let names = files.keys().filter_map(|path| path.file_name()?.to_str().map(str::to_owned));
        Ok(names.collect())
    }

    fn sync_dir(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn lock(&self, _path: &Path) -> io::Result<Box<dyn Lock>> {
        Ok(Box::new(NoLock))
    }
}

impl DiskFile for MemFile {
    fn len(&self) -> io::Result<u64> {
        Ok(open_up(&self.0).written.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let content = open_up(&self.0);
        let rest = content.written.get(offset as usize..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        {
            let mut content = open_up(&self.0);
            let end = offset as usize + bytes.len();
            if content.written.len() < end {
                content.written.resize(end, 0);
            }
            content.written[offset as usize..end].copy_from_slice(bytes);
        }
        // Writing takes time, in which others run.
        thread::yield_now();
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let written = open_up(&self.0).written.clone();
        thread::yield_now();
        open_up(&self.0).synced = written;
        Ok(())
    }
}

fn options(pool: usize) -> PersistenceOptions {
    PersistenceOptions { wal_path: "db".into(), wal_pool_size: pool, wal_segment_size_bytes: 4096 }
}

fn open_full(disk: &MemDisk, pool: usize) -> Store {
    let builder = Store::builder().disk(Arc::new(disk.clone())).durability_full(options(pool));
    block_on(builder.build()).expect("it opens")
}

fn open_relaxed(disk: &MemDisk) -> Store {
    let builder = Store::builder().disk(Arc::new(disk.clone())).durability_relaxed(options(4));
    block_on(builder.flush_after_commits(1000).build()).expect("it opens")
}

fn number(db: &Store) -> u8 {
    db.get(&1).expect("a read").map_or(0, |value| value[0])
}

async fn increment(db: &Store) -> Result<(), FluxError> {
    db.transact(async |tx| {
        let n = tx.get(&1)?.map_or(0, |value| value[0]);
        tx.insert(1, vec![n + 1])
    })
    .await
}

/// Two threads count; after each acknowledgement, and after each read of a third, `left`
/// says what a crash would leave: at least what was acknowledged, or read.
fn count_and_crash(open: fn(&MemDisk) -> Store, power_loss: bool) {
    let disk = MemDisk::default();
    let db = open(&disk);
    let counters: Vec<_> = (0..2)
        .map(|_| {
            let (db, disk) = (db.clone(), disk.clone());
            thread::spawn(move || {
                block_on(increment(&db)).expect("it commits");
                (number(&db), disk.left(power_loss))
            })
        })
        .collect();
    let seen = (number(&db), disk.left(power_loss));
    let mut images: Vec<_> = counters.into_iter().map(|thread| thread.join().expect("no panic")).collect();
    images.push(seen);
    assert_eq!(number(&db), 2, "an acknowledged commit is not seen");
    drop(db);
    images.push((2, disk.left(true)));
    for (least, image) in images {
        let recovered = number(&open(&image));
        assert!(recovered >= least, "{least} was shown, {recovered} was recovered");
    }
}

#[test]
fn nobody_is_shown_what_a_power_loss_undoes() {
    explore(|| count_and_crash(|disk| open_full(disk, 4), true));
}

#[test]
fn nobody_is_shown_what_the_death_of_the_process_undoes() {
    explore(|| count_and_crash(open_relaxed, false));
}

#[test]
fn a_snapshot_stays_as_it_is_while_commits_become_durable_and_old_versions_go() {
    explore(|| {
        let disk = MemDisk::default();
        let db = open_full(&disk, 4);
        block_on(db.insert(1, vec![7])).expect("it commits");
        let writers: Vec<_> = (8..10)
            .map(|n| {
                let db = db.clone();
                thread::spawn(move || block_on(db.insert(1, vec![n])).expect("it commits"))
            })
            .collect();
        let vacuum = {
            let db = db.clone();
            thread::spawn(move || block_on(db.vacuum()).expect("it runs"))
        };
        let view = db.snapshot();
        let read = || view.get(&1).expect("a read").map(|value| value[0]);
        let first = read();
        assert!(first.is_some(), "a value that is durable was trimmed away");
        thread::yield_now();
        assert_eq!(read(), first, "a snapshot has changed");
        for writer in writers {
            writer.join().expect("no panic");
        }
        vacuum.join().expect("no panic");
        assert_eq!(read(), first, "a snapshot has changed");
    });
}

#[test]
fn a_pool_of_one_goes_round_and_loses_nothing() {
    explore(|| {
        let disk = MemDisk::default();
        let db = open_full(&disk, 1);
        let writers: Vec<_> = (0..2_u8)
            .map(|writer| {
                let db = db.clone();
                thread::spawn(move || {
                    for n in 0..3 {
                        let large = vec![n; 600];
                        block_on(db.insert(writer * 10 + n, large)).expect("it commits");
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.join().expect("no panic");
        }
        drop(db);
        let recovered = open_full(&disk.left(true), 1);
        assert_eq!(recovered.count(..).expect("a count"), 6);
    });
}

#[test]
fn a_dropped_commit_has_happened_or_not() {
    explore(|| {
        let disk = MemDisk::default();
        let db = open_full(&disk, 4);
        let other = {
            let db = db.clone();
            thread::spawn(move || block_on(increment(&db)).expect("it commits"))
        };
        {
            let mut commit = pin!(increment(&db));
            let mut context = Context::from_waker(Waker::noop());
            let _ = commit.as_mut().poll(&mut context);
        }
        other.join().expect("no panic");
        drop(db);
        let recovered = number(&open_full(&disk.left(true), 4));
        assert!(recovered == 1 || recovered == 2, "{recovered}");
    });
}
