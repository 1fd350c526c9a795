//! Streams of the metadata of every key.

use crate::error::FluxError;
use crate::info::KeyMetadata;
use crate::key::{Key, KeySpan, Value};
use crate::txn::scan::{MetadataScan, View};
use futures_core::stream::Stream;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::vec;

/// The metadata of every key: returned by [`Database::scan_metadata`](crate::Database::scan_metadata).
/// Yields to the executor now and then.
#[must_use = "a stream does nothing unless it is polled"]
pub struct MetadataStream<K: Key, V: Value> {
    scan: Scan<K, V>,
}

/// The metadata of every key, without errors, as in FluxMap 0.3: returned by
/// [`Handle::scan_metadata`](crate::Handle::scan_metadata). Yields to the executor now and then.
///
/// If `max_snapshot_age` ends its snapshot, the stream continues after the last key in a new one.
#[must_use = "a stream does nothing unless it is polled"]
pub struct HandleMetadataStream<K: Key, V: Value> {
    scan: Scan<K, V>,
}

/// A walk over the metadata of all keys of one view.
struct Scan<K: Key, V: Value> {
    /// `None` once the scan is finished.
    view: Option<View<K, V>>,
    survey: MetadataScan<K>,
    taken: vec::IntoIter<KeyMetadata<K>>,
}

impl<K: Key, V: Value> Scan<K, V> {
    fn new(view: View<K, V>) -> Self {
        Scan { view: Some(view), survey: MetadataScan::new(KeySpan::range(..)), taken: vec![].into_iter() }
    }

    /// Returns the next item. If the view was ended for its age, `go_on` returns another view to read,
    /// or the error with which the scan ends.
    fn poll(
        &mut self,
        context: &mut Context<'_>,
        go_on: impl FnOnce(&View<K, V>, FluxError) -> Result<View<K, V>, FluxError>,
    ) -> Poll<Option<Result<KeyMetadata<K>, FluxError>>> {
        if let Some(metadata) = self.taken.next() {
            return Poll::Ready(Some(Ok(metadata)));
        }
        let Some(view) = &self.view else {
            return Poll::Ready(None);
        };
        let committer = &view.shared.committer;
        let mut survey = self.survey.clone();
        let taken = survey.next_chunk(view.at(), |pair| committer.metadata(pair));
        match view.check() {
            Ok(()) if taken.is_empty() => {
                self.view = None;
                return Poll::Ready(None);
            }
            Ok(()) => (self.survey, self.taken) = (survey, taken.into_iter()),
            // Keep the old position: in a view that was ended, keys may be missing.
            Err(error) => match go_on(view, error) {
                Ok(view) => self.view = Some(view),
                Err(error) => {
                    self.view = None;
                    return Poll::Ready(Some(Err(error)));
                }
            },
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

// No field is pinned structurally.
impl<K: Key, V: Value> Unpin for MetadataStream<K, V> {}
impl<K: Key, V: Value> Unpin for HandleMetadataStream<K, V> {}

impl<K: Key, V: Value> MetadataStream<K, V> {
    pub(crate) fn new(view: View<K, V>) -> Self {
        MetadataStream { scan: Scan::new(view) }
    }
}

impl<K: Key, V: Value> HandleMetadataStream<K, V> {
    pub(crate) fn new(stream: MetadataStream<K, V>) -> Self {
        HandleMetadataStream { scan: stream.scan }
    }
}

impl<K: Key, V: Value> Stream for MetadataStream<K, V> {
    type Item = Result<KeyMetadata<K>, FluxError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.scan.poll(context, |_, error| Err(error))
    }
}

impl<K: Key, V: Value> Stream for HandleMetadataStream<K, V> {
    type Item = KeyMetadata<K>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let item = self.scan.poll(context, |ended, _| Ok(View::stable(&ended.shared)));
        // The only error is that a view has ended, and after that the scan continues in another one.
        item.map(|item| item.and_then(Result::ok))
    }
}
