//! THE merge: what a transaction sees when it scans.
//!
//! The committed pairs at the transaction's snapshot, overlaid with what it has
//! itself written. The write set is consulted at every step, so a write ahead of
//! the scan's position is seen and one behind it is not.

use crate::error::FluxError;
use crate::key::{Key, Part, Span, Value};
use crate::txn::read_set::RangeId;
use crate::txn::scan::Cursor;
use crate::txn::transaction::Transaction;
use crate::txn::write_set::{Put, Write, WriteSet};
use fluxmap_index::{Direction, Span as _};
use std::cmp::Ordering;
use std::ops::Bound;
use std::sync::Arc;

/// The pairs of a range or prefix as a transaction sees them: from
/// [`Transaction::range`] and [`Transaction::prefix`].
///
/// Lazy and double-ended. What it has passed, and no more, counts as read by the
/// transaction. It holds no lock between two steps, and sees the transaction's
/// own writes ahead of its position, made before or during the scan.
///
/// If the transaction has been open for longer than `max_snapshot_age`, the iterator ends
/// early, and the transaction cannot commit; [`try_next`](Self::try_next) tells at once.
pub struct TransactionRange<'t, K: Key, V: Value> {
    transaction: &'t Transaction<K, V>,
    span: Span<K>,
    committed: Cursor<K, V>,
    /// In the read set, unless the isolation level keeps none.
    scan: Option<RangeId>,
    /// The last key passed at either end.
    front: Option<K>,
    back: Option<K>,
    /// The ends have met.
    finished: bool,
}

impl<'t, K: Key, V: Value> TransactionRange<'t, K, V> {
    pub(crate) fn new(transaction: &'t Transaction<K, V>, span: Span<K>) -> Self {
        let scan = transaction.begin_scan(&span);
        TransactionRange {
            transaction,
            committed: Cursor::new(span.clone()),
            span,
            scan,
            front: None,
            back: None,
            finished: false,
        }
    }

    /// The transaction's next own write at one end.
    fn own<'w>(&self, writes: &'w WriteSet<K, V>, direction: Direction) -> Option<(&'w K, &'w Write<V>)> {
        let writes = writes.writes();
        let (key, write) = match direction {
            Direction::Forward => match &self.front {
                None => writes.first_behind(|key| self.span.is_before(key)),
                Some(front) => writes.first_behind(|key| key <= front),
            },
            Direction::Backward => match &self.back {
                None => writes.last_within(|key| !self.span.is_after(key)),
                Some(back) => writes.last_within(|key| key < back),
            },
        }?;
        let within = !self.span.is_before(key)
            && !self.span.is_after(key)
            && self.front.as_ref().is_none_or(|front| key > front)
            && self.back.as_ref().is_none_or(|back| key < back);
        within.then_some((key, write))
    }

    /// [`next`](Iterator::next), with a place for errors.
    ///
    /// # Errors
    ///
    /// [`FluxError::SnapshotTooOld`] if the transaction has been open for longer than
    /// `max_snapshot_age`.
    pub fn try_next(&mut self) -> Result<Option<(K, Arc<V>)>, FluxError> {
        let next = self.next();
        self.check().map(|()| next)
    }

    /// [`next_back`](DoubleEndedIterator::next_back), with a place for errors.
    ///
    /// # Errors
    ///
    /// As [`try_next`](Self::try_next).
    pub fn try_next_back(&mut self) -> Result<Option<(K, Arc<V>)>, FluxError> {
        let next = self.next_back();
        self.check().map(|()| next)
    }

    fn check(&self) -> Result<(), FluxError> {
        match self.committed.is_broken_off() {
            true => self.transaction.view().check(),
            false => Ok(()),
        }
    }

    fn advance(&mut self, direction: Direction) -> Option<(K, Arc<V>)> {
        if self.finished {
            return None;
        }
        loop {
            let pair = self.step(direction)?;
            match direction {
                Direction::Forward => self.front = Some(pair.0.clone()),
                Direction::Backward => self.back = Some(pair.0.clone()),
            }
            if let (key, Some(value)) = pair {
                return Some((key, value));
            }
            // Deleted by this transaction: pass over it.
        }
    }

    /// The next key at one end, with what the transaction sees under it.
    fn step(&mut self, direction: Direction) -> Option<(K, Option<Arc<V>>)> {
        let at = self.transaction.view().at();
        // Before the lock: it may look at the index.
        let _ = self.committed.peek(at, direction);
        if self.committed.is_broken_off() {
            return None;
        }
        let state = self.transaction.state();
        let seen = |put: &Put<V>| put.is_there(state.time).then(|| Arc::clone(&put.value));
        let own = self
            .own(&state.writes, direction)
            .map(|(key, write)| (key.clone(), write.as_ref().and_then(seen)));
        drop(state);

        let Some(committed) = self.committed.peek(at, direction) else {
            self.finished = own.is_none();
            return own;
        };
        let order = match (&own, direction) {
            (None, _) => Ordering::Less,
            (Some((key, _)), Direction::Forward) => committed.cmp(key),
            (Some((key, _)), Direction::Backward) => key.cmp(committed),
        };
        match order {
            Ordering::Greater => own,
            Ordering::Equal => {
                self.committed.pop(at, direction);
                own
            }
            Ordering::Less => self.committed.pop(at, direction).map(|(key, value)| (key, Some(value))),
        }
    }

    /// The parts of the span that have been passed.
    fn consumed(&self) -> impl Iterator<Item = Part<K>> {
        let part = |lower, upper| Part { span: self.span.clone(), lower, upper };
        let (whole, front, back) = match self.finished {
            true => (Some(Part::whole(self.span.clone())), None, None),
            false => (None, self.front.clone(), self.back.clone()),
        };
        let front = front.map(|front| part(Bound::Unbounded, Bound::Included(front)));
        let back = back.map(|back| part(Bound::Included(back), Bound::Unbounded));
        whole.into_iter().chain(front).chain(back)
    }
}

impl<K: Key, V: Value> Iterator for TransactionRange<'_, K, V> {
    type Item = (K, Arc<V>);

    fn next(&mut self) -> Option<Self::Item> {
        self.advance(Direction::Forward)
    }
}

impl<K: Key, V: Value> DoubleEndedIterator for TransactionRange<'_, K, V> {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.advance(Direction::Backward)
    }
}

impl<K: Key, V: Value> std::iter::FusedIterator for TransactionRange<'_, K, V> {}

impl<K: Key, V: Value> Drop for TransactionRange<'_, K, V> {
    fn drop(&mut self) {
        if let Some(scan) = self.scan {
            self.transaction.state().reads.end_scan(scan, self.consumed());
        }
    }
}
