//! The writer, which alone changes the index: stage, publish, trim.
//!
//! Any thread can *prepare* a batch of writes with a [`Reader`]: it looks the keys up,
//! allocates entries and versions, and finds the places of new keys. If a place is
//! full, it also makes the split in advance, which is used if it still fits when the
//! batch is staged. The [`Writer`], of which there is one, then *stages* the batch: it
//! links an entry with an empty chain for each new key, which no reader can tell from
//! an absent key. All user code of a write (`Eq`, `Ord`, `Clone`, key prefixes) runs in these
//! two steps. The last step, *publish*, pushes the prepared versions and cannot fail.

use crate::block::Heights;
use crate::garbage::{Freed, Garbage};
use crate::hash::SplitSegment;
use crate::list::{KeyPlace, Removed, Split};
use crate::node::Entry;
use crate::reclaim::Limbo;
use crate::sync::Ordering;
use crate::version::{Owned, VersionMeta};
use crate::{Access, AccessTracking, CurrentEntry, Horizon, Index, Reader, Structure, Timestamp, prefetch};
use std::collections::VecDeque;
use std::mem;
use std::ptr::{self, NonNull};
use std::sync::Arc;

/// Objects that are retired before the limbo is sealed: enough to share the cost of
/// reading all pins, few enough that not many large values pile up.
const RETIRE_BATCH: usize = 64;

/// Chains that are prefetched together before they are trimmed.
const SIDE_BY_SIDE: usize = 16;

/// The capacity, in entries, that an empty queue keeps.
const SMALL_QUEUE: usize = 64;

/// The only handle that changes an [`Index`].
pub struct Writer<K, T> {
    index: Arc<Index<K, T>>,
    limbo: Limbo<Garbage<K, T>>,
    /// Entries whose chains have something to trim, now or later. Each is
    /// linked, marked as queued, and in the queue once (I11).
    queue: VecDeque<NonNull<Entry<K, T>>>,
    heights: Heights,
    /// Called with every version that is published.
    #[cfg(shuttle)]
    observer: Option<Observer<K, T>>,
}

/// A function by which a model follows all changes. It is given the timestamp, the key, its value
/// (`None` if it is deleted), and when the value expires.
#[cfg(shuttle)]
pub type Observer<K, T> = Box<dyn FnMut(Timestamp, &K, Option<&T>, crate::Time) + Send>;

// SAFETY: (I1, I11) the pointers lead to entries of `index`, which the writer may
// access from any thread that it is on; entries are `Send` and `Sync` if K and T are.
unsafe impl<K: Send + Sync, T: Send + Sync> Send for Writer<K, T> {}

/// Writes that will be published together.
pub struct Batch<'r, K, T> {
    reader: &'r Reader<'r, K, T>,
    items: Vec<BatchItem<'r, K, T>>,
    /// A full run that is split in advance, for the first new entry that seemed to need it. If
    /// it is not needed, it is dropped with the batch.
    split: Option<Split<'r, K, T>>,
    /// The same for a full segment of the hash.
    pub(crate) halves: Option<SplitSegment<'r, K, T>>,
    staged: bool,
}

struct BatchItem<'r, K, T> {
    hash: u64,
    target: BatchTarget<'r, K, T>,
    /// Set when the item is staged: the linked entry that will take the version.
    entry: Option<NonNull<Entry<K, T>>>,
    /// Whether that entry was linked for this item, which is not published yet.
    fresh: bool,
    key_weight: u32,
    /// Taken out when it is published.
    version: Option<Owned<T>>,
}

/// The result of looking up a key when the batch was prepared. Keys and entries that turn out
/// not to be needed are dropped with the batch, outside all locks.
enum BatchTarget<'r, K, T> {
    /// The key has an entry. The key is kept in case that is unlinked before the batch is staged.
    Existing(&'r Entry<K, T>, K),
    /// The key has no entry: a new one, and its place.
    Fresh(Unlinked<K, T>, Option<KeyPlace<'r, K, T>>),
    /// The new entry has been linked, or is about to be.
    Taken,
}

/// An entry that is not linked yet. Frees it if it is never linked. Not a `Box`, which
/// would claim to be the only pointer to the entry when that is linked already.
struct Unlinked<K, T>(NonNull<Entry<K, T>>);

impl<K, T> Unlinked<K, T> {
    fn new(key: K, hash: u64) -> Self {
        let entry = Box::into_raw(Box::new(Entry::new(key, hash)));
        // SAFETY: (I10) a box is never null.
        Unlinked(unsafe { NonNull::new_unchecked(entry) })
    }

    fn entry(&self) -> &Entry<K, T> {
        // SAFETY: (I10) not linked, so only this handle can free it.
        unsafe { self.0.as_ref() }
    }

    /// Gives the entry to the index, which owns it once it is linked.
    fn into_linked(self) -> NonNull<Entry<K, T>> {
        let entry = self.0;
        mem::forget(self);
        entry
    }
}

impl<K, T> Drop for Unlinked<K, T> {
    fn drop(&mut self) {
        // SAFETY: (I10) never linked, see `into_linked`.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

impl<'r, K, T> Batch<'r, K, T> {
    pub(crate) fn new(reader: &'r Reader<'r, K, T>, capacity: usize) -> Self {
        Batch { reader, items: Vec::with_capacity(capacity), split: None, halves: None, staged: false }
    }

    /// How many writes the batch has.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether the batch has no writes.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The hashes of the keys that are written.
    pub fn hashes(&self) -> impl Iterator<Item = u64> {
        self.items.iter().map(|item| item.hash)
    }
}

#[cfg(all(test, not(loom)))]
impl<K, T> Batch<'_, K, T> {
    /// How many splits, of a run or a segment, the batch has made in advance and not used.
    pub(crate) fn made(&self) -> usize {
        usize::from(self.split.is_some()) + usize::from(self.halves.is_some())
    }
}

impl<K: Ord + Clone, T> Batch<'_, K, T> {
    /// Adds a write: a value, or `None` to delete the key. Add a key only once: of several
    /// writes to a key, the last one counts.
    /// `hash` must be the hash that every look-up of this key passes.
    pub fn push(&mut self, hash: u64, key: K, value: Option<T>) {
        self.push_with(hash, key, value, None, 0);
    }

    /// Like [`push`](Self::push), with the version's metadata, and with the key's weight, which is
    /// passed on to [`Ledger::record`].
    pub fn push_with(
        &mut self,
        hash: u64,
        key: K,
        value: Option<T>,
        meta: Option<VersionMeta>,
        key_weight: u32,
    ) {
        let guard = &self.reader.guard;
        let index = self.reader.index;
        let existing = index.table.find(hash, |entry| entry.key == key, guard);
        let target = match existing {
            Some(entry) => BatchTarget::Existing(entry, key),
            None => {
                // Keys often come in order: begin the search for a place at that of the last one.
                let near = self.items.last().and_then(|item| match &item.target {
                    BatchTarget::Fresh(_, near) => near.as_ref(),
                    _ => None,
                });
                let unlinked = Unlinked::new(key, hash);
                let key = &unlinked.entry().key;
                let place = match near {
                    Some(near) => index.list.place_near(near, key, guard),
                    None => index.list.place(key, guard),
                };
                if self.split.is_none() {
                    self.split = index.list.presplit(&place, unlinked.0, key, guard);
                }
                if self.halves.is_none() {
                    self.halves = index.table.presplit(hash, guard);
                }
                BatchTarget::Fresh(unlinked, Some(place))
            }
        };
        let version = Some(Owned::new(value, meta));
        self.items.push(BatchItem { hash, target, entry: None, fresh: false, key_weight, version });
    }
}

/// A batch whose keys all have entries. If it is dropped without
/// [`publish`](Staged::publish), it leaves nothing that a reader could see.
pub struct Staged<'w, 'b, 'r, K, T> {
    writer: &'w mut Writer<K, T>,
    batch: &'b mut Batch<'r, K, T>,
}

/// Accounts for the versions that are published.
pub trait Ledger {
    /// Called before a version is published. May change the version's metadata.
    /// Must not panic: the versions that the batch has published before would stay.
    fn record(&mut self, change: Change, meta: Option<&mut VersionMeta>);
}

/// For users who keep no accounts.
impl Ledger for () {
    fn record(&mut self, _change: Change, _meta: Option<&mut VersionMeta>) {}
}

/// The change that publishing a version makes.
#[derive(Clone, Copy, Debug)]
pub struct Change {
    /// The hash of its key.
    pub hash: u64,
    /// The weight of the key, as given to the batch.
    pub key_weight: u32,
    /// Whether the version is a value, and not a tombstone.
    pub is_value: bool,
    /// The value that the version supersedes, if there is one.
    pub before: Option<Before>,
}

/// A value that is superseded.
#[derive(Clone, Copy, Debug)]
pub struct Before {
    /// The metadata that was written with the value.
    pub meta: Option<VersionMeta>,
}

/// What [`Writer::trim`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trimmed {
    /// How many versions were unlinked that no snapshot could see any more.
    pub versions: usize,
    /// How many deleted keys were removed from the index.
    pub keys: usize,
    /// How many entries were examined.
    pub visited: usize,
}

impl<K: Ord + Clone, T> Writer<K, T> {
    pub(crate) fn new(index: Arc<Index<K, T>>, probability: f64) -> Self {
        Writer {
            index,
            limbo: Limbo::new(),
            queue: VecDeque::new(),
            heights: Heights::new(probability),
            #[cfg(shuttle)]
            observer: None,
        }
    }

    /// Gives every key of `batch` an entry. If user code panics, nothing that a
    /// reader could see has happened.
    ///
    /// # Panics
    ///
    /// If the batch was prepared on another index, or staged before.
    pub fn stage<'w, 'b, 'r>(&'w mut self, batch: &'b mut Batch<'r, K, T>) -> Staged<'w, 'b, 'r, K, T> {
        assert!(ptr::eq(&*self.index, batch.reader.index), "a batch belongs to the index it was prepared on");
        // Before a `Staged` exists: dropping it would queue the new entries of the batch, and
        // those of a batch that was staged before may have been unlinked since. An unlinked
        // entry must not get into the queue (I11).
        assert!(!mem::replace(&mut batch.staged, true), "a batch is staged once");
        let staged = Staged { writer: self, batch };
        let Batch { reader, items, split, halves, .. } = &mut *staged.batch;
        for item in items {
            staged.writer.stage_one(item, split, halves, reader);
        }
        staged
    }

    fn stage_one<'r>(
        &mut self,
        item: &mut BatchItem<'r, K, T>,
        split: &mut Option<Split<'r, K, T>>,
        halves: &mut Option<SplitSegment<'r, K, T>>,
        reader: &'r Reader<'r, K, T>,
    ) {
        let guard = &reader.guard;
        if let BatchTarget::Existing(entry, _) = &item.target
            && !entry.is_unlinked()
        {
            item.entry = Some(NonNull::from(*entry));
            return;
        }
        let (unlinked, place) = match mem::replace(&mut item.target, BatchTarget::Taken) {
            // The entry has been unlinked since the batch was prepared.
            BatchTarget::Existing(_, key) => (Unlinked::new(key, item.hash), None),
            BatchTarget::Fresh(unlinked, place) => (unlinked, place),
            BatchTarget::Taken => unreachable!("a batch is staged once"),
        };
        let key = &unlinked.entry().key;
        if let Some(entry) = self.index.table.find(item.hash, |entry| entry.key == *key, guard) {
            // Another batch has inserted the key since this one was prepared.
            item.entry = Some(NonNull::from(entry));
            item.target = BatchTarget::Fresh(unlinked, None);
            return;
        }
        let place = match place {
            Some(place) => place,
            None => self.index.list.place(key, guard),
        };
        let entry = unlinked.0;
        let limbo = &mut self.limbo;
        let heights = &mut self.heights;
        self.index.list.insert(entry, key, place, split, heights, guard, |garbage| limbo.retire(garbage));
        // Nothing panics between here and the insertion into the hash. So an entry is in both the
        // order and the hash, or in neither.
        let entry = unlinked.into_linked();
        let total = self.index.counts.entries.load(Ordering::Relaxed) + 1;
        self.index.table.insert(entry, item.hash, total, halves, guard, |garbage| limbo.retire(garbage));
        self.index.counts.entries.store(total, Ordering::Relaxed);
        (item.entry, item.fresh) = (Some(entry), true);
    }

    /// Examines up to `budget` entries of the queue, each once and the longest waiting
    /// first, and unlinks the versions and keys that no snapshot in `horizon` can see.
    pub fn trim(&mut self, horizon: &Horizon, budget: usize) -> Trimmed {
        let mut done = Trimmed::default();
        // Entries that must wait longer go to the back of the queue. The budget stops before
        // them, so that one call examines no entry twice.
        let budget = budget.min(self.queue.len());
        while done.visited < budget {
            if done.visited % SIDE_BY_SIDE == 0 {
                self.ask_for_queued(SIDE_BY_SIDE.min(budget - done.visited));
            }
            let Some(pointer) = self.queue.pop_front() else {
                break;
            };
            done.visited += 1;
            // SAFETY: (I11) queued entries are linked, and so alive (I9).
            let entry = unsafe { pointer.as_ref() };
            entry.set_queued(false);
            let limbo = &mut self.limbo;
            let trimmed = entry.chain.trim(horizon, |version| limbo.retire(Garbage::version(version)));
            done.versions += trimmed.removed;
            if trimmed.dead {
                if self.unlink(pointer) {
                    done.keys += 1;
                    // The tombstone is freed with its entry. An entry that was staged and never
                    // published has none.
                    done.versions += usize::from(entry.chain.front().is_some());
                } else {
                    self.enqueue(pointer);
                }
            } else if trimmed.unfinished {
                self.enqueue(pointer);
            }
        }
        let versions = self.index.counts.versions.load(Ordering::Relaxed);
        self.index.counts.versions.store(versions - done.versions, Ordering::Relaxed);
        done
    }

    /// Prefetches the memory that trimming the next `count` entries reads, since other cores may
    /// have written it last. One kind of cache miss at a time, so that they overlap.
    fn ask_for_queued(&self, count: usize) {
        // SAFETY: (I11) queued entries are linked, and so alive (I9).
        let entries = || self.queue.iter().take(count).map(|pointer| unsafe { pointer.as_ref() });
        entries().for_each(|entry| prefetch(&entry.chain));
        entries().filter_map(|entry| entry.chain.front()).for_each(|newest| prefetch(newest.get()));
        entries().filter_map(|entry| entry.chain.second()).for_each(|older| prefetch(older.get()));
    }

    /// Takes an entry out of the order and the hash. Returns false, with nothing
    /// changed, if the key's `Ord` or `Clone` panics. No caller is to blame for that
    /// panic, so it is contained, and the entry is tried again later.
    fn unlink(&mut self, pointer: NonNull<Entry<K, T>>) -> bool {
        // SAFETY: (I1, I9) linked until the end of this function.
        let entry = unsafe { pointer.as_ref() };
        let reader = self.index.reader();
        let (list, limbo) = (&self.index.list, &mut self.limbo);
        let removed = crate::contain(|| {
            list.remove(pointer, &entry.key, &reader.guard, |garbage| limbo.retire(garbage))
        });
        let Some(Some(Removed { owned, block })) = removed else {
            return false;
        };
        self.index.table.remove(owned, entry.hash(), &reader.guard, |garbage| limbo.retire(garbage));
        entry.set_unlinked();
        self.limbo.retire(Garbage::entry(owned, entry));
        let total = self.index.counts.entries.load(Ordering::Relaxed) - 1;
        self.index.counts.entries.store(total, Ordering::Relaxed);
        // In a `contain` of its own: if the merge panics, the entry is unlinked all the same.
        let (list, limbo) = (&self.index.list, &mut self.limbo);
        crate::contain(|| list.shrink(block, &reader.guard, |garbage| limbo.retire(garbage)));
        true
    }

    /// How many entries wait to be trimmed.
    pub fn backlog(&self) -> usize {
        self.queue.len()
    }

    /// The memory of the structure that waits to be freed, and of the queue of entries that wait
    /// to be trimmed. Takes time linear in the number of objects that wait to be freed.
    pub fn waiting(&self) -> Structure {
        let grown = self.queue.capacity().saturating_sub(SMALL_QUEUE) * size_of::<NonNull<Entry<K, T>>>();
        let queue = Structure { bytes: grown, allocations: 0 };
        self.limbo.iter().map(Garbage::structure).fold(queue, |sum, part| Structure {
            bytes: sum.bytes + part.bytes,
            allocations: sum.allocations + part.allocations,
        })
    }

    /// Takes some of the unlinked objects that no reader can reach any more: up to `budget`, or a
    /// whole bag if more bags have gathered behind a reader. Drop the result where destructors may
    /// take time, outside all locks.
    ///
    /// It is better to free a little at a time: the allocator then serves the thread's next
    /// requests from the memory that the thread has just freed, which is still in its cache.
    pub fn collect(&mut self, budget: usize) -> Freed<K, T> {
        if self.limbo.open() >= RETIRE_BATCH {
            self.limbo.seal(&self.index.pins);
        }
        let freed = Freed { bag: self.limbo.take(budget), more: Vec::new() };
        self.note_freed(freed)
    }

    /// Like [`collect`](Self::collect), but takes all objects that no reader can reach.
    pub fn collect_all(&mut self) -> Freed<K, T> {
        self.limbo.seal(&self.index.pins);
        if self.queue.is_empty() {
            self.queue.shrink_to(SMALL_QUEUE);
        }
        let freed = Freed { bag: Vec::new(), more: self.limbo.take_all() };
        self.note_freed(freed)
    }

    fn note_freed(&self, freed: Freed<K, T>) -> Freed<K, T> {
        let weight = freed.weight();
        if weight > 0 {
            let superseded = &self.index.counts.superseded;
            superseded.store(superseded.load(Ordering::Relaxed).saturating_sub(weight), Ordering::Relaxed);
        }
        freed
    }
}

impl<K: Ord + Clone, T> Staged<'_, '_, '_, K, T> {
    /// The changes that publishing the batch would make, in its order.
    pub fn changes(&self) -> impl Iterator<Item = (Change, Option<VersionMeta>)> {
        self.batch.items.iter().filter_map(|item| {
            let (Some(entry), Some(version)) = (&item.entry, &item.version) else {
                return None;
            };
            // SAFETY: (I1, I9) staged, so linked.
            let change = change(unsafe { entry.as_ref() }, item.hash, item.key_weight, version);
            Some((change, version.meta()))
        })
    }

    /// Pushes every version with this timestamp. The caller then advances the clock.
    /// Readers see none of the versions before that. Cannot panic, unless the ledger does.
    pub fn publish(self, timestamp: Timestamp, ledger: &mut impl Ledger) {
        for item in &mut self.batch.items {
            let (Some(entry), Some(version)) = (item.entry, item.version.take()) else {
                continue;
            };
            item.fresh = false;
            self.writer.push(entry, item.hash, item.key_weight, version, timestamp, ledger);
        }
    }
}

/// The change that linking `version` as the newest of `entry` makes.
fn change<K, T>(entry: &Entry<K, T>, hash: u64, key_weight: u32, version: &Owned<T>) -> Change {
    let before = entry.chain.front().filter(|before| before.value.is_some());
    let before = before.map(|before| Before { meta: before.meta().copied() });
    Change { hash, key_weight, is_value: !version.is_tombstone(), before }
}

impl<K, T> Writer<K, T> {
    /// Links a version as the newest of a linked entry, and updates the ledger and the counts.
    fn push(
        &mut self,
        pointer: NonNull<Entry<K, T>>,
        hash: u64,
        key_weight: u32,
        mut version: Owned<T>,
        timestamp: Timestamp,
        ledger: &mut impl Ledger,
    ) {
        // SAFETY: (I1, I9) linked, and only the writer unlinks.
        let entry = unsafe { pointer.as_ref() };
        let change = change(entry, hash, key_weight, &version);
        ledger.record(change, version.meta_mut());
        // The weight that is superseded from now on. A tombstone has counted as superseded since
        // it was published, so only a value is added when it is superseded.
        let superseded = entry.chain.front();
        let mut weight =
            superseded.filter(|_| change.before.is_some()).map_or(0, |before| u64::from(before.weight()));
        if change.is_value {
            if change.before.is_none() {
                // The key is new, or was deleted: forget reads of an earlier value.
                entry.set_access(Access::new(self.index.notes.generation(), 0));
            }
        } else {
            weight += version.meta().map_or(0, |meta| u64::from(meta.weight));
        }
        let is_superseding = superseded.is_some();
        #[cfg(shuttle)]
        if let Some(observer) = &mut self.observer {
            let expires = version.meta().map_or(0, |meta| meta.expires);
            observer(timestamp, &entry.key, version.value(), expires);
        }
        entry.chain.push(version, timestamp);
        // Relaxed, load and store: (I1) only the writer stores these.
        let index = &self.index;
        index.counts.versions.store(index.counts.versions.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        index
            .counts
            .superseded
            .store(index.counts.superseded.load(Ordering::Relaxed) + weight, Ordering::Relaxed);
        // A superseded version can be trimmed, and so can a tombstone with its key.
        if is_superseding || !change.is_value {
            self.enqueue(pointer);
        }
    }

    fn enqueue(&mut self, entry: NonNull<Entry<K, T>>) {
        // SAFETY: (I1, I9) linked, and only the writer unlinks.
        let marks = unsafe { entry.as_ref() };
        if !marks.is_queued() {
            marks.set_queued(true);
            self.queue.push_back(entry);
        }
    }

    /// Deletes a key, at the timestamp of a commit that is being published. Does nothing
    /// and returns false if the key has been written or deleted since it was looked up.
    ///
    /// # Panics
    ///
    /// If the key was looked up in another index, or the ledger does.
    pub fn delete(
        &mut self,
        resident: &CurrentEntry<'_, K, T>,
        meta: Option<VersionMeta>,
        timestamp: Timestamp,
        ledger: &mut impl Ledger,
    ) -> bool {
        assert!(ptr::eq(&*self.index, resident.index), "a resident belongs to the index it was found in");
        let entry = resident.entry;
        let newest = entry.chain.front().map(|newest| newest.timestamp());
        if entry.is_unlinked() || newest != Some(resident.timestamp()) {
            return false;
        }
        let version = Owned::new(None, meta);
        self.push(NonNull::from(entry), entry.hash(), 0, version, timestamp, ledger);
        true
    }

    /// Sets how reads are noted on entries from now on.
    pub fn note_reads(&mut self, noting: AccessTracking) {
        self.index.notes.set_mode(noting);
    }

    /// Calls `observer` with every version that is published from now on, before a reader can
    /// see it.
    #[cfg(shuttle)]
    pub fn observe(&mut self, observer: Observer<K, T>) {
        self.observer = Some(observer);
    }

    /// Sets the stamp that reads leave from now on.
    pub fn set_generation(&mut self, generation: u16) {
        self.index.notes.set_generation(generation);
    }
}

impl<K, T> Drop for Staged<'_, '_, '_, K, T> {
    fn drop(&mut self) {
        for item in &self.batch.items {
            if let (Some(entry), true) = (item.entry, item.fresh) {
                // The batch was not published, so the new entry's chain is empty: let `trim`
                // unlink the entry, unless a later batch has written to it by then.
                // SAFETY: (I1, I9) staged, so linked.
                let marks = unsafe { entry.as_ref() };
                if !marks.is_queued() {
                    marks.set_queued(true);
                    self.writer.queue.push_back(entry);
                }
            }
        }
    }
}

impl<K, T> Drop for Writer<K, T> {
    fn drop(&mut self) {
        let limbo = mem::replace(&mut self.limbo, Limbo::new());
        self.index.orphans.adopt(limbo.into_rest());
    }
}
