//! Draws, from a seed, the configuration of each life, its faults and its end.

use fluxmap_shuttle::IsolationLevel;
use fluxmap_shuttle::mem::EvictionPolicy;
use fluxmap_testkit::disk::Loss;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::io::ErrorKind;
use std::time::Duration;

/// The emphasis of a world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Profile {
    /// Few keys, many conflicts.
    Contention,
    /// A crash every few dozen disk calls.
    Recovery,
    /// Memory limits, keys that expire, evictions.
    Eviction,
    /// Snapshots and transactions that are held for a long time.
    LongReaders,
    /// A disk that is slow, gets full and fails.
    SlowDisk,
}

impl Profile {
    /// All profiles.
    pub const ALL: [Profile; 5] =
        [Profile::Contention, Profile::Recovery, Profile::Eviction, Profile::LongReaders, Profile::SlowDisk];
}

/// A world: a seed, and bounds that make the world smaller than the seed alone would.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct World {
    /// The seed from which everything is drawn.
    pub seed: u64,
    /// The profile, if it is not to be the one that the seed picks.
    pub profile: Option<Profile>,
    /// The maximum number of clients.
    pub clients: Option<usize>,
    /// The maximum number of operations of each client in each life.
    pub operations: Option<usize>,
    /// The maximum number of lives.
    pub lives: Option<usize>,
    /// The number of schedule steps after which the world counts as hanging, if not the usual one.
    pub steps: Option<usize>,
}

/// The maximum number of operations that a client is given in one life.
pub(crate) const MOST_OPERATIONS: usize = 30;

impl World {
    /// The world of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        World { seed, profile: None, clients: None, operations: None, lives: None, steps: None }
    }

    /// Returns a random generator for one part of the world, independent of the other parts.
    pub(crate) fn rng(&self, part: u64) -> StdRng {
        StdRng::seed_from_u64(
            self.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ part.wrapping_mul(0xD1B5_4A32_D192_ED03),
        )
    }

    /// Returns the world's profile.
    #[must_use]
    pub fn profile(&self) -> Profile {
        let drawn = Profile::ALL[self.rng(1).random_range(0..Profile::ALL.len())];
        self.profile.unwrap_or(drawn)
    }
}

/// When a commit is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durability {
    InMemory,
    Full,
    Relaxed { interval: Option<Duration>, commits: Option<usize>, bytes: Option<u64> },
}

/// The cause of a crash, for a life that does not end with a close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Death {
    Process,
    Power(Loss),
}

/// A disk call that fails.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Failure {
    pub(crate) call: u64,
    pub(crate) kind: ErrorKind,
    pub(crate) for_ever: bool,
}

/// The plan of one life, which lasts from opening the database to its end.
#[derive(Clone, Debug)]
pub(crate) struct Life {
    pub(crate) durability: Durability,
    pub(crate) isolation: IsolationLevel,
    pub(crate) vacuum: Option<Duration>,
    pub(crate) max_age: Option<Duration>,
    pub(crate) limit: Option<(u64, EvictionPolicy)>,
    /// The time to live of each key, under `EvictionPolicy::Ttl`.
    pub(crate) eviction_ttl: Option<Duration>,
    pub(crate) segment: u64,
    pub(crate) pool: usize,
    pub(crate) slowness: u32,
    /// Whether disk calls that change nothing are counted too, and so can fail or be the point of a crash.
    pub(crate) counts_reads: bool,
    pub(crate) capacity: Option<u64>,
    pub(crate) failure: Option<Failure>,
    /// The number of the disk call at which the machine stops.
    pub(crate) crash: Option<u64>,
    /// Whether that call has taken effect in part when the machine stops.
    pub(crate) midway: bool,
    pub(crate) death: Death,
    /// Whether the database is closed at the end of the life, and not only dropped.
    pub(crate) closes: bool,
    pub(crate) clients: usize,
    pub(crate) operations: usize,
    pub(crate) chores: Chores,
    /// The keys and values of the clients.
    pub(crate) diet: Diet,
}

/// How often each kind of background work is done beside the clients.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chores {
    pub(crate) checkpoints: u32,
    pub(crate) backups: u32,
    pub(crate) vacuums: u32,
    pub(crate) evictions: u32,
    /// How often the clock is advanced.
    pub(crate) ticks: u32,
}

/// The operations that the clients of a world do most: some faults show only if one operation is
/// repeated very often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Habit {
    /// All operations.
    Mixed,
    /// Gets of one or two keys, beside short writes to these keys and vacuums. A get without a snapshot
    /// may be overtaken by a write between any two of its steps.
    Gets,
    /// Writes of one length in the log, with values of this many bytes. Where the log breaks off, a
    /// complete frame begins that an earlier use of the file has left.
    OneLength(usize),
    /// Transactions on two or three keys that are retried after each conflict, so that some get leases.
    Conflicts,
    /// Hundreds of keys, of which one commit may write this many. Blocks of a checkpoint get full, the
    /// index has several runs, and streams let others run several times.
    Large(usize),
}

/// The keys and values of a life.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Diet {
    pub(crate) habit: Habit,
    pub(crate) keys: u64,
    pub(crate) largest: usize,
    /// Whether values may be given a time to live.
    pub(crate) expiring: bool,
    /// The maximum number of snapshots that a client holds.
    pub(crate) snapshots: usize,
    /// The maximum number of steps of a transaction.
    pub(crate) steps: usize,
}

/// The settings that stay the same from life to life.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outline {
    pub(crate) profile: Profile,
    pub(crate) habit: Habit,
    pub(crate) is_durable: bool,
    pub(crate) lives: usize,
}

impl World {
    pub(crate) fn outline(&self) -> Outline {
        let mut rng = self.rng(2);
        let profile = self.profile();
        let is_durable = match profile {
            Profile::Recovery | Profile::SlowDisk => true,
            _ => rng.random_bool(0.5),
        };
        let lives = match profile {
            Profile::Recovery => rng.random_range(4..=8),
            _ => 3,
        };
        let habit = habit(&mut rng, profile, is_durable);
        Outline { profile, habit, is_durable, lives: lives.min(self.lives.unwrap_or(usize::MAX)) }
    }

    /// Draws life number `number`.
    pub(crate) fn life(&self, outline: Outline, number: usize) -> Life {
        let mut rng = self.rng(100 + number as u64);
        let rng = &mut rng;
        let profile = outline.profile;
        let millis = |rng: &mut StdRng, most: u64| Duration::from_millis(rng.random_range(1..=most));
        let is_evicting = profile == Profile::Eviction;
        let limited = rng.random_bool(if is_evicting { 0.8 } else { 0.05 });
        let is_large = matches!(outline.habit, Habit::Large(_));
        let scale = if is_large { 100 } else { 1 };
        let limit = limited.then(|| (rng.random_range(600..4000) * scale, policy(rng)));
        let has_ttl_policy = match limit {
            Some((_, policy)) => policy == EvictionPolicy::Ttl,
            None => is_evicting && rng.random_bool(0.3),
        };
        let habit = outline.habit;
        let is_even = matches!(habit, Habit::OneLength(_));
        // A quiet life asks for no checkpoint and no flush: a sync adds a mark of another length to the
        // log.
        let is_quiet = is_even && rng.random_bool(0.6);
        let operations = operations(rng, profile, habit);
        Life {
            durability: if outline.is_durable { durability(rng, habit) } else { Durability::InMemory },
            isolation: match rng.random_range(0..4) {
                0 => IsolationLevel::Snapshot,
                _ => IsolationLevel::Serializable,
            },
            vacuum: rng.random_bool(0.3).then(|| millis(rng, 500)),
            max_age: rng
                .random_bool(if profile == Profile::LongReaders { 0.3 } else { 0.1 })
                .then(|| millis(rng, 2_000)),
            limit,
            eviction_ttl: has_ttl_policy.then(|| millis(rng, 1_000)),
            segment: *pick(rng, &[4096, 4096, 5000, 8192, 65_536]),
            pool: rng.random_range(1..=4),
            slowness: if profile == Profile::SlowDisk {
                rng.random_range(2..60)
            } else {
                rng.random_range(0..4)
            },
            counts_reads: rng.random_bool(0.7),
            capacity: (profile == Profile::SlowDisk && rng.random_bool(0.3))
                .then(|| rng.random_range(8_000..60_000) * scale),
            failure: rng.random_bool(if profile == Profile::SlowDisk { 0.5 } else { 0.1 }).then(|| Failure {
                call: rng.random_range(1..120),
                kind: *pick(rng, &[ErrorKind::Other, ErrorKind::StorageFull, ErrorKind::PermissionDenied]),
                for_ever: rng.random_bool(0.3),
            }),
            crash: crash(rng, profile, is_even),
            midway: rng.random(),
            death: death(rng, habit),
            closes: rng.random(),
            clients: (if is_large { 2 } else { rng.random_range(2..=4) })
                .min(self.clients.unwrap_or(usize::MAX)),
            operations: operations.min(self.operations.unwrap_or(usize::MAX)),
            chores: chores(rng, profile, habit, is_quiet),
            diet: diet(rng, profile, habit),
        }
    }
}

/// Returns the number of operations of each client.
fn operations(rng: &mut StdRng, profile: Profile, habit: Habit) -> usize {
    match (habit, profile) {
        (Habit::Gets, _) => rng.random_range(10..=MOST_OPERATIONS),
        (Habit::OneLength(_), _) => rng.random_range(3..=20),
        (Habit::Conflicts, _) => rng.random_range(5..=20),
        (Habit::Large(_), _) => rng.random_range(2..=8),
        (Habit::Mixed, Profile::Recovery) => rng.random_range(2..=10),
        (Habit::Mixed, Profile::Contention) => rng.random_range(5..=20),
        (Habit::Mixed, _) => rng.random_range(4..=14),
    }
}

fn chores(rng: &mut StdRng, profile: Profile, habit: Habit, is_quiet: bool) -> Chores {
    Chores {
        checkpoints: if is_quiet { 0 } else { rng.random_range(0..3) },
        backups: if rng.random_bool(0.3) { 1 } else { 0 },
        vacuums: match habit {
            Habit::Gets => rng.random_range(10..40),
            _ if is_quiet => 0,
            _ => rng.random_range(0..3),
        },
        evictions: if profile == Profile::Eviction { rng.random_range(0..4) } else { 0 },
        ticks: rng.random_range(0..10),
    }
}

fn diet(rng: &mut StdRng, profile: Profile, habit: Habit) -> Diet {
    Diet {
        habit,
        keys: match (habit, profile) {
            (Habit::Gets, _) => rng.random_range(1..=2),
            (Habit::Conflicts, _) => rng.random_range(2..=3),
            (Habit::Large(_), _) => rng.random_range(150..=400),
            (_, Profile::Contention) => rng.random_range(2..=4),
            _ => rng.random_range(3..=14),
        },
        largest: match habit {
            Habit::OneLength(length) => length,
            Habit::Large(_) => *pick(rng, &[0, 100, 2000]),
            _ => *pick(rng, &[0, 40, 200, 600]),
        },
        expiring: rng.random_bool(match habit {
            Habit::OneLength(_) => 0.0,
            _ if profile == Profile::Eviction => 0.6,
            _ if profile == Profile::Contention => 0.4,
            _ => 0.25,
        }),
        snapshots: if profile == Profile::LongReaders { 4 } else { 1 },
        steps: rng.random_range(2..=6),
    }
}

fn pick<'a, T>(rng: &mut StdRng, from: &'a [T]) -> &'a T {
    &from[rng.random_range(0..from.len())]
}

fn habit(rng: &mut StdRng, profile: Profile, is_durable: bool) -> Habit {
    const LARGE: f64 = 0.02;
    let (gets, one_length, conflicts) = match profile {
        Profile::Contention => (0.3, 0.0, 0.2),
        Profile::Recovery => (0.0, 0.5, 0.0),
        Profile::SlowDisk => (0.0, 0.3, 0.0),
        Profile::Eviction | Profile::LongReaders => (0.1, 0.0, 0.0),
    };
    let length = *pick(rng, &[0, 0, 100, 400, 900]);
    match rng.random::<f64>() {
        drawn if drawn < LARGE => Habit::Large(rng.random_range(100..=800)),
        drawn if drawn < LARGE + gets => Habit::Gets,
        drawn if drawn < LARGE + gets + conflicts => Habit::Conflicts,
        drawn if is_durable && drawn < LARGE + gets + one_length => Habit::OneLength(length),
        _ => Habit::Mixed,
    }
}

fn policy(rng: &mut StdRng) -> EvictionPolicy {
    use EvictionPolicy::{Arc, Lfu, Lru, Manual, Random, S3Fifo, Ttl};
    *pick(rng, &[Lru, Lfu, Random, Arc, Ttl, Manual, S3Fifo])
}

fn durability(rng: &mut StdRng, habit: Habit) -> Durability {
    if matches!(habit, Habit::OneLength(_)) && rng.random_bool(0.6) {
        // Leave many frames unsynced, so that a power cut takes one frame and leaves others behind it.
        let commits = Some(rng.random_range(10..100));
        return Durability::Relaxed { interval: None, commits, bytes: None };
    }
    if rng.random_bool(0.6) {
        return Durability::Full;
    }
    let limits = rng.random_range(1..8_u32);
    Durability::Relaxed {
        interval: (limits & 1 != 0).then(|| Duration::from_millis(rng.random_range(1..200))),
        commits: (limits & 2 != 0).then(|| rng.random_range(1..20)),
        bytes: (limits & 4 != 0).then(|| rng.random_range(1..4000)),
    }
}

/// Draws the number of the disk call at which the machine stops, if it is to stop.
fn crash(rng: &mut StdRng, profile: Profile, is_even: bool) -> Option<u64> {
    let is_there = match profile {
        Profile::Recovery => 0.85,
        Profile::SlowDisk => 0.3,
        _ => 0.4,
    };
    rng.random_bool(is_there).then(|| {
        let magnitude = if is_even { rng.random_range(1.0..2.0) } else { rng.random_range(0.0..2.3) };
        10_f64.powf(magnitude) as u64
    })
}

fn death(rng: &mut StdRng, habit: Habit) -> Death {
    let kinds = if matches!(habit, Habit::OneLength(_)) { 8 } else { 5 };
    match rng.random_range(0..kinds) {
        0 => Death::Process,
        1 => Death::Power(Loss::Everything),
        2 => Death::Power(Loss::Nothing),
        _ => Death::Power(Loss::Random(rng.random())),
    }
}
