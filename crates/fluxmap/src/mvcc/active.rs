//! The live snapshots, and the horizon that follows from them.
//!
//! A snapshot registers by reading a timestamp from the clock (applied or stable) and entering it, in
//! one step under the lock of its shard. A horizon is taken by reading the stable timestamp, which is
//! the smaller one, and then visiting every shard under its lock. So a snapshot that the visit misses
//! registers after it, and its timestamp is not below the horizon's: the watermark cannot overtake it.
//!
//! Shards keep threads that begin and end at the same time off each other's cache lines. A shard is a
//! sorted vector, which keeps its memory. The clock only moves forward, so a new snapshot is mostly
//! added at the end. The exception is a snapshot at the stable timestamp after others at the applied
//! one; it is inserted before those. A snapshot that ends is found in logarithmic time and stays as a
//! gap, and gaps are removed when they are more than half of the vector.

use crate::error::FluxError;
use crate::host::Host;
use crate::mvcc::clock::Clock;
use crate::sync::{Instant, Mutex, thread_number};
use fluxmap_index::{Horizon, ReadPoint, Timestamp, planted};
use std::time::Duration;

const SHARDS: usize = 16;
/// The shortest interval at which the database looks for snapshots that are too old.
const SHORTEST_AGE: Duration = Duration::from_millis(1);

/// The number of registrations for which a shard always keeps room.
const SMALL: usize = 16;

/// The number of all snapshots that do not age.
const LASTING: u64 = 0;

/// The sort key of a snapshot in its shard: its timestamp, and a number of its own if it ages, else
/// [`LASTING`].
type SnapshotKey = (Timestamp, u64);

/// The kind of reader for which a snapshot is registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReaderKind {
    /// A user's snapshot, or a scan outside of transactions.
    Snapshot,
    Transaction,
    /// A checkpoint or a backup: it does not keep a database open.
    Checkpoint,
}

/// Snapshots that read at the same timestamp and end together.
struct SnapshotGroup {
    place: SnapshotKey,
    /// The number of these snapshots; zero for a gap.
    count: usize,
    /// When the first of these snapshots began.
    since: Instant,
}

#[derive(Default)]
#[repr(align(128))]
struct Shard(Mutex<Registrations>);

#[derive(Default)]
struct Registrations {
    /// Sorted by place, without duplicates. The last element is no gap.
    sorted: Vec<SnapshotGroup>,
    gaps: usize,
    next: u64,
    /// How many readers of each [`ReaderKind`] have not been released. Readers that were ended for their
    /// age count, because each still holds the database open.
    held: [usize; 3],
}

impl SnapshotGroup {
    fn is_gap(&self) -> bool {
        self.count == 0
    }
}

impl Registrations {
    fn find(&self, place: SnapshotKey) -> Result<usize, usize> {
        match self.sorted.last() {
            // The most frequent case: the new place is the last.
            None => Err(0),
            Some(last) if last.place < place => Err(self.sorted.len()),
            Some(last) if last.place == place => Ok(self.sorted.len() - 1),
            Some(_) => self.sorted.binary_search_by_key(&place, |live| live.place),
        }
    }

    fn live(&self) -> impl Iterator<Item = &SnapshotGroup> {
        self.sorted.iter().filter(|live| !live.is_gap())
    }

    fn enter(&mut self, place: SnapshotKey, host: &Host) {
        match self.find(place) {
            Err(index) => {
                let live = SnapshotGroup { place, count: 1, since: host.now() };
                match index == self.sorted.len() {
                    // The most frequent case.
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

    /// Whether a place at this timestamp has one reader left. Only for a fault that is planted.
    fn is_last_at(&self, place: SnapshotKey, timestamp: Timestamp) -> bool {
        place.0 == timestamp && self.find(place).is_ok_and(|index| self.sorted[index].count == 1)
    }

    fn leave(&mut self, place: SnapshotKey) {
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

    /// Removes the gaps at the end, and all gaps when they are many. Amortized constant time per gap.
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

    /// Gives memory back if the capacity is more than four times the length.
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
    /// The host whose clock measures the snapshots' ages.
    host: Host,
}

/// The receipt for a registered snapshot, to be given back to [`Active::release`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Registration {
    pub(crate) read_point: ReadPoint,
    number: u64,
    shard: u32,
    kind: ReaderKind,
}

impl Registration {
    fn place(&self) -> SnapshotKey {
        (self.read_point.timestamp, self.number)
    }
}

impl Active {
    /// Creates an empty set. Snapshots end when they are older than `max_age`.
    pub(crate) fn new(max_age: Option<Duration>, host: Host) -> Self {
        Active { max_age, host, ..Active::default() }
    }

    /// Registers a snapshot at the read point that `now` returns. If it `ages`, it ends when it is too
    /// old.
    pub(crate) fn register(&self, kind: ReaderKind, ages: bool, now: impl Fn() -> ReadPoint) -> Registration {
        let shard = thread_number() % SHARDS;
        let early = planted("snapshot-reads-before-it-locks").then(&now);
        let mut registrations = self.shards[shard].0.lock();
        let read_point = early.unwrap_or_else(now);
        let number = match ages && self.max_age.is_some() {
            true => {
                registrations.next += 1;
                registrations.next
            }
            false => LASTING,
        };
        registrations.enter((read_point.timestamp, number), &self.host);
        registrations.held[kind as usize] += 1;
        Registration { read_point, number, shard: shard as u32, kind }
    }

    /// Releases a snapshot, even one that was ended for its age.
    pub(crate) fn release(&self, registration: Registration) {
        let mut registrations = self.shards[registration.shard as usize].0.lock();
        registrations.held[registration.kind as usize] -= 1;
        if planted("one-snapshot-stays") && registrations.is_last_at(registration.place(), 3) {
            return;
        }
        registrations.leave(registration.place());
    }

    /// Returns whether the snapshot was ended for its age. Call it after a read: if it returns false,
    /// every version that the read needed was still there. Costs nothing if ages are not limited.
    fn has_ended(&self, registration: Registration) -> bool {
        registration.number != LASTING && {
            let registrations = self.shards[registration.shard as usize].0.lock();
            let found = registrations.find(registration.place());
            !found.is_ok_and(|index| !registrations.sorted[index].is_gap())
        }
    }

    /// Checks that everything read so far is what the snapshot shows.
    ///
    /// # Errors
    ///
    /// [`FluxError::SnapshotTooOld`] if the snapshot was ended, so that versions may have been freed.
    pub(crate) fn check(&self, registration: Registration) -> Result<(), FluxError> {
        match self.max_age {
            Some(max_age) if self.has_ended(registration) => Err(FluxError::SnapshotTooOld { max_age }),
            _ => Ok(()),
        }
    }

    /// Ends the snapshots that are too old at `now`; returns when the next one will be.
    pub(crate) fn end_old(&self, now: Instant) -> Option<Instant> {
        let max_age = self.max_age?;
        let max_age = if planted("snapshots-end-early") { max_age / 2 } else { max_age };
        // Do not look more often than waking a thread is worth.
        let mut next = now.checked_add(max_age.max(SHORTEST_AGE));
        for shard in &self.shards {
            let mut registrations = shard.0.lock();
            let aging = |live: &&mut SnapshotGroup| !live.is_gap() && live.place.1 != LASTING;
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

    /// Returns the timestamps that are being read now, or may be read later.
    pub(crate) fn horizon(&self, clock: &Clock) -> Horizon {
        // Read the clock before visiting the shards: see the top of the file.
        let now = if planted("horizon-is-applied") { clock.applied() } else { clock.stable() };
        let mut live = Vec::new();
        for shard in self.shards.iter().filter(|_| !planted("trimming-ignores-snapshots")) {
            live.extend(shard.0.lock().live().map(|live| live.place.0));
        }
        Horizon::new(now, live)
    }

    /// Returns how many snapshots are live, of all kinds together.
    pub(crate) fn count(&self) -> usize {
        let count = |shard: &Shard| shard.0.lock().live().map(|live| live.count).sum::<usize>();
        self.shards.iter().map(count).sum()
    }

    /// Returns how many snapshots of one kind have not been released, whether they are live or were
    /// ended.
    pub(crate) fn held(&self, kind: ReaderKind) -> usize {
        self.shards.iter().map(|shard| shard.0.lock().held[kind as usize]).sum()
    }

    /// Returns when the oldest live snapshot began. Snapshots that began one after another at the same
    /// timestamp on the same thread may count as old as the first of them.
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
        assert_eq!((old.read_point.timestamp, young.read_point.timestamp), (5, 9));
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
            // The timestamps go forward on the whole, and back now and then; the oldest snapshots stay.
            let timestamp = 900 + step / 4 - step % 7 % 3 * (step % 90);
            model.push(active.register(ReaderKind::Snapshot, true, || timestamp.into()));
            if step % 9 < 5 {
                let gone = model.swap_remove((step * 7919) as usize % model.len());
                active.release(gone);
            }
            if step == 1_500 {
                model.drain(20..).for_each(|gone| active.release(gone));
            }
            let live = || model.iter().map(|registration| registration.read_point.timestamp);
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
