//! Background work beside the clients: checkpoints, backups, vacuums, evictions, and the passing of time.

use crate::client::{Db, Outcome, Scene};
use crate::disk::WorldDisk;
use crate::pen::{Pen, pairs};
use crate::value::Value;
use fluxmap_shuttle::persistence::PersistenceOptions;
use fluxmap_shuttle::{Database, virtual_time};
use rand::Rng;
use rand::rngs::StdRng;
use shuttle::future::block_on;
use shuttle::thread::{self, JoinHandle};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// The size in bytes at which a block of a checkpoint is full, and a new one begins.
const FULL_BLOCK: u64 = 256 << 10;

/// One run of a chore that is repeated.
type Work = fn(&Db, &Scene, &mut StdRng);

type Chore = Box<dyn FnOnce(&Db, &Scene, &mut StdRng) + Send>;

/// Starts the background work of a life.
pub(crate) fn start(
    db: &Db,
    scene: &Scene,
    disk: Option<&WorldDisk>,
    rng: &mut StdRng,
) -> Vec<JoinHandle<()>> {
    let chores = scene.life.chores;
    let mut all: Vec<(&str, u32, Work)> = vec![
        ("vacuum", chores.vacuums, vacuum),
        ("evictor", chores.evictions, evict),
        ("time", chores.ticks, tick),
    ];
    if disk.is_some() {
        all.push(("checkpoint", chores.checkpoints, checkpoint));
        all.push(("flush", chores.vacuums, flush));
    }
    let mut running = Vec::new();
    let mut begin = |name: &str, times: u32, chore: Chore| {
        let (db, scene, mut rng) =
            (db.clone(), scene.clone(), rand::SeedableRng::seed_from_u64(rng.random()));
        let name = name.to_owned();
        let builder = thread::Builder::new().name(name.clone());
        let body = move || {
            scene.board.note(&name, format!("begins, {times} times"));
            chore(&db, &scene, &mut rng);
            scene.board.note(&name, "is done");
        };
        running.push(builder.spawn(body).expect("a task can always be started"));
    };
    for (name, times, chore) in all {
        if times > 0 {
            let repeat: Chore = Box::new(move |db, scene, rng| {
                for _ in 0..times {
                    pause(rng);
                    chore(db, scene, rng);
                }
            });
            begin(name, times, repeat);
        }
    }
    if let Some(disk) = disk.filter(|_| chores.backups > 0) {
        let disk = disk.clone();
        begin(
            "backup",
            1,
            Box::new(move |db, scene, rng| {
                pause(rng);
                backup(db, scene, &disk, rng);
            }),
        );
    }
    running
}

fn pause(rng: &mut StdRng) {
    for _ in 0..rng.random_range(0..60) {
        thread::yield_now();
    }
}

fn vacuum(db: &Db, scene: &Scene, _rng: &mut StdRng) {
    let _ = scene.judge("vacuum", block_on(db.vacuum()));
    let (applied, stable) = db.watermarks();
    if stable > applied {
        scene.board.anomaly(format!("{stable} is stable, but only {applied} is applied"));
    }
}

fn tick(_db: &Db, _scene: &Scene, rng: &mut StdRng) {
    virtual_time::advance(Duration::from_millis(rng.random_range(0..300)));
}

fn evict(db: &Db, scene: &Scene, rng: &mut StdRng) {
    let key = Pen::new(&scene.life.diet, 0).key(rng);
    let floor = scene.timeline.floor();
    scene.board.note("evictor", format!("evicts {key}"));
    if let Ok(Outcome::Done(true)) = scene.judge("evictor", block_on(db.evict(key.as_str())))
        && scene.timeline.find(floor, &BTreeMap::from([(key.clone(), None)])).is_none()
    {
        scene.board.anomaly(format!("{key} was evicted, which was never published"));
    }
}

fn flush(db: &Db, scene: &Scene, _rng: &mut StdRng) {
    let committed = scene.timeline.floor();
    scene.board.note("flush", "flushes");
    if let Ok(Outcome::Done(())) = scene.judge("flush", block_on(db.flush())) {
        scene.timeline.synced(committed);
    }
}

fn checkpoint(db: &Db, scene: &Scene, _rng: &mut StdRng) {
    scene.board.note("checkpoint", "asks for a checkpoint");
    if let Ok(Outcome::Done(info)) = scene.judge("checkpoint", block_on(db.checkpoint())) {
        scene.board.note("checkpoint", format!("covers {}", info.commit));
        if info.bytes > FULL_BLOCK {
            scene.board.event("checkpoints of several blocks");
        }
        // The caller has been told which commit the checkpoint covers, so the commit must survive from
        // now on.
        scene.timeline.synced(info.commit);
    }
}

/// Makes a backup, and checks that it can be opened and holds one whole state.
fn backup(db: &Db, scene: &Scene, disk: &WorldDisk, rng: &mut StdRng) {
    let floor = scene.timeline.floor();
    scene.board.note("backup", "begins a backup");
    let path = PathBuf::from(format!("backup-{}", rng.random::<u32>()));
    let made = scene.judge("backup", block_on(db.backup_to(&path, |_| {})));
    if !matches!(made, Ok(Outcome::Done(()))) || disk.sim.has_crashed() {
        return;
    }
    let options = PersistenceOptions { wal_path: path, wal_pool_size: 2, wal_segment_size_bytes: 65_536 };
    let builder = Database::<String, Value>::builder().disk(Arc::new(disk.clone())).durability_full(options);
    let copy = match block_on(builder.build()) {
        Ok(copy) => copy,
        // The faults of the disk go on, and affect the directory of the backup too.
        Err(error) if scene.faults.have_fired() => {
            return scene.board.note("backup", format!("not opened: {error:?}"));
        }
        Err(error) => return scene.board.anomaly(format!("a backup cannot be opened: {error:?}")),
    };
    scene.board.count(|counts| counts.checks += 1);
    let Some(covered) = copy.recovery_info().map(|info| info.last_commit) else { return };
    let Ok(holds) = pairs(copy.snapshot().range(..)) else { return };
    let holds: BTreeMap<String, u64> = holds.into_iter().collect();
    let now = scene.now();
    let expected = scene.timeline.state(covered).unwrap_or_default();
    // The time of the copy is unknown, so keys that have expired by now may be missing.
    let is_same = expected.iter().all(|(key, held)| match holds.get(key) {
        Some(id) => *id == held.id,
        None => held.expires != 0 && held.expires <= now,
    });
    if covered < floor || !is_same || holds.keys().any(|key| !expected.contains_key(key)) {
        scene.board.anomaly(format!(
            "a backup begun at {floor} or later holds {holds:?} as of {covered}, but the state was {expected:?}"
        ));
    }
}
