//! The ordered multi-version index under FluxMap.
//!
//! An [`Index`] maps keys to chains of versions, each with the timestamp of the
//! commit that wrote it. One [`Writer`] changes it; any number of [`Reader`]s
//! look at it meanwhile, at any timestamp, without locks, without waiting, and
//! without writing memory that another reader writes (a reader claims one slot
//! of its own while it looks). Points are found through a hash, spans through a
//! skiplist of blocks.
//!
//! ```
//! use fluxmap_index::{Direction, Horizon, Index, Span};
//! use std::ops::ControlFlow;
//!
//! struct All;
//! impl Span<u32> for All {
//!     fn is_before(&self, _: &u32) -> bool { false }
//!     fn is_after(&self, _: &u32) -> bool { false }
//! }
//!
//! let (index, mut writer) = Index::<u32, &str>::new(0.25);
//! let hash = |key: u32| u64::from(key).wrapping_mul(0x9e37_79b9_7f4a_7c15);
//!
//! let reader = index.reader();
//! for (timestamp, value) in [(1, "old"), (2, "new")] {
//!     let mut batch = reader.batch(1);
//!     batch.push(hash(7), 7, Some(value));
//!     writer.stage(&mut batch).publish(timestamp, &mut ());
//! }
//! assert_eq!(reader.get_at(hash(7), &7, 1), Some(&"old"));
//! assert_eq!(reader.get_at(hash(7), &7, 2), Some(&"new"));
//!
//! let mut found = Vec::new();
//! reader.scan(&All, Direction::Forward, 2, |_, _| {}, |pairs| {
//!     found.extend(pairs.iter().map(|(key, value)| (**key, **value)));
//!     ControlFlow::Continue(())
//! });
//! assert_eq!(found, [(7, "new")]);
//!
//! // With no snapshot left that reads before 2, the old version can go.
//! let trimmed = writer.trim(&Horizon::new(2, Vec::new()), 16);
//! assert_eq!(trimmed.versions, 1);
//! ```
//!
//! # The memory model
//!
//! This crate holds all the `unsafe` code of the workspace. Every `SAFETY`
//! comment, and every atomic ordering that needs a reason, cites one of these.
//!
//! - **I1, one writer.** Links are changed only through `&mut Writer`, and there
//!   is one `Writer` for an `Index`. The writer reads its own links with
//!   Relaxed, and its marks on entries and blocks are its own.
//! - **I2, publish.** An object is complete before a Release store makes it
//!   reachable; readers follow links with Acquire.
//! - **I3, what never changes.** An entry's key and hash, a version's timestamp
//!   and value, a block's lower bound: from I2 on. A run that is full, from when
//!   nothing moves in it any more.
//! - **I4, retire once.** An object is retired once, after the last link to it
//!   from the roots is gone. A retired object belongs to the limbo.
//! - **I5, grace.** What was retired is freed only when every pin that was taken
//!   before is released (`reclaim.rs` has the argument, R). So a reference
//!   obtained under a pin is good as long as the pin.
//! - **I6, exits stay.** An unlinked object keeps its outgoing links, and what
//!   they lead to was alive when it was unlinked; a reader that stands on it
//!   finds its way on.
//! - **I7, entries move right.** A split links the new block before it shortens
//!   the old run; no entry is ever moved into a linked block further left. A walk to the
//!   right meets every entry that was linked when it began and still is; one that
//!   moved it may meet again, which it tells by the key. A walk to the left finds
//!   each block from above, reads its run, and then makes sure that no block was
//!   put between. A merge leaves both blocks as they are, and a new one with the entries of
//!   both takes the place of the left one before the right one is unlinked. Within a run, too,
//!   entries move only to the right, one at a time (`block.rs` has the argument, R1 and R2).
//! - **I8, one home.** A linked entry is in exactly one run of a linked block (in two runs while
//!   their blocks are split or merged), in one slot of it (in two while it moves), and its hash
//!   leads to exactly one segment that holds it.
//! - **I9, the writer is safe from itself.** Only the writer frees, and not
//!   while it looks: what it reaches from the roots is alive.
//! - **I10, exclusive ownership.** What was never linked, and what belongs to an
//!   index that is being dropped, is reached by nobody else.
//! - **I11, the queue.** An entry in the trim queue is linked and marked as
//!   queued; the mark keeps it there once. Only trimming unlinks entries, and it
//!   takes them from the queue first.
//! - **I12, what it was made as.** A version says whether it has a tail from the time it
//!   is allocated, and is reached through the pointer that its allocation gave.
//!
//! Not relied on for memory safety: that `Ord`, `Eq` and `Hash` of the key agree
//! with each other or with themselves, that they do not panic, that a [`Lead`]
//! agrees with `Ord`, that a [`Horizon`] tells the truth, that timestamps grow.
//! Where those lie, answers may be wrong, and a walk to the left may not end.

#![deny(missing_docs)]

mod access;
mod block;
mod chain;
mod cursor;
mod garbage;
mod hash;
mod horizon;
mod lead;
mod list;
mod node;
mod pipeline;
mod reclaim;
#[cfg(doctest)]
mod refused;
mod resident;
mod sync;
#[cfg(all(test, not(loom)))]
mod tests;
mod version;
mod writer;

pub use access::{Access, MOST_READS, Noting, STAMPS};
pub use cursor::{Direction, Span};
pub use garbage::Freed;
pub use horizon::Horizon;
pub use lead::Lead;
pub use node::HASH_BITS;
pub use resident::Resident;
pub use version::{Moment, Tail, Time, has_expired};
#[cfg(shuttle)]
pub use writer::Observer;
pub use writer::{Batch, Before, Change, Ledger, Staged, Trimmed, Writer};

use access::Notes;
use cursor::Stretch;
use garbage::Garbage;
use hash::Table;
use list::List;
use pipeline::Pipeline;
use reclaim::{Guard, Orphans, Pins};
use std::borrow::Borrow;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use sync::{AtomicUsize, Ordering, Tally};
use version::Linked;

/// A point in the order of commits. Grows by one with each commit.
pub type Timestamp = u64;

/// The shared side of an index: what readers look at.
pub struct Index<K, T> {
    table: Table<K, T>,
    list: List<K, T>,
    pins: Pins,
    orphans: Orphans<Garbage<K, T>>,
    counts: Counts,
    notes: Notes,
}

/// What there is. Written by the writer only, with every batch, so on cache lines of its own
/// (two, because the adjacent-line prefetcher of x86 pairs them): readers need what else is in
/// an [`Index`] at every look-up.
#[repr(align(128))]
struct Counts {
    entries: AtomicUsize,
    versions: AtomicUsize,
    /// What versions weigh that are not their key's value any more, and are not freed yet.
    superseded: Tally,
}

// SAFETY: (I1 to I5) keys and values are shared by reference between threads
// and dropped by whichever thread frees them; the links are atomics.
unsafe impl<K: Send + Sync, T: Send + Sync> Send for Index<K, T> {}
// SAFETY: as above.
unsafe impl<K: Send + Sync, T: Send + Sync> Sync for Index<K, T> {}

impl<K: Ord + Clone, T> Index<K, T> {
    /// An empty index and its one writer. `probability` is the share of blocks
    /// that reach the next level of the skiplist.
    #[allow(clippy::new_ret_no_self)]
    pub fn new(probability: f64) -> (Arc<Self>, Writer<K, T>) {
        Self::with_leads(probability, |_| None)
    }

    /// Like [`new`](Self::new), with a way to tell most keys apart without a look at them: what
    /// `lead` returns, for all keys or for none, must agree with their order.
    pub fn with_leads(probability: f64, lead: fn(&K) -> Option<Lead>) -> (Arc<Self>, Writer<K, T>) {
        let index = Arc::new(Index {
            table: Table::new(),
            list: List::new(lead),
            pins: Pins::new(),
            orphans: Orphans::new(),
            counts: Counts {
                entries: AtomicUsize::new(0),
                versions: AtomicUsize::new(0),
                superseded: Tally::new(0),
            },
            notes: Notes::new(),
        });
        let writer = Writer::new(Arc::clone(&index), probability);
        (index, writer)
    }
}

impl<K, T> Index<K, T> {
    /// A reader for a short look. While it lives, no memory that was in use when
    /// it was made is freed, so keep it for microseconds, and never across an
    /// await; a snapshot that is to last is protected by the [`Horizon`].
    pub fn reader(&self) -> Reader<'_, K, T> {
        Reader { index: self, guard: self.pins.pin() }
    }

    /// How many keys have an entry, deleted ones that are not trimmed included.
    pub fn entries(&self) -> usize {
        self.counts.entries.load(Ordering::Relaxed)
    }

    /// How many versions there are, tombstones included.
    pub fn versions(&self) -> usize {
        self.counts.versions.load(Ordering::Relaxed)
    }

    /// What the versions weigh (see [`Tail`]) that have been superseded or are tombstones,
    /// until they are freed.
    pub fn superseded_weight(&self) -> u64 {
        self.counts.superseded.load(Ordering::Relaxed)
    }

    /// Bytes that the hash and the order take, beside entries and versions, as asked of
    /// the allocator, and how many allocations they are. What is retired and waits to be
    /// freed is not in it.
    pub fn structure(&self) -> Structure {
        let (hash, order) = (self.table.structure(), self.list.structure());
        Structure { bytes: hash.bytes + order.bytes, allocations: hash.allocations + order.allocations }
    }

    /// The stamp that reads leave now: see [`Access`].
    pub fn generation(&self) -> u16 {
        self.notes.generation()
    }

    /// How many look-ups of single keys found something, and how many found nothing.
    pub fn lookups(&self) -> (u64, u64) {
        self.pins.counted()
    }
}

/// Memory of the hash and the order: see [`Index::structure`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Structure {
    /// Bytes.
    pub bytes: usize,
    /// Allocations that they are in.
    pub allocations: usize,
}

impl<K, T> Drop for Index<K, T> {
    fn drop(&mut self) {
        drop(self.orphans.take());
    }
}

/// A look at an index. What it returns lives as long as it does.
pub struct Reader<'i, K, T> {
    index: &'i Index<K, T>,
    guard: Guard<'i>,
}

impl<K, T> Reader<'_, K, T> {
    /// Whether memory may be waiting for this reader to go: something has been unlinked, and
    /// sealed to be freed, since it was made. One load.
    pub fn is_waited_for(&self) -> bool {
        self.guard.is_outdated(&self.index.pins)
    }

    fn find<Q>(&self, hash: u64, key: &Q) -> Option<&node::Entry<K, T>>
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        self.index.table.find(hash, |entry| entry.key.borrow() == key, &self.guard)
    }

    /// Notes and counts a look-up for whoever evicts.
    fn looked_up<'g, F>(&self, entry: Option<&node::Entry<K, T>>, found: Option<F>) -> Option<F>
    where
        F: 'g,
    {
        let count = self.guard.count(found.is_some());
        if let (Some(entry), true) = (entry, found.is_some() && self.index.notes.is_on()) {
            self.index.notes.note(entry.notes(), count);
        }
        found
    }

    /// What `key` holds for a snapshot at `moment`, whose timestamp must be registered
    /// in every [`Horizon`] that is trimmed by meanwhile. Expected constant time.
    pub fn get_at<Q>(&self, hash: u64, key: &Q, moment: impl Into<Moment>) -> Option<&T>
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        self.resident_at(hash, key, moment).map(|found| found.value())
    }

    /// Like [`get_at`](Self::get_at), with the key as the index holds it.
    pub fn get_entry_at<Q>(&self, hash: u64, key: &Q, moment: impl Into<Moment>) -> Option<(&K, &T)>
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        self.resident_at(hash, key, moment).map(|found| (found.key(), found.value()))
    }

    /// Like [`get_at`](Self::get_at), with all that is known.
    pub fn resident_at<Q>(&self, hash: u64, key: &Q, moment: impl Into<Moment>) -> Option<Resident<'_, K, T>>
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        let moment = moment.into();
        let entry = self.find(hash, key);
        let found = entry.and_then(|entry| {
            let version = entry.chain.at(moment.timestamp, &self.guard)?;
            version.value_at(|| moment.time)?;
            Resident::new(self, entry, version)
        });
        self.looked_up(entry, found)
    }

    /// Asks for what looking up keys with these hashes will read, up to what they hold now, and
    /// lets `ask` do so for the rest, as in [`scan`](Self::scan). A hint: it changes nothing.
    pub fn ask_for<const N: usize>(&self, hashes: [u64; N], ask: impl Fn(usize, &T)) {
        pipeline::ask_for(&self.index.table, hashes, ask, &self.guard);
    }

    /// What `key` held at some instant during the call: a read that needs no
    /// snapshot. `now` reads the clock with Acquire, and may be called again; `time` is
    /// called if what was found can expire.
    pub fn latest<Q>(
        &self,
        hash: u64,
        key: &Q,
        now: impl Fn() -> Timestamp,
        time: impl Fn() -> Time,
    ) -> Option<&T>
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        let entry = self.find(hash, key);
        let found = entry.and_then(|entry| {
            loop {
                let version = entry.chain.latest(&now, &self.guard)?;
                if let Some(value) = version.value_at(&time) {
                    break Some(value);
                }
                // It may have been renewed in time, between the first look and the clock.
                let again = entry.chain.latest(&now, &self.guard)?;
                if again.pointer() == version.pointer() {
                    break None;
                }
            }
        });
        self.looked_up(entry, found)
    }

    /// Whether a key with this hash has a version, or tombstone, newer than `since`, or
    /// has expired since then, up to `until`; given that the timestamp of `since` is
    /// registered. Keys are told apart by 40 bits of their hash: two that share them all
    /// may give a false yes.
    pub fn changed(&self, hash: u64, since: impl Into<Moment>, until: Time) -> bool {
        let since = since.into();
        self.index.table.find(hash, |entry| self.is_newer(entry, since, until), &self.guard).is_some()
    }

    fn is_newer(&self, entry: &node::Entry<K, T>, since: Moment, until: Time) -> bool {
        entry.chain.newest(&self.guard).is_some_and(|newest| {
            let expires = newest.expires();
            if newest.timestamp() <= since.timestamp {
                return expires > since.time && expires <= until && !planted("expiry-is-no-conflict");
            }
            // That what had expired before is removed changes nothing.
            let had_expired = |seen: Linked<'_, T>| has_expired(seen.expires(), since.time);
            let seen = newest.at(since.timestamp, &self.guard);
            newest.value.is_some() || !seen.is_some_and(had_expired)
        })
    }

    /// Whether a key with this hash has a version, or tombstone, newer than `since` of a commit
    /// that `is_it` accepts. What was superseded may be trimmed already.
    pub fn changed_by(&self, hash: u64, since: Timestamp, is_it: impl Fn(Timestamp) -> bool) -> bool {
        self.index.table.find(hash, |entry| self.is_changed_by(entry, since, &is_it), &self.guard).is_some()
    }

    fn is_changed_by(
        &self,
        entry: &node::Entry<K, T>,
        since: Timestamp,
        is_it: &impl Fn(Timestamp) -> bool,
    ) -> bool {
        let mut version = entry.chain.newest(&self.guard);
        while let Some(newer) = version.filter(|version| version.timestamp() > since) {
            if is_it(newer.timestamp()) {
                return true;
            }
            version = newer.older(&self.guard);
        }
        false
    }

    /// Room for a number of writes.
    pub fn batch(&self, capacity: usize) -> Batch<'_, K, T> {
        Batch::new(self, capacity)
    }
}

impl<K: Ord, T> Reader<'_, K, T> {
    fn walk<'s>(
        &'s self,
        span: &impl Span<K>,
        direction: Direction,
        visit: impl FnMut(&Stretch<'_, 's, K, T>) -> ControlFlow<()>,
    ) {
        match direction {
            Direction::Forward => self.index.list.forward(span, &self.guard, visit),
            Direction::Backward => self.index.list.backward(span, &self.guard, visit),
        }
    }

    /// Visits the keys of `span` that have a value for a snapshot at `moment`
    /// (registered, see [`get_at`](Self::get_at)), in order, until `visit`
    /// breaks. Logarithmic time to the first, then constant for each.
    ///
    /// Pairs come in small groups, from a pipeline in which the cache misses of several groups
    /// overlap. Two of its steps are the caller's: `ask` is called with 0 and, a group later,
    /// with 1 for each value that is about to be visited, and may [`prefetch`] what the visitor
    /// will find by following the value's own pointers.
    pub fn scan<'s>(
        &'s self,
        span: &impl Span<K>,
        direction: Direction,
        moment: impl Into<Moment>,
        ask: impl Fn(usize, &T),
        mut visit: impl FnMut(&[(&'s K, &'s T)]) -> ControlFlow<()>,
    ) {
        let mut pipeline = Pipeline::new(moment.into(), &self.guard, ask);
        let mut flow = ControlFlow::Continue(());
        self.walk(span, direction, |stretch| {
            flow = pipeline.take_in(stretch, &mut visit);
            flow
        });
        if flow.is_continue() {
            pipeline.finish(&mut visit);
        }
    }

    /// Whether any key of `span` has changed or expired: see [`changed`](Self::changed).
    pub fn changed_within(&self, span: &impl Span<K>, since: impl Into<Moment>, until: Time) -> bool {
        let since = since.into();
        let mut changed = false;
        self.walk(span, Direction::Forward, |stretch| {
            changed = stretch.entries.iter().any(|entry| self.is_newer(entry, since, until));
            match changed {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        });
        changed
    }

    /// [`changed_by`](Self::changed_by) for any key of `span`.
    pub fn changed_within_by(
        &self,
        span: &impl Span<K>,
        since: Timestamp,
        is_it: impl Fn(Timestamp) -> bool,
    ) -> bool {
        let mut changed = false;
        self.walk(span, Direction::Forward, |stretch| {
            changed = stretch.entries.iter().any(|entry| self.is_changed_by(entry, since, &is_it));
            match changed {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        });
        changed
    }
}

/// Whether the yardstick has planted this fault: a deliberate mistake, to see that it is found.
/// Never, except in builds with `--cfg planted`, in which the environment names one.
#[doc(hidden)]
#[cfg(not(planted))]
#[inline(always)]
pub const fn planted(_fault: &str) -> bool {
    false
}

/// Whether the environment names this fault.
#[doc(hidden)]
#[cfg(planted)]
pub fn planted(fault: &str) -> bool {
    static PLANTED: std::sync::LazyLock<String> =
        std::sync::LazyLock::new(|| std::env::var("FLUXMAP_PLANTED").unwrap_or_default());
    *PLANTED == fault
}

/// Asks for what will be read soon: its first cache line, and its last one, if it is small enough
/// for there to be no other. A hint: it changes nothing.
pub fn prefetch<T: ?Sized>(soon: &T) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        const CACHE_LINE: usize = 64;
        let first: *const i8 = std::ptr::from_ref(soon).cast();
        // SAFETY: (I5) the instruction neither reads nor faults, whatever the
        // address, and this one belongs to a live reference.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(first) };
        let size = size_of_val(soon);
        if size > align_of_val(soon) && size <= CACHE_LINE {
            // SAFETY: as above.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(first.wrapping_add(size - 1)) };
        }
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = soon;
}

/// Runs `body`, and contains a panic in it: for code of the user's that runs on nobody's behalf,
/// such as destructors. The panic hook has reported it, and what it leaves half-done is the
/// user's own. `None` if it has panicked.
pub fn contain<R>(body: impl FnOnce() -> R) -> Option<R> {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(result) => Some(result),
        Err(payload) => {
            // The payload's own destructor could panic next.
            std::mem::forget(payload);
            None
        }
    }
}
