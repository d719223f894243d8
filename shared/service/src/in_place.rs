//! Work that goes on when nobody waits for it any more, and that needs no task before.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;

/// Does `work` in its caller's own task. If the caller leaves before the end, the rest is done in
/// a task of `tracker`.
///
/// A task from the start would do the same, at the price of two changes of task for each piece of
/// work, which for short ones is most of it.
#[must_use = "work that nobody polls begins when this is dropped"]
pub fn in_place<F>(tracker: &TaskTracker, work: F) -> InPlace<F>
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    InPlace {
        work: Some(Box::pin(work)),
        tracker: tracker.clone(),
    }
}

/// See [`in_place`].
#[derive(Debug)]
pub struct InPlace<F>
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    /// Absent when it is done.
    work: Option<Pin<Box<F>>>,
    tracker: TaskTracker,
}

impl<F> Future for InPlace<F>
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let Some(work) = self.work.as_mut() else {
            // Polled again after its end, which no `await` does.
            return Poll::Pending;
        };
        let done = work.as_mut().poll(cx);
        if done.is_ready() {
            self.work = None;
        }
        done
    }
}

impl<F> Drop for InPlace<F>
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn drop(&mut self) {
        let Some(work) = self.work.take() else {
            return;
        };
        // What panicked cannot go on; and without a runtime nothing can.
        if !std::thread::panicking()
            && let Ok(runtime) = Handle::try_current()
        {
            self.tracker.spawn_on(
                async move {
                    work.await;
                },
                &runtime,
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot;

    #[tokio::test]
    async fn what_its_caller_waits_for_takes_no_task() {
        let tracker = TaskTracker::new();
        assert_eq!(in_place(&tracker, async { 7 }).await, 7);
        assert!(tracker.is_empty());
    }

    #[tokio::test]
    async fn the_rest_is_done_when_the_caller_leaves() {
        let tracker = TaskTracker::new();
        let (go, gone) = oneshot::channel::<()>();
        let (tell, told) = oneshot::channel();
        let mut work = Box::pin(in_place(&tracker, async move {
            gone.await.ok();
            tell.send(7).ok();
        }));
        assert!(futures_poll(work.as_mut()).is_pending());
        drop(work);
        assert_eq!(tracker.len(), 1);
        go.send(()).unwrap();
        assert_eq!(told.await, Ok(7));
        tracker.close();
        tracker.wait().await;
    }

    #[tokio::test]
    async fn what_was_never_polled_is_done_too() {
        let tracker = TaskTracker::new();
        let (tell, told) = oneshot::channel();
        drop(in_place(&tracker, async move { tell.send(7).ok() }));
        assert_eq!(told.await, Ok(7));
    }

    fn futures_poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(std::task::Waker::noop()))
    }
}
