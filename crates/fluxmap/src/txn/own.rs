//! On whose behalf this thread runs a transaction's body just now, and what that commits.
//!
//! A body may commit other transactions on the same database, by itself or through nested
//! transactions. These must pass under the lease of the body (L4 of `priority.rs`); and if
//! such a commit changes what the body's own transaction has read, that loses, each time it
//! runs. So while a body is polled, the thread knows whose it is, and takes down the timestamps
//! of what is committed.

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

/// Says on whose behalf a transaction commits: a lease, or nobody's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PriorityId(pub(super) u64);

pub(super) const NOBODY: u64 = 0;
pub(super) const EVERYBODY: u64 = u64::MAX;

impl PriorityId {
    /// Unique in the process, so that a lease of one database is not one of another.
    pub(super) fn unique() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(NOBODY);
        // Relaxed: only uniqueness is needed.
        PriorityId(LAST.fetch_add(1, Ordering::Relaxed) + 1)
    }

    pub(crate) fn is_nobody(self) -> bool {
        self.0 == NOBODY
    }

    /// Whether it passes every lease: see [`pass_always`].
    pub(crate) fn is_everybody(self) -> bool {
        self.0 == EVERYBODY
    }
}

/// What a thread does just now.
#[derive(Clone, Copy)]
struct Here {
    /// The lease on whose behalf it commits.
    id: u64,
    /// How many bodies it is in, each within another.
    depth: u32,
    /// How many commits were taken down since it is in the outermost.
    noted: u32,
}

impl Here {
    const NOWHERE: Here = Here { id: NOBODY, depth: 0, noted: 0 };
}

#[cfg(not(shuttle))]
thread_local! {
    static HERE: Cell<Here> = const { Cell::new(Here::NOWHERE) };
}

// The model checker's macro knows no `const`.
#[cfg(shuttle)]
thread_local! {
    static HERE: Cell<Here> = Cell::new(Here::NOWHERE);
}

thread_local! {
    /// Which databases have committed what since the thread is in the outermost body.
    #[allow(clippy::missing_const_for_thread_local)]
    static NOTED: RefCell<Vec<Commit>> = RefCell::new(Vec::new());
}

/// A commit of a database, which is known by its address.
#[derive(Clone, Copy)]
struct Commit {
    database: usize,
    timestamp: Timestamp,
}

/// Commits that are kept in mind for each poll of a body. Who makes more of them in one go
/// does so each time, and will be found out by the last ones.
const MOST_NOTED: usize = 4096;

/// The lease on whose behalf the thread commits.
pub(crate) fn current() -> PriorityId {
    PriorityId(HERE.with(Cell::get).id)
}

/// Lets the calling thread pass every lease while it does `work`: whoever ends leases runs
/// destructors of values, and those may commit.
pub(crate) fn pass_always<T>(work: impl FnOnce() -> T) -> T {
    let _restore = Restore::enter(PriorityId(EVERYBODY), 0);
    work()
}

/// Takes a commit down, if a body is being polled.
pub(crate) fn note_commit(database: usize, timestamp: Timestamp) {
    /// Apart, as mostly none is.
    #[cold]
    fn note(here: Here, database: usize, timestamp: Timestamp) {
        let noted = NOTED.try_with(|noted| {
            let mut noted = noted.borrow_mut();
            if noted.len() == MOST_NOTED {
                noted.drain(..MOST_NOTED / 2);
            }
            noted.push(Commit { database, timestamp });
            noted.len() as u32
        });
        // An error: the thread is at its very end, and polls nothing any more.
        HERE.with(|now| now.set(Here { noted: noted.unwrap_or(0), ..here }));
    }
    let here = HERE.with(Cell::get);
    if here.depth > 0 {
        note(here, database, timestamp);
    }
}

/// The commits that the body of one attempt has made.
#[derive(Default)]
pub(crate) struct OwnCommits {
    /// In order: a body makes one after the other.
    timestamps: Vec<Timestamp>,
}

impl OwnCommits {
    pub(crate) fn is_empty(&self) -> bool {
        self.timestamps.is_empty()
    }

    pub(crate) fn contains(&self, timestamp: Timestamp) -> bool {
        self.timestamps.binary_search(&timestamp).is_ok()
    }

    fn add(&mut self, database: usize, commits: &[Commit]) {
        let own = commits.iter().filter(|commit| commit.database == database);
        self.timestamps.extend(own.map(|commit| commit.timestamp));
        let too_many = self.timestamps.len().saturating_sub(MOST_NOTED);
        self.timestamps.drain(..too_many);
    }
}

/// Puts back what the thread did before, even after a panic.
struct Restore {
    before: Here,
}

impl Restore {
    fn enter(id: PriorityId, deeper: u32) -> Self {
        let before = HERE.with(Cell::get);
        // Within the body of a transaction that has a lease, one without runs on its behalf.
        let id = if id.0 == NOBODY { before.id } else { id.0 };
        HERE.with(|here| here.set(Here { id, depth: before.depth + deeper, noted: before.noted }));
        Restore { before }
    }

    /// Hands out what was committed since it was entered.
    fn collect(&self, database: usize, own: &mut OwnCommits) {
        let noted = HERE.with(Cell::get).noted;
        if noted != self.before.noted {
            let _ = NOTED.try_with(|all| {
                let all = all.borrow();
                own.add(database, all.get(self.before.noted as usize..).unwrap_or_default());
            });
        }
    }
}

impl Drop for Restore {
    fn drop(&mut self) {
        let noted = HERE.with(Cell::get).noted;
        if self.before.depth > 0 {
            // Those are commits of the body around it as well.
            HERE.with(|here| here.set(Here { noted, ..self.before }));
            return;
        }
        HERE.with(|here| here.set(Here { noted: 0, ..self.before }));
        if noted != 0 {
            let _ = NOTED.try_with(|noted| mem::take(&mut *noted.borrow_mut()));
        }
    }
}

/// Polls `body`, a transaction's, on behalf of `id`, and adds to `own` what it commits of the
/// database at this address.
// Polled in place: a future around it would have to be given it, and moving it is not for free.
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

/// Polls `future` on behalf of `id`.
pub(crate) fn poll_for<T>(
    id: PriorityId,
    future: Pin<&mut impl Future<Output = T>>,
    context: &mut Context<'_>,
) -> Poll<T> {
    if id.0 == NOBODY {
        return future.poll(context);
    }
    let _restore = Restore::enter(id, 0);
    future.poll(context)
}
