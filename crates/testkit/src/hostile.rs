//! Keys and values whose `Ord`, `Hash`, `Eq`, `Clone` or `Drop` panics on demand, and keys that break the
//! contracts of those traits.
//!
//! The keys and values of one test share a [`Fuse`]. A fuse that is lit for `n` lets `n - 1` calls into user
//! code pass and panics in the `n`-th call. Then the fuse is out, so that no second panic happens while
//! the stack unwinds.

use std::cmp::Ordering as Compare;
use std::hash::{Hash, Hasher};
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::ledger::{Ledger, Tracked};

/// The payload of a planted panic.
#[derive(Debug)]
pub struct Planted;

/// The kinds of calls that burn a [`Fuse`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// `Ord::cmp`, `PartialOrd` and `PartialEq`.
    Compare,
    /// `Hash::hash`.
    Hash,
    /// `Clone::clone`.
    Clone,
    /// `Drop::drop`.
    Drop,
}

/// All kinds of calls, for tests that try each.
pub const CALLS: [Call; 4] = [Call::Compare, Call::Hash, Call::Clone, Call::Drop];

/// Counts down the calls into user code to a planted panic.
#[derive(Clone, Debug, Default)]
pub struct Fuse(Arc<[AtomicU64; 4]>);

impl Fuse {
    /// Makes the `nth` call of this kind from now on panic.
    pub fn light(&self, call: Call, nth: u64) {
        self.0[call as usize].store(nth, Ordering::SeqCst);
    }

    /// Puts the fuse out. Returns whether it was still burning, which means that nothing has panicked
    /// since it was lit.
    pub fn put_out(&self) -> bool {
        let mut burning = false;
        for left in self.0.iter() {
            burning |= left.swap(0, Ordering::SeqCst) > 0;
        }
        burning
    }

    /// # Panics
    /// With [`Planted`] if this is the call for which the fuse was lit. No message is printed.
    fn burn(&self, call: Call) {
        // A destructor that runs while the stack unwinds must not panic: the process would abort,
        // whatever the store does.
        if std::thread::panicking() {
            return;
        }
        let left = &self.0[call as usize];
        let burned = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if burned == Ok(1) {
            resume_unwind(Box::new(Planted));
        }
    }
}

/// A key with a fuse in each of its trait calls.
#[derive(Debug)]
pub struct HostileKey {
    id: Tracked<u64>,
    fuse: Fuse,
}

impl HostileKey {
    /// A key that is ordered, hashed and compared by `id`.
    #[must_use]
    pub fn new(id: u64, ledger: &Ledger, fuse: &Fuse) -> Self {
        HostileKey { id: ledger.track(id), fuse: fuse.clone() }
    }

    /// The number that identifies the key.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id.value
    }
}

impl Clone for HostileKey {
    fn clone(&self) -> Self {
        self.fuse.burn(Call::Clone);
        HostileKey { id: self.id.clone(), fuse: self.fuse.clone() }
    }
}

impl Ord for HostileKey {
    fn cmp(&self, other: &Self) -> Compare {
        self.fuse.burn(Call::Compare);
        self.id().cmp(&other.id())
    }
}

impl PartialOrd for HostileKey {
    fn partial_cmp(&self, other: &Self) -> Option<Compare> {
        Some(self.cmp(other))
    }
}

impl PartialEq for HostileKey {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Compare::Equal
    }
}

impl Eq for HostileKey {}

impl Hash for HostileKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.fuse.burn(Call::Hash);
        self.id().hash(state);
    }
}

impl Drop for HostileKey {
    fn drop(&mut self) {
        // Rust drops the fields even if this call panics, so the ledger stays exact.
        self.fuse.burn(Call::Drop);
    }
}

/// A value with a fuse in its drop and its comparison.
#[derive(Debug)]
pub struct HostileValue {
    number: Tracked<u64>,
    fuse: Fuse,
}

impl HostileValue {
    /// A value that holds `number`.
    #[must_use]
    pub fn new(number: u64, ledger: &Ledger, fuse: &Fuse) -> Self {
        HostileValue { number: ledger.track(number), fuse: fuse.clone() }
    }

    /// The number that the value holds.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number.value
    }
}

impl PartialEq for HostileValue {
    fn eq(&self, other: &Self) -> bool {
        self.fuse.burn(Call::Compare);
        self.number() == other.number()
    }
}

impl Drop for HostileValue {
    fn drop(&mut self) {
        self.fuse.burn(Call::Drop);
    }
}

/// A key type whose hashes are all the same: legal, but slow.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SameHash(pub u64);

impl Hash for SameHash {
    fn hash<H: Hasher>(&self, state: &mut H) {
        0u64.hash(state);
    }
}

/// A key that breaks the contract of `Ord`: about every third comparison has a wrong result.
#[derive(Clone, Debug)]
pub struct Liar {
    /// The number that identifies the key.
    pub id: u64,
    calls: Arc<AtomicU64>,
}

impl Liar {
    /// A key that counts its comparisons in `calls`. The count decides which results are wrong.
    #[must_use]
    pub fn new(id: u64, calls: &Arc<AtomicU64>) -> Self {
        Liar { id, calls: calls.clone() }
    }
}

impl Ord for Liar {
    fn cmp(&self, other: &Self) -> Compare {
        // Knuth's multiplier scatters the wrong results over the calls.
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        let honest = self.id.cmp(&other.id);
        match call.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 62 {
            0 => honest.reverse(),
            1 if call.is_multiple_of(7) => Compare::Equal,
            _ => honest,
        }
    }
}

impl PartialOrd for Liar {
    fn partial_cmp(&self, other: &Self) -> Option<Compare> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Liar {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Compare::Equal
    }
}

impl Eq for Liar {}

impl Hash for Liar {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.id % 16).hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    #[test]
    fn the_nth_call_panics_and_only_that_one() {
        let (ledger, fuse) = (Ledger::default(), Fuse::default());
        let key = HostileKey::new(1, &ledger, &fuse);
        fuse.light(Call::Clone, 2);
        let first = key.clone();
        let second = catch_unwind(AssertUnwindSafe(|| key.clone()));
        assert!(second.expect_err("the second clone panics").is::<Planted>());
        assert!(!fuse.put_out());
        drop((key.clone(), first, key));
        assert_eq!(ledger.live(), 0);
    }

    #[test]
    fn a_panicking_drop_still_settles_the_ledger() {
        let (ledger, fuse) = (Ledger::default(), Fuse::default());
        let value = HostileValue::new(1, &ledger, &fuse);
        fuse.light(Call::Drop, 1);
        assert!(catch_unwind(AssertUnwindSafe(|| drop(value))).is_err());
        assert_eq!(ledger.live(), 0);
        fuse.light(Call::Drop, 5);
        assert!(fuse.put_out());
    }
}
