//! Reclamation: when memory can be freed that readers may still be reading.
//!
//! This is epoch-based reclamation (Fraser, "Practical lock-freedom", 2004), reduced
//! to the needs of a single writer. A reader *pins*: it claims a slot and stores
//! the current epoch there. The writer *retires* objects that it has unlinked into
//! the bag of the current epoch. Now and then it seals the bag, advances the epoch,
//! reads all slots, and hands out the bags that are older than every pin.
//!
//! Why nothing is freed too early (R, the argument for I5 in `lib.rs`): the writer
//! unlinks, executes a sequentially consistent fence, then reads the slots. A
//! reader claims its slot, executes a sequentially consistent fence, then reads
//! links. So either the writer sees that the slot is claimed, or the reader sees
//! every unlinking that came before the writer read the slots. If the writer sees a slot
//! with epoch `e`, its reader has read `e` with Acquire. So that reader also sees every
//! unlinking of the epochs before `e`, and only the bags of those epochs are handed out.
//!
//! Compared with a general reclaimer this needs no per-thread registration
//! (a pin is one compare-and-swap on a slot that is usually the thread's own), and
//! to retire an object takes no atomic operation. Destructors run only where the
//! caller drops the objects that it was handed, or with the index.

use crate::sync::{AtomicPtr, AtomicU64, Mutex, Ordering, Tally, fence, thread_hint};
use std::collections::VecDeque;
use std::ptr;

#[cfg(not(loom))]
const SLOTS: usize = 32;
#[cfg(loom)]
const SLOTS: usize = 2;

/// The greatest capacity with which a bag begins.
const USUAL_BAG: usize = 64;

/// The epoch of a slot that no reader has claimed. Epochs start at 1.
const FREE: u64 = 0;

/// Two cache lines, because the adjacent-line prefetcher of x86 pairs them.
#[repr(align(128))]
struct PinSlot {
    epoch: AtomicU64,
    /// Look-ups of single keys that found a value, and (`misses`) that found none. Only the
    /// reader that holds the slot writes them, so counting costs no atomic read-modify-write
    /// and touches no other cache line.
    hits: Tally,
    misses: Tally,
}

struct SlotGroup {
    slots: [PinSlot; SLOTS],
    /// Made when more than `SLOTS` pins exist at once, and kept until the `Pins` are dropped.
    next: AtomicPtr<SlotGroup>,
}

impl SlotGroup {
    fn new() -> Self {
        SlotGroup {
            slots: std::array::from_fn(|_| PinSlot {
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

/// A pin. While it exists, no object that was retired after it was made is freed.
pub(crate) struct Guard<'p> {
    slot: &'p PinSlot,
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        // Release: the reader's last access happens before the writer reads the
        // slot with Acquire, and so before anything is freed.
        self.slot.epoch.store(FREE, Ordering::Release);
    }
}

impl Guard<'_> {
    /// Whether the epoch has advanced since the pin was taken.
    pub(crate) fn is_outdated(&self, pins: &Pins) -> bool {
        // Relaxed: a hint. The slot is the guard's own.
        pins.epoch.load(Ordering::Relaxed) != self.slot.epoch.load(Ordering::Relaxed)
    }

    /// Counts a look-up, and returns how many hits (or misses, if it is one) this slot has counted.
    pub(crate) fn count(&self, is_hit: bool) -> u64 {
        let tally = if is_hit { &self.slot.hits } else { &self.slot.misses };
        // Relaxed, load and store: this reader owns the slot, and the owner before it has
        // released it with Release.
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
        // Acquire: see R in the module's documentation. If the epoch is already old
        // when it is stored in the slot, that only delays reclamation.
        let epoch = self.epoch.load(Ordering::Acquire);
        let preferred = thread_hint() % SLOTS;
        let mut group = &self.first;
        loop {
            for step in 0..SLOTS {
                let slot = &group.slots[(preferred + step) % SLOTS];
                // SeqCst, and the fence below: R needs a full barrier between this store and
                // the reader's first load of a link.
                let claim = slot.epoch.compare_exchange(FREE, epoch, Ordering::SeqCst, Ordering::Relaxed);
                if claim.is_ok() {
                    // On x86 the locked instruction above is a full barrier already, and
                    // an mfence behind it would double the cost of a pin. The compiler must
                    // still not move loads in front of it.
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

    /// The group behind `group`, which is made if there is none yet.
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

    fn slots(&self) -> impl Iterator<Item = &PinSlot> {
        let groups = std::iter::successors(Some(&self.first), |group| {
            // SAFETY: (I10) as in `group_after`.
            unsafe { group.next.load(Ordering::Acquire).as_ref() }
        });
        groups.flat_map(|group| &group.slots)
    }

    /// The smallest epoch among all pins, or `u64::MAX` if there are none.
    fn oldest(&self) -> u64 {
        // Acquire: pairs with the Release in `Guard::drop`.
        let epochs = self.slots().map(|slot| slot.epoch.load(Ordering::Acquire));
        epochs.filter(|epoch| *epoch != FREE).min().unwrap_or(u64::MAX)
    }

    /// The numbers of look-ups that found a value, and that found none.
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

/// The objects that the writer has unlinked and not yet handed out to be freed.
pub(crate) struct Limbo<G> {
    current: Vec<G>,
    sealed: VecDeque<(u64, Vec<G>)>,
    /// No pin can reach the bags that were sealed in an epoch before this one.
    unreachable: u64,
    /// The rest of a bag that is handed out in parts.
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

    /// All objects that wait to be freed.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &G> {
        self.sealed.iter().flat_map(|(_, bag)| bag).chain(&self.current).chain(&self.opened)
    }

    /// Seals the open bag and finds out which bags no pin can reach any more.
    pub(crate) fn seal(&mut self, pins: &Pins) {
        // Relaxed: only the writer stores the epoch.
        let epoch = pins.epoch.load(Ordering::Relaxed);
        if !self.current.is_empty() {
            // The next bag will probably be about as full. The limit keeps one unusually full
            // bag from making the next one large.
            let next = Vec::with_capacity(self.current.len().min(USUAL_BAG));
            self.sealed.push_back((epoch, std::mem::replace(&mut self.current, next)));
            // Release: a reader that reads the new epoch sees every unlinking
            // of the old one.
            pins.epoch.store(epoch + 1, Ordering::Release);
        }
        if self.sealed.is_empty() {
            return;
        }
        // Between unlinking and reading the slots: the writer's fence in R.
        fence(Ordering::SeqCst);
        // At most the next epoch: for bags that are sealed later, the slots must be read again.
        self.unreachable = pins.oldest().min(epoch + 1);
    }

    /// Takes the oldest bag, if no pin can reach it.
    fn next_bag(&mut self) -> Option<Vec<G>> {
        self.sealed.pop_front_if(|(epoch, _)| *epoch < self.unreachable).map(|(_, bag)| bag)
    }

    fn has_next_bag(&self) -> bool {
        self.sealed.front().is_some_and(|(epoch, _)| *epoch < self.unreachable)
    }

    /// Takes up to `count` objects that no pin can reach, for the caller to drop where destructors
    /// may run. If another such bag waits behind the current one, takes all the rest of the
    /// current one, so that garbage does not pile up.
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

    /// Takes all bags that no pin can reach.
    pub(crate) fn take_all(&mut self) -> Vec<Vec<G>> {
        let opened = std::mem::take(&mut self.opened);
        std::iter::once(opened).chain(std::iter::from_fn(|| self.next_bag())).collect()
    }

    /// Everything, whether a pin can reach it or not, for an owner that outlives all readers.
    pub(crate) fn into_rest(self) -> impl Iterator<Item = G> {
        let sealed = self.sealed.into_iter().flat_map(|(_, bag)| bag);
        sealed.chain(self.current).chain(self.opened)
    }
}

/// Garbage of a writer that has been dropped, kept until all readers are gone, too.
pub(crate) struct Orphans<G>(Mutex<Vec<G>>);

impl<G> Orphans<G> {
    pub(crate) fn new() -> Self {
        Orphans(Mutex::new(Vec::new()))
    }

    pub(crate) fn adopt(&self, garbage: impl Iterator<Item = G>) {
        // Ignore poison: no code that can panic runs under this lock, so the list is whole.
        let mut orphans = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        orphans.extend(garbage);
    }

    pub(crate) fn take(&mut self) -> Vec<G> {
        let mut orphans = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        std::mem::take(&mut *orphans)
    }
}
