//! The environment of a database: the time, random numbers, and the execution of its background work. It
//! is the machine, unless the database was given a [`Background`](crate::Background).
//!
//! The host is passed down as a value. A thread-local would be read by every begin, and would mix up two
//! databases that one thread uses. Without a `Background`, it costs one comparison before a read of the
//! machine's clock.

use crate::background::Background;
use crate::error::{FluxError, PersistenceError};
use crate::jobs::{Job, Running, Signal};
use crate::progress::Progress;
use crate::sync::{self, HashState, Instant, Mutex, thread};
use std::io;
use std::sync::Arc;
use std::time::SystemTime;

/// The environment of a database: see the [module](self).
#[derive(Clone, Debug, Default)]
pub(crate) struct Host(Option<Background>);

impl Host {
    pub(crate) fn new(background: Option<Background>) -> Self {
        Host(background)
    }

    /// Returns the steady (monotonic) time.
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

    /// Returns a random number that differs from the one before. The machine's numbers cannot be
    /// guessed.
    pub(crate) fn random(&self) -> u64 {
        match &self.0 {
            None => sync::random(),
            Some(background) => background.random(),
        }
    }

    /// Makes random numbers depend on the contents of the disk, too. The next run on the same files may
    /// have the same seed, and a file's salt must not repeat then: frames that this run left behind
    /// would count as valid.
    pub(crate) fn stir(&self, with: u64) {
        if let Some(background) = &self.0 {
            background.stir(with);
        }
    }

    /// Returns the hasher for the keys of one database.
    pub(crate) fn hash_state(&self) -> HashState {
        sync::hash_state(self.0.as_ref().map(Background::random))
    }

    /// Starts a job: on a thread, or driven by the holder of the [`Background`].
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

    /// Returns whether a `Background` does the work, so that there are no threads.
    pub(crate) fn is_driven(&self) -> bool {
        self.0.is_some()
    }

    /// Awaits `future`. With a `Background`, it also does the background work for which the future
    /// waits.
    ///
    /// Cancel-safe if `future` is.
    pub(crate) async fn drive<F: Future>(&self, future: F) -> F::Output {
        match &self.0 {
            None => future.await,
            Some(background) => background.drive(future).await,
        }
    }

    /// Runs `work`, which may block: on a thread of its own, or directly if there are no threads.
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

    /// Reports the end even if `work` panics, because a task waits for it.
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
        // User code of the types has panicked: continue the panic where the work was requested.
        (None, Err(panic)) => std::panic::resume_unwind(panic),
        (None, Ok(())) => Err(PersistenceError::Unavailable("a thread ended early".into()).into()),
    }
}
