//! What must hold when nobody does anything: the books, and that nothing is left behind.

use crate::client::{Db, Outcome, Scene};
use crate::pen::pairs;
use crate::plan::Durability;
use fluxmap_shuttle::MemoryInfo;
use shuttle::future::block_on;
use std::pin::Pin;

use futures_core::Stream;
use std::future::poll_fn;

/// The books when nobody has a snapshot any more; with snapshots, if they stay. `None` if the database has failed.
fn settled_books(db: &Db, scene: &Scene) -> Option<MemoryInfo> {
    let mut books = None;
    for _ in 0..20 {
        // A checkpoint that begins from here on keeps nothing that is old.
        let nobody_reads = db.memory_info().live_snapshots == 0;
        block_on(db.vacuum()).ok()?;
        let info = db.memory_info();
        let is_settled = nobody_reads && info.live_snapshots == 0;
        books = Some(info);
        if is_settled {
            break;
        }
        // A checkpoint that is being written has a snapshot. Another one ends after it.
        if scene.life.durability != Durability::InMemory {
            let Ok(Outcome::Done(_)) = scene.judge("rest", block_on(db.checkpoint())) else { return None };
        }
    }
    books
}

/// Looks into a database that is at rest.
pub(crate) fn check(db: &Db, scene: &Scene) {
    let Scene { board, timeline, life, .. } = scene;
    board.note("rest", "looks at the books");
    // A key may expire amid all of this.
    let may_expire =
        timeline.state(timeline.last()).is_some_and(|raw| raw.values().any(|held| held.expires != 0));
    // Not all that was published: the worker may be about to apply the removal of a key that has expired.
    let (applied, _) = db.watermarks();
    if block_on(db.flush()).is_err() {
        return;
    }
    timeline.synced(applied);
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
    let Some(info) = settled_books(db, scene) else { return };
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
    board.count(|counts| counts.checks += 1);
}
