//! The checks of a database at rest: the memory figures are right, and nothing is left behind.

use crate::client::{Db, Outcome, Scene};
use crate::pen::pairs;
use crate::plan::Durability;
use fluxmap_shuttle::MemoryInfo;
use shuttle::future::block_on;
use std::pin::Pin;

use futures_core::Stream;
use std::future::poll_fn;

/// Returns the memory figures once no snapshot is live, or, if some stay live, with these. `None` if the database
/// has failed.
fn settled_figures(db: &Db, scene: &Scene) -> Option<MemoryInfo> {
    let mut figures = None;
    for _ in 0..20 {
        // A checkpoint that begins after this line keeps no old versions.
        let nobody_reads = db.memory_info().live_snapshots == 0;
        block_on(db.vacuum()).ok()?;
        let info = db.memory_info();
        let is_settled = nobody_reads && info.live_snapshots == 0;
        figures = Some(info);
        if is_settled {
            break;
        }
        // A checkpoint that is being written has a snapshot. Another one ends after it.
        if scene.life.durability != Durability::InMemory {
            let Ok(Outcome::Done(_)) = scene.judge("rest", block_on(db.checkpoint())) else { return None };
        }
    }
    figures
}

/// Checks a database that is at rest.
pub(crate) fn check(db: &Db, scene: &Scene) {
    let Scene { board, timeline, life, .. } = scene;
    board.note("rest", "checks the memory figures");
    // While a key may expire, its removal can change the figures during these checks.
    let may_expire =
        timeline.state(timeline.last()).is_some_and(|raw| raw.values().any(|held| held.expires != 0));
    // Expect the applied commits to be synced, and not all published ones: the worker may have published
    // the removal of an expired key that it has not applied yet.
    let (applied, _) = db.watermarks();
    if block_on(db.flush()).is_err() {
        return;
    }
    timeline.synced(applied);
    if block_on(db.vacuum()).is_err() {
        return;
    }
    // The removals of this vacuum must be stable before a second vacuum can free the memory.
    if block_on(db.flush()).is_err() || block_on(db.vacuum()).is_err() {
        return;
    }
    let view = db.snapshot();
    let point = view.read_point();
    let shows = timeline.begin(point, timeline.floor(), true);
    // A snapshot that has become too old cannot be compared.
    let Ok(real) = pairs(view.range(..)) else { return };
    drop(view);
    if real != shows.into_iter().collect::<Vec<_>>() {
        return board.anomaly(format!("at rest, the database holds the wrong pairs {real:?} at {point:?}"));
    }
    let Some(info) = settled_figures(db, scene) else { return };
    let (applied, stable) = db.watermarks();
    if stable > applied || !may_expire && (applied != stable || applied != timeline.last()) {
        board.anomaly(format!(
            "at rest, {applied} is applied, {stable} stable, {} published",
            timeline.last()
        ));
    }
    if info.live_snapshots != 0 {
        board.anomaly(format!("at rest, there are {} snapshots", info.live_snapshots));
    }
    let raw = timeline.state(applied).unwrap_or_default();
    if !may_expire && (info.keys != raw.len() as u64 || info.versions != info.keys) {
        board.anomaly(format!("at rest, there are {} keys, but the memory figures are {info:?}", raw.len()));
    }
    if let (Some((limit, _)), false) = (life.limit, may_expire) {
        let mut weight = 0;
        let mut all = db.scan_metadata();
        while let Some(item) = block_on(poll_fn(|context| Pin::new(&mut all).poll_next(context))) {
            // A snapshot that has become too old cannot be compared.
            let Ok(item) = item else { return };
            weight += item.size_bytes;
        }
        if info.live_bytes != weight {
            board.anomaly(format!("at rest, the keys weigh {weight}, but the memory figures are {info:?}"));
        }
        // A database may exceed its limit by a 64th between opening and its next commit.
        let is_evicting =
            life.limit.is_some_and(|(_, policy)| policy != fluxmap_shuttle::mem::EvictionPolicy::Manual);
        if is_evicting && info.live_bytes + info.index_bytes > limit + limit / 64 {
            board.anomaly(format!("at rest, the database exceeds its limit of {limit}: {info:?}"));
        }
    }
    board.count(|counts| counts.checks += 1);
}
