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
use std::ops::{Bound, ControlFlow};
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
    span: Arc<Span<K>>,
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
        let span = Arc::new(span);
        let scan = transaction.begin_scan(&span);
        TransactionRange {
            transaction,
            committed: Cursor::new(Arc::clone(&span)),
            span,
            scan,
            front: None,
            back: None,
            finished: false,
        }
    }

    /// Shows the pairs that are left to `visit`, in ascending order, until it breaks or there
    /// are no more; returns what it broke with. The fastest way to go over many pairs:
    /// neither keys nor reference counts are touched. Whoever wants to keep a value clones
    /// its [`Arc`].
    ///
    /// ```
    /// # use fluxmap::{Database, FluxError};
    /// # use std::ops::ControlFlow;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), FluxError> {
    /// # let db = Database::<String, u64>::builder().build().await?;
    /// db.insert("stock/apples".into(), 3).await?;
    /// db.insert("stock/pears".into(), 0).await?;
    /// let tx = db.begin();
    /// // It may write what it goes over.
    /// let flow = tx.prefix("stock/")?.visit(|name, left| {
    ///     let more = if **left == 0 { tx.insert(name.clone(), 10) } else { Ok(()) };
    ///     more.map_or_else(ControlFlow::Break, ControlFlow::Continue)
    /// })?;
    /// if let ControlFlow::Break(error) = flow {
    ///     return Err(error);
    /// }
    /// assert_eq!(tx.get("stock/pears")?.as_deref(), Some(&10));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Logarithmic time to the first pair, then constant for each.
    ///
    /// The pairs up to the one at which `visit` breaks count as read, that one included, and
    /// no more. `visit` may use the transaction and the database as it likes, commits
    /// included; what the transaction writes ahead of it, it will be shown. No lock is held
    /// while it runs. What others replace or delete meanwhile is not freed before it returns,
    /// so where it takes milliseconds for a pair, iterate instead. (However many pairs it is
    /// shown, memory waits for a few of them only; but own writes without a committed pair
    /// between them count as one.) If it panics, the whole range counts as read, and the
    /// transaction can go on.
    ///
    /// # Errors
    ///
    /// [`FluxError::SnapshotTooOld`] if the transaction has been open for longer than
    /// `max_snapshot_age`; otherwise none.
    pub fn visit<B>(
        self,
        visit: impl FnMut(&K, &Arc<V>) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>, FluxError> {
        self.visit_from(Direction::Forward, visit)
    }

    /// [`visit`](Self::visit) in descending order.
    ///
    /// # Errors
    ///
    /// As [`visit`](Self::visit).
    pub fn visit_back<B>(
        self,
        visit: impl FnMut(&K, &Arc<V>) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>, FluxError> {
        self.visit_from(Direction::Backward, visit)
    }

    fn visit_from<B>(
        mut self,
        direction: Direction,
        mut visit: impl FnMut(&K, &Arc<V>) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>, FluxError> {
        // Unless it breaks, all of it will have been read; if something panics, too.
        if std::mem::replace(&mut self.finished, true) {
            return Ok(ControlFlow::Continue(()));
        }
        let transaction = self.transaction;
        let at = transaction.view().at();
        let mut committed = std::mem::replace(&mut self.committed, Cursor::new(Arc::clone(&self.span)));
        // The key at which `visit` broke.
        let mut stop = None;
        // Before the look: a write that comes in between is looked for again.
        let mut changes = transaction.changes();
        let mut own = self.next_own(self.passed(direction), direction);
        let mut flow = committed.visit(at, direction, |key, value| {
            loop {
                let order = match &own {
                    None => Ordering::Less,
                    Some((own, _)) if direction == Direction::Forward => key.cmp(own),
                    Some((own, _)) => own.cmp(key),
                };
                if order == Ordering::Less {
                    break;
                }
                // An own write in front of the committed pair, or in its place.
                changes = transaction.changes();
                let Some((own_key, write)) = own.take() else { break };
                if let Some(value) = write {
                    let flow = visit(&own_key, &value);
                    if flow.is_break() {
                        stop = Some(own_key);
                        return flow;
                    }
                }
                own = self.next_own(Some(&own_key), direction);
                if order == Ordering::Equal {
                    return ControlFlow::Continue(());
                }
            }
            let flow = visit(key, value);
            if flow.is_break() {
                stop = Some(key.clone());
            } else if transaction.changes() != changes {
                changes = transaction.changes();
                own = self.next_own(Some(key), direction);
            }
            flow
        })?;
        while let (ControlFlow::Continue(()), Some((key, write))) = (&flow, own.take()) {
            if let Some(value) = write {
                flow = visit(&key, &value);
            }
            match flow.is_break() {
                true => stop = Some(key),
                false => own = self.next_own(Some(&key), direction),
            }
        }
        if stop.is_some() {
            self.finished = false;
            match direction {
                Direction::Forward => self.front = stop,
                Direction::Backward => self.back = stop,
            }
        }
        Ok(flow)
    }

    fn passed(&self, direction: Direction) -> Option<&K> {
        match direction {
            Direction::Forward => self.front.as_ref(),
            Direction::Backward => self.back.as_ref(),
        }
    }

    /// The transaction's next own write behind the keys `passed` at one end.
    fn own<'w>(
        &self,
        writes: &'w WriteSet<K, V>,
        passed: Option<&K>,
        direction: Direction,
    ) -> Option<(&'w K, &'w Write<V>)> {
        if writes.is_empty() {
            return None;
        }
        let (writes, span) = (writes.writes(), &self.span);
        let (key, write) = match (direction, passed) {
            (Direction::Forward, None) => writes.first_behind(|key| span.is_before(key)),
            (Direction::Forward, Some(passed)) => writes.first_behind(|key| key <= passed),
            (Direction::Backward, None) => writes.last_within(|key| !span.is_after(key)),
            (Direction::Backward, Some(passed)) => writes.last_within(|key| key < passed),
        }?;
        let within = !span.is_before(key)
            && !span.is_after(key)
            && self.front.as_ref().is_none_or(|front| key > front)
            && self.back.as_ref().is_none_or(|back| key < back);
        within.then_some((key, write))
    }

    /// The transaction's next own write, with what it sees under it.
    fn next_own(&self, passed: Option<&K>, direction: Direction) -> Option<(K, Option<Arc<V>>)> {
        let state = self.transaction.state();
        let seen = |put: &Put<V>| put.is_there(state.time).then(|| Arc::clone(&put.value));
        let (key, write) = self.own(&state.writes, passed, direction)?;
        Some((key.clone(), write.as_ref().and_then(seen)))
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
        let own = self.next_own(self.passed(direction), direction);

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

    /// The parts of the span that have been passed at either end.
    fn consumed(&mut self) -> impl Iterator<Item = Part<K>> + use<K, V> {
        let (first, second) = (Arc::clone(&self.span), Arc::clone(&self.span));
        let part = |span, lower, upper| Part { span, lower, upper };
        let front = self.front.take().map(|front| part(first, Bound::Unbounded, Bound::Included(front)));
        let back = self.back.take().map(|back| part(second, Bound::Included(back), Bound::Unbounded));
        front.into_iter().chain(back)
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
        // One that came to the end is noted already, as read wholly.
        if let (Some(scan), false) = (self.scan, self.finished) {
            let consumed = self.consumed();
            self.transaction.end_scan(scan, consumed);
        }
    }
}
