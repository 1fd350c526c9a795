//! The shield of a lease: evictions take other keys than those that the lease's holder has read.
//!
//! An eviction makes room for a commit of anybody's, mostly of a key that the holder has not read. So it
//! does not wait for the lease, as commits do that would undo a read of the holder. It evicts another key
//! instead, if it finds one soon.
//!
//! Lock order: evictions ask under the commit lock, and take the lock of the leases and then that of a
//! footprint, each for a moment. Nothing takes the commit lock while it holds one of these.

use crate::txn::own::PriorityId;
use crate::txn::priority::{Guarded, Priority};
use fluxmap_index::contain;
use std::any::Any;

/// The number of keys about which the evictions for one commit ask, in addition to [`TURNS`] for each key
/// that the commit has written. They ask under the commit lock, for which all commits wait.
const MOST_LOOKS: usize = 256;
const TURNS: usize = 16;

/// To compare a key with this many ranges costs about as much as to find the key.
const RANGES_A_LOOK: usize = 32;

/// The protected keys in a row that the policy may choose, over all evictions for one commit, before
/// other keys are tried regardless of the policy. They go to the end of the policy's order, so the
/// commits that follow find other keys at its beginning.
const MOST_PASSED_OVER: usize = 64;

/// Tells the evictions for one commit which keys a lease protects. Drop it where no lock is held, because
/// it may hold the last reference to keys.
pub(crate) struct Shield<'p> {
    priority: &'p Priority,
    /// The lease, and its reads when an eviction first asked.
    lease: Option<(PriorityId, Vec<Box<dyn Guarded>>)>,
    /// The keys about which evictions may still ask.
    looks: usize,
    /// The keys that the policy has chosen in vain.
    passed_over: usize,
}

impl<'p> Shield<'p> {
    /// Creates the shield against the evictions for a commit that has written this many keys.
    pub(crate) fn new(priority: &'p Priority, writes: usize) -> Self {
        let looks = MOST_LOOKS.saturating_add(writes.saturating_mul(TURNS));
        Shield { priority, lease: None, looks, passed_over: 0 }
    }

    /// Returns whether there is a lease, and an eviction may ask about one more key, which this counts.
    /// Without a lease, this costs one load.
    pub(crate) fn looks(&mut self) -> bool {
        let Some(holder) = self.priority.holder() else { return false };
        if self.lease.is_none() {
            self.lease = self.priority.guarded();
        }
        // If another lease has followed, the old one's reads cannot be dropped here. The evictions for
        // the next commit ask for the new one's.
        let Some((_, reads)) = self.lease.as_ref().filter(|(lease, _)| *lease == holder) else {
            return false;
        };
        let ranges: usize = reads.iter().map(|reads| reads.ranges()).sum();
        let left = self.looks.checked_sub(1 + ranges / RANGES_A_LOOK);
        self.looks = left.unwrap_or(0);
        left.is_some()
    }

    /// Returns whether the lease protects a key, which has this hash. Runs the key's `Ord`. If that
    /// panics, the key counts as unprotected: the commit that needs the room has been published, and its
    /// caller must not take the panic for a failure.
    pub(crate) fn covers(&self, hash: u64, key: &dyn Any) -> bool {
        let Some((_, reads)) = &self.lease else { return false };
        contain(|| reads.iter().any(|reads| reads.covers(hash, key))).unwrap_or(false)
    }

    /// Counts a protected key that the policy has chosen. Returns whether the policy may choose again.
    pub(crate) fn pass_over(&mut self) -> bool {
        self.passed_over += 1;
        self.passed_over < MOST_PASSED_OVER
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;
    use crate::txn::priority::{Claim, PriorityLease, Protects};
    use futures::FutureExt;
    use std::sync::Arc;
    use std::time::Duration;

    /// Protects one hash, after comparisons with so many ranges.
    #[derive(Clone, Copy)]
    struct Only(u64, usize);

    impl Protects for Only {
        fn covers(&self, hash: u64, _key: &dyn Any) -> bool {
            hash == self.0
        }

        fn guard(self: Arc<Self>) -> Box<dyn Guarded> {
            Box::new(*self)
        }
    }

    impl Guarded for Only {
        fn covers(&self, hash: u64, _key: &dyn Any) -> bool {
            assert!(hash < 100, "a key that panics");
            hash == self.0
        }

        fn ranges(&self) -> usize {
            self.1
        }
    }

    fn lease(priority: &Priority, protects: Only) -> PriorityLease<'_> {
        let length = Duration::from_secs(3600);
        let claim =
            Claim { length, is_exclusive: false, protects: Arc::new(protects), watch: Arc::default() };
        priority.claim(claim).now_or_never().expect("there is no other")
    }

    #[test]
    fn protects_while_the_lease_lasts_that_there_was_when_it_was_first_asked() {
        let priority = Priority::default();
        let mut shield = Shield::new(&priority, 1);
        assert!(!shield.looks(), "there is no lease");
        let first = lease(&priority, Only(1, 0));
        assert!(shield.looks());
        assert_eq!([1, 2].map(|hash| shield.covers(hash, &())), [true, false]);
        assert!(!shield.covers(100, &()), "a panic is contained");
        drop(first);
        assert!(!shield.looks(), "it has ended");
        let _second = lease(&priority, Only(2, 0));
        assert!(!shield.looks(), "another commit's shield protects its reads");
        assert!(Shield::new(&priority, 1).looks());
    }

    /// The number of keys that evictions ask about under the commit lock is bounded, whatever the lease
    /// protects.
    #[test]
    fn a_commit_asks_about_a_bounded_number_of_keys() {
        let priority = Priority::default();
        let looks = |writes: usize| {
            let mut shield = Shield::new(&priority, writes);
            std::iter::from_fn(|| shield.looks().then_some(())).count()
        };
        let few = lease(&priority, Only(1, 10));
        assert_eq!((looks(0), looks(100)), (MOST_LOOKS, MOST_LOOKS + 100 * TURNS));
        let mut shield = Shield::new(&priority, 1);
        assert_eq!((0..1_000).take_while(|_| shield.pass_over()).count(), MOST_PASSED_OVER - 1);
        drop(few);
        let _many = lease(&priority, Only(1, 31 * RANGES_A_LOOK));
        assert_eq!(looks(0), MOST_LOOKS / 32);
    }
}
