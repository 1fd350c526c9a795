//! What a database asks of its surroundings: the time, random numbers, and somebody who does
//! its background work. The machine, unless the database was given a
//! [`Background`](crate::Background).
//!
//! It is handed down, not looked up: a thread-local would be read by every begin, and would
//! mix up two databases that one thread uses. `None` costs a comparison, where the machine's
//! clock is read next.

use crate::background::Background;
use crate::error::{FluxError, PersistenceError};
use crate::jobs::{Job, Running, Signal};
use crate::progress::Progress;
use crate::sync::{self, HashState, Instant, Mutex, thread};
use std::io;
use std::sync::Arc;
use std::time::SystemTime;

/// See the [module](self).
#[derive(Clone, Debug, Default)]
pub(crate) struct Host(Option<Background>);

impl Host {
    pub(crate) fn new(background: Option<Background>) -> Self {
        Host(background)
    }

    /// The steady time.
    pub(crate) fn now(&self) -> Instant {
        match &self.0 {
            None => Instant::now(),
            Some(background) => background.instant(),
        }
    }

    pub(crate) fn time_of_day(&self) -> SystemTime {
        match &self.0 {
            None => sync::system_time(),
            Some(background) => background.time_of_day(),
        }
    }

    /// A number that differs from the one before. Nobody can guess the machine's.
    pub(crate) fn random(&self) -> u64 {
        match &self.0 {
            None => sync::random(),
            Some(background) => background.random(),
        }
    }

    /// Lets random numbers depend on what was found on disk, too. A salt must not repeat in the
    /// next life of the same files, whose seed may be the same: frames that are left of this one
    /// would count.
    pub(crate) fn stir(&self, with: u64) {
        if let Some(background) = &self.0 {
            background.stir(with);
        }
    }

    /// How the keys of one database are hashed.
    pub(crate) fn hash_state(&self) -> HashState {
        sync::hash_state(self.0.as_ref().map(Background::random))
    }

    /// Starts a job: on a thread, or for the holder of the [`Background`].
    pub(crate) fn start(
        &self,
        name: &'static str,
        signal: &Arc<Signal>,
        job: impl Job + 'static,
    ) -> io::Result<Running> {
        match &self.0 {
            None => Running::on_thread(name, signal, Box::new(job)),
            Some(background) => Ok(background.start(name, signal, Box::new(job))),
        }
    }

    /// Whether there are no threads.
    pub(crate) fn is_driven(&self) -> bool {
        self.0.is_some()
    }

    /// Waits for `future`, and where nobody else does the background work that it waits for,
    /// does that.
    ///
    /// Cancel-safe if `future` is.
    pub(crate) async fn drive<F: Future>(&self, future: F) -> F::Output {
        match &self.0 {
            None => future.await,
            Some(background) => background.drive(future).await,
        }
    }

    /// Runs `work`, which may block: on a thread of its own, or here and now.
    ///
    /// Cancel-safe: the work is done in any case.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        name: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, FluxError> {
        match &self.0 {
            None => on_thread(name, work).await,
            Some(_) => Ok(work()),
        }
    }
}

async fn on_thread<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, FluxError> {
    struct Slot<T> {
        done: Progress,
        result: Mutex<Option<T>>,
    }

    /// Whatever happens: somebody waits.
    struct Finish<T>(Arc<Slot<T>>);

    impl<T> Drop for Finish<T> {
        fn drop(&mut self) {
            drop(self.0.done.advance(1));
        }
    }

    let slot = Arc::new(Slot { done: Progress::default(), result: Mutex::new(None) });
    let finish = Finish(Arc::clone(&slot));
    let builder = thread::Builder::new().name(name.to_string());
    let thread = builder
        .spawn(move || {
            let result = work();
            *finish.0.result.lock() = Some(result);
        })
        .map_err(|error| PersistenceError::Unavailable(format!("a thread could not be started: {error}")))?;
    slot.done.wait_for(1).await?;
    let result = slot.result.lock().take();
    match (result, thread.join()) {
        (Some(result), _) => Ok(result),
        // What panicked was the types' own code; it goes on where it was asked for.
        (None, Err(panic)) => std::panic::resume_unwind(panic),
        (None, Ok(())) => Err(PersistenceError::Unavailable("a thread ended early".into()).into()),
    }
}
