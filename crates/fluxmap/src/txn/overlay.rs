//! A transaction's scans: the merge of committed pairs with the transaction's own writes.
//!
//! A scan returns the committed pairs at the transaction's snapshot, overlaid with its own writes. The
//! write set is consulted at every step, so a write ahead of the scan's position is seen and one behind
//! it is not.

use crate::error::FluxError;
use crate::key::{Key, KeySpan, SpanPart, Value};
use crate::txn::read_set::RangeId;
use crate::txn::scan::Cursor;
use crate::txn::transaction::Transaction;
use crate::txn::write_set::{Put, Write, WriteSet};
use fluxmap_index::{Direction, Span as _};
use std::cmp::Ordering;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

/// The pairs of a range or prefix as a transaction sees them: returned by [`Transaction::range`] and
/// [`Transaction::prefix`].
///
/// Lazy and double-ended. The pairs that it has passed, and no more, count as read by the transaction.
/// It holds no lock between two steps, and sees the transaction's own writes ahead of its position, made
/// before or during the scan.
///
/// If the transaction has been open for longer than `max_snapshot_age`, the iterator ends early, and the
/// transaction cannot commit; [`try_next`](Self::try_next) reports the error at once.
pub struct TransactionRange<'t, K: Key, V: Value> {
    transaction: &'t Transaction<K, V>,
    span: Arc<KeySpan<K>>,
    committed: Cursor<K, V>,
    /// The scan's entry in the read set, unless the isolation level keeps none.
    scan: Option<RangeId>,
    /// The last key passed at either end.
    front: Option<K>,
    back: Option<K>,
    /// Whether the two ends have met.
    finished: bool,
}

impl<'t, K: Key, V: Value> TransactionRange<'t, K, V> {
    pub(crate) fn new(transaction: &'t Transaction<K, V>, span: KeySpan<K>) -> Self {
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

    /// Passes the remaining pairs to `visit`, in ascending order, until it breaks or no pair is left;
    /// returns the value of the break. This is the fastest way to go over many pairs, because neither
    /// keys nor reference counts are touched. To keep a value, clone its [`Arc`].
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
    /// // `visit` may write the pairs that it goes over.
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
    /// Takes logarithmic time to the first pair, then constant time per pair.
    ///
    /// The pairs up to and including the one at which `visit` breaks count as read, and no more. `visit`
    /// may use the transaction and the database, and may commit; it will be shown the transaction's
    /// writes ahead of its position. No lock is held while it runs. Versions that others replace or
    /// delete meanwhile are not freed before `visit` returns, so if it takes milliseconds per pair,
    /// iterate instead. (The delay covers only a few pairs, however many `visit` is shown; but own
    /// writes without a committed pair between them count as one.) If `visit` panics, the whole range
    /// counts as read, and the transaction can continue.
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
        // Count the whole range as read, unless `visit` breaks; this also covers a panic.
        if std::mem::replace(&mut self.finished, true) {
            return Ok(ControlFlow::Continue(()));
        }
        let transaction = self.transaction;
        let at = transaction.view().at();
        let mut committed = std::mem::replace(&mut self.committed, Cursor::new(Arc::clone(&self.span)));
        // The key at which `visit` broke.
        let mut stop = None;
        // Read the counter before the write set: a write that comes in between is then noticed.
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
                // An own write comes before the committed pair, or replaces it.
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
        // The own writes after the last committed pair.
        while let (ControlFlow::Continue(()), Some((key, write))) = (&flow, own.take()) {
            if let Some(value) = write {
                flow = visit(&key, &value);
            }
            match flow.is_break() {
                true => stop = Some(key),
                false => own = self.next_own(Some(&key), direction),
            }
        }
        // `visit` broke at this key: only the pairs up to it count as read.
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

    /// Returns the transaction's next own write after the keys `passed` at one end.
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

    /// Returns the key of the transaction's next own write, with the value that the transaction sees
    /// under it.
    fn next_own(&self, passed: Option<&K>, direction: Direction) -> Option<(K, Option<Arc<V>>)> {
        let state = self.transaction.state();
        let seen = |put: &Put<V>| put.is_there(state.time).then(|| Arc::clone(&put.value));
        let (key, write) = self.own(&state.writes, passed, direction)?;
        Some((key.clone(), write.as_ref().and_then(seen)))
    }

    /// Like [`next`](Iterator::next), but can return an error.
    ///
    /// # Errors
    ///
    /// [`FluxError::SnapshotTooOld`] if the transaction has been open for longer than
    /// `max_snapshot_age`.
    pub fn try_next(&mut self) -> Result<Option<(K, Arc<V>)>, FluxError> {
        let next = self.next();
        self.check().map(|()| next)
    }

    /// Like [`next_back`](DoubleEndedIterator::next_back), but can return an error.
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
            // The transaction has deleted this key: skip it.
        }
    }

    /// Returns the next key at one end, with the value that the transaction sees under it.
    fn step(&mut self, direction: Direction) -> Option<(K, Option<Arc<V>>)> {
        let at = self.transaction.view().at();
        // Fill the cursor's buffer before the state is locked, because that reads the index.
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

    /// Returns the parts of the span that have been passed at either end.
    fn consumed(&mut self) -> impl Iterator<Item = SpanPart<K>> + use<K, V> {
        let (first, second) = (Arc::clone(&self.span), Arc::clone(&self.span));
        let part = |span, lower, upper| SpanPart { span, lower, upper };
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
        // A scan that came to its end stays in the read set as read wholly.
        if let (Some(scan), false) = (self.scan, self.finished) {
            let consumed = self.consumed();
            self.transaction.end_scan(scan, consumed);
        }
    }
}
