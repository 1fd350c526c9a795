//! Lives: each opens the database, runs its clients and ends it. The next life continues with the disk
//! as the crash has left it.

use crate::board::Board;
use crate::chores;
use crate::client::{Client, Db, Scene};
use crate::disk::WorldDisk;
use crate::files::LogFiles;
use crate::pen::pairs;
use crate::plan::{Death, Durability, Life, Outline, World};
use crate::rest;
use crate::timeline::{Held, Leeway, State, Timeline};
use crate::value::{self, Value};
use fluxmap_shuttle::mem::EvictionPolicy;
use fluxmap_shuttle::persistence::PersistenceOptions;
use fluxmap_shuttle::waits::waiting;
use fluxmap_shuttle::{Database, FluxError, IsolationLevel, PersistenceError, VacuumOptions, virtual_time};
use fluxmap_testkit::disk::{Loss, SimDisk};
use fluxmap_testkit::history::{History, Process, Stamps};
use fluxmap_testkit::op::{Committed, Op};
use rand::Rng;
use rand::rngs::StdRng;
use shuttle::future::block_on;
use shuttle::thread::{self, JoinHandle};
use std::sync::Arc;

/// The directory of the database.
pub(crate) const DIRECTORY: &str = "db";

/// The number of write numbers that each client has in each life. No other client or life uses them.
const WRITES: u64 = 1 << 20;

/// Runs all lives of a world, one after the other, as the first task of a schedule.
pub(crate) fn all(world: &World, board: &Board) {
    value::begin();
    let outline = world.outline();
    let mut account = Account {
        timeline: Timeline::new(board.clone()),
        disk: SimDisk::new(world.seed),
        // Any level will do, because nothing is written yet.
        written_with: Durability::Full,
        latest: 0,
        gives_lives: false,
    };
    for number in 0..outline.lives {
        let life = Arc::new(world.life(outline, number));
        board.count(|counts| counts.lives += 1);
        board.clear();
        board.note("world", format!("life {number} of {:?}: {life:?}", outline.profile));
        live(world, outline, number, &life, board, &mut account);
        board.raise();
        if value::alive() != 0 {
            board.anomaly(format!("{} values are alive after life {number}", value::alive()));
            board.raise();
        }
    }
}

/// The state that is passed from life to life.
struct Account {
    timeline: Timeline,
    disk: SimDisk,
    /// The durability level of the life that wrote the files.
    written_with: Durability,
    /// The latest time of day of all lives, in milliseconds since 1970.
    latest: u64,
    /// Whether a policy has given keys a time to live since the files were created.
    gives_lives: bool,
}

fn live(
    world: &World,
    outline: Outline,
    number: usize,
    life: &Arc<Life>,
    board: &Board,
    account: &mut Account,
) {
    let mut rng = world.rng(10_000 + number as u64);
    let disk = outline.is_durable.then(|| prepare_disk(life, account, board, &mut rng));
    // A database in memory is empty at the beginning of each life.
    if disk.is_none() {
        account.timeline = Timeline::new(board.clone());
    }
    // The database must cope with a machine clock that was set forward or back between two lives.
    if rng.random_bool(0.2) {
        virtual_time::set_time_of_day(rng.random_range(-3_600_000..3_600_000));
    }
    let faults = disk.as_ref().map(|disk| disk.faults.clone()).unwrap_or_default();
    let timeline = account.timeline.clone().on_disk(faults.clone());
    let scene = Scene {
        life: Arc::clone(life),
        timeline: timeline.clone(),
        board: board.clone(),
        stamps: Arc::new(Stamps::default()),
        began: (account.latest, virtual_time::elapsed()),
        faults,
    };
    board.note("world", "opens the database");
    // Do this even if opening fails, because it may write a checkpoint before it does.
    account.gives_lives |= life.eviction_ttl.is_some();
    let failed = match open(&scene, disk.as_ref()) {
        Ok(db) => {
            if disk.is_some() {
                account.written_with = life.durability;
            }
            let recovered = db.recovery_info().map_or(0, |info| info.last_commit);
            if db.recovery_info().is_some_and(|info| info.torn_tail.is_some()) {
                board.event("torn tails");
            }
            board.note("world", format!("recovered up to commit {recovered}"));
            if disk.is_some() {
                board.count(|counts| counts.checks += 1);
            }
            let leeway = Leeway {
                has_limit: life.limit.is_some(),
                keys_go: life.limit.is_some() || life.chores.evictions > 0,
                gives_lives: account.gives_lives,
                now: scene.now(),
            };
            if let Err(what) = timeline.opened(recovered, leeway) {
                board.anomaly(what);
                board.raise();
            }
            run(db, &scene, disk.as_ref(), number, &mut rng)
        }
        Err(error) => {
            board.note("world", format!("could not be opened: {error:?}"));
            if !scene.faults.have_fired() || !is_of_the_disk(&error) {
                board.anomaly(format!("the database cannot be opened: {error}, {error:?}"));
            }
            true
        }
    };
    board.raise();
    account.latest = scene.now();
    if let Some(disk) = disk {
        account.after_death(life, &disk, failed, board);
    }
}

/// Returns whether an error says that the disk failed, and not that the files are damaged.
fn is_of_the_disk(error: &FluxError) -> bool {
    match error {
        FluxError::Persistence(source)
        | FluxError::FatalPersistenceError { source }
        | FluxError::OutcomeUnknown { source } => {
            matches!(source, PersistenceError::Io { .. } | PersistenceError::Unavailable(_))
        }
        _ => false,
    }
}

/// Returns the disk of this life, with its faults.
fn prepare_disk(life: &Life, account: &mut Account, board: &Board, rng: &mut StdRng) -> WorldDisk {
    let sim = account.disk.clone();
    // If reads are counted, they can fail too, and the machine can stop at one.
    sim.count_reads(life.counts_reads);
    if let Some(call) = life.crash {
        sim.crash_at(call);
    }
    if let Some(failure) = life.failure {
        match failure.for_ever {
            true => sim.fail_from(failure.call, failure.kind),
            false => sim.fail_once(failure.call, failure.kind),
        }
    }
    if let Some(bytes) = life.capacity {
        sim.set_capacity(bytes);
    }
    if life.slowness > 4 {
        board.fault("slow disks");
    }
    let log = LogFiles::new(life, board, &sim);
    WorldDisk::new(sim, life.slowness, rand::SeedableRng::seed_from_u64(rng.random()), log)
}

fn open(scene: &Scene, disk: Option<&WorldDisk>) -> Result<Db, FluxError> {
    let life = &scene.life;
    let observed = scene.clone();
    let mut builder = Database::<String, Value>::builder().isolation_level(life.isolation).observer(
        move |timestamp, key: &String, value: Option<&Arc<Value>>, expires| {
            let held = value.map(|value| Held { id: value.id, expires });
            observed.timeline.publish(timestamp, key, held, observed.now());
        },
    );
    if let Some(interval) = life.vacuum {
        builder = builder.auto_vacuum(VacuumOptions { interval });
    }
    if let Some(age) = life.max_age {
        builder = builder.max_snapshot_age(age);
    }
    if let Some((limit, policy)) = life.limit {
        builder = builder.max_memory(limit).eviction_policy(policy);
    } else if life.eviction_ttl.is_some() {
        builder = builder.eviction_policy(EvictionPolicy::Ttl);
    }
    if let Some(ttl) = life.eviction_ttl {
        builder = builder.eviction_ttl(ttl);
    }
    let Some(disk) = disk else { return block_on(builder.build()) };
    let options = PersistenceOptions {
        wal_path: DIRECTORY.into(),
        wal_pool_size: life.pool,
        wal_segment_size_bytes: life.segment,
    };
    let builder = builder.disk(Arc::new(disk.clone()));
    match life.durability {
        Durability::InMemory => unreachable!("only a durable life has a disk"),
        Durability::Full => block_on(builder.durability_full(options).build()),
        Durability::Relaxed { interval, commits, bytes } => {
            let relaxed = builder.durability_relaxed(options);
            // The plan sets at least one of the three limits.
            let mut relaxed = match (interval, commits, bytes) {
                (Some(interval), ..) => relaxed.flush_interval(interval),
                (_, Some(commits), _) => relaxed.flush_after_commits(commits),
                (.., bytes) => relaxed.flush_after_bytes(bytes.unwrap_or(1)),
            };
            if let Some(commits) = commits {
                relaxed = relaxed.flush_after_commits(commits);
            }
            if let Some(bytes) = bytes {
                relaxed = relaxed.flush_after_bytes(bytes);
            }
            block_on(relaxed.build())
        }
    }
}

/// Runs a life from after opening to its end. Returns whether the database had failed.
fn run(db: Db, scene: &Scene, disk: Option<&WorldDisk>, number: usize, rng: &mut StdRng) -> bool {
    let (board, life, timeline) = (&scene.board, &scene.life, &scene.timeline);
    let state = timeline.state(timeline.last()).unwrap_or_default();
    let keys_go = keys_go(life, &state);
    let initial = initial_process(scene, state);
    let clients: Vec<_> = (0..life.clients)
        .map(|client| {
            let name = format!("client-{client}");
            // Add 1, so that the numbers have as many digits in the first life as in later ones: a habit
            // may need values of one length.
            let first = ((number as u64 + 1) * 16 + client as u64) * WRITES;
            let rng = rand::SeedableRng::seed_from_u64(rng.random());
            let client = Client::new(name.clone(), db.clone(), scene.clone(), rng, first);
            thread::Builder::new()
                .name(name)
                .spawn(move || client.run())
                .expect("a task can always be started")
        })
        .collect();
    let chores = chores::start(&db, scene, disk, rng);
    board.note("world", "waits for the clients");
    let mut processes = vec![initial];
    let end =
        |task: JoinHandle<_>| waiting("a client to end", || task.join()).expect("a panic ends the world");
    processes.extend(clients.into_iter().map(end));
    board.note("world", "waits for the chores");
    let end =
        |task: JoinHandle<_>| waiting("a chore to end", || task.join()).expect("a panic ends the world");
    chores.into_iter().for_each(end);
    board.raise();
    rest::check(&db, scene);
    let leases = db.priority_info();
    board.events("leases", leases.leases);
    board.events("commits held back", leases.held_back);
    board.raise();
    let has_failed = block_on(db.flush()).is_err();
    // After a failure, a client may not know whether its commit has happened, so there is no full history.
    if !keys_go && !has_failed && !disk.is_some_and(|disk| disk.sim.has_crashed()) {
        check_history(processes, &db, scene);
    }
    board.note("world", "ends the database");
    if let Some(disk) = disk {
        // The end of a life writes all queued records, even if the log then exceeds its bound (F1).
        disk.log.end();
    }
    let closed = match life.closes {
        true => block_on(db.close()),
        false => {
            drop(db);
            Ok(())
        }
    };
    let closed = scene.judge("world", closed).is_ok();
    let has_failed = has_failed || !closed || disk.is_some_and(|disk| disk.sim.has_crashed());
    // Closing or dropping a database syncs everything, unless a fault may have prevented it.
    if !has_failed && !scene.faults.have_fired() {
        timeline.closed();
    }
    has_failed
}

/// Returns whether keys may be evicted or expire in a life that begins with this state.
fn keys_go(life: &Life, state: &State) -> bool {
    let evicts = life.limit.is_some() || life.eviction_ttl.is_some() || life.chores.evictions > 0;
    evicts || life.diet.expiring || state.values().any(|held| held.expires != 0)
}

/// Returns the initial pairs, as written by a transaction of their own.
fn initial_process(scene: &Scene, state: State) -> Process<String, u64> {
    let begin = scene.stamps.next();
    let ops = state.into_iter().map(|(key, held)| Op::Put { key, value: held.id }).collect();
    let end = scene.stamps.next();
    Process { committed: vec![Committed { begin, end, ops }], refused: 0 }
}

/// Checks the history of all clients with the checker that does not use timestamps. The caller leaves this
/// out if keys may be evicted or expire, because a history does not say when they do.
fn check_history(mut processes: Vec<Process<String, u64>>, db: &Db, scene: &Scene) {
    if scene.life.isolation != IsolationLevel::Serializable {
        return;
    }
    let begin = scene.stamps.next();
    let Ok(items) = pairs(db.snapshot().range(..)) else { return };
    let scan = fluxmap_testkit::op::Scan::all();
    let last = Committed { begin, end: scene.stamps.next(), ops: vec![Op::Scan { scan, items }] };
    processes.push(Process { committed: vec![last], refused: 0 });
    let history = History { processes };
    scene.board.count(|counts| counts.checks += 1);
    if !history.is_strictly_serializable() {
        scene.board.anomaly(format!("this history has no serial order:\n{history}"));
    }
}

impl Account {
    /// Sets the disk and the timeline to the state that the crash leaves for the next life.
    fn after_death(&mut self, life: &Life, disk: &WorldDisk, failed: bool, board: &Board) {
        let sim = &disk.sim;
        let crashed = if life.midway { sim.frozen_midway() } else { sim.frozen() };
        let image = match crashed {
            Some(frozen) => {
                board.count(|counts| counts.crashes_amid_calls += 1);
                frozen
            }
            None => sim.process_death(),
        };
        if failed || !life.closes {
            board.count(|counts| {
                counts.crashes += 1;
                counts.power_cuts += u64::from(life.death != Death::Process);
            });
        }
        // Only a power cut can lose acknowledged commits, and only those that relaxed durability may leave
        // unsynced.
        let slack = match (life.death, self.written_with) {
            (Death::Process, _) | (_, Durability::Full | Durability::InMemory) => 0,
            (Death::Power(_), Durability::Relaxed { commits, .. }) => {
                commits.map_or(u64::MAX, |commits| commits as u64)
            }
        };
        self.disk = match life.death {
            Death::Process => image.process_death(),
            Death::Power(loss) => {
                board.fault(match loss {
                    Loss::Everything => "power cuts that take all",
                    Loss::Nothing => "power cuts that take nothing",
                    Loss::Random(_) => "power cuts that tear and reorder",
                });
                let left = image.power_cut(loss);
                let (before, after) = (image.files(), left.files());
                if before.keys().ne(after.keys()) {
                    board.fault("power cuts that take names");
                }
                left
            }
        };
        board.note("world", format!("dies of {:?}, failed: {failed}", life.death));
        self.timeline = self.timeline.next_life(slack);
    }
}
