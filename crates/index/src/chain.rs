//! One key's versions, newest first, and which of them can go.

use crate::reclaim::Guard;
use crate::sync::{AtomicPtr, Ordering};
use crate::{Horizon, Timestamp};
use std::ptr::{self, NonNull};

/// What a key held from `timestamp` on; `None` is a tombstone.
pub(crate) struct Version<T> {
    pub(crate) timestamp: Timestamp,
    pub(crate) value: Option<T>,
    older: AtomicPtr<Version<T>>,
}

impl<T> Version<T> {
    /// A version that belongs to no chain yet; its timestamp comes with
    /// [`Chain::push`].
    pub(crate) fn boxed(value: Option<T>) -> Box<Self> {
        Box::new(Version { timestamp: 0, value, older: AtomicPtr::new(ptr::null_mut()) })
    }

    /// This version, or the newest behind it, that a snapshot at `timestamp` sees.
    pub(crate) fn at<'g>(&'g self, timestamp: Timestamp, pinned: &'g Guard<'_>) -> Option<&'g Version<T>> {
        let mut version = self;
        while version.timestamp > timestamp {
            version = older(version, pinned)?;
        }
        Some(version)
    }
}

/// The versions of one key. Timestamps strictly decrease along it.
pub(crate) struct Chain<T> {
    newest: AtomicPtr<Version<T>>,
}

/// What [`Chain::trim`] left behind.
pub(crate) struct Trimmed {
    /// How many versions were unlinked.
    pub(crate) removed: usize,
    /// Whether the chain now says nothing that the absence of the key would
    /// not say: it is empty, or one tombstone that every reader is past.
    pub(crate) dead: bool,
    /// Whether a later horizon may allow more to go.
    pub(crate) unfinished: bool,
}

impl<T> Chain<T> {
    pub(crate) fn new() -> Self {
        Chain { newest: AtomicPtr::new(ptr::null_mut()) }
    }

    /// The newest version, published or not.
    pub(crate) fn newest<'g>(&self, _pinned: &'g Guard<'_>) -> Option<&'g Version<T>> {
        // SAFETY: (I2, I5) linked with Release after its last write; the pin
        // keeps it from being freed.
        unsafe { self.newest.load(Ordering::Acquire).as_ref() }
    }

    /// The version that a snapshot at `timestamp` sees. The snapshot must be
    /// registered, or the caller the writer: else the version may be trimmed.
    pub(crate) fn at<'g>(&self, timestamp: Timestamp, pinned: &'g Guard<'_>) -> Option<&'g Version<T>> {
        self.newest(pinned)?.at(timestamp, pinned)
    }

    /// The version that was current at some instant during the call, without
    /// a registered snapshot. `now` reads the clock, with Acquire.
    ///
    /// If the newest version is published, it is the answer. Otherwise a commit
    /// is under way, and the answer is behind it, unless what is behind has
    /// been trimmed meanwhile; that takes the version in front of it to have
    /// been published, which a second look at the clock shows. The loop goes
    /// round only when a commit to this very key was published during it.
    pub(crate) fn latest<'g>(
        &self,
        now: impl Fn() -> Timestamp,
        pinned: &'g Guard<'_>,
    ) -> Option<&'g Version<T>> {
        loop {
            let seen = now();
            let mut front = self.newest(pinned)?;
            if front.timestamp <= seen {
                return Some(front);
            }
            let found = loop {
                match older(front, pinned) {
                    Some(version) if version.timestamp > seen => front = version,
                    other => break other,
                }
            };
            if now() < front.timestamp {
                return found;
            }
        }
    }

    /// Writer: links `version` as the newest. Returns whether there was one
    /// before.
    pub(crate) fn push(&self, mut version: Box<Version<T>>, timestamp: Timestamp) -> bool {
        // Relaxed: (I1) only the writer stores here.
        let before = self.newest.load(Ordering::Relaxed);
        version.timestamp = timestamp;
        version.older = AtomicPtr::new(before);
        // Release: (I2).
        self.newest.store(Box::into_raw(version), Ordering::Release);
        !before.is_null()
    }

    /// Writer: unlinks every version that no snapshot in `horizon` can see, and
    /// hands each to `retire`.
    pub(crate) fn trim(&self, horizon: &Horizon, mut retire: impl FnMut(NonNull<Version<T>>)) -> Trimmed {
        let mut removed = 0;
        // SAFETY: (I1, I9) the writer frees only what it has unlinked, and it
        // is here: what it can reach from the chain is alive.
        let Some(newest) = (unsafe { self.newest.load(Ordering::Relaxed).as_ref() }) else {
            return Trimmed { removed, dead: true, unfinished: false };
        };
        let mut kept = newest;
        loop {
            // Relaxed: (I1).
            let candidate = kept.older.load(Ordering::Relaxed);
            // SAFETY: (I1, I9) as above.
            let Some(version) = (unsafe { candidate.as_ref() }) else {
                break;
            };
            if horizon.sees(version.timestamp, kept.timestamp) {
                kept = version;
                continue;
            }
            // Release: (I2) what is behind has been reachable all along, but
            // a reader must get there through this store as well. (I6)
            // `version.older` stays for readers that are on it.
            kept.older.store(version.older.load(Ordering::Relaxed), Ordering::Release);
            if let Some(unlinked) = NonNull::new(candidate) {
                retire(unlinked);
                removed += 1;
            }
        }
        let single = ptr::eq(kept, newest);
        let dead = single && newest.value.is_none() && newest.timestamp <= horizon.oldest();
        Trimmed { removed, dead, unfinished: !single || (newest.value.is_none() && !dead) }
    }

    /// Whether any version was ever pushed.
    pub(crate) fn is_started(&self) -> bool {
        !self.newest.load(Ordering::Relaxed).is_null()
    }

    /// How many versions there are. Linear.
    #[cfg(all(test, not(loom)))]
    pub(crate) fn len(&self, pinned: &Guard<'_>) -> usize {
        let mut count = 0;
        let mut version = self.newest(pinned);
        while let Some(current) = version {
            count += 1;
            version = older(current, pinned);
        }
        count
    }
}

fn older<'g, T>(version: &'g Version<T>, _pinned: &'g Guard<'_>) -> Option<&'g Version<T>> {
    // SAFETY: (I2, I5) as in `Chain::newest`; (I6) a version that has been
    // unlinked still points to one that was alive when the pin was taken.
    unsafe { version.older.load(Ordering::Acquire).as_ref() }
}

impl<T> Drop for Chain<T> {
    fn drop(&mut self) {
        let mut next = self.newest.load(Ordering::Relaxed);
        while !next.is_null() {
            // SAFETY: (I4, I10) nobody else can reach the chain, and each
            // version in it is owned by the pointer to it: unlinked ones are
            // not in it any more.
            let version = unsafe { Box::from_raw(next) };
            next = version.older.load(Ordering::Relaxed);
            crate::contain(move || drop(version));
        }
    }
}
