//! Versions: the value of a key from one commit on, and the ownership of its memory.
//!
//! A version may have a [`VersionMeta`], for databases that count memory or let keys expire;
//! other databases do not pay for it. The metadata stands behind the version in one allocation.
//! So a version must be freed as the type with which it was allocated, and a bit of its
//! timestamp tells which (I12). The metadata is reached through the pointer that the allocation
//! gave, never through a reference to the version, which does not cover the memory of the metadata.

use crate::Timestamp;
use crate::reclaim::Guard;
use crate::sync::{AtomicPtr, Ordering};
use std::marker::PhantomData;
use std::mem;
use std::ops::Deref;
use std::ptr::{self, NonNull};

/// A point in time, on a scale that the user of the index chooses. Zero comes before
/// all others.
pub type Time = u64;

/// Whether a value that expires at `expires` has expired at `now`. Zero means that it never
/// expires.
pub fn has_expired(expires: Time, now: Time) -> bool {
    expires != 0 && expires <= now
}

/// The timestamp and the time at which a reader reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadPoint {
    /// The timestamp of the last commit that the reader sees.
    pub timestamp: Timestamp,
    /// The time that decides which values have expired.
    pub time: Time,
}

impl From<Timestamp> for ReadPoint {
    /// A read point at time zero, at which nothing has expired yet.
    fn from(timestamp: Timestamp) -> Self {
        ReadPoint { timestamp, time: 0 }
    }
}

/// The data that a version may carry beside its value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VersionMeta {
    /// When the value expires: it can be read before that time, and not from then on. Zero: never.
    pub expires: Time,
    /// The weight of the version and its value, in units that the user of the index chooses.
    pub weight: u32,
    /// Free for the user of the index.
    pub node: u32,
}

/// Set in the stamp of a version that has metadata.
const HAS_TAIL: u64 = 1 << 63;

/// The value of a key from a timestamp on; `None` is a tombstone.
#[repr(C)]
pub(crate) struct Version<T> {
    /// The timestamp and [`HAS_TAIL`].
    stamp: u64,
    pub(crate) value: Option<T>,
    pub(crate) older: AtomicPtr<Version<T>>,
}

/// A version with its metadata.
#[repr(C)]
struct WithMeta<T> {
    version: Version<T>,
    meta: VersionMeta,
}

impl<T> Version<T> {
    pub(crate) fn timestamp(&self) -> Timestamp {
        self.stamp & !HAS_TAIL
    }
}

/// A version that is not in a chain yet, or not any more. Frees the version when dropped.
pub(crate) struct Owned<T>(NonNull<Version<T>>);

// SAFETY: (I10) this value owns the version.
unsafe impl<T: Send> Send for Owned<T> {}

impl<T> Owned<T> {
    /// A version that gets its timestamp when it is linked.
    pub(crate) fn new(value: Option<T>, meta: Option<VersionMeta>) -> Self {
        let older = AtomicPtr::new(ptr::null_mut());
        let pointer = match meta {
            None => Box::into_raw(Box::new(Version { stamp: 0, value, older })),
            Some(meta) => {
                let version = Version { stamp: HAS_TAIL, value, older };
                Box::into_raw(Box::new(WithMeta { version, meta })).cast()
            }
        };
        // SAFETY: (I10) a box is never null.
        Owned(unsafe { NonNull::new_unchecked(pointer) })
    }

    /// Takes back a version that [`into_raw`](Self::into_raw) gave away.
    ///
    /// # Safety
    ///
    /// Called once for a version, when nobody else can reach it any more.
    pub(crate) unsafe fn from_raw(pointer: NonNull<Version<T>>) -> Self {
        Owned(pointer)
    }

    /// Stamps the version and links it in front of `older`. The caller owns it from now on.
    pub(crate) fn into_raw(mut self, timestamp: Timestamp, older: *mut Version<T>) -> *mut Version<T> {
        // SAFETY: (I10) nobody else can reach the version yet.
        let version = unsafe { self.0.as_mut() };
        version.stamp |= timestamp;
        version.older = AtomicPtr::new(older);
        let pointer = self.0.as_ptr();
        mem::forget(self);
        pointer
    }

    /// The value, unless the version is a tombstone.
    #[cfg(shuttle)]
    pub(crate) fn value(&self) -> Option<&T> {
        // SAFETY: (I10) owned.
        unsafe { self.0.as_ref() }.value.as_ref()
    }

    pub(crate) fn is_tombstone(&self) -> bool {
        // SAFETY: (I10) owned.
        unsafe { self.0.as_ref() }.value.is_none()
    }

    pub(crate) fn meta(&self) -> Option<VersionMeta> {
        // SAFETY: (I10) owned.
        unsafe { Linked::new(self.0.as_ptr()) }.and_then(|version| version.meta().copied())
    }

    pub(crate) fn meta_mut(&mut self) -> Option<&mut VersionMeta> {
        // SAFETY: (I10, I12) owned, and the bit tells whether there is metadata.
        unsafe {
            let has_meta = self.0.as_ref().stamp & HAS_TAIL != 0;
            has_meta.then(|| &mut (*self.0.cast::<WithMeta<T>>().as_ptr()).meta)
        }
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: (I10, I12) owned, made by `new` with metadata if the bit says so.
        unsafe {
            if self.0.as_ref().stamp & HAS_TAIL == 0 {
                drop(Box::from_raw(self.0.as_ptr()));
            } else {
                drop(Box::from_raw(self.0.cast::<WithMeta<T>>().as_ptr()));
            }
        }
    }
}

/// A version that a reader reaches under a pin, or that the writer reaches.
pub(crate) struct Linked<'g, T> {
    pointer: NonNull<Version<T>>,
    pinned: PhantomData<&'g Version<T>>,
}

impl<T> Clone for Linked<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Linked<'_, T> {}

impl<T> Deref for Linked<'_, T> {
    type Target = Version<T>;

    fn deref(&self) -> &Version<T> {
        self.get()
    }
}

impl<'g, T> Linked<'g, T> {
    /// # Safety
    ///
    /// The pointer is null, or leads to a version that has been linked or that the caller
    /// owns, and that is not freed during `'g`.
    pub(crate) unsafe fn new(pointer: *mut Version<T>) -> Option<Self> {
        NonNull::new(pointer).map(|pointer| Linked { pointer, pinned: PhantomData })
    }

    pub(crate) fn get(self) -> &'g Version<T> {
        // SAFETY: (I2, I5, I9) see `new`.
        unsafe { self.pointer.as_ref() }
    }

    pub(crate) fn pointer(self) -> NonNull<Version<T>> {
        self.pointer
    }

    pub(crate) fn meta(self) -> Option<&'g VersionMeta> {
        let has_meta = self.stamp & HAS_TAIL != 0;
        // SAFETY: (I3, I12) as in `get`, and the bit tells whether there is metadata.
        has_meta.then(|| unsafe { &(*self.pointer.cast::<WithMeta<T>>().as_ptr()).meta })
    }

    /// When the value expires; zero if never.
    pub(crate) fn expires(self) -> Time {
        self.meta().map_or(0, |meta| meta.expires)
    }

    /// The weight in the metadata; zero without one.
    pub(crate) fn weight(self) -> u32 {
        self.meta().map_or(0, |meta| meta.weight)
    }

    /// The value, unless it has expired at `time`, which is called only if the value can expire.
    pub(crate) fn value_at(self, time: impl FnOnce() -> Time) -> Option<&'g T> {
        let value = self.get().value.as_ref()?;
        let expires = self.expires();
        let is_there = expires == 0 || !has_expired(expires, time());
        is_there.then_some(value)
    }

    /// The version behind this one; if this one is unlinked, the one behind it at that time.
    pub(crate) fn older(self, _pinned: &'g Guard<'_>) -> Option<Self> {
        // SAFETY: (I2, I5) linked with Release after its last write; (I6) a version
        // that has been unlinked still points to one that was alive when the pin was
        // taken.
        unsafe { Linked::new(self.get().older.load(Ordering::Acquire)) }
    }

    /// This version, or the newest behind it, that a snapshot at `timestamp` sees.
    pub(crate) fn at(self, timestamp: Timestamp, pinned: &'g Guard<'_>) -> Option<Self> {
        let mut version = self;
        while version.timestamp() > timestamp {
            version = version.older(pinned)?;
        }
        Some(version)
    }
}
