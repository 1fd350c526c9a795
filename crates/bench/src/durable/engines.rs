//! The engines to compare, by name.

use super::bare::{LeaderFollower, Loop};
use super::{Engine, key};
use crate::stores::fluxmap::{Db, database};
use crate::stores::{self, Level, Store, value};
use futures::executor::block_on;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Runtime};

/// Opens an engine in a directory.
type Open = Box<dyn Fn(&Path) -> Box<dyn Engine>>;

/// An engine with its name.
pub(crate) struct Named {
    pub(crate) name: String,
    pub(crate) open: Open,
}

/// The engines to compare at a level.
pub(crate) fn all(level: Level) -> Vec<Named> {
    let mut engines = Vec::new();
    let mut add = |name: String, open: Open| engines.push(Named { name, open });
    add("bare loop".into(), Box::new(move |dir| Box::new(Loop::new(dir, level))));
    if level == Level::Full {
        add("bare leader-follower log".into(), Box::new(|dir| Box::new(LeaderFollower::new(dir))));
    }
    add("fluxmap, tasks".into(), Box::new(move |dir| Box::new(Tasks::new(dir, level))));
    for kind in stores::ALL.iter().filter(|kind| kind.durable) {
        // At their relaxed level, commits survive the death of the process, except with these two.
        let is_lost = level == Level::Relaxed && ["redb file", "sled"].contains(&kind.name);
        let name = format!("{}{}", kind.name, if is_lost { " (lost with the process)" } else { "" });
        add(name, Box::new(move |dir| Box::new(Threads((kind.open)(dir, level)))));
    }
    engines
}

/// An engine whose committers are threads.
struct Threads(Box<dyn Store>);

impl Engine for Threads {
    fn commit(&self, thread: usize, number: u64) {
        self.0.put(&key(thread, number), value(number as i64));
    }
}

/// An engine whose committers are tasks, on two threads.
struct Tasks {
    db: Db,
    runtime: Runtime,
}

impl Tasks {
    fn new(dir: &Path, level: Level) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_time().build().expect("a runtime");
        Tasks { db: database(dir, level), runtime }
    }
}

impl Engine for Tasks {
    fn commit(&self, thread: usize, number: u64) {
        block_on(self.db.insert(key(thread, number), value(number as i64))).expect("it commits");
    }

    fn drive(&self, committers: usize, time: Duration) -> Option<(u64, Duration)> {
        self.runtime.block_on(async {
            let stop = Arc::new(AtomicBool::new(false));
            let begun = Instant::now();
            let tasks: Vec<_> = (0..committers)
                .map(|task| {
                    let (db, stop) = (self.db.clone(), Arc::clone(&stop));
                    tokio::spawn(async move {
                        let mut number = 0;
                        while !stop.load(Ordering::Relaxed) {
                            db.insert(key(task, number), value(number as i64)).await.expect("it commits");
                            number += 1;
                            if number % 64 == 0 {
                                tokio::task::yield_now().await;
                            }
                        }
                        number
                    })
                })
                .collect();
            tokio::time::sleep(time).await;
            stop.store(true, Ordering::Relaxed);
            let mut commits = 0;
            for task in tasks {
                commits += task.await.expect("no panic");
            }
            Some((commits, begun.elapsed()))
        })
    }
}
