//! Futures polled by hand. A future that is polled `n` times and then dropped stands for every kind of
//! cancellation: a timeout, `select!`, an abort.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

/// Polls `future` up to `times` times with a waker that does nothing. Returns its output, or `None` if
/// it is still pending. The future is not dropped, so the caller decides when it is cancelled.
pub fn poll_times<F: Future>(mut future: Pin<&mut F>, times: usize) -> Option<F::Output> {
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..times {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return Some(output);
        }
    }
    None
}

/// Polls `future` up to `times` times and drops it. Returns its output if it was ready by then.
pub fn poll_then_drop<F: Future>(future: F, times: usize) -> Option<F::Output> {
    poll_times(pin!(future), times)
}

/// Is pending once, then ready. It makes an await point at which a future can be dropped or another task
/// can run.
pub async fn yield_once() {
    let mut yielded = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut yielded, true) {
            Poll::Ready(())
        } else {
            context.waker().wake_by_ref();
            Poll::Pending
        }
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_await_point_is_one_poll() {
        let twice = || async {
            yield_once().await;
            yield_once().await;
            7
        };
        assert_eq!(poll_then_drop(twice(), 0), None);
        assert_eq!(poll_then_drop(twice(), 2), None);
        assert_eq!(poll_then_drop(twice(), 3), Some(7));
    }
}
