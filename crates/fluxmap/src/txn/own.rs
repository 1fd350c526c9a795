//! Which lease this thread acts for while it polls a transaction's body, and which commits the body
//! makes.
//!
//! A body may commit other transactions on the same database, directly or through nested transactions.
//! These commits must pass under the body's lease (L4 of `priority.rs`). If such a commit changes a key
//! that the body's own transaction has read, the transaction loses, each time it runs. So while a body
//! is polled, the thread knows the body's lease, and records the timestamps of the commits that it
//! makes.

use crate::sync::thread_local;
use crate::txn::watch::Watch;
use fluxmap_index::Timestamp;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

/// The lease on whose behalf a transaction commits, or [`NOBODY`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PriorityId(pub(super) u64);

pub(super) const NOBODY: u64 = 0;
pub(super) const EVERYBODY: u64 = u64::MAX;

impl PriorityId {
    /// Unique in the process, so that leases of different databases are never confused.
    pub(super) fn unique() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(NOBODY);
        // Relaxed: only uniqueness is needed.
        PriorityId(LAST.fetch_add(1, Ordering::Relaxed) + 1)
    }

    pub(crate) fn is_nobody(self) -> bool {
        self.0 == NOBODY
    }

    /// Returns whether this id passes every lease: see [`pass_always`].
    pub(crate) fn is_everybody(self) -> bool {
        self.0 == EVERYBODY
    }
}

/// The thread's state.
#[derive(Clone, Copy)]
struct Here {
    /// The lease on whose behalf the thread commits.
    id: u64,
    /// The number of bodies that are being polled, each nested in another.
    depth: u32,
    /// The number of commits recorded since the outermost body was entered.
    noted: usize,
}

impl Here {
    const NOWHERE: Here = Here { id: NOBODY, depth: 0, noted: 0 };
}

#[cfg(not(shuttle))]
thread_local! {
    static HERE: Cell<Here> = const { Cell::new(Here::NOWHERE) };
}

// The model checker's version of this macro does not accept `const`.
#[cfg(shuttle)]
thread_local! {
    static HERE: Cell<Here> = Cell::new(Here::NOWHERE);
}

thread_local! {
    /// The commits made since the outermost body was entered.
    #[allow(clippy::missing_const_for_thread_local)]
    static NOTED: RefCell<Vec<Commit>> = RefCell::new(Vec::new());
}

/// A commit of a database, which is identified by its address.
#[derive(Clone, Copy)]
struct Commit {
    database: usize,
    timestamp: Timestamp,
}

/// Returns the lease on whose behalf the thread commits.
pub(crate) fn current() -> PriorityId {
    PriorityId(HERE.with(Cell::get).id)
}

/// Lets the calling thread pass every lease while it does `work`. The thread that ends leases also runs
/// destructors of values, and those may commit; it must not wait for a lease that only it can end.
pub(crate) fn pass_always<T>(work: impl FnOnce() -> T) -> T {
    let _restore = Restore::enter(PriorityId(EVERYBODY), 0);
    work()
}

/// Records a commit, if a body is being polled.
pub(crate) fn note_commit(database: usize, timestamp: Timestamp) {
    /// Kept out of line, because mostly no body is being polled.
    #[cold]
    fn note(here: Here, database: usize, timestamp: Timestamp) {
        let noted = NOTED.try_with(|noted| {
            let mut noted = noted.borrow_mut();
            // All of them: if any were forgotten, a conflict with it would look like one with another
            // transaction, and the body would run for ever.
            noted.push(Commit { database, timestamp });
            noted.len()
        });
        // On an error the thread-local has been destroyed: the thread is ending and polls no body any
        // more.
        HERE.with(|now| now.set(Here { noted: noted.unwrap_or(0), ..here }));
    }
    let here = HERE.with(Cell::get);
    if here.depth > 0 {
        note(here, database, timestamp);
    }
}

/// The commits that the body has made in one attempt, and its destructors, encodings and the like while
/// it was applied.
#[derive(Default)]
pub(crate) struct OwnCommits {
    /// The first and the last timestamp of each run of neighbours, sorted, because a body makes one commit
    /// after the other.
    runs: Vec<(Timestamp, Timestamp)>,
}

impl OwnCommits {
    pub(crate) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    pub(crate) fn contains(&self, timestamp: Timestamp) -> bool {
        let run = self.runs.partition_point(|(_, last)| *last < timestamp);
        self.runs.get(run).is_some_and(|(first, _)| *first <= timestamp)
    }

    fn add(&mut self, database: usize, commits: &[Commit]) {
        for &Commit { timestamp, .. } in commits.iter().filter(|commit| commit.database == database) {
            match self.runs.last_mut() {
                Some((_, last)) if *last + 1 == timestamp => *last = timestamp,
                _ => self.runs.push((timestamp, timestamp)),
            }
        }
    }
}

/// Restores the thread's state when dropped, even after a panic.
struct Restore {
    before: Here,
}

impl Restore {
    fn enter(id: PriorityId, deeper: u32) -> Self {
        let before = HERE.with(Cell::get);
        // Within the body of a transaction that has a lease, a nested one without a lease runs on the
        // outer one's behalf.
        let id = if id.0 == NOBODY { before.id } else { id.0 };
        HERE.with(|here| here.set(Here { id, depth: before.depth + deeper, noted: before.noted }));
        Restore { before }
    }

    /// Adds the commits recorded since `enter` to `own`.
    fn collect(&self, database: usize, own: &mut OwnCommits) {
        let noted = HERE.with(Cell::get).noted;
        if noted != self.before.noted {
            let _ = NOTED.try_with(|all| {
                let all = all.borrow();
                own.add(database, all.get(self.before.noted..).unwrap_or_default());
            });
        }
    }
}

impl Drop for Restore {
    fn drop(&mut self) {
        let noted = HERE.with(Cell::get).noted;
        if self.before.depth > 0 {
            // The commits of a nested body count for the outer body as well.
            HERE.with(|here| here.set(Here { noted, ..self.before }));
            return;
        }
        HERE.with(|here| here.set(Here { noted: 0, ..self.before }));
        if noted != 0 {
            let _ = NOTED.try_with(|noted| mem::take(&mut *noted.borrow_mut()));
        }
    }
}

/// Polls a transaction's `body` on behalf of `id`, and adds the commits that it makes in the database at
/// this address to `own`.
// Polls in place: a wrapping future would have to own the body, and moving it has a cost.
pub(crate) fn poll_body<T>(
    id: PriorityId,
    database: usize,
    own: &mut OwnCommits,
    watch: Option<&Arc<Watch>>,
    mut body: Pin<&mut impl Future<Output = T>>,
    context: &mut Context<'_>,
) -> Poll<T> {
    let here = Restore::enter(id, 1);
    let polled = match watch {
        None => body.poll(context),
        Some(watch) => watch.poll(context, &mut |context| body.as_mut().poll(context)),
    };
    here.collect(database, own);
    polled
}

/// Polls `future`, which applies a transaction, on behalf of `id`. If `own` is given, it gets the commits
/// that user code makes meanwhile (a `MemSize` that writes to the database, say).
pub(crate) fn poll_for<T>(
    id: PriorityId,
    own: Option<(usize, &mut OwnCommits)>,
    future: Pin<&mut impl Future<Output = T>>,
    context: &mut Context<'_>,
) -> Poll<T> {
    if id.0 == NOBODY && own.is_none() {
        return future.poll(context);
    }
    let here = Restore::enter(id, u32::from(own.is_some()));
    let polled = future.poll(context);
    if let Some((database, own)) = own {
        here.collect(database, own);
    }
    polled
}
