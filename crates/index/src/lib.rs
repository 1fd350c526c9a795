//! The ordered multi-version index under FluxMap.
//!
//! An [`Index`] maps keys to chains of versions, each with the timestamp of the
//! commit that wrote it. One [`Writer`] changes the index. Any number of [`Reader`]s
//! read it at the same time, at any timestamp, without locks and without waiting.
//! A reader claims one slot of its own while it exists, and writes no memory that
//! another reader writes, unless reads are noted on entries (see [`AccessTracking`]).
//! Single keys are found through a hash, spans of keys through a skiplist of blocks.
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
//! // No snapshot is left that reads before 2, so the old version can be trimmed.
//! let trimmed = writer.trim(&Horizon::new(2, Vec::new()), 16);
//! assert_eq!(trimmed.versions, 1);
//! ```
//!
//! # The memory model
//!
//! This crate holds all the `unsafe` code of the workspace. Every `SAFETY`
//! comment, and every atomic ordering that needs a reason, cites one of these invariants.
//!
//! - **I1, one writer.** Links are changed only through `&mut Writer`, and there
//!   is one `Writer` for an `Index`. The writer may therefore read links with
//!   Relaxed. Only the writer reads and writes the marks on entries and blocks.
//! - **I2, publish.** An object is complete before a Release store makes it
//!   reachable; readers follow links with Acquire.
//! - **I3, immutable parts.** An entry's key and hash, a version's timestamp
//!   and value, and a block's lower bound never change after they are published (I2).
//!   A full run never changes once no entry moves in it any more.
//! - **I4, retire once.** An object is retired once, after the last link to it
//!   from the roots is gone. A retired object belongs to the limbo.
//! - **I5, grace.** A retired object is freed only when every pin that was taken
//!   before it was retired is released (`reclaim.rs` has the argument, R). So a
//!   reference obtained under a pin is valid as long as the pin.
//! - **I6, exits stay.** An unlinked object keeps its outgoing links, and the objects
//!   that they lead to were alive when it was unlinked. So a reader that stands on an
//!   unlinked object finds its way on.
//! - **I7, entries move right.** A split links the new block before it shortens
//!   the old run; no entry is ever moved into a linked block further left. A walk to the
//!   right meets every entry that was linked when the walk began and still is. It may meet
//!   a moved entry twice, and recognizes the second time by the key. A walk to the left
//!   finds each block from above, reads its run, and then makes sure that no block was
//!   linked in between. A merge leaves both blocks as they are: a new block with the entries
//!   of both takes the place of the left one before the right one is unlinked. Within a run,
//!   too, entries move only to the right, one at a time (`block.rs` has the argument, R1 and R2).
//! - **I8, one home.** A linked entry is in exactly one run of a linked block (in two runs while
//!   their blocks are split or merged), in one slot of that run (in two while the entry moves),
//!   and its hash leads to exactly one segment that holds it.
//! - **I9, the writer is safe from itself.** Only the writer hands out objects to be freed, only
//!   objects that it has unlinked, and not while it reads. So every object that the writer
//!   reaches from the roots is alive.
//! - **I10, exclusive ownership.** An object that was never linked, or that belongs to an
//!   index that is being dropped, is reached by nobody else.
//! - **I11, the queue.** An entry in the trim queue is linked and marked as
//!   queued; because of the mark it is there only once. Only trimming unlinks entries,
//!   and it takes them from the queue first.
//! - **I12, allocated type.** A version says whether it has metadata from the time it
//!   is allocated, and is reached through the pointer that its allocation gave.
//!
//! Memory safety does not rely on any of the following: that `Ord`, `Eq` and `Hash` of the
//! key agree with each other or with themselves, that they do not panic, that a [`KeyPrefix`]
//! agrees with `Ord`, that a [`Horizon`] is true, that timestamps grow. If one of these
//! does not hold, answers may be wrong, and a walk to the left may not end.

#![deny(missing_docs)]

mod access;
mod block;
mod chain;
mod cursor;
mod garbage;
mod hash;
mod horizon;
mod list;
mod node;
mod pipeline;
mod prefix;
mod reclaim;
#[cfg(doctest)]
mod refused;
mod resident;
mod sync;
#[cfg(all(test, not(loom)))]
mod tests;
mod version;
mod writer;

pub use access::{Access, AccessTracking, MOST_READS, STAMPS};
pub use cursor::{Direction, Span};
pub use garbage::Freed;
pub use horizon::Horizon;
pub use node::HASH_BITS;
pub use prefix::KeyPrefix;
pub use resident::CurrentEntry;
pub use version::{ReadPoint, Time, VersionMeta, has_expired};
#[cfg(shuttle)]
pub use writer::Observer;
pub use writer::{Batch, Before, Change, Ledger, Staged, Trimmed, Writer};

use access::AccessLog;
use cursor::RunSlice;
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

/// A point in the order of commits. Each commit has a timestamp one greater than the last.
pub type Timestamp = u64;

/// The shared side of an index, which readers read.
pub struct Index<K, T> {
    table: Table<K, T>,
    list: List<K, T>,
    pins: Pins,
    orphans: Orphans<Garbage<K, T>>,
    counts: Counts,
    notes: AccessLog,
}

/// How many entries and versions exist. The writer changes these counts with every batch. They
/// have cache lines of their own (two, because the adjacent-line prefetcher of x86 pairs them),
/// because readers need the other fields of an [`Index`] at every look-up.
#[repr(align(128))]
struct Counts {
    entries: AtomicUsize,
    versions: AtomicUsize,
    /// The weight of the versions that are superseded or tombstones, and not freed yet.
    superseded: Tally,
}

// SAFETY: (I1 to I5) keys and values are shared by reference between threads
// and dropped by whichever thread frees them; the links are atomics.
unsafe impl<K: Send + Sync, T: Send + Sync> Send for Index<K, T> {}
// SAFETY: as above.
unsafe impl<K: Send + Sync, T: Send + Sync> Sync for Index<K, T> {}

impl<K: Ord + Clone, T> Index<K, T> {
    /// An empty index and its one writer. `probability` is the share of blocks
    /// that reach the next level of the skiplist, clamped to 0.05 to 0.75.
    #[allow(clippy::new_ret_no_self)]
    pub fn new(probability: f64) -> (Arc<Self>, Writer<K, T>) {
        Self::with_prefixes(probability, |_| None)
    }

    /// Like [`new`](Self::new), with key prefixes that tell most keys apart without reading the keys.
    /// `prefix` must return a key prefix for all keys or for none, and key prefixes must agree with the order
    /// of the keys.
    pub fn with_prefixes(probability: f64, prefix: fn(&K) -> Option<KeyPrefix>) -> (Arc<Self>, Writer<K, T>) {
        let index = Arc::new(Index {
            table: Table::new(),
            list: List::new(prefix),
            pins: Pins::new(),
            orphans: Orphans::new(),
            counts: Counts {
                entries: AtomicUsize::new(0),
                versions: AtomicUsize::new(0),
                superseded: Tally::new(0),
            },
            notes: AccessLog::new(),
        });
        let writer = Writer::new(Arc::clone(&index), probability);
        (index, writer)
    }
}

impl<K, T> Index<K, T> {
    /// A reader for a short time. While a reader exists, no memory that was in use when
    /// it was made is freed, so keep it for microseconds, and never across an
    /// await. To protect a snapshot for longer, register it in the [`Horizon`].
    pub fn reader(&self) -> Reader<'_, K, T> {
        Reader { index: self, guard: self.pins.pin() }
    }

    /// How many keys have an entry, including deleted keys that are not trimmed yet.
    pub fn entries(&self) -> usize {
        self.counts.entries.load(Ordering::Relaxed)
    }

    /// How many versions there are, including tombstones.
    pub fn versions(&self) -> usize {
        self.counts.versions.load(Ordering::Relaxed)
    }

    /// The weight (see [`VersionMeta`]) of the versions that are superseded or tombstones, and not
    /// freed yet.
    pub fn superseded_weight(&self) -> u64 {
        self.counts.superseded.load(Ordering::Relaxed)
    }

    /// The bytes that the hash and the order request from the allocator, without entries and
    /// versions, and an upper bound of the number of allocations. Retired memory that waits to
    /// be freed is not included.
    pub fn structure(&self) -> Structure {
        let (hash, order) = (self.table.structure(), self.list.structure());
        Structure { bytes: hash.bytes + order.bytes, allocations: hash.allocations + order.allocations }
    }

    /// The stamp that reads leave at present: see [`Access`].
    pub fn generation(&self) -> u16 {
        self.notes.generation()
    }

    /// How many look-ups of single keys found a value, and how many found none.
    pub fn lookups(&self) -> (u64, u64) {
        self.pins.counted()
    }
}

/// Memory of the hash and the order: see [`Index::structure`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Structure {
    /// Bytes.
    pub bytes: usize,
    /// The number of allocations that the bytes are in.
    pub allocations: usize,
}

impl<K, T> Drop for Index<K, T> {
    fn drop(&mut self) {
        drop(self.orphans.take());
    }
}

/// Read access to an index. References that it returns live as long as the reader.
pub struct Reader<'i, K, T> {
    index: &'i Index<K, T>,
    guard: Guard<'i>,
}

impl<K, T> Reader<'_, K, T> {
    /// Whether memory may be waiting for this reader to be dropped: something has been unlinked,
    /// and sealed to be freed, since the reader was made. Costs two relaxed loads.
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

    /// Counts a look-up, and notes a hit on its entry for the eviction policy.
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

    /// The value of `key` for a snapshot at `read_point`. The snapshot's timestamp must be registered
    /// in every [`Horizon`] that is passed to [`Writer::trim`] meanwhile. Expected constant time.
    pub fn get_at<Q>(&self, hash: u64, key: &Q, read_point: impl Into<ReadPoint>) -> Option<&T>
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        self.resident_at(hash, key, read_point).map(|found| found.value())
    }

    /// Like [`get_at`](Self::get_at), with the key as the index holds it.
    pub fn get_entry_at<Q>(&self, hash: u64, key: &Q, read_point: impl Into<ReadPoint>) -> Option<(&K, &T)>
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        self.resident_at(hash, key, read_point).map(|found| (found.key(), found.value()))
    }

    /// Like [`get_at`](Self::get_at), with everything that the index knows about the key.
    pub fn resident_at<Q>(
        &self,
        hash: u64,
        key: &Q,
        read_point: impl Into<ReadPoint>,
    ) -> Option<CurrentEntry<'_, K, T>>
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        let read_point = read_point.into();
        let entry = self.find(hash, key);
        let found = entry.and_then(|entry| {
            let version = entry.chain.at(read_point.timestamp, &self.guard)?;
            version.value_at(|| read_point.time)?;
            CurrentEntry::new(self, entry, version)
        });
        self.looked_up(entry, found)
    }

    /// Prefetches the memory that look-ups of keys with these hashes will read, up to their
    /// newest values. `ask` prefetches what lies behind the values, as in [`scan`](Self::scan).
    /// Only a hint: it has no other effect.
    pub fn prefetch<const N: usize>(&self, hashes: [u64; N], ask: impl Fn(usize, &T)) {
        pipeline::prefetch_paths(&self.index.table, hashes, ask, &self.guard);
    }

    /// The value that `key` held at some instant during the call: a read that needs no
    /// snapshot. `now` reads the clock with Acquire, and may be called several times. `time` is
    /// called only if the version found can expire.
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
                // The version has expired at `time`, but a commit may have replaced it in time,
                // after the first look at the chain. Only if a second look finds the same
                // version was the key without a value when `time` was read.
                let again = entry.chain.latest(&now, &self.guard)?;
                if again.pointer() == version.pointer() {
                    break None;
                }
            }
        });
        self.looked_up(entry, found)
    }

    /// Whether a key with this hash has a version or tombstone newer than `since`, or a value
    /// that expired after the time of `since` and by `until`. The timestamp of `since` must be
    /// registered. Keys are told apart by 40 bits of their hash only: the answer may be a false
    /// yes if another key shares all of them.
    pub fn changed(&self, hash: u64, since: impl Into<ReadPoint>, until: Time) -> bool {
        let since = since.into();
        self.index.table.find(hash, |entry| self.is_newer(entry, since, until), &self.guard).is_some()
    }

    fn is_newer(&self, entry: &node::Entry<K, T>, since: ReadPoint, until: Time) -> bool {
        entry.chain.newest(&self.guard).is_some_and(|newest| {
            let expires = newest.expires();
            if newest.timestamp() <= since.timestamp {
                return expires > since.time && expires <= until && !planted("expiry-is-no-conflict");
            }
            // A tombstone over a value that had expired by the time of `since` is no change:
            // the snapshot found no value then, and would find none now.
            let had_expired = |seen: Linked<'_, T>| has_expired(seen.expires(), since.time);
            let seen = newest.at(since.timestamp, &self.guard);
            newest.value.is_some() || !seen.is_some_and(had_expired)
        })
    }

    /// Whether a key with this hash has a version or tombstone newer than `since`, from a commit
    /// that `is_it` accepts. Superseded versions may be trimmed already, and are then not found.
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

    /// An empty batch with room for `capacity` writes.
    pub fn batch(&self, capacity: usize) -> Batch<'_, K, T> {
        Batch::new(self, capacity)
    }
}

impl<K: Ord, T> Reader<'_, K, T> {
    fn walk<'s>(
        &'s self,
        span: &impl Span<K>,
        direction: Direction,
        visit: impl FnMut(&RunSlice<'_, 's, K, T>) -> ControlFlow<()>,
    ) {
        match direction {
            Direction::Forward => self.index.list.forward(span, &self.guard, visit),
            Direction::Backward => self.index.list.backward(span, &self.guard, visit),
        }
    }

    /// Visits the keys of `span` that have a value for a snapshot at `read_point`
    /// (registered, see [`get_at`](Self::get_at)), in order, until `visit`
    /// breaks. Takes logarithmic time to the first key, then constant time for each.
    ///
    /// `visit` gets the pairs in small groups, from a pipeline in which the cache misses of several
    /// groups overlap. The caller supplies two steps of the pipeline: `ask` is called with 0 and, a
    /// group later, with 1 for each value that is about to be visited, and may [`prefetch`] the
    /// memory that the visitor will reach by following the value's own pointers.
    pub fn scan<'s>(
        &'s self,
        span: &impl Span<K>,
        direction: Direction,
        read_point: impl Into<ReadPoint>,
        ask: impl Fn(usize, &T),
        mut visit: impl FnMut(&[(&'s K, &'s T)]) -> ControlFlow<()>,
    ) {
        let mut pipeline = Pipeline::new(read_point.into(), &self.guard, ask);
        let mut flow = ControlFlow::Continue(());
        self.walk(span, direction, |slice| {
            flow = pipeline.take_in(slice, &mut visit);
            flow
        });
        if flow.is_continue() {
            pipeline.finish(&mut visit);
        }
    }

    /// Whether any key of `span` has changed or expired: see [`changed`](Self::changed).
    pub fn changed_within(&self, span: &impl Span<K>, since: impl Into<ReadPoint>, until: Time) -> bool {
        let since = since.into();
        let mut changed = false;
        self.walk(span, Direction::Forward, |slice| {
            changed = slice.entries.iter().any(|entry| self.is_newer(entry, since, until));
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
        self.walk(span, Direction::Forward, |slice| {
            changed = slice.entries.iter().any(|entry| self.is_changed_by(entry, since, &is_it));
            match changed {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        });
        changed
    }
}

/// Whether the yardstick (`scripts/yardstick.sh`) has planted this fault: a deliberate mistake
/// that the tests must find. Always false, except in builds with `--cfg planted`, in which the
/// environment names one fault.
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

/// Prefetches an object that will be read soon: its first cache line, and its last one if the
/// object is small enough to have no others. Only a hint: it has no other effect.
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

/// Runs `body`, and returns `None` if it panics. For user code that runs on behalf of no caller,
/// such as destructors. The panic hook has reported the panic already, and only the user's own
/// data can be left half-changed.
pub fn contain<R>(body: impl FnOnce() -> R) -> Option<R> {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(result) => Some(result),
        Err(payload) => {
            // Leak the payload: its destructor is user code, too, and could panic next.
            std::mem::forget(payload);
            None
        }
    }
}
