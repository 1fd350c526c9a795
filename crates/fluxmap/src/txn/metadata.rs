//! What is known of every key, as a stream.

use crate::error::FluxError;
use crate::info::KeyMetadata;
use crate::key::{Key, Span, Value};
use crate::txn::scan::{Survey, View};
use futures_core::stream::Stream;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::vec;

/// What is known of every key: from
/// [`Database::scan_metadata`](crate::Database::scan_metadata). Gives the executor a turn
/// now and then.
#[must_use = "a stream does nothing unless it is polled"]
pub struct MetadataStream<K: Key, V: Value> {
    /// `None` at the end.
    view: Option<View<K, V>>,
    survey: Survey<K>,
    taken: vec::IntoIter<KeyMetadata<K>>,
}

// Nothing in a stream is pinned in place.
impl<K: Key, V: Value> Unpin for MetadataStream<K, V> {}

impl<K: Key, V: Value> MetadataStream<K, V> {
    pub(crate) fn new(view: View<K, V>) -> Self {
        MetadataStream { view: Some(view), survey: Survey::new(Span::range(..)), taken: vec![].into_iter() }
    }
}

impl<K: Key, V: Value> Stream for MetadataStream<K, V> {
    type Item = Result<KeyMetadata<K>, FluxError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(metadata) = self.taken.next() {
            return Poll::Ready(Some(Ok(metadata)));
        }
        let this = &mut *self;
        let Some(view) = &this.view else {
            return Poll::Ready(None);
        };
        let committer = &view.shared.committer;
        let taken = this.survey.next_chunk(view.at(), |pair| committer.metadata(pair));
        if let Err(error) = view.check() {
            this.view = None;
            return Poll::Ready(Some(Err(error)));
        }
        if taken.is_empty() {
            this.view = None;
            return Poll::Ready(None);
        }
        this.taken = taken.into_iter();
        context.waker().wake_by_ref();
        Poll::Pending
    }
}
