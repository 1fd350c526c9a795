//! Scans of the committed state, in chunks or by visitors.
//!
//! A [`Cursor`] looks at the index for a moment, takes out a chunk of pairs, and
//! lets go: between two chunks it holds no pin, no lock, only the key at which
//! it goes on. The registered timestamp of its view is what makes the chunks
//! parts of one picture.
//!
//! A visitor is shown pairs as they are in the index, under a pin. What is retired
//! meanwhile waits for that pin, so the cursor lets go and goes on behind the last key
//! whenever something does ([`Reader::is_waited_for`]), between two groups of pairs.
//!
//! [`Reader::is_waited_for`]: fluxmap_index::Reader::is_waited_for

use crate::commit::Committer;
use crate::error::FluxError;
use crate::key::{Key, Part, Query, Span, Value};
use crate::mvcc::active::Registration;
use crate::shared::Shared;
use fluxmap_index::{Direction, Moment, Resident, Time, Timestamp, prefetch};
use std::any::Any;
use std::borrow::Borrow;
use std::collections::VecDeque;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;
use std::time::Duration;

/// A registered timestamp of a database: what snapshots and transactions read
/// through. Dropping it lets the versions go that only it could see.
pub(crate) struct View<K: Key, V: Value> {
    pub(crate) shared: Arc<Shared<K, V>>,
    registration: Registration,
}

/// A registered timestamp of a database, for as long as a call takes.
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
    /// For reading only: what cannot be undone any more.
    pub(crate) fn stable(shared: &Arc<Shared<K, V>>) -> Self {
        let registration = shared.committer.register_stable(true);
        View { shared: Arc::clone(shared), registration }
    }

    /// For a transaction: the newest state, on which it can build. It is stable before
    /// the transaction is acknowledged.
    pub(crate) fn newest(shared: &Arc<Shared<K, V>>) -> Self {
        let committer = &shared.committer;
        if committer.durable.as_ref().is_some_and(|durable| durable.log.failure().is_some()) {
            // What is not stable will never be.
            return Self::stable(shared);
        }
        let registration = committer.register_newest();
        View { shared: Arc::clone(shared), registration }
    }

    /// What a cursor reads.
    pub(crate) fn at(&self) -> At<'_, K, V> {
        At { committer: &self.shared.committer, registration: self.registration }
    }

    pub(crate) fn timestamp(&self) -> Timestamp {
        self.registration.moment.timestamp
    }

    pub(crate) fn moment(&self) -> Moment {
        self.registration.moment
    }

    pub(crate) fn registration(&self) -> Registration {
        self.registration
    }

    /// Whether what was read up to now is what the view shows: see [`Active::check`].
    ///
    /// [`Active::check`]: crate::mvcc::active::Active::check
    pub(crate) fn check(&self) -> Result<(), FluxError> {
        self.shared.committer.active.check(self.registration)
    }

    /// Reads what `key` holds, without a copy.
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
        let found = reader.get_at(hash, key, self.moment()).map(read);
        self.check().map(|()| found)
    }

    /// What `get` finds under each of `keys`, after the memory that it will read was asked for,
    /// so that their cache misses overlap.
    pub(crate) fn get_many<Q, const N: usize>(
        &self,
        keys: [&Q; N],
        get: impl Fn(&Q) -> Result<Option<Arc<V>>, FluxError>,
    ) -> Result<[Option<Arc<V>>; N], FluxError>
    where
        K: Borrow<Q>,
        Q: Query + ?Sized,
    {
        self.ask_for(keys);
        let mut found = [const { None }; N];
        for (found, key) in found.iter_mut().zip(keys) {
            *found = get(key)?;
        }
        Ok(found)
    }

    /// [`get_many`](Self::get_many) of any number of keys, a group at a time.
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
            // A last group is filled up with its first key: to ask twice changes nothing.
            let mut group = [keys[0]; ASKED_AT_ONCE];
            group[..keys.len()].copy_from_slice(keys);
            self.ask_for(group);
            for key in keys {
                found.push(get(key)?);
            }
        }
        Ok(found)
    }

    fn ask_for<Q, const N: usize>(&self, keys: [&Q; N])
    where
        K: Borrow<Q>,
        Q: Query + ?Sized,
    {
        let committer = &self.shared.committer;
        committer.reader().ask_for(keys.map(|key| committer.hash(key)), ask_for::<V>);
    }

    /// How long what `key` holds has left, if it expires.
    pub(crate) fn ttl<Q>(&self, key: &Q) -> Result<Option<Duration>, FluxError>
    where
        K: Borrow<Q>,
        Q: Query + ?Sized,
    {
        let committer = &self.shared.committer;
        let found =
            committer.reader().resident_at(committer.hash(key), key, self.moment()).and_then(|found| {
                let expires = found.expires();
                left(expires, self.moment().time)
            });
        self.check().map(|()| found)
    }

    /// How many pairs a span holds.
    pub(crate) fn count(&self, span: Span<K>) -> Result<usize, FluxError> {
        Cursor::new(span).count(self.at())
    }
}

impl<K: Key, V: Value> Drop for View<K, V> {
    fn drop(&mut self) {
        self.shared.committer.active.release(self.registration);
        self.shared.after_release(self.timestamp());
    }
}

/// How long something that expires has left.
pub(crate) fn left(expires: Time, now: Time) -> Option<Duration> {
    (expires != 0).then(|| Duration::from_millis(expires.saturating_sub(now)))
}

/// Keys whose memory [`View::get_each`] asks for at a time.
const ASKED_AT_ONCE: usize = 16;

/// Pairs taken out at a time; the last number holds for the rest. Few at first, for
/// scans that are broken off. Thirty pairs with a `String` are just below a kilobyte,
/// above which glibc's allocator tidies up its short lists at each request.
const CHUNKS: [usize; 5] = [16, 30, 30, 30, 256];

/// Pairs taken out of the index and not handed out yet.
type Pairs<K, V> = VecDeque<(K, Arc<V>)>;

/// A double-ended walk over a span of one view.
pub(crate) struct Cursor<K, V> {
    /// What has not been taken out yet, between the two buffers.
    rest: Part<K>,
    exhausted: bool,
    /// The view has ended before all was taken out.
    broken_off: bool,
    /// Chunks taken out so far.
    chunks: usize,
    /// Nearest pair first, in the direction of the end it belongs to.
    front: Pairs<K, V>,
    back: Pairs<K, V>,
}

impl<K: Key, V: Value> Cursor<K, V> {
    pub(crate) fn new(span: impl Into<Arc<Span<K>>>) -> Self {
        Cursor {
            rest: Part::whole(span),
            exhausted: false,
            broken_off: false,
            chunks: 0,
            front: VecDeque::new(),
            back: VecDeque::new(),
        }
    }

    /// The pair at one end of a span.
    pub(crate) fn end(
        span: Span<K>,
        at: At<'_, K, V>,
        direction: Direction,
    ) -> Result<Option<(K, Arc<V>)>, FluxError> {
        let mut cursor = Cursor::new(span);
        cursor.take_out(1, at, direction);
        cursor.try_pop(at, direction)
    }

    /// [`pop`](Self::pop), and an error if there may be more that cannot be read any more.
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

    /// Hands what is left to `visit`, from one end on, until it breaks. Clones nothing, but
    /// for a key at which it goes on whenever it has let go of the index because memory
    /// waited for it.
    ///
    /// `visit` runs while the index is looked at: it may do what it likes, and what is
    /// unlinked meanwhile is not freed before it returns.
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
            flow = self.look(at, direction, true, ask_for::<V>, |pairs| {
                pairs.iter().try_for_each(|(key, value)| see(key, value))
            })?;
        }
        if flow.is_continue() {
            // As it says there is no more, that has to be so.
            if self.broken_off {
                at.committer.active.check(at.registration)?;
            }
            flow = far.iter().rev().try_for_each(|(key, value)| see(key, value));
        }
        let _ = flow;
        Ok(broken.map_or(ControlFlow::Continue(()), ControlFlow::Break))
    }

    /// How many pairs are left.
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

    /// Looks at what has not been taken out yet, from one end on, until `see` breaks or it
    /// is at an end, and asks for what `see` will follow of the values. If it `lets_go`, it does so of the index between two groups of pairs
    /// when memory waits for it.
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
            reader.scan(&self.rest, direction, at.registration.moment, &ask, |pairs| {
                // Before anybody sees what a view that has ended may not show.
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

    /// What is left lies behind `key`.
    fn pass(&mut self, key: K, direction: Direction) {
        match direction {
            Direction::Forward => self.rest.lower = Bound::Excluded(key),
            Direction::Backward => self.rest.upper = Bound::Excluded(key),
        }
    }

    /// Whether there was more that cannot be read any more.
    pub(crate) fn is_broken_off(&self) -> bool {
        self.broken_off
    }

    /// The key that `pop` would return next.
    pub(crate) fn peek(&mut self, at: At<'_, K, V>, direction: Direction) -> Option<&K> {
        self.fill(at, direction);
        let (near, far) = self.buffers(direction);
        let pair = if near.is_empty() { far.back() } else { near.front() };
        pair.map(|(key, _)| key)
    }

    /// The next pair at one end.
    pub(crate) fn pop(&mut self, at: At<'_, K, V>, direction: Direction) -> Option<(K, Arc<V>)> {
        self.fill(at, direction);
        let (near, far) = self.buffers(direction);
        if near.is_empty() { far.pop_back() } else { near.pop_front() }
    }

    fn buffers(&mut self, direction: Direction) -> (&mut Pairs<K, V>, &mut Pairs<K, V>) {
        match direction {
            Direction::Forward => (&mut self.front, &mut self.back),
            Direction::Backward => (&mut self.back, &mut self.front),
        }
    }

    /// Takes out the next chunk at one end, if its buffer is empty and there is
    /// something left.
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
        // In one go: were a key's `Clone` to panic, a part that was passed would be lost.
        let ask = |step, value: &Arc<V>| {
            // What the values own is not cloned.
            if step == 0 {
                prefetch::<V>(value);
            }
        };
        let looked = self.look(at, direction, false, ask, |pairs| {
            let pairs = &pairs[..pairs.len().min(wanted - taken.len())];
            // Ask for what all the keys own before the first is cloned: these cache
            // misses overlap, behind allocations and locked increments they would not.
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

/// Pairs that a [`Survey`] takes at a time.
const SURVEYED: usize = 256;

/// A walk over a span of one view, for those who want to know more of each pair than its
/// key and value.
#[derive(Clone)]
pub(crate) struct Survey<K> {
    rest: Part<K>,
}

impl<K: Key> Survey<K> {
    pub(crate) fn new(span: Span<K>) -> Self {
        Survey { rest: Part::whole(span) }
    }

    /// What `take` makes of the next pairs, as many as can be looked at in one go; none at
    /// the end.
    pub(crate) fn next_chunk<V: Value, R>(
        &mut self,
        at: At<'_, K, V>,
        take: impl Fn(&Resident<'_, K, Arc<V>>) -> R,
    ) -> Vec<R> {
        let reader = at.committer.reader();
        let (mut taken, mut last) = (Vec::new(), None);
        reader.residents(&self.rest, at.registration.moment, |resident| {
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

/// Asks for what a visitor is about to see of a value: first the value, and then what those of
/// the commonest types own.
fn ask_for<V: 'static>(step: usize, value: &Arc<V>) {
    match step {
        0 => prefetch::<V>(value),
        _ => prefetch_owned::<V>(value),
    }
}

/// Asks for the first cache line of what something of the commonest types owns.
fn prefetch_owned<T: 'static>(owner: &T) {
    let owner: &dyn Any = owner;
    if let Some(text) = owner.downcast_ref::<String>() {
        prefetch(text.as_str());
    } else if let Some(bytes) = owner.downcast_ref::<Vec<u8>>() {
        prefetch(bytes.as_slice());
    }
}
