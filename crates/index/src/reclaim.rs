//! When memory that readers may still be looking at can be freed.
//!
//! Epoch-based reclamation (Fraser, "Practical lock-freedom", 2004), cut down
//! to what a single writer needs. A reader *pins*: it claims a slot and leaves
//! the current epoch there. The writer *retires* what it has unlinked into the
//! bag of the current epoch; now and then it seals the bag, moves the epoch on,
//! looks at all slots, and hands out what is in bags that are older than every pin.
//!
//! Why this frees nothing too early (invariant R in `lib.rs`): the writer
//! unlinks, executes a sequentially consistent fence, then reads the slots. A
//! reader claims its slot, executes a sequentially consistent fence, then reads
//! links. So either the writer sees the slot claimed, or the reader sees
//! everything that was unlinked before the writer looked. A slot seen with
//! epoch `e` belongs to a reader that read `e` with Acquire, so it also sees all
//! that was unlinked in epochs before `e`, and only bags of such epochs pass it.
//!
//! Compared with a general reclaimer this needs no per-thread registration
//! (a pin is one compare-and-swap on a slot that is usually the thread's own),
//! no atomics on the retiring side, and the writer alone runs destructors.

use crate::sync::{AtomicPtr, AtomicU64, Mutex, Ordering, Tally, fence, thread_hint};
use std::collections::VecDeque;
use std::ptr;

#[cfg(not(loom))]
const SLOTS: usize = 32;
#[cfg(loom)]
const SLOTS: usize = 2;

/// What a new bag has room for, at most.
const USUAL_BAG: usize = 64;

/// A slot that nobody has claimed. Epochs start at 1.
const FREE: u64 = 0;

/// Two cache lines, because the adjacent-line prefetcher of x86 pairs them.
#[repr(align(128))]
struct Slot {
    epoch: AtomicU64,
    /// Look-ups of single keys that found something, and that found nothing. Written by
    /// whoever holds the slot, so they cost no atomic operation and no other cache line.
    hits: Tally,
    misses: Tally,
}

struct SlotGroup {
    slots: [Slot; SLOTS],
    /// Grown when more than `SLOTS` pins exist at once; never shrunk.
    next: AtomicPtr<SlotGroup>,
}

impl SlotGroup {
    fn new() -> Self {
        SlotGroup {
            slots: std::array::from_fn(|_| Slot {
                epoch: AtomicU64::new(FREE),
                hits: Tally::new(0),
                misses: Tally::new(0),
            }),
            next: AtomicPtr::new(ptr::null_mut()),
        }
    }
}

/// The pins of one index.
pub(crate) struct Pins {
    epoch: AtomicU64,
    first: SlotGroup,
}

/// While it lives, nothing retired after it was made is freed.
pub(crate) struct Guard<'p> {
    slot: &'p Slot,
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        // Release: the reader's last look happens before the writer, which
        // reads the slot with Acquire, frees anything.
        self.slot.epoch.store(FREE, Ordering::Release);
    }
}

impl Guard<'_> {
    /// Whether the epoch has moved on since it was taken.
    pub(crate) fn is_outdated(&self, pins: &Pins) -> bool {
        // Relaxed: a hint. The slot is the guard's own.
        pins.epoch.load(Ordering::Relaxed) != self.slot.epoch.load(Ordering::Relaxed)
    }

    /// Counts a look-up, and returns how many like it this slot has counted.
    pub(crate) fn count(&self, is_hit: bool) -> u64 {
        let tally = if is_hit { &self.slot.hits } else { &self.slot.misses };
        // Relaxed, load and store: the slot is ours, and whoever had it before let go of
        // it with Release.
        let count = tally.load(Ordering::Relaxed) + 1;
        tally.store(count, Ordering::Relaxed);
        count
    }
}

impl Pins {
    pub(crate) fn new() -> Self {
        Pins { epoch: AtomicU64::new(1), first: SlotGroup::new() }
    }

    /// Pins the calling thread. Lock-free; one atomic read-modify-write unless
    /// another pin holds the slot this thread prefers.
    pub(crate) fn pin(&self) -> Guard<'_> {
        // Acquire: see the module's argument. An epoch that is already old
        // when it lands in the slot only delays reclamation.
        let epoch = self.epoch.load(Ordering::Acquire);
        let preferred = thread_hint() % SLOTS;
        let mut group = &self.first;
        loop {
            for step in 0..SLOTS {
                let slot = &group.slots[(preferred + step) % SLOTS];
                let claim = slot.epoch.compare_exchange(FREE, epoch, Ordering::SeqCst, Ordering::Relaxed);
                if claim.is_ok() {
                    // On x86 a locked instruction is a full barrier already, and
                    // an mfence behind it would double the price of a pin.
                    if cfg!(any(loom, miri)) || !cfg!(any(target_arch = "x86", target_arch = "x86_64")) {
                        fence(Ordering::SeqCst);
                    } else {
                        std::sync::atomic::compiler_fence(Ordering::SeqCst);
                    }
                    return Guard { slot };
                }
            }
            group = self.group_after(group);
        }
    }

    /// The group behind `group`, made if there is none.
    fn group_after<'p>(&'p self, group: &'p SlotGroup) -> &'p SlotGroup {
        let mut next = group.next.load(Ordering::Acquire);
        if next.is_null() {
            let fresh = Box::into_raw(Box::new(SlotGroup::new()));
            match group.next.compare_exchange(next, fresh, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => next = fresh,
                Err(theirs) => {
                    // SAFETY: (I10) `fresh` was never shared: the exchange failed.
                    drop(unsafe { Box::from_raw(fresh) });
                    next = theirs;
                }
            }
        }
        // SAFETY: (I10) groups are freed only when the whole `Pins` is dropped,
        // and `'p` borrows it.
        unsafe { &*next }
    }

    fn slots(&self) -> impl Iterator<Item = &Slot> {
        let groups = std::iter::successors(Some(&self.first), |group| {
            // SAFETY: (I10) as in `group_after`.
            unsafe { group.next.load(Ordering::Acquire).as_ref() }
        });
        groups.flat_map(|group| &group.slots)
    }

    /// The smallest epoch among all pins, or `u64::MAX` without any.
    fn oldest(&self) -> u64 {
        // Acquire: pairs with the Release in `Guard::drop`.
        let epochs = self.slots().map(|slot| slot.epoch.load(Ordering::Acquire));
        epochs.filter(|epoch| *epoch != FREE).min().unwrap_or(u64::MAX)
    }

    /// Look-ups that found something, and that found nothing.
    pub(crate) fn counted(&self) -> (u64, u64) {
        self.slots().fold((0, 0), |(hits, misses), slot| {
            (hits + slot.hits.load(Ordering::Relaxed), misses + slot.misses.load(Ordering::Relaxed))
        })
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        let mut next = self.first.next.load(Ordering::Relaxed);
        while !next.is_null() {
            // SAFETY: (I10) `&mut self`: no guard is left, and each group is
            // owned by exactly one `next` pointer.
            let group = unsafe { Box::from_raw(next) };
            next = group.next.load(Ordering::Relaxed);
        }
    }
}

/// What the writer has unlinked and not yet freed.
pub(crate) struct Limbo<G> {
    current: Vec<G>,
    sealed: VecDeque<(u64, Vec<G>)>,
    /// No pin can reach what was sealed before this epoch.
    unreachable: u64,
    /// What is left of a bag that is being handed out.
    opened: Vec<G>,
}

impl<G> Limbo<G> {
    pub(crate) fn new() -> Self {
        Limbo { current: Vec::new(), sealed: VecDeque::new(), unreachable: 0, opened: Vec::new() }
    }

    pub(crate) fn retire(&mut self, garbage: G) {
        self.current.push(garbage);
    }

    /// How many objects wait in the bag that is still open.
    pub(crate) fn open(&self) -> usize {
        self.current.len()
    }

    /// All that waits.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &G> {
        self.sealed.iter().flat_map(|(_, bag)| bag).chain(&self.current).chain(&self.opened)
    }

    /// Seals the open bag and finds out which bags no pin can reach any more.
    pub(crate) fn seal(&mut self, pins: &Pins) {
        // Relaxed: only the writer stores the epoch.
        let epoch = pins.epoch.load(Ordering::Relaxed);
        if !self.current.is_empty() {
            // The next bag will be about as full, but for one that is uncommonly so.
            let next = Vec::with_capacity(self.current.len().min(USUAL_BAG));
            self.sealed.push_back((epoch, std::mem::replace(&mut self.current, next)));
            // Release: a reader that reads the new epoch sees what was
            // unlinked in the old one.
            pins.epoch.store(epoch + 1, Ordering::Release);
        }
        if self.sealed.is_empty() {
            return;
        }
        fence(Ordering::SeqCst);
        // Not beyond this epoch: bags that are sealed later have to be looked at anew.
        self.unreachable = pins.oldest().min(epoch + 1);
    }

    /// A bag that no pin can reach.
    fn next_bag(&mut self) -> Option<Vec<G>> {
        self.sealed.pop_front_if(|(epoch, _)| *epoch < self.unreachable).map(|(_, bag)| bag)
    }

    fn has_next_bag(&self) -> bool {
        self.sealed.front().is_some_and(|(epoch, _)| *epoch < self.unreachable)
    }

    /// Up to `count` of those that no pin can reach, for the caller to drop where destructors
    /// may run; or what is left of a bag, if others wait behind it.
    pub(crate) fn take(&mut self, count: usize) -> Vec<G> {
        if self.opened.is_empty()
            && let Some(bag) = self.next_bag()
        {
            self.opened = bag;
        }
        match self.opened.len().checked_sub(count) {
            Some(left @ 1..) if !self.has_next_bag() => self.opened.split_off(left),
            _ => std::mem::take(&mut self.opened),
        }
    }

    /// All bags that no pin can reach.
    pub(crate) fn take_all(&mut self) -> Vec<Vec<G>> {
        let opened = std::mem::take(&mut self.opened);
        std::iter::once(opened).chain(std::iter::from_fn(|| self.next_bag())).collect()
    }

    /// Everything, freeable or not: for an owner that outlives all readers.
    pub(crate) fn into_rest(self) -> impl Iterator<Item = G> {
        let sealed = self.sealed.into_iter().flat_map(|(_, bag)| bag);
        sealed.chain(self.current).chain(self.opened)
    }
}

/// Garbage left by a writer that is gone, kept until the readers are, too.
pub(crate) struct Orphans<G>(Mutex<Vec<G>>);

impl<G> Orphans<G> {
    pub(crate) fn new() -> Self {
        Orphans(Mutex::new(Vec::new()))
    }

    pub(crate) fn adopt(&self, garbage: impl Iterator<Item = G>) {
        // A poisoned list is still a list: nothing that can panic runs under it.
        let mut orphans = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        orphans.extend(garbage);
    }

    pub(crate) fn take(&mut self) -> Vec<G> {
        let mut orphans = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        std::mem::take(&mut *orphans)
    }
}
