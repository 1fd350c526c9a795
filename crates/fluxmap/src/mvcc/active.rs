//! The live snapshots, and the horizon that follows from them.
//!
//! A snapshot registers by reading one hand of the clock and entering what it read
//! in one step, under the lock of its shard. A horizon is taken by reading the hand
//! that is behind, the stable one, and then visiting every shard under its lock. So a
//! snapshot that the visit misses registers after it, and reads at least what the
//! horizon was given: the watermark cannot overtake it.
//!
//! Shards keep threads that begin and end at the same time off each other's
//! cache lines. A shard is a sorted vector, which keeps its memory: the hands only move
//! forward, so a snapshot begins at its end, save those that read the stable hand behind
//! others that have read the applied one (they pass as many entries as there are such, at
//! most). One that ends is found in logarithmic time and stays as a gap,
//! and gaps are closed when they are more than half of it.

use crate::error::FluxError;
use crate::host::Host;
use crate::mvcc::clock::Clock;
use crate::sync::{Instant, Mutex, thread_number};
use fluxmap_index::{Horizon, Moment, Timestamp, planted};
use std::time::Duration;

const SHARDS: usize = 16;
/// How often snapshots that are too old are looked for, at most.
const SHORTEST_AGE: Duration = Duration::from_millis(1);

/// Registrations for which a shard always keeps room.
const SMALL: usize = 16;

/// The number of all snapshots that do not age.
const LASTING: u64 = 0;

/// Where a snapshot is found in its shard: by its timestamp, and by a number of its own if it
/// ages; else [`LASTING`].
type Place = (Timestamp, u64);

/// On whose behalf a snapshot is registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReaderKind {
    /// A user's snapshot, or a scan outside of transactions.
    Snapshot,
    Transaction,
    /// A checkpoint or a backup: it holds no database open.
    Checkpoint,
}

/// Snapshots that read at the same timestamp, and end together.
struct Live {
    place: Place,
    /// None of them: a gap.
    count: usize,
    /// When the first of them began.
    since: Instant,
}

#[derive(Default)]
#[repr(align(128))]
struct Shard(Mutex<Registrations>);

#[derive(Default)]
struct Registrations {
    /// By place, each once. The last is no gap.
    sorted: Vec<Live>,
    gaps: usize,
    next: u64,
    /// How many readers of each [`ReaderKind`] have not been released, those that were ended
    /// included: each still holds the database open.
    held: [usize; 3],
}

impl Live {
    fn is_gap(&self) -> bool {
        self.count == 0
    }
}

impl Registrations {
    fn find(&self, place: Place) -> Result<usize, usize> {
        match self.sorted.last() {
            // As it is nearly always.
            None => Err(0),
            Some(last) if last.place < place => Err(self.sorted.len()),
            Some(last) if last.place == place => Ok(self.sorted.len() - 1),
            Some(_) => self.sorted.binary_search_by_key(&place, |live| live.place),
        }
    }

    fn live(&self) -> impl Iterator<Item = &Live> {
        self.sorted.iter().filter(|live| !live.is_gap())
    }

    fn enter(&mut self, place: Place, host: &Host) {
        match self.find(place) {
            Err(index) => {
                let live = Live { place, count: 1, since: host.now() };
                match index == self.sorted.len() {
                    // As it is nearly always.
                    true => self.sorted.push(live),
                    false => self.sorted.insert(index, live),
                }
            }
            Ok(index) => {
                let live = &mut self.sorted[index];
                if live.is_gap() {
                    live.since = host.now();
                    self.gaps -= 1;
                }
                live.count += 1;
            }
        }
    }

    fn leave(&mut self, place: Place) {
        let Ok(index) = self.find(place) else { return };
        let live = &mut self.sorted[index];
        if live.is_gap() {
            return;
        }
        live.count -= 1;
        if !live.is_gap() {
            return;
        }
        if index + 1 == self.sorted.len() && self.gaps == 0 {
            self.sorted.pop();
            self.give_back();
        } else {
            self.gaps += 1;
            self.close_gaps();
        }
    }

    /// Removes the gaps at the end, and all of them when they are many. Constant time for
    /// each gap that was made.
    fn close_gaps(&mut self) {
        while self.sorted.pop_if(|last| last.is_gap()).is_some() {
            self.gaps -= 1;
        }
        if self.gaps > self.sorted.len() / 2 {
            self.sorted.retain(|live| !live.is_gap());
            self.gaps = 0;
        }
        self.give_back();
    }

    /// Gives memory back that four times as many took.
    fn give_back(&mut self) {
        let enough = self.sorted.len().max(SMALL) * 2;
        if self.sorted.capacity() > 2 * enough {
            self.sorted.shrink_to(enough);
        }
    }
}

/// All live snapshots.
#[derive(Default)]
pub(crate) struct Active {
    shards: [Shard; SHARDS],
    max_age: Option<Duration>,
    /// Whose time they age by.
    host: Host,
}

/// Where a snapshot is registered; given back to [`Active::release`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Registration {
    pub(crate) moment: Moment,
    number: u64,
    shard: u32,
    kind: ReaderKind,
}

impl Registration {
    fn place(&self) -> Place {
        (self.moment.timestamp, self.number)
    }
}

impl Active {
    /// No snapshots. They end when they are older than `max_age`.
    pub(crate) fn new(max_age: Option<Duration>, host: Host) -> Self {
        Active { max_age, host, ..Active::default() }
    }

    /// Registers a snapshot at what `now` reads, a hand of the clock. It ends when it is too
    /// old, if it `ages`.
    pub(crate) fn register(&self, kind: ReaderKind, ages: bool, now: impl Fn() -> Moment) -> Registration {
        let shard = thread_number() % SHARDS;
        let early = planted("snapshot-reads-before-it-locks").then(&now);
        let mut registrations = self.shards[shard].0.lock();
        let moment = early.unwrap_or_else(now);
        let number = match ages && self.max_age.is_some() {
            true => {
                registrations.next += 1;
                registrations.next
            }
            false => LASTING,
        };
        registrations.enter((moment.timestamp, number), &self.host);
        registrations.held[kind as usize] += 1;
        Registration { moment, number, shard: shard as u32, kind }
    }

    /// Lets go of a snapshot, also of one that has been ended.
    pub(crate) fn release(&self, registration: Registration) {
        let mut registrations = self.shards[registration.shard as usize].0.lock();
        registrations.held[registration.kind as usize] -= 1;
        registrations.leave(registration.place());
    }

    /// Whether the snapshot has been ended. To be asked after a read: what was read before
    /// it says no was there to be read. Where ages are not limited, costs nothing.
    fn has_ended(&self, registration: Registration) -> bool {
        registration.number != LASTING && {
            let registrations = self.shards[registration.shard as usize].0.lock();
            let found = registrations.find(registration.place());
            !found.is_ok_and(|index| !registrations.sorted[index].is_gap())
        }
    }

    /// Whether what was read up to now is what the snapshot shows.
    ///
    /// # Errors
    ///
    /// [`FluxError::SnapshotTooOld`] if it has been ended, and versions may have gone.
    pub(crate) fn check(&self, registration: Registration) -> Result<(), FluxError> {
        match self.max_age {
            Some(max_age) if self.has_ended(registration) => Err(FluxError::SnapshotTooOld { max_age }),
            _ => Ok(()),
        }
    }

    /// Ends the snapshots that are too old at `now`; returns when the next will be.
    pub(crate) fn end_old(&self, now: Instant) -> Option<Instant> {
        let max_age = self.max_age?;
        // Not more often than is worth a thread's while.
        let mut next = now.checked_add(max_age.max(SHORTEST_AGE));
        for shard in &self.shards {
            let mut registrations = shard.0.lock();
            let aging = |live: &&mut Live| !live.is_gap() && live.place.1 != LASTING;
            let mut ended = 0;
            for live in registrations.sorted.iter_mut().filter(aging) {
                match live.since.checked_add(max_age) {
                    Some(end) if end <= now => {
                        live.count = 0;
                        ended += 1;
                    }
                    end => {
                        let end = end.map(|end| end.max(now + SHORTEST_AGE));
                        next = next.into_iter().chain(end).min();
                    }
                }
            }
            registrations.gaps += ended;
            registrations.close_gaps();
        }
        next
    }

    /// Which timestamps are being read now, or may be later.
    pub(crate) fn horizon(&self, clock: &Clock) -> Horizon {
        // Before the shards: see the top of the file.
        let now = if planted("horizon-is-applied") { clock.applied() } else { clock.stable() };
        let mut live = Vec::new();
        for shard in self.shards.iter().filter(|_| !planted("trimming-ignores-snapshots")) {
            live.extend(shard.0.lock().live().map(|live| live.place.0));
        }
        Horizon::new(now, live)
    }

    /// How many snapshots are live, of all kinds together.
    pub(crate) fn count(&self) -> usize {
        let count = |shard: &Shard| shard.0.lock().live().map(|live| live.count).sum::<usize>();
        self.shards.iter().map(count).sum()
    }

    /// How many snapshots of one kind have not been released, whether they are live or were ended.
    pub(crate) fn held(&self, kind: ReaderKind) -> usize {
        self.shards.iter().map(|shard| shard.0.lock().held[kind as usize]).sum()
    }

    /// When the oldest that is live began. Snapshots that began one after another at the
    /// same timestamp on the same thread may count as old as the first of them.
    pub(crate) fn oldest(&self) -> Option<Instant> {
        let oldest = |shard: &Shard| shard.0.lock().live().map(|live| live.since).min();
        self.shards.iter().filter_map(oldest).min()
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;

    #[test]
    fn the_horizon_follows_the_oldest_live_snapshot() {
        let (active, clock) = (Active::default(), Clock::default());
        clock.apply(5);
        let old = active.register(ReaderKind::Snapshot, true, || clock.stable().into());
        clock.apply(9);
        let register = || active.register(ReaderKind::Snapshot, true, || clock.stable().into());
        let (young, twin) = (register(), register());
        assert_eq!((old.moment.timestamp, young.moment.timestamp), (5, 9));
        assert_eq!(active.horizon(&clock).oldest(), 5);
        assert_eq!(active.count(), 3);
        active.release(old);
        active.release(twin);
        clock.apply(20);
        assert_eq!(active.horizon(&clock).oldest(), 9);
        active.release(young);
        assert_eq!(active.horizon(&clock).oldest(), 20);
        assert_eq!(active.count(), 0);
    }

    #[test]
    fn readers_are_counted_by_their_kind() {
        let active = Active::default();
        let register = |kind| active.register(kind, true, || 5.into());
        let counts = || {
            [ReaderKind::Snapshot, ReaderKind::Transaction, ReaderKind::Checkpoint]
                .map(|kind| active.held(kind))
        };
        let one = register(ReaderKind::Transaction);
        let two = register(ReaderKind::Snapshot);
        let three = register(ReaderKind::Transaction);
        let four = register(ReaderKind::Checkpoint);
        assert_eq!((counts(), active.count()), ([1, 2, 1], 4));
        active.release(three);
        active.release(two);
        assert_eq!(counts(), [0, 1, 1]);
        active.release(one);
        active.release(four);
        assert_eq!((counts(), active.count()), ([0, 0, 0], 0));
    }

    #[test]
    fn snapshots_come_and_go_in_any_order() {
        let (active, clock) = (Active::default(), Clock::default());
        clock.apply(1_000);
        let mut model = Vec::new();
        for step in 0..2_000_u64 {
            // Forward on the whole, and back now and then; the oldest stay.
            let timestamp = 900 + step / 4 - step % 7 % 3 * (step % 90);
            model.push(active.register(ReaderKind::Snapshot, true, || timestamp.into()));
            if step % 9 < 5 {
                let gone = model.swap_remove((step * 7919) as usize % model.len());
                active.release(gone);
            }
            if step == 1_500 {
                model.drain(20..).for_each(|gone| active.release(gone));
            }
            let live = || model.iter().map(|registration| registration.moment.timestamp);
            assert_eq!(active.count(), model.len());
            assert_eq!(active.horizon(&clock), Horizon::new(1_000, live().collect()));
        }
        model.into_iter().for_each(|gone| active.release(gone));
        assert_eq!(active.count(), 0);
        assert!(active.shards.iter().all(|shard| shard.0.lock().sorted.is_empty()));
    }

    #[test]
    fn a_snapshot_ends_at_its_age_whoever_else_reads_at_its_timestamp() {
        let age = Duration::from_secs(60);
        let active = Active::new(Some(age), Host::default());
        let began = Instant::now();
        let old = active.register(ReaderKind::Snapshot, true, || 5.into());
        assert!(active.end_old(began + age / 2).is_some_and(|next| next <= Instant::now() + age));
        assert!(!active.has_ended(old));
        let later = Instant::now() + age;
        active.end_old(later);
        assert!(active.has_ended(old));
        let young = active.register(ReaderKind::Snapshot, true, || 5.into());
        assert!(!active.has_ended(young));
        active.release(old);
        assert_eq!(active.count(), 1);
    }
}
