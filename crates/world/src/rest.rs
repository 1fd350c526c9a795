//! What must hold when nobody does anything: the books, and that nothing is left behind.

use crate::client::{Db, Scene};
use crate::disk::WorldDisk;
use crate::life::DIRECTORY;
use crate::plan::Durability;
use crate::script::pairs;
use shuttle::future::block_on;
use std::path::Path;
use std::pin::Pin;

use futures_core::Stream;
use std::future::poll_fn;

/// The files of the log keep to the bound that the pool is. One segment may be under way beside
/// it, and a commit may be larger than a segment.
pub(crate) fn check_files(disk: &WorldDisk, scene: &Scene) {
    const SMALLEST: u64 = 4096;
    let is_log = |path: &Path| {
        let name = path.file_name().map(|name| name.to_string_lossy().starts_with("wal."));
        path.parent() == Some(Path::new(DIRECTORY)) && name == Some(true)
    };
    let files = disk.sim.files();
    let bytes: u64 = files.iter().filter(|(path, _)| is_log(path)).map(|(_, length)| length).sum();
    let segment = scene.life.segment.max(2 * SMALLEST);
    let bound = scene.life.segment.saturating_mul(scene.life.pool as u64).max(2 * SMALLEST) + 2 * segment;
    // What an earlier life left was bound by its own pool.
    if scene.is_first && bytes > bound {
        scene.board.anomaly(format!("at rest, the log takes {bytes} bytes, and {bound} are the most"));
    }
}

/// Looks into a database that is at rest.
pub(crate) fn check(db: &Db, scene: &Scene) {
    let Scene { board, timeline, life, .. } = scene;
    board.count(|counts| counts.checks += 1);
    board.note("rest", "looks at the books");
    // A key may expire amid all of this.
    let may_expire =
        timeline.state(timeline.last()).is_some_and(|raw| raw.values().any(|held| held.expires != 0));
    let published = timeline.last();
    if block_on(db.flush()).is_err() {
        return;
    }
    timeline.synced(published);
    if block_on(db.vacuum()).is_err() {
        return;
    }
    // What that removed has to be stable before it can be freed.
    if block_on(db.flush()).is_err() || block_on(db.vacuum()).is_err() {
        return;
    }
    let view = db.snapshot();
    let point = view.read_point();
    let shows = timeline.begin(point, timeline.floor(), true);
    // If it has become too old, there is nothing to compare.
    let Ok(real) = pairs(view.range(..)) else { return };
    drop(view);
    if real != shows.into_iter().collect::<Vec<_>>() {
        return board.anomaly(format!("at rest, {real:?} is there at {point:?}"));
    }
    let mut info = db.memory_info();
    // A checkpoint that is being written, or has just been, lets go of what it kept later.
    for _ in 0..20 {
        if info.backlog == 0 {
            break;
        }
        shuttle::thread::yield_now();
        if block_on(db.vacuum()).is_err() {
            return;
        }
        info = db.memory_info();
    }
    let (applied, stable) = db.watermarks();
    if stable > applied || !may_expire && (applied != stable || applied != timeline.last()) {
        board.anomaly(format!(
            "at rest, {applied} is applied, {stable} stable, {} published",
            timeline.last()
        ));
    }
    if info.live_snapshots == 1 && life.durability != Durability::InMemory {
        // A checkpoint is being written, from a snapshot that keeps what it needs.
        return;
    }
    if info.live_snapshots != 0 {
        board.anomaly(format!("at rest, there are {} snapshots", info.live_snapshots));
    }
    let raw = timeline.state(applied).unwrap_or_default();
    if !may_expire && (info.keys != raw.len() as u64 || info.versions != info.keys) {
        board.anomaly(format!("at rest, {} keys are there, and the books say {info:?}", raw.len()));
    }
    if let (Some((limit, _)), false) = (life.limit, may_expire) {
        let mut weight = 0;
        let mut all = db.scan_metadata();
        while let Some(item) = block_on(poll_fn(|context| Pin::new(&mut all).poll_next(context))) {
            // If it has become too old, there is nothing to compare.
            let Ok(item) = item else { return };
            weight += item.size_bytes;
        }
        if info.live_bytes != weight {
            board.anomaly(format!("at rest, the keys weigh {weight}, and the books say {info:?}"));
        }
        // A database that was opened may hold a 64th more until its next commit.
        let is_evicting =
            life.limit.is_some_and(|(_, policy)| policy != fluxmap_shuttle::mem::EvictionPolicy::Manual);
        if is_evicting && info.live_bytes + info.index_bytes > limit + limit / 64 {
            board.anomaly(format!("at rest, more is there than the limit of {limit}: {info:?}"));
        }
    }
}
