//! What happens, told live: the history of all verifications in the order of its ids, to whoever listens.
//!
//! **The order is the same on all replicas, and who goes on after an id misses nothing.** Ids are drawn before the
//! commit, so a row with a lower id may become visible after one with a higher id. One loop in each process reads the
//! history and never passes a missing id before it is certain that its row will not come:
//!
//! 1. Whoever inserts into `history` takes the lock `RowExclusiveLock` on the table before the statement begins, so
//!    before it draws an id, and gives it back after its rows are visible to all, or gone.
//! 2. The sequence gives ids in ascending order. When it stands at `top`, every id up to `top` is drawn, and its writer
//!    holds the lock or is over.
//! 3. So: read `top`; then list who holds the lock; wait until none of *these* transactions holds it. A statement
//!    that begins after that sees every row up to `top` that there will ever be ([`Order`]).
//!
//! A missing id before a visible one costs nobody but those behind it the end of a transaction of ours, mostly some
//! milliseconds. Long transactions of others do not matter, because they hold no such lock.
//!
//! **What was told stays true.** Some statements commit without waiting for the disk; their ids could be given again
//! after a crash. So everything that was read is flushed before it is told.
//!
//! The loop runs while somebody listens, and is woken by finals and by a slow look at the sequence, which reads no
//! table. Each listener gets a bounded share: who falls behind further is let go and comes back with its last id. What
//! happened before a listener came is read from the table up to where the loop stands, a few at a time.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, broadcast, watch};
use tokio::time::Instant;
use tracing::{debug, warn};

use super::finals::Finals;
use crate::lifecycle::Tasks;
use crate::store::{LiveRow, Store, StoreError};

/// Listeners of one replica at a time.
pub const MOST_LISTENERS: usize = 100;
/// How far a listener may fall behind the loop.
pub const BEHIND: usize = 4096;
/// How long until the loop looks by itself.
const POLL: Duration = Duration::from_millis(200);
/// And how long it lets things gather.
const PACE: Duration = Duration::from_millis(10);
/// How long it waits for a transaction at first; it doubles up to [`POLL`].
const MOMENT: Duration = Duration::from_millis(2);
/// Rows that are read at a time.
const BATCH: i64 = 1000;
/// Ids that are looked at in one step. An empty step doubles it, because retention leaves wide holes.
const STEP: i64 = 1000;
const LONGEST_STEP: i64 = 10_000_000;
/// Listeners that read what was before at a time, so that they leave connections to others.
const READERS: usize = 2;
/// After this, somebody is told what everybody waits for.
const LONG: Duration = Duration::from_secs(30);

/// Something that happened.
#[derive(Debug)]
pub struct Event {
    pub row: LiveRow,
    rendered: OnceLock<Bytes>,
}

impl Event {
    fn new(row: LiveRow) -> Arc<Self> {
        Arc::new(Self { row, rendered: OnceLock::new() })
    }

    /// As `render` shows it, made once for all listeners.
    pub fn rendered(&self, render: impl FnOnce(&LiveRow) -> Bytes) -> Bytes {
        self.rendered.get_or_init(|| render(&self.row)).clone()
    }
}

/// From where on somebody listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    Now,
    /// After the event with this id.
    After(i64),
    Since(DateTime<Utc>),
}

#[derive(Debug, thiserror::Error)]
pub enum NotListening {
    #[error("{MOST_LISTENERS} listen already")]
    Full,
    /// No event has had this id, here at least.
    #[error("event {0} was never told")]
    Unknown(i64),
    #[error(transparent)]
    Database(#[from] StoreError),
}

/// The live events of one process; clones share them.
#[derive(Clone, Debug)]
pub struct Live(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    store: Store,
    places: Arc<Semaphore>,
    readers: Semaphore,
    wake: Notify,
    sender: broadcast::Sender<Arc<Event>>,
    /// Up to where the loop has told everything; `None` while it does not run. Its lock is held while events are sent,
    /// so whoever subscribes under it misses none.
    position: watch::Sender<Option<i64>>,
}

impl Live {
    /// The loop sleeps until somebody listens.
    pub fn start(store: Store, finals: Finals, tasks: &Tasks) -> Self {
        let live = Self(Arc::new(Shared {
            store,
            places: Arc::new(Semaphore::new(MOST_LISTENERS)),
            readers: Semaphore::new(READERS),
            wake: Notify::new(),
            sender: broadcast::Sender::new(BEHIND),
            position: watch::Sender::new(None),
        }));
        let (shared, stopping) = (Arc::clone(&live.0), tasks.stopping());
        tasks.spawn(async move {
            tokio::pin!(stopping);
            loop {
                tokio::select! {
                    () = shared.wake.notified() => {}
                    () = &mut stopping => return,
                }
                tokio::select! {
                    () = shared.tell(&finals) => {}
                    () = &mut stopping => return,
                }
            }
        });
        live
    }

    /// Whatever is committed after this returns reaches the listener.
    pub async fn listen(&self, start: Start) -> Result<Listener, NotListening> {
        let place = Arc::clone(&self.0.places).try_acquire_owned().map_err(|_| NotListening::Full)?;
        let (live, position) = self.0.join().await;
        let after = match start {
            Start::Now => position,
            Start::After(id) => {
                // Retention may have destroyed that event, so the table does not tell.
                if id > position && id > self.0.store.last_history_drawn().await? {
                    return Err(NotListening::Unknown(id));
                }
                id
            }
            Start::Since(time) => self.0.store.first_history_since(time).await?.map_or(position, |first| first - 1),
        };
        let since = if let Start::Since(time) = start { Some(time) } else { None };
        let shared = Arc::clone(&self.0);
        Ok(Listener { shared, after, upto: position, since, step: STEP, live, is_live: false, _place: place })
    }
}

impl Shared {
    /// Subscribes, with the position from which on what is sent is complete.
    async fn join(&self) -> (broadcast::Receiver<Arc<Event>>, i64) {
        let mut positions = self.position.subscribe();
        loop {
            // Keeps the loop running until the other one does.
            let _first = self.sender.subscribe();
            self.wake.notify_one();
            // The sender is in `self`, so this cannot fail.
            drop(positions.wait_for(Option::is_some).await);
            let position = self.position.borrow();
            if let Some(last) = *position {
                return (self.sender.subscribe(), last);
            }
        }
    }

    /// True when nobody listened any more; who comes now starts the loop again.
    fn stop_if_unheard(&self) -> bool {
        self.position.send_if_modified(|position| {
            let is_unheard = self.sender.receiver_count() == 0;
            if is_unheard {
                *position = None;
            }
            is_unheard
        })
    }

    /// Tells what happens while somebody listens.
    async fn tell(&self, finals: &Finals) {
        let mut order = None;
        let mut moment = MOMENT;
        loop {
            let looked = match &mut order {
                Some(order) => self.look(order).await,
                None => self.begin(&mut order).await,
            };
            if self.stop_if_unheard() {
                return;
            }
            match looked {
                Ok(Looked::More) => moment = MOMENT,
                Ok(Looked::Gap) => {
                    tokio::time::sleep(moment).await;
                    moment = (moment * 2).min(POLL);
                }
                Ok(Looked::All) => {
                    moment = MOMENT;
                    // What comes meanwhile is told together.
                    tokio::time::sleep(PACE).await;
                    tokio::select! {
                        () = finals.announced() => {}
                        () = tokio::time::sleep(POLL) => {}
                    }
                }
                // The listeners stay: it goes on where it was.
                Err(error) => {
                    debug!(error = &error as &dyn std::error::Error, "the history could not be read");
                    tokio::time::sleep(POLL).await;
                }
            }
        }
    }

    /// Finds the place to begin: everything up to it is visible or will never come.
    async fn begin(&self, order: &mut Option<Order>) -> Result<Looked, StoreError> {
        let top = self.store.last_history_drawn().await?;
        let mut begun = Order { last: top, settled: 0, gap: None };
        let mut wait = MOMENT;
        begun.gap = Some(Gap::new(top, self.store.history_writers().await?));
        while !begun.gap.as_mut().is_none_or(|gap| gap.writers.is_empty()) {
            if self.sender.receiver_count() == 0 {
                return Ok(Looked::All);
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(POLL);
            begun.look_at_writers(&self.store).await?;
        }
        begun.settle();
        self.store.flush().await?;
        *order = Some(begun);
        self.position.send_replace(Some(top));
        Ok(Looked::More)
    }

    async fn look(&self, order: &mut Order) -> Result<Looked, StoreError> {
        order.look_at_writers(&self.store).await?;
        let top = self.store.last_history_drawn().await?;
        if top <= order.last {
            return Ok(Looked::All);
        }
        let upto = top.min(order.last + STEP);
        let mut rows = self.store.live_rows(order.last, upto, BATCH).await?;
        let upto = read_upto(&rows, upto);
        let mut moved = order.clone();
        rows.truncate(moved.take(rows.iter().map(|row| row.id), upto));
        if !rows.is_empty() {
            self.store.flush().await?;
        }
        if moved.last < upto && moved.gap.is_none() {
            moved.gap = Some(Gap::new(top, self.store.history_writers().await?));
        }
        *order = moved;
        self.position.send_modify(|position| {
            for row in rows {
                // Nobody may be there any more.
                let _ = self.sender.send(Event::new(row));
            }
            *position = Some(order.last);
        });
        Ok(match &order.gap {
            Some(gap) if !gap.writers.is_empty() => Looked::Gap,
            _ if order.last < top => Looked::More,
            _ => Looked::All,
        })
    }
}

/// Of what is beyond a full batch nothing is known.
fn read_upto(rows: &[LiveRow], upto: i64) -> i64 {
    match rows.last() {
        Some(row) if i64::try_from(rows.len()).is_ok_and(|read| read >= BATCH) => row.id,
        _ => upto,
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Looked {
    /// There may be more at once.
    More,
    /// An id is missing whose transaction may be under way.
    Gap,
    All,
}

/// How far the history was told, and what may still come before that can go on.
#[derive(Clone, Debug)]
struct Order {
    /// Everything up to this id was told, or will never come.
    last: i64,
    /// What is not visible up to this id, in statements that begin now, will never come.
    settled: i64,
    gap: Option<Gap>,
}

/// The wait for missing ids.
#[derive(Clone, Debug)]
struct Gap {
    /// All ids up to this were drawn when the writers were listed.
    top: i64,
    /// Who may have drawn them.
    writers: Vec<String>,
    seen: Instant,
    is_told: bool,
}

impl Gap {
    fn new(top: i64, writers: Vec<String>) -> Self {
        Self { top, writers, seen: Instant::now(), is_told: false }
    }
}

impl Order {
    /// `ids`: what is visible above `last` up to `upto`, ascending. Returns how many of them are next, and moves on.
    fn take(&mut self, ids: impl Iterator<Item = i64>, upto: i64) -> usize {
        let mut taken = 0;
        for id in ids {
            if id - 1 > self.last.max(self.settled) {
                break;
            }
            self.last = id;
            taken += 1;
        }
        self.last = self.last.max(self.settled.min(upto));
        taken
    }

    async fn look_at_writers(&mut self, store: &Store) -> Result<(), StoreError> {
        let Some(gap) = &mut self.gap else { return Ok(()) };
        if !gap.writers.is_empty() {
            let now = store.history_writers().await?;
            gap.writers.retain(|writer| now.contains(writer));
        }
        if !gap.is_told && gap.seen.elapsed() > LONG && !gap.writers.is_empty() {
            gap.is_told = true;
            warn!("the live events wait for a transaction that has been writing to the history for 30 s");
        }
        self.settle();
        Ok(())
    }

    fn settle(&mut self) {
        if let Some(gap) = self.gap.take_if(|gap| gap.writers.is_empty()) {
            self.settled = gap.top;
        }
    }
}

/// One who listens.
#[derive(Debug)]
pub struct Listener {
    shared: Arc<Shared>,
    /// Everything up to here was told.
    after: i64,
    /// Up to here it is read from the table.
    upto: i64,
    since: Option<DateTime<Utc>>,
    step: i64,
    live: broadcast::Receiver<Arc<Event>>,
    /// It has caught up once.
    is_live: bool,
    _place: OwnedSemaphorePermit,
}

impl Listener {
    /// The id after which it goes on.
    pub fn position(&self) -> i64 {
        self.after
    }

    /// The next events, which may be none; `None` when it fell too far behind. May be dropped and called again.
    pub async fn next(&mut self) -> Option<Vec<Arc<Event>>> {
        loop {
            if self.after < self.upto {
                match self.catch_up().await {
                    Ok(events) => return Some(events),
                    Err(error) => {
                        debug!(error = &error as &dyn std::error::Error, "what was before could not be read");
                        tokio::time::sleep(POLL).await;
                        continue;
                    }
                }
            }
            match self.live.recv().await {
                Ok(event) => {
                    self.is_live = true;
                    if event.row.id > self.after {
                        self.after = event.row.id;
                        return Some(vec![event]);
                    }
                }
                // Reading what was before took long: the same again for what came meanwhile.
                Err(RecvError::Lagged(_)) if !self.is_live => {
                    let position = self.shared.position.borrow();
                    self.upto = (*position)?;
                    self.live = self.shared.sender.subscribe();
                }
                Err(RecvError::Lagged(_) | RecvError::Closed) => return None,
            }
        }
    }

    async fn catch_up(&mut self) -> Result<Vec<Arc<Event>>, StoreError> {
        // Never closed.
        let _turn = self.shared.readers.acquire().await;
        let upto = self.upto.min(self.after.saturating_add(self.step));
        let rows = self.shared.store.live_rows(self.after, upto, BATCH).await?;
        self.step = if rows.is_empty() { (self.step * 2).min(LONGEST_STEP) } else { STEP };
        self.after = read_upto(&rows, upto);
        Ok(rows.into_iter().filter(|row| self.since.is_none_or(|since| row.at >= since)).map(Event::new).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(last: i64) -> Order {
        Order { last, settled: 0, gap: None }
    }

    #[test]
    fn what_follows_without_a_gap_is_next() {
        let mut order = order(10);
        assert_eq!((order.take([11, 12, 13].into_iter(), 13), order.last), (3, 13));
        assert_eq!((order.take([].into_iter(), 20), order.last), (0, 13), "it may still come");
    }

    #[test]
    fn nothing_behind_a_missing_id_is_next_before_its_writers_are_over() {
        let mut order = order(10);
        assert_eq!((order.take([11, 13, 14].into_iter(), 14), order.last), (1, 11));
        order.gap = Some(Gap::new(15, vec!["3/7".to_owned()]));
        order.settle();
        assert_eq!(order.take([13, 14].into_iter(), 15), 0);
        // It came: first things first.
        assert_eq!((order.take([12, 13].into_iter(), 15), order.last), (2, 13));
    }

    #[test]
    fn what_is_missing_when_its_writers_are_over_never_comes() {
        let mut order = order(10);
        order.gap = Some(Gap::new(15, vec![]));
        order.settle();
        assert_eq!((order.settled, order.gap.is_none()), (15, true));
        // 17 was drawn after the writers were listed.
        assert_eq!((order.take([13, 17].into_iter(), 17), order.last), (1, 15));
        assert_eq!((order.take([16, 17].into_iter(), 17), order.last), (2, 17));
    }

    #[test]
    fn a_step_ends_where_it_was_read() {
        let mut order = order(0);
        order.settled = 100;
        assert_eq!((order.take([].into_iter(), 50), order.last), (0, 50));
        assert_eq!((order.take([60].into_iter(), 60), order.last), (1, 60));
    }
}
