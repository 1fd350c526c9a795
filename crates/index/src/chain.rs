//! The versions of one key, newest first, and which of them can be trimmed.

use crate::reclaim::Guard;
use crate::sync::{AtomicPtr, Ordering};
use crate::version::{Linked, Owned, Version};
use crate::{Horizon, Timestamp};
use std::ptr::{self, NonNull};

/// The versions of one key. Timestamps decrease along the chain, strictly unless one batch writes
/// the key more than once.
pub(crate) struct Chain<T> {
    newest: AtomicPtr<Version<T>>,
}

/// What [`Chain::trim`] left behind.
pub(crate) struct TrimmedChain {
    /// How many versions were unlinked.
    pub(crate) removed: usize,
    /// Whether the chain now means the same as an absent key: it is empty, or a
    /// single tombstone that no snapshot, now or later, reads before.
    pub(crate) dead: bool,
    /// Whether a later horizon may allow more versions to be trimmed.
    pub(crate) unfinished: bool,
}

impl<T> Chain<T> {
    pub(crate) fn new() -> Self {
        Chain { newest: AtomicPtr::new(ptr::null_mut()) }
    }

    /// The newest version, whether its commit is published yet or not.
    pub(crate) fn newest<'g>(&self, _pinned: &'g Guard<'_>) -> Option<Linked<'g, T>> {
        // SAFETY: (I2, I5) linked with Release after its last write; the pin
        // keeps it from being freed.
        unsafe { Linked::new(self.newest.load(Ordering::Acquire)) }
    }

    /// Writer: the newest version.
    pub(crate) fn front(&self) -> Option<Linked<'_, T>> {
        // Relaxed: (I1) only the writer stores here.
        // SAFETY: (I1, I9) only what the writer has unlinked is freed, and the
        // writer is the caller: every version that it reaches from the chain is alive.
        unsafe { Linked::new(self.newest.load(Ordering::Relaxed)) }
    }

    /// Writer: the version behind the newest.
    pub(crate) fn second(&self) -> Option<Linked<'_, T>> {
        // Relaxed, SAFETY: (I1, I9) as in `front`.
        self.front().and_then(|newest| unsafe { Linked::new(newest.get().older.load(Ordering::Relaxed)) })
    }

    /// The version that a snapshot at `timestamp` sees. The snapshot must be
    /// registered, or the caller must be the writer: otherwise that version may
    /// have been trimmed.
    pub(crate) fn at<'g>(&self, timestamp: Timestamp, pinned: &'g Guard<'_>) -> Option<Linked<'g, T>> {
        self.newest(pinned)?.at(timestamp, pinned)
    }

    /// The version that was current at some instant during the call, without
    /// a registered snapshot. `now` reads the clock, with Acquire.
    ///
    /// If the newest version is published, it is the answer. Otherwise a commit
    /// is under way, and the answer is the first version behind it that is
    /// published, unless that one has been trimmed meanwhile. It can only be
    /// trimmed after the version in front of it was published, which a second
    /// look at the clock shows. The loop repeats only if a commit to this very
    /// key was published meanwhile.
    pub(crate) fn latest<'g>(
        &self,
        now: impl Fn() -> Timestamp,
        pinned: &'g Guard<'_>,
    ) -> Option<Linked<'g, T>> {
        loop {
            let seen = now();
            let mut front = self.newest(pinned)?;
            if front.timestamp() <= seen {
                return Some(front);
            }
            let found = loop {
                match front.older(pinned) {
                    Some(version) if version.timestamp() > seen => front = version,
                    other => break other,
                }
            };
            // `front` is the oldest version met that was not published at `seen`. If it still is
            // not, nothing behind it can have been trimmed, and `found` is the answer.
            if now() < front.timestamp() || crate::planted("latest-looks-once") {
                return found;
            }
        }
    }

    /// Writer: links `version` as the newest.
    pub(crate) fn push(&self, version: Owned<T>, timestamp: Timestamp) {
        // Relaxed: (I1) only the writer stores here.
        let before = self.newest.load(Ordering::Relaxed);
        // Release: (I2).
        self.newest.store(version.into_raw(timestamp, before), Ordering::Release);
    }

    /// Writer: unlinks every version that no snapshot in `horizon` can see, and
    /// hands each to `retire`.
    pub(crate) fn trim(&self, horizon: &Horizon, mut retire: impl FnMut(Linked<'_, T>)) -> TrimmedChain {
        let mut removed = 0;
        let Some(newest) = self.front() else {
            return TrimmedChain { removed, dead: true, unfinished: false };
        };
        let mut kept = newest;
        // Relaxed: (I1).
        // SAFETY: (I1, I9) as in `front`.
        while let Some(version) = unsafe { Linked::new(kept.older.load(Ordering::Relaxed)) } {
            if horizon.sees(version.timestamp(), kept.timestamp()) {
                kept = version;
                continue;
            }
            // Release: (I2) the next older version has been reachable all along, but
            // from now on a reader may reach it through this store alone. (I6)
            // `version.older` stays for readers that stand on `version`.
            kept.older.store(version.older.load(Ordering::Relaxed), Ordering::Release);
            retire(version);
            removed += 1;
        }
        let single = kept.pointer() == newest.pointer();
        let dead = single && newest.value.is_none() && newest.timestamp() <= horizon.oldest();
        TrimmedChain { removed, dead, unfinished: !single || (newest.value.is_none() && !dead) }
    }

    /// How many versions there are. Linear.
    #[cfg(all(test, not(loom)))]
    pub(crate) fn len(&self, pinned: &Guard<'_>) -> usize {
        std::iter::successors(self.newest(pinned), |version| version.older(pinned)).count()
    }
}

impl<T> Drop for Chain<T> {
    fn drop(&mut self) {
        let mut next = NonNull::new(self.newest.load(Ordering::Relaxed));
        while let Some(pointer) = next {
            // SAFETY: (I4, I10) nobody else can reach the chain, and each
            // version in it is owned by the pointer to it: unlinked versions
            // are not in the chain any more.
            let version = unsafe {
                next = NonNull::new(pointer.as_ref().older.load(Ordering::Relaxed));
                Owned::from_raw(pointer)
            };
            crate::contain(move || drop(version));
        }
    }
}
