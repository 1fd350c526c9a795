//! The engines, each by its name.

use super::bare::{LeaderFollower, Loop};
use super::{Engine, Level, key, value};
use fluxmap::Database;
use fluxmap::persistence::PersistenceOptions;
use futures::executor::block_on;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Runtime};

type Make = fn(&Path) -> Box<dyn Engine>;

/// The engines of a level.
pub(crate) fn all(level: Level) -> Vec<(&'static str, Make)> {
    #[allow(unused_mut, reason = "without peers, nothing is added")]
    let mut engines = own(level);
    #[cfg(feature = "peers")]
    engines.extend(super::peers::all(level));
    engines
}

fn own(level: Level) -> Vec<(&'static str, Make)> {
    match level {
        Level::Full => vec![
            ("bare loop", |dir| Box::new(Loop::new(dir, Level::Full))),
            ("bare leader-follower log", |dir| Box::new(LeaderFollower::new(dir))),
            ("fluxmap, threads", |dir| Box::new(Threads(open(dir, Level::Full)))),
            ("fluxmap, tasks", |dir| Box::new(Tasks::new(dir, Level::Full))),
        ],
        Level::Relaxed => vec![
            ("bare loop", |dir| Box::new(Loop::new(dir, Level::Relaxed))),
            ("fluxmap, threads", |dir| Box::new(Threads(open(dir, Level::Relaxed)))),
            ("fluxmap, tasks", |dir| Box::new(Tasks::new(dir, Level::Relaxed))),
        ],
    }
}

pub(crate) fn open(dir: &Path, level: Level) -> Database<String, Vec<u8>> {
    let options = PersistenceOptions::new(dir.join("fluxmap"));
    let builder = Database::<String, Vec<u8>>::builder();
    let opened = match level {
        Level::Full => block_on(builder.durability_full(options).build()),
        Level::Relaxed => {
            block_on(builder.durability_relaxed(options).flush_interval(Duration::from_secs(1)).build())
        }
    };
    opened.expect("it opens")
}

/// Committers that are threads.
struct Threads(Database<String, Vec<u8>>);

impl Engine for Threads {
    fn commit(&self, thread: usize, number: u64) {
        block_on(self.0.insert(key(thread, number), value(number))).expect("it commits");
    }
}

/// Committers that are tasks, on two threads.
struct Tasks {
    db: Database<String, Vec<u8>>,
    runtime: Runtime,
}

impl Tasks {
    fn new(dir: &Path, level: Level) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_time().build().expect("a runtime");
        Tasks { db: open(dir, level), runtime }
    }
}

impl Engine for Tasks {
    fn commit(&self, thread: usize, number: u64) {
        block_on(self.db.insert(key(thread, number), value(number))).expect("it commits");
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
                            db.insert(key(task, number), value(number)).await.expect("it commits");
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
