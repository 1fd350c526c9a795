//! Streams: iterators that yield to the executor now and then.
//!
//! No stream waits for anything, but a scan of millions of pairs that never yielded would keep other
//! tasks of its thread waiting.

use crate::error::FluxError;
use crate::key::{Key, Value};
use crate::txn::overlay::TransactionRange;
use crate::txn::snapshot::SnapshotRange;
use fluxmap_index::planted;
use futures_core::stream::{FusedStream, Stream};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// The number of items between two yields to the executor.
const ITEMS_PER_TURN: u32 = 128;

/// An iterator whose `next` can fail.
trait TryIterator {
    type Item;
    fn try_next(&mut self) -> Result<Option<Self::Item>, FluxError>;
}

impl<K: Key, V: Value> TryIterator for TransactionRange<'_, K, V> {
    type Item = (K, Arc<V>);

    fn try_next(&mut self) -> Result<Option<Self::Item>, FluxError> {
        TransactionRange::try_next(self)
    }
}

impl<K: Key, V: Value> TryIterator for SnapshotRange<K, V> {
    type Item = (K, Arc<V>);

    fn try_next(&mut self) -> Result<Option<Self::Item>, FluxError> {
        SnapshotRange::try_next(self)
    }
}

/// Makes an iterator a stream, which ends after the first error.
struct Turns<I> {
    iterator: I,
    left: u32,
    finished: bool,
}

impl<I: TryIterator> Turns<I> {
    fn new(iterator: I) -> Self {
        Turns { iterator, left: ITEMS_PER_TURN, finished: false }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<I::Item, FluxError>>> {
        if self.left == 0 {
            if planted("stream-loses-a-pair") {
                drop(self.iterator.try_next());
            }
            self.left = ITEMS_PER_TURN;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.left -= 1;
        if self.finished {
            return Poll::Ready(None);
        }
        let item = self.iterator.try_next().transpose();
        self.finished = !matches!(item, Some(Ok(_)));
        Poll::Ready(item)
    }
}

/// A scan of a transaction as a stream: returned by
/// [`Transaction::range_stream`](crate::Transaction::range_stream) and
/// [`Transaction::prefix_scan_stream`](crate::Transaction::prefix_scan_stream).
///
/// The stream holds no lock and no pin between two items. Dropping it ends the scan; the pairs that it
/// has passed count as read.
#[must_use = "a stream does nothing unless it is polled"]
pub struct TransactionStream<'t, K: Key, V: Value> {
    turns: Turns<TransactionRange<'t, K, V>>,
}

impl<'t, K: Key, V: Value> TransactionStream<'t, K, V> {
    pub(crate) fn new(range: TransactionRange<'t, K, V>) -> Self {
        TransactionStream { turns: Turns::new(range) }
    }
}

// No field is pinned structurally.
impl<K: Key, V: Value> Unpin for TransactionStream<'_, K, V> {}

impl<K: Key, V: Value> Stream for TransactionStream<'_, K, V> {
    type Item = Result<(K, Arc<V>), FluxError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.turns.poll(context)
    }
}

impl<K: Key, V: Value> FusedStream for TransactionStream<'_, K, V> {
    fn is_terminated(&self) -> bool {
        self.turns.finished
    }
}

/// A scan of a snapshot as a stream: returned by
/// [`Snapshot::range_stream`](crate::Snapshot::range_stream) and
/// [`Snapshot::prefix_scan_stream`](crate::Snapshot::prefix_scan_stream). Owned and `'static`.
#[must_use = "a stream does nothing unless it is polled"]
pub struct SnapshotStream<K: Key, V: Value> {
    turns: Turns<SnapshotRange<K, V>>,
}

impl<K: Key, V: Value> SnapshotStream<K, V> {
    pub(crate) fn new(range: SnapshotRange<K, V>) -> Self {
        SnapshotStream { turns: Turns::new(range) }
    }
}

// No field is pinned structurally.
impl<K: Key, V: Value> Unpin for SnapshotStream<K, V> {}

impl<K: Key, V: Value> Stream for SnapshotStream<K, V> {
    type Item = Result<(K, Arc<V>), FluxError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.turns.poll(context)
    }
}

impl<K: Key, V: Value> FusedStream for SnapshotStream<K, V> {
    fn is_terminated(&self) -> bool {
        self.turns.finished
    }
}
