//! Group commit: what comes in while one batch commits goes into the next.
//!
//! There is no timer. A lone item starts once everything else that was ready to run has run, so that what arrived
//! together goes together; under load the batches grow by themselves, because more arrives while the one before commits.
//! Two batches are under way at a time, so that one is filled while the other waits for the disk.

use std::future::Future;
use std::sync::Arc;

use metrics::Gauge;
use tokio::sync::{Mutex, mpsc, oneshot};

use crate::lifecycle::Tasks;

/// Why an item got no answer. Nothing is known to have been written for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Turned {
    #[error("the queue is full")]
    Full,
    #[error("the service is stopping")]
    Stopping,
}

type Waiting<T, R> = (T, oneshot::Sender<R>);

/// A bounded queue in front of a write that takes many items at once.
#[derive(Debug)]
pub struct Batcher<T, R> {
    queue: mpsc::Sender<Waiting<T, R>>,
    length: Gauge,
}

impl<T, R> Clone for Batcher<T, R> {
    fn clone(&self) -> Self {
        Self { queue: self.queue.clone(), length: self.length.clone() }
    }
}

/// Bounds of a [`Batcher`].
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Its name in the metrics.
    pub name: &'static str,
    pub queued: usize,
    pub in_flight: usize,
    pub batch: usize,
}

impl<T: Send + 'static, R: Send + 'static> Batcher<T, R> {
    /// `flush` writes a batch and answers each item, in order. It ends its work when `tasks` stops and the queue is
    /// empty.
    pub fn start<F, Fut>(tasks: &Tasks, bounds: Bounds, flush: F) -> Self
    where
        F: Fn(Vec<T>) -> Fut + Clone + Send + 'static,
        Fut: Future<Output = Vec<R>> + Send,
    {
        let (queue, receiver) = mpsc::channel::<Waiting<T, R>>(bounds.queued);
        let receiver = Arc::new(Mutex::new(receiver));
        let length = metrics::gauge!("checkback_queue_length", "queue" => bounds.name);
        let size = metrics::histogram!("checkback_batch_size", "queue" => bounds.name);
        for _ in 0..bounds.in_flight {
            let (receiver, flush, tasks_too) = (Arc::clone(&receiver), flush.clone(), tasks.clone());
            let (length, size) = (length.clone(), size.clone());
            tasks.spawn(async move {
                let mut batch = Vec::with_capacity(bounds.batch);
                loop {
                    {
                        let mut receiver = receiver.lock().await;
                        tokio::select! {
                            biased;
                            count = receiver.recv_many(&mut batch, bounds.batch) => if count == 0 { return },
                            () = tasks_too.stopping() => {
                                receiver.close();
                                if receiver.recv_many(&mut batch, bounds.batch).await == 0 { return }
                            }
                        }
                        gather(&mut receiver, &mut batch, bounds.batch).await;
                    }
                    let taken = u32::try_from(batch.len()).unwrap_or(u32::MAX);
                    length.decrement(taken);
                    size.record(taken);
                    let (items, waiting): (Vec<T>, Vec<oneshot::Sender<R>>) = batch.drain(..).unzip();
                    for (answer, waiting) in flush(items).await.into_iter().zip(waiting) {
                        // Whoever asked may have gone away; what was written stays written.
                        let _ = waiting.send(answer);
                    }
                }
            });
        }
        Self { queue, length }
    }

    /// Queues `item` and waits for its answer; refuses at once when the queue is full.
    pub async fn submit(&self, item: T) -> Result<R, Turned> {
        let (sender, answer) = oneshot::channel();
        // The place first, so that what is taken at once was counted before.
        let place = self.queue.try_reserve().map_err(|error| match error {
            mpsc::error::TrySendError::Full(()) => Turned::Full,
            mpsc::error::TrySendError::Closed(()) => Turned::Stopping,
        })?;
        self.length.increment(1);
        place.send((item, sender));
        answer.await.map_err(|_| Turned::Stopping)
    }

    /// Like [`Batcher::submit`], but waits for room.
    pub async fn submit_patiently(&self, item: T) -> Result<R, Turned> {
        let (sender, answer) = oneshot::channel();
        let place = self.queue.reserve().await.map_err(|_| Turned::Stopping)?;
        self.length.increment(1);
        place.send((item, sender));
        answer.await.map_err(|_| Turned::Stopping)
    }
}

/// Adds what else is about to come, for as long as each turn of the runtime brings something. Whoever queues an item
/// wakes the batch, which would run next and go with that item alone.
async fn gather<T>(queue: &mut mpsc::Receiver<T>, batch: &mut Vec<T>, limit: usize) {
    loop {
        tokio::task::yield_now().await;
        let room = limit - batch.len();
        if room == 0 || queue.is_empty() || queue.recv_many(batch, room).await == 0 {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Semaphore;

    use super::*;

    const BOUNDS: Bounds = Bounds { name: "test", queued: 4, in_flight: 1, batch: 8 };

    #[tokio::test]
    async fn what_comes_while_a_batch_commits_goes_into_the_next_and_a_full_queue_refuses() {
        let tasks = Tasks::new();
        let gate = Arc::new(Semaphore::new(0));
        let batches = Arc::new(AtomicUsize::new(0));
        let queue = {
            let (gate, batches) = (Arc::clone(&gate), Arc::clone(&batches));
            Batcher::start(&tasks, BOUNDS, move |items: Vec<u32>| {
                let (gate, batches) = (Arc::clone(&gate), Arc::clone(&batches));
                async move {
                    batches.fetch_add(1, Ordering::SeqCst);
                    gate.acquire().await.unwrap().forget();
                    items.into_iter().map(|item| item * 2).collect()
                }
            })
        };
        let first = queue.submit(1);
        tokio::pin!(first);
        // The first is being flushed once its batch has begun; then the queue fills.
        while batches.load(Ordering::SeqCst) == 0 {
            tokio::select! { biased; _ = &mut first => unreachable!(), () = tokio::task::yield_now() => {} }
        }
        let rest = (2..=5).map(|item| queue.submit(item));
        let rest = futures_util::future::join_all(rest);
        tokio::pin!(rest);
        tokio::select! { biased; _ = &mut rest => unreachable!(), () = tokio::task::yield_now() => {} }
        assert_eq!(queue.submit(6).await, Err(Turned::Full));
        gate.add_permits(2);
        assert_eq!(first.await, Ok(2));
        assert_eq!(rest.await, [Ok(4), Ok(6), Ok(8), Ok(10)]);
        assert_eq!(batches.load(Ordering::SeqCst), 2);
        assert!(tasks.shut_down(crate::lifecycle::GRACE).await);
        assert_eq!(queue.submit(7).await, Err(Turned::Stopping));
    }

    /// Each is queued once the one before is.
    fn one_after_the_other(tasks: &Tasks, queue: Batcher<u32, usize>, left: u32, sizes: mpsc::UnboundedSender<usize>) {
        let next = tasks.clone();
        tasks.spawn(async move {
            if left > 1 {
                one_after_the_other(&next, queue.clone(), left - 1, sizes.clone());
            }
            sizes.send(queue.submit(left).await.unwrap()).unwrap();
        });
    }

    #[tokio::test]
    async fn what_follows_at_once_goes_together() {
        let tasks = Tasks::new();
        let bounds = Bounds { queued: 100, in_flight: 2, ..BOUNDS };
        let queue = Batcher::start(&tasks, bounds, |items: Vec<u32>| async move { vec![items.len(); items.len()] });
        // Now the batch waits, so the first item wakes it.
        tokio::task::yield_now().await;
        let (sender, mut receiver) = mpsc::unbounded_channel();
        one_after_the_other(&tasks, queue, 12, sender);
        let mut sizes = Vec::new();
        while let Some(size) = receiver.recv().await {
            sizes.push(size);
        }
        sizes.sort_unstable();
        assert_eq!(sizes, [4, 4, 4, 4, 8, 8, 8, 8, 8, 8, 8, 8], "a full batch, and the rest in one");
        assert!(tasks.shut_down(crate::lifecycle::GRACE).await);
    }
}
