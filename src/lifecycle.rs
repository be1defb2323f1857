//! Starting and stopping: the tasks of a service and how they end.
//!
//! A stop is soft first: nothing new is taken on, what is in flight is finished. What has not ended within
//! [`GRACE`] is dropped, which is safe at any point, because a worker that disappears is replaced.

use std::future::Future;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long a soft stop may take before what is left is dropped.
pub const GRACE: Duration = Duration::from_secs(10);

/// The tasks of one service, and the word to stop.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
    drop_now: CancellationToken,
}

impl Tasks {
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs `task` until it ends by itself, or until the grace of a stop is over.
    #[expect(clippy::disallowed_methods, reason = "the one place that starts tasks")]
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let drop_now = self.drop_now.clone();
        drop(tokio::spawn(self.tracker.track_future(async move {
            tokio::select! {
                biased;
                () = drop_now.cancelled() => {}
                () = task => {}
            }
        })));
    }

    /// Resolves when a stop was asked for.
    pub fn stopping(&self) -> impl Future<Output = ()> + Send + 'static {
        self.stop.clone().cancelled_owned()
    }

    pub fn is_stopping(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Asks every task to stop, without waiting.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Stops softly; what is left after `grace` is dropped. True when nothing had to be dropped.
    pub async fn shut_down(&self, grace: Duration) -> bool {
        self.stop.cancel();
        self.tracker.close();
        if tokio::time::timeout(grace, self.tracker.wait()).await.is_ok() {
            return true;
        }
        self.drop_now.cancel();
        self.tracker.wait().await;
        false
    }
}

/// The operator's word to read secrets again: SIGHUP, where there is such a thing.
#[derive(Debug)]
pub struct Reloads {
    #[cfg(unix)]
    hangups: Option<tokio::signal::unix::Signal>,
}

impl Reloads {
    /// Listens from now on: before this, SIGHUP ends the process.
    pub fn listen() -> Self {
        Self {
            #[cfg(unix)]
            hangups: tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup()).ok(),
        }
    }

    /// Resolves at the next one.
    pub async fn next(&mut self) {
        #[cfg(unix)]
        if let Some(hangups) = &mut self.hangups
            && hangups.recv().await.is_some()
        {
            return;
        }
        std::future::pending::<()>().await;
    }
}

/// Resolves at the first SIGTERM or Ctrl-C.
pub async fn stop_signal() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        match signal(SignalKind::terminate()) {
            Ok(mut terminate) => tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            },
            Err(_) => drop(tokio::signal::ctrl_c().await),
        }
    }
    #[cfg(not(unix))]
    drop(tokio::signal::ctrl_c().await);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_soft_stop_waits_for_what_is_in_flight() {
        let tasks = Tasks::new();
        let (ended, has_ended) = tokio::sync::oneshot::channel();
        let stopping = tasks.stopping();
        tasks.spawn(async move {
            stopping.await;
            tokio::task::yield_now().await;
            let _ = ended.send(());
        });
        assert!(tasks.shut_down(GRACE).await);
        assert!(has_ended.await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_end_is_dropped_after_the_grace() {
        let tasks = Tasks::new();
        tasks.spawn(std::future::pending());
        assert!(!tasks.shut_down(GRACE).await);
    }
}
