//! Detects whether an object belongs to this process or to the parent of a fork.
//!
//! A forked process has copies of everything that its parent has, except the threads. So it must not
//! wait for these threads, nor write to files or release locks that both processes have open.

use crate::error::PersistenceError;
use crate::sync::process_id;

/// The process that created an object. Comparing it with the present process takes a system call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Process(u32);

impl Process {
    pub(crate) fn this() -> Self {
        Process(process_id())
    }

    pub(crate) fn is_this(self) -> bool {
        self.0 == process_id()
    }

    /// Returns an error in any other process, that is, in a fork of the creator.
    pub(crate) fn check(self) -> Result<(), PersistenceError> {
        match self.is_this() {
            true => Ok(()),
            false => Err(PersistenceError::OtherProcess { opened_by: self.0 }),
        }
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use crate::persistence::PersistenceOptions;
    use crate::sync::PRETENDED;
    use crate::{Database, FluxError, PersistenceError};
    use futures::executor::block_on;
    use std::path::Path;
    use std::time::Duration;

    type Db = Database<u32, u32>;

    /// While this value lives, this thread sees another process number, as a fork of the process would.
    struct Fork;

    impl Fork {
        fn begin() -> Self {
            PRETENDED.set(Some(std::process::id().wrapping_add(1)));
            Fork
        }
    }

    impl Drop for Fork {
        fn drop(&mut self) {
            PRETENDED.set(None);
        }
    }

    fn open(path: &Path, full: bool) -> Result<Db, FluxError> {
        let builder = Db::builder();
        let options = PersistenceOptions {
            wal_segment_size_bytes: 64 << 10,
            ..PersistenceOptions::new(path.to_owned())
        };
        match full {
            true => block_on(builder.durability_full(options).build()),
            false => block_on(builder.durability_relaxed(options).flush_interval(Duration::MAX).build()),
        }
    }

    #[track_caller]
    fn assert_refused<T>(result: Result<T, FluxError>) {
        let opened_by = match result.err() {
            Some(FluxError::FatalPersistenceError {
                source: PersistenceError::OtherProcess { opened_by },
            }) => opened_by,
            Some(FluxError::Persistence(PersistenceError::OtherProcess { opened_by })) => opened_by,
            other => panic!("{other:?}"),
        };
        assert_eq!(opened_by, std::process::id());
    }

    #[test]
    fn a_fork_commits_nothing_and_waits_for_nobody() -> Result<(), FluxError> {
        for full in [true, false] {
            let temporary = tempfile::tempdir().expect("a directory");
            let path = temporary.path().join("db");
            let db = open(&path, full)?;
            block_on(db.insert(1, 1))?;
            block_on(db.flush())?;
            let files = || {
                let read = |name: &str| std::fs::read(path.join(name)).expect("a file");
                ["snapshot.db", "wal.0000000001"].map(read)
            };
            let before = files();
            {
                let _fork = Fork::begin();
                assert_eq!(db.get(&1)?.as_deref(), Some(&1), "reads go on");
                for _ in 0..2 {
                    assert_refused(block_on(db.insert(2, 2)));
                    assert_refused(block_on(db.transact(async |tx| tx.update(&1, |n| n + 1))));
                    assert_refused(block_on(db.evict(&1)));
                }
                assert_refused(block_on(db.flush()));
                assert_refused(block_on(db.checkpoint()));
                assert_eq!(db.count(..)?, 1, "nothing of it is to be seen");
                assert!(files() == before, "nothing has been written");
                // A fork does not have the threads. (That it does not release the lock either is tested in
                // `disk.rs`: here the log has failed for its thread, too, which then ends and releases it.)
                drop(db);
            }
            assert!(files() == before);
        }
        Ok(())
    }

    /// The background thread never ends, so joining it would not end either.
    #[test]
    fn a_fork_of_a_process_with_a_database_in_memory_joins_no_thread() -> Result<(), FluxError> {
        let vacuum = crate::db::VacuumOptions { interval: Duration::from_secs(3600) };
        let db = block_on(Db::builder().auto_vacuum(vacuum).build())?;
        block_on(db.insert(1, 1))?;
        let _fork = Fork::begin();
        drop(db);
        Ok(())
    }
}
