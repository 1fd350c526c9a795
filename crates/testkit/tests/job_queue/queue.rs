//! The application: a queue of jobs in one database.
//!
//! Clients add jobs, and are told when that will survive a power loss. A worker takes a job
//! under a lease, renews that while it works, and says at the end that the job is done. If a
//! worker dies, the lease runs out, and another takes the job.

use std::sync::Arc;
use std::time::Duration;

use fluxmap::{Database, FluxError};
use fluxmap_testkit::simulation::Machine;
use serde::{Deserialize, Serialize};

/// How long a worker may be silent.
pub(crate) const LEASE: Duration = Duration::from_secs(10);

/// How often it says that it is there.
const RENEWAL: Duration = Duration::from_secs(4);

/// How many renewals a job takes.
const PIECES: u32 = 3;

/// What can be wrong with the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    /// A client is told that its job was added before that is durable.
    AcknowledgesEarly,
    /// A worker looks for a job in a snapshot, and then takes it, in two steps.
    ChecksOutside,
    /// A worker goes on working when its lease has run out.
    ForgetsToRenew,
    /// A client that was not told whether its job was added adds it again, over what has become
    /// of it meanwhile. Nobody planted this one: it was in the first version of this file, and
    /// the simulation found it.
    AddsTwice,
}

/// How far a job has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Job {
    Waiting,
    /// By this worker, until then.
    Taken {
        worker: u32,
        until: Duration,
    },
    Done,
}

/// Whether a worker still has the job that it works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lease {
    Held,
    Lost,
}

/// The queue. Clones are the same.
#[derive(Clone)]
pub(crate) struct Queue {
    db: Database<u64, Job>,
    machine: Machine,
    bug: Option<Bug>,
}

impl Queue {
    /// Opens the queue, with what earlier processes have left.
    pub(crate) async fn open(machine: &Machine, bug: Option<Bug>) -> Result<Self, FluxError> {
        let db = Database::builder()
            .durability_full(machine.persistence("jobs"))
            .disk(Arc::new(machine.disk()))
            .background(machine.background())
            .build()
            .await?;
        Ok(Queue { db, machine: machine.clone(), bug })
    }

    /// How far each job has come.
    pub(crate) fn jobs(&self) -> Vec<(u64, Arc<Job>)> {
        self.db.snapshot().range(..).collect()
    }

    /// Adds a job, if it is not there. When this returns, it will survive a power loss.
    pub(crate) async fn add(&self, job: u64) -> Result<(), FluxError> {
        match self.bug {
            Some(Bug::AcknowledgesEarly) => {
                let db = self.db.clone();
                self.machine.spawn("adding", async move { db.insert(job, Job::Waiting).await });
                Ok(())
            }
            Some(Bug::AddsTwice) => self.db.insert(job, Job::Waiting).await,
            _ => {
                let added = self.db.get_or_insert_with(job, || Job::Waiting);
                self.machine.label("the log", added).await.map(drop)
            }
        }
    }

    fn lease(&self, worker: u32) -> Job {
        Job::Taken { worker, until: self.machine.now() + LEASE }
    }

    /// Whether nobody works on it.
    fn is_free(&self, job: &Job) -> bool {
        match job {
            Job::Waiting => true,
            Job::Taken { until, .. } => *until <= self.machine.now(),
            Job::Done => false,
        }
    }

    /// Takes a job that nobody works on, if there is one.
    pub(crate) async fn take(&self, worker: u32) -> Result<Option<u64>, FluxError> {
        if self.bug == Some(Bug::ChecksOutside) {
            let free = self.jobs().into_iter().find(|(_, job)| self.is_free(job));
            let Some((id, _)) = free else { return Ok(None) };
            self.db.insert(id, self.lease(worker)).await?;
            return Ok(Some(id));
        }
        self.db
            .transact(async |tx| {
                for (id, job) in tx.range(..)? {
                    if self.is_free(&job) {
                        tx.insert(id, self.lease(worker))?;
                        return Ok(Some(id));
                    }
                }
                Ok(None)
            })
            .await
    }

    /// Goes on with `job`, which `worker` has taken, as `next`, unless it was taken from it.
    async fn go_on(&self, job: u64, worker: u32, next: Job) -> Result<Lease, FluxError> {
        self.db
            .transact(async |tx| match tx.get(&job)?.as_deref() {
                Some(Job::Taken { worker: holder, .. }) if *holder == worker => {
                    tx.insert(job, next.clone())?;
                    Ok(Lease::Held)
                }
                _ => Ok(Lease::Lost),
            })
            .await
    }

    /// Works on a job until it is done, or the lease is lost.
    pub(crate) async fn work(&self, job: u64, worker: u32) -> Result<Lease, FluxError> {
        for _ in 0..PIECES {
            self.machine.sleep(RENEWAL).await;
            if self.bug == Some(Bug::ForgetsToRenew) {
                continue;
            }
            let renewed = self.go_on(job, worker, self.lease(worker)).await?;
            if renewed == Lease::Lost {
                return Ok(Lease::Lost);
            }
        }
        self.go_on(job, worker, Job::Done).await
    }
}
