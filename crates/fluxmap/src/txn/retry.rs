//! Running a transaction until it commits.

use crate::error::FluxError;
use crate::key::{Key, Value};
use crate::shared::Shared;
use crate::txn::gate::{self, Ticket, Turn};
use crate::txn::transaction::Transaction;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

/// How long [`transact_with`](crate::Database::transact_with) goes on. By default,
/// until the transaction has committed: it will, because after a few losses it is
/// let run ahead of the others.
///
/// ```
/// use fluxmap::TransactOptions;
/// use std::time::Duration;
///
/// let options = TransactOptions::default().max_attempts(10).deadline(Duration::from_secs(2));
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct TransactOptions {
    max_attempts: Option<u32>,
    deadline: Option<Duration>,
}

impl TransactOptions {
    /// Gives up after this many attempts (at least one is made), with
    /// [`FluxError::RetriesExhausted`].
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = Some(attempts);
        self
    }

    /// Begins no further attempt when this long has passed since the first, and
    /// fails with [`FluxError::DeadlineExceeded`]. An attempt that runs is not
    /// interrupted.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }
}

/// Losses after which a transaction asks for the turn.
const PATIENCE: u32 = 4;
/// How long the first turn may be kept; each further one twice as long.
const LEASE: Duration = Duration::from_millis(100);
/// Doublings of the lease: up to a minute or so.
const MAX_DOUBLINGS: u32 = 9;

/// Runs `body` in a transaction, again after every conflict.
pub(crate) async fn transact<K, V, T, E, F>(
    shared: &Arc<Shared<K, V>>,
    options: TransactOptions,
    body: F,
) -> Result<T, E>
where
    K: Key,
    V: Value,
    F: AsyncFnOnce(&mut Transaction<K, V>) -> Result<T, E> + Clone,
    E: From<FluxError>,
{
    // Looked at only after a loss, so that a transaction that wins at once does
    // not pay for reading the time.
    let deadline = options.deadline.and_then(|limit| shared.host().now().checked_add(limit));
    let mut attempts = 0_u32;
    let mut leases = 0;
    let mut turn: Option<Turn<'_>> = None;
    loop {
        let ticket = turn.as_ref().map_or(Ticket::default(), Turn::ticket);
        let mut transaction = Transaction::new(shared, ticket);
        let value = match gate::on_behalf_of(ticket, body.clone()(&mut transaction)).await {
            Ok(value) => value,
            Err(error) => {
                // The error may tell what was read. If the log has failed, so be it.
                let seen = transaction.view().timestamp();
                drop(transaction);
                drop(turn);
                let _ = shared.stable_at(seen).await;
                return Err(error);
            }
        };
        let applied = gate::on_behalf_of(ticket, transaction.apply()).await;
        drop(transaction);
        let lost = match applied {
            Ok(applied) => {
                // Others need not wait for the disk.
                drop(turn);
                if !shared.is_stable_at_once() {
                    applied.acknowledged(shared).await?;
                }
                return Ok(value);
            }
            Err(error) if error.is_conflict() => Box::new(error),
            Err(error) => return Err(error.into()),
        };
        attempts = attempts.saturating_add(1);
        if options.max_attempts.is_some_and(|limit| attempts >= limit) {
            return Err(FluxError::RetriesExhausted { attempts, source: lost }.into());
        }
        if deadline.is_some_and(|deadline| shared.host().now() >= deadline) {
            return Err(FluxError::DeadlineExceeded { attempts, source: lost }.into());
        }
        // In every case: a body that conflicts with its own nested commits would
        // otherwise keep the thread to itself for ever.
        yield_now().await;
        if turn.as_ref().is_some_and(Turn::is_held) {
            continue;
        }
        drop(turn.take());
        if attempts >= PATIENCE {
            let lease = LEASE * (1 << leases.min(MAX_DOUBLINGS));
            leases += 1;
            turn = Some(shared.gate.take_turn(lease).await);
            // It ends the turn should this transaction not be able to.
            shared.wake_worker()?;
        }
    }
}

/// Lets the executor run other tasks first: the transaction that won, maybe.
async fn yield_now() {
    let mut yielded = false;
    poll_fn(|context| {
        if yielded {
            return Poll::Ready(());
        }
        yielded = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
