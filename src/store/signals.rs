//! Wake-ups between replicas. A signal is a hint to look, never the only way something is noticed: whoever listens
//! also looks by itself now and then. So signals are sent outside the transactions they tell about, and may be lost.

use sqlx::postgres::PgListener;

use super::{Store, StoreError};
use crate::domain::VerificationId;

const CHANNEL: &str = "checkback";

/// Postgres allows payloads of 8,000 bytes; an id takes 37 of them.
const MOST_IDS: usize = 200;

/// What happened at another replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signal {
    /// There may be work for this account.
    Work(String),
    /// These verifications became final.
    Final(Vec<VerificationId>),
    /// Signals may have been missed: look at everything.
    Missed,
}

/// Signals as they come, this replica's own among them.
#[derive(Debug)]
pub struct Signals {
    /// `None`: no session leads to the database, so none will come.
    listener: Option<PgListener>,
}

impl Store {
    pub async fn signal(&self, signal: &Signal) -> Result<(), StoreError> {
        let payloads: Vec<String> = match signal {
            Signal::Work(account) => vec![format!("work {account}")],
            Signal::Final(ids) => ids
                .chunks(MOST_IDS)
                .map(|ids| ids.iter().fold("final".to_owned(), |line, id| format!("{line} {id}")))
                .collect(),
            Signal::Missed => vec!["missed".to_owned()],
        };
        sqlx::query!(
            "-- signal
            SELECT count(pg_notify($1, payload)), set_config('synchronous_commit', 'off', true)
            FROM unnest($2::text[]) AS i (payload)",
            CHANNEL,
            &payloads
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(())
    }

    /// Listens on a connection of its own, where a session can be had.
    pub async fn signals(&self) -> Result<Signals, StoreError> {
        let Some(sessions) = &self.sessions else { return Ok(Signals { listener: None }) };
        let mut listener = PgListener::connect_with(sessions).await?;
        listener.listen(CHANNEL).await?;
        Ok(Signals { listener: Some(listener) })
    }
}

impl Signals {
    /// The next signal; [`Signal::Missed`] when the connection was lost and is there again. Waits for ever where none
    /// can be heard.
    pub async fn next(&mut self) -> Result<Signal, StoreError> {
        let Some(listener) = &mut self.listener else { return std::future::pending().await };
        let Some(notification) = listener.try_recv().await? else { return Ok(Signal::Missed) };
        let mut words = notification.payload().split(' ');
        Ok(match words.next() {
            Some("work") => words.next().map_or(Signal::Missed, |account| Signal::Work(account.to_owned())),
            Some("final") => Signal::Final(words.filter_map(|id| id.parse().ok()).collect()),
            _ => Signal::Missed,
        })
    }
}
