//! Scans of the committed state, in chunks or by visitors.
//!
//! A [`Cursor`] reads a chunk of pairs from the index and then releases the index: between two chunks it
//! holds no pin and no lock, only the key at which it continues. The registered timestamp of its view
//! makes all chunks parts of one consistent state.
//!
//! A visitor is shown pairs in place, under a pin. Memory that is retired meanwhile waits for that pin.
//! So whenever memory waits ([`Reader::is_waited_for`]), the cursor releases the pin between two groups
//! of pairs, and continues after the last key.
//!
//! [`Reader::is_waited_for`]: fluxmap_index::Reader::is_waited_for

use crate::commit::Committer;
use crate::error::FluxError;
use crate::key::{Key, KeySpan, Query, SpanPart, Value};
use crate::mvcc::active::Registration;
use crate::shared::Open;
use fluxmap_index::{CurrentEntry, Direction, ReadPoint, Time, Timestamp, prefetch};
use std::any::Any;
use std::borrow::Borrow;
use std::collections::VecDeque;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;
use std::time::Duration;

/// A registered timestamp of a database, through which snapshots and transactions read. Dropping it lets
/// the versions be freed that only it could see.
pub(crate) struct View<K: Key, V: Value> {
    pub(crate) shared: Arc<Open<K, V>>,
    registration: Registration,
}

/// A copy of a registered timestamp, for the duration of a call.
pub(crate) struct At<'c, K, V> {
    pub(crate) committer: &'c Committer<K, V>,
    pub(crate) registration: Registration,
}

impl<K, V> Clone for At<'_, K, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K, V> Copy for At<'_, K, V> {}

impl<K: Key, V: Value> View<K, V> {
    /// A view for readers: the state that cannot be undone any more.
    pub(crate) fn stable(shared: &Arc<Open<K, V>>) -> Self {
        let registration = shared.committer.register_stable(true);
        View { shared: Arc::clone(shared), registration }
    }

    /// A view for a transaction: the newest state, on which it can build. This state is stable before
    /// the transaction is acknowledged.
    pub(crate) fn newest(shared: &Arc<Open<K, V>>) -> Self {
        let committer = &shared.committer;
        if committer.durable.as_ref().is_some_and(|durable| durable.log.failure().is_some()) {
            // After a failure of the log, commits that are not stable never will be.
            return Self::stable(shared);
        }
        let registration = committer.register_newest();
        View { shared: Arc::clone(shared), registration }
    }

    /// Returns the state that a cursor reads.
    pub(crate) fn at(&self) -> At<'_, K, V> {
        At { committer: &self.shared.committer, registration: self.registration }
    }

    pub(crate) fn timestamp(&self) -> Timestamp {
        self.registration.read_point.timestamp
    }

    pub(crate) fn read_point(&self) -> ReadPoint {
        self.registration.read_point
    }

    pub(crate) fn registration(&self) -> Registration {
        self.registration
    }

    /// Checks that everything read so far is what the view shows: see [`Active::check`].
    ///
    /// [`Active::check`]: crate::mvcc::active::Active::check
    pub(crate) fn check(&self) -> Result<(), FluxError> {
        self.shared.committer.active.check(self.registration)
    }

    /// Reads the value under `key`, without a copy.
    pub(crate) fn get_with<Q, R>(
        &self,
        key: &Q,
        read: impl FnOnce(&Arc<V>) -> R,
    ) -> Result<Option<R>, FluxError>
    where
        K: Borrow<Q>,
        Q: Query + ?Sized,
    {
        let committer = &self.shared.committer;
        let hash = committer.hash(key);
        let reader = committer.reader();
        let found = reader.get_at(hash, key, self.read_point()).map(read);
        self.check().map(|()| found)
    }

    /// Calls `get` for each of `keys`, after prefetching the memory that it will read, so that the cache
    /// misses overlap.
    pub(crate) fn get_many<Q, const N: usize>(
        &self,
        keys: [&Q; N],
        get: impl Fn(&Q) -> Result<Option<Arc<V>>, FluxError>,
    ) -> Result<[Option<Arc<V>>; N], FluxError>
    where
        K: Borrow<Q>,
        Q: Query + ?Sized,
    {
        self.prefetch(keys);
        let mut found = [const { None }; N];
        for (found, key) in found.iter_mut().zip(keys) {
            *found = get(key)?;
        }
        Ok(found)
    }

    /// Like [`get_many`](Self::get_many) for any number of keys, a group at a time.
    pub(crate) fn get_each<'q, Q>(
        &self,
        keys: impl IntoIterator<Item = &'q Q>,
        get: impl Fn(&Q) -> Result<Option<Arc<V>>, FluxError>,
    ) -> Result<Vec<Option<Arc<V>>>, FluxError>
    where
        K: Borrow<Q>,
        Q: Query + ?Sized + 'q,
    {
        let keys: Vec<&Q> = keys.into_iter().collect();
        let mut found = Vec::with_capacity(keys.len());
        for keys in keys.chunks(ASKED_AT_ONCE) {
            // Fill the last group up with its first key: prefetching a key twice does no harm.
            let mut group = [keys[0]; ASKED_AT_ONCE];
            group[..keys.len()].copy_from_slice(keys);
            self.prefetch(group);
            for key in keys {
                found.push(get(key)?);
            }
        }
        Ok(found)
    }

    fn prefetch<Q, const N: usize>(&self, keys: [&Q; N])
    where
        K: Borrow<Q>,
        Q: Query + ?Sized,
    {
        let committer = &self.shared.committer;
        committer.reader().prefetch(keys.map(|key| committer.hash(key)), prefetch_value::<V>);
    }

    /// Returns the time until the value under `key` expires; `None` if it does not.
    pub(crate) fn ttl<Q>(&self, key: &Q) -> Result<Option<Duration>, FluxError>
    where
        K: Borrow<Q>,
        Q: Query + ?Sized,
    {
        let committer = &self.shared.committer;
        let found =
            committer.reader().resident_at(committer.hash(key), key, self.read_point()).and_then(|found| {
                let expires = found.expires();
                left(expires, self.read_point().time)
            });
        self.check().map(|()| found)
    }

    /// Counts the pairs of a span.
    pub(crate) fn count(&self, span: KeySpan<K>) -> Result<usize, FluxError> {
        Cursor::new(span).count(self.at())
    }
}

impl<K: Key, V: Value> Drop for View<K, V> {
    fn drop(&mut self) {
        self.shared.committer.active.release(self.registration);
        self.shared.after_release(self.timestamp());
    }
}

/// Returns the time until `expires`; `None` if that means never.
pub(crate) fn left(expires: Time, now: Time) -> Option<Duration> {
    (expires != 0).then(|| Duration::from_millis(expires.saturating_sub(now)))
}

/// The number of keys that [`View::get_each`] prefetches at a time.
const ASKED_AT_ONCE: usize = 16;

/// The number of pairs read at a time; the last number holds for all further chunks. The first chunks
/// are small, for scans that are broken off. Thirty pairs with a `String` are just below a kilobyte,
/// above which glibc's allocator tidies up its short lists at each request.
const CHUNKS: [usize; 5] = [16, 30, 30, 30, 256];

/// Pairs that have been read from the index but not returned yet.
type PairBuffer<K, V> = VecDeque<(K, Arc<V>)>;

/// A double-ended walk over a span of one view.
pub(crate) struct Cursor<K, V> {
    /// The part that has not been read yet, between the two buffers.
    rest: SpanPart<K>,
    exhausted: bool,
    /// Whether the view was ended for its age before all pairs were read.
    broken_off: bool,
    /// The number of chunks read so far.
    chunks: usize,
    /// The buffers at the two ends, each with the pair nearest to its end first.
    front: PairBuffer<K, V>,
    back: PairBuffer<K, V>,
}

impl<K: Key, V: Value> Cursor<K, V> {
    pub(crate) fn new(span: impl Into<Arc<KeySpan<K>>>) -> Self {
        Cursor {
            rest: SpanPart::whole(span),
            exhausted: false,
            broken_off: false,
            chunks: 0,
            front: VecDeque::new(),
            back: VecDeque::new(),
        }
    }

    /// Returns the pair at one end of a span.
    pub(crate) fn end(
        span: KeySpan<K>,
        at: At<'_, K, V>,
        direction: Direction,
    ) -> Result<Option<(K, Arc<V>)>, FluxError> {
        let mut cursor = Cursor::new(span);
        cursor.take_out(1, at, direction);
        cursor.try_pop(at, direction)
    }

    /// Like [`pop`](Self::pop), but returns an error if pairs may be missing because the view was ended.
    pub(crate) fn try_pop(
        &mut self,
        at: At<'_, K, V>,
        direction: Direction,
    ) -> Result<Option<(K, Arc<V>)>, FluxError> {
        match self.pop(at, direction) {
            None if self.broken_off => at.committer.active.check(at.registration).map(|()| None),
            pair => Ok(pair),
        }
    }

    /// Passes the remaining pairs to `visit`, from one end on, until it breaks. Clones nothing except
    /// the key at which it continues, whenever it has released the index because memory waited for it.
    ///
    /// `visit` runs while the index is pinned. It may use the database, and memory that is unlinked
    /// meanwhile is not freed before it returns.
    pub(crate) fn visit<B>(
        &mut self,
        at: At<'_, K, V>,
        direction: Direction,
        mut visit: impl FnMut(&K, &Arc<V>) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>, FluxError> {
        let (near, far) = self.buffers(direction);
        let (near, far) = (std::mem::take(near), std::mem::take(far));
        let mut broken = None;
        let mut see = |key: &K, value: &Arc<V>| match visit(key, value) {
            ControlFlow::Continue(()) => ControlFlow::Continue(()),
            ControlFlow::Break(with) => {
                broken = Some(with);
                ControlFlow::Break(())
            }
        };
        let mut flow = near.iter().try_for_each(|(key, value)| see(key, value));
        if flow.is_continue() && !self.exhausted {
            flow = self.look(at, direction, true, prefetch_value::<V>, |pairs| {
                pairs.iter().try_for_each(|(key, value)| see(key, value))
            })?;
        }
        if flow.is_continue() {
            // Returning here claims that no pair is left, so a view that was ended is an error.
            if self.broken_off {
                at.committer.active.check(at.registration)?;
            }
            flow = far.iter().rev().try_for_each(|(key, value)| see(key, value));
        }
        let _ = flow;
        Ok(broken.map_or(ControlFlow::Continue(()), ControlFlow::Break))
    }

    /// Counts the remaining pairs.
    pub(crate) fn count(mut self, at: At<'_, K, V>) -> Result<usize, FluxError> {
        let mut count = self.front.len() + self.back.len();
        if !self.exhausted {
            let _ = self.look(
                at,
                Direction::Forward,
                true,
                |_, _| {},
                |pairs| {
                    count += pairs.len();
                    ControlFlow::Continue(())
                },
            )?;
        } else if self.broken_off {
            at.committer.active.check(at.registration)?;
        }
        Ok(count)
    }

    /// Passes the pairs that have not been read yet to `see`, in groups, from one end on, until `see`
    /// breaks or no pair is left, and prefetches the values that `see` will follow. If it `lets_go`, it
    /// releases the index between two groups when memory waits for it.
    fn look(
        &mut self,
        at: At<'_, K, V>,
        direction: Direction,
        lets_go: bool,
        ask: impl Fn(usize, &Arc<V>),
        mut see: impl FnMut(&[(&K, &Arc<V>)]) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, FluxError> {
        let check = || at.committer.active.check(at.registration);
        loop {
            let (mut flow, mut behind) = (ControlFlow::Continue(()), None);
            let reader = at.committer.reader();
            reader.scan(&self.rest, direction, at.registration.read_point, &ask, |pairs| {
                // Check before `see` is called: a view that was ended may show pairs with old versions
                // missing.
                check().map_or(ControlFlow::Break(()), ControlFlow::Continue)?;
                flow = see(pairs);
                flow?;
                if lets_go && reader.is_waited_for() {
                    behind = pairs.last().map(|(last, _)| K::clone(last));
                }
                if behind.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            drop(reader);
            if flow.is_break() {
                return Ok(flow);
            }
            check()?;
            match behind {
                Some(key) => self.pass(key, direction),
                None => return Ok(flow),
            }
        }
    }

    /// Moves the rest of the span to after `key`.
    fn pass(&mut self, key: K, direction: Direction) {
        match direction {
            Direction::Forward => self.rest.lower = Bound::Excluded(key),
            Direction::Backward => self.rest.upper = Bound::Excluded(key),
        }
    }

    /// Returns whether pairs are missing because the view was ended.
    pub(crate) fn is_broken_off(&self) -> bool {
        self.broken_off
    }

    /// Returns the key that `pop` would return next.
    pub(crate) fn peek(&mut self, at: At<'_, K, V>, direction: Direction) -> Option<&K> {
        self.fill(at, direction);
        let (near, far) = self.buffers(direction);
        let pair = if near.is_empty() { far.back() } else { near.front() };
        pair.map(|(key, _)| key)
    }

    /// Returns the next pair at one end.
    pub(crate) fn pop(&mut self, at: At<'_, K, V>, direction: Direction) -> Option<(K, Arc<V>)> {
        self.fill(at, direction);
        let (near, far) = self.buffers(direction);
        if near.is_empty() { far.pop_back() } else { near.pop_front() }
    }

    fn buffers(&mut self, direction: Direction) -> (&mut PairBuffer<K, V>, &mut PairBuffer<K, V>) {
        match direction {
            Direction::Forward => (&mut self.front, &mut self.back),
            Direction::Backward => (&mut self.back, &mut self.front),
        }
    }

    /// Reads the next chunk at one end, if its buffer is empty and any pair may be left.
    fn fill(&mut self, at: At<'_, K, V>, direction: Direction) {
        if self.exhausted || !self.buffers(direction).0.is_empty() {
            return;
        }
        let wanted = CHUNKS[self.chunks.min(CHUNKS.len() - 1)];
        self.chunks += 1;
        self.take_out(wanted, at, direction);
    }

    fn take_out(&mut self, wanted: usize, at: At<'_, K, V>, direction: Direction) {
        let mut taken = std::mem::take(self.buffers(direction).0);
        taken.reserve(wanted);
        // Do not release the index in between, because that moves `rest` ahead: if the `Clone` of a key
        // then panicked, the pairs taken before would be lost.
        let ask = |step, value: &Arc<V>| {
            // The memory that values own is not cloned, so prefetch only the value itself.
            if step == 0 {
                prefetch::<V>(value);
            }
        };
        let looked = self.look(at, direction, false, ask, |pairs| {
            let pairs = &pairs[..pairs.len().min(wanted - taken.len())];
            // Prefetch the memory that all keys own before cloning the first: these cache misses overlap
            // here, but would not behind allocations and locked increments.
            pairs.iter().for_each(|(key, _)| prefetch_owned::<K>(key));
            taken.extend(pairs.iter().map(|(key, value)| (K::clone(key), Arc::clone(value))));
            if taken.len() == wanted { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        if looked.is_err() || at.committer.active.check(at.registration).is_err() {
            (self.exhausted, self.broken_off) = (true, true);
            return;
        }
        match taken.back() {
            Some((last, _)) if taken.len() == wanted => {
                let last = last.clone();
                self.pass(last, direction);
            }
            _ => self.exhausted = true,
        }
        *self.buffers(direction).0 = taken;
    }
}

/// The number of pairs that a [`MetadataScan`] reads at a time.
const SURVEYED: usize = 256;

/// A walk over a span of one view that reads more of each pair than its key and value.
#[derive(Clone)]
pub(crate) struct MetadataScan<K> {
    rest: SpanPart<K>,
}

impl<K: Key> MetadataScan<K> {
    pub(crate) fn new(span: KeySpan<K>) -> Self {
        MetadataScan { rest: SpanPart::whole(span) }
    }

    /// Returns the results of `take` for the next pairs, as many as are read in one go; empty at the
    /// end.
    pub(crate) fn next_chunk<V: Value, R>(
        &mut self,
        at: At<'_, K, V>,
        take: impl Fn(&CurrentEntry<'_, K, Arc<V>>) -> R,
    ) -> Vec<R> {
        let reader = at.committer.reader();
        let (mut taken, mut last) = (Vec::new(), None);
        reader.residents(&self.rest, at.registration.read_point, |resident| {
            taken.push(take(&resident));
            last = Some(resident.key());
            match taken.len() < SURVEYED {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            }
        });
        if let Some(last) = last {
            self.rest.lower = Bound::Excluded(last.clone());
        }
        taken
    }
}

/// Prefetches the memory that a visitor is about to read of a value: first the value, and in the next
/// step the memory that values of the commonest types own.
fn prefetch_value<V: 'static>(step: usize, value: &Arc<V>) {
    match step {
        0 => prefetch::<V>(value),
        _ => prefetch_owned::<V>(value),
    }
}

/// Prefetches the first cache line of the memory that a value of a common type owns.
fn prefetch_owned<T: 'static>(owner: &T) {
    let owner: &dyn Any = owner;
    if let Some(text) = owner.downcast_ref::<String>() {
        prefetch(text.as_str());
    } else if let Some(bytes) = owner.downcast_ref::<Vec<u8>>() {
        prefetch(bytes.as_slice());
    }
}
