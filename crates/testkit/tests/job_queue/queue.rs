//! The application: a queue of jobs in one database.
//!
//! Clients add jobs. An added job is acknowledged when it will survive a power loss. A worker takes a job
//! under a lease, renews the lease while it works, and marks the job as done at the end. If a worker
//! dies, the lease runs out, and another worker takes the job.

use std::sync::Arc;
use std::time::Duration;

use fluxmap::{Database, FluxError};
use fluxmap_testkit::simulation::Machine;
use serde::{Deserialize, Serialize};

/// How long a lease lasts after it was taken or renewed.
pub(crate) const LEASE: Duration = Duration::from_secs(10);

/// How often a worker renews its lease.
const RENEWAL: Duration = Duration::from_secs(4);

/// How many pieces of work a job has. The lease is renewed after each.
const PIECES: u32 = 3;

/// The bugs that can be switched on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    /// A job is acknowledged before its addition is durable.
    AcknowledgesEarly,
    /// A worker looks for a job in a snapshot and then takes it in a separate step, not in one
    /// transaction.
    ChecksOutside,
    /// A worker does not renew its lease, and goes on working after the lease has run out.
    ForgetsToRenew,
    /// A client that got no acknowledgement because of a crash adds its job again, and overwrites the
    /// progress that the job has made meanwhile. Nobody planted this bug: it was in the first version of
    /// this file, and the simulation found it.
    AddsTwice,
}

/// The state of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Job {
    Waiting,
    /// A worker has the job, under a lease that ends at `until`.
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

/// The queue. Clones share the same database.
#[derive(Clone)]
pub(crate) struct Queue {
    db: Database<u64, Job>,
    machine: Machine,
    bug: Option<Bug>,
}

impl Queue {
    /// Opens the queue, with the jobs that earlier processes left in it.
    pub(crate) async fn open(machine: &Machine, bug: Option<Bug>) -> Result<Self, FluxError> {
        let db = machine.database("jobs").build().await?;
        Ok(Queue { db, machine: machine.clone(), bug })
    }

    /// All jobs, with their states.
    pub(crate) fn jobs(&self) -> Vec<(u64, Arc<Job>)> {
        self.db.snapshot().range(..).collect()
    }

    /// Adds a job unless it is there already. When this returns, the job survives a power loss.
    pub(crate) async fn add(&self, job: u64) -> Result<(), FluxError> {
        match self.bug {
            Some(Bug::AcknowledgesEarly) => {
                let db = self.db.clone();
                self.machine.spawn_detached("adding", async move { db.insert(job, Job::Waiting).await });
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

    /// Whether a worker may take the job: it is not done, and no lease on it is running.
    fn is_free(&self, job: &Job) -> bool {
        match job {
            Job::Waiting => true,
            Job::Taken { until, .. } => *until <= self.machine.now(),
            Job::Done => false,
        }
    }

    /// Takes a free job for `worker`, if there is one.
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

    /// Sets the state of `job` to `next`, unless `worker` no longer has the job.
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
